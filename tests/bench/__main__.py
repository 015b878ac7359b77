"""Ours beside the peer and the machine's floor: `python -m tests.bench [--only NAME] [--database D] [--rounds N]`.

The sides take turns in every round, so that what slows the machine down slows all of them; what is printed are
medians over the rounds. Nothing is asserted about time: the exit code says whether something of ours crashed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from tests.bench.places import PLACES, Place, folder
from tests.bench.scenarios import SIZES
from tests.bench.sides import ScenarioFailed, Side, all_sides
from tests.bench.table import GOALS, Row, drawn


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SIZES, action="append", help="only this scenario; may be repeated")
    parser.add_argument("--database", choices=PLACES, help="only this database")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every value")
    return parser.parse_args()


class Bench:
    """The measurements on one database."""

    def __init__(self, database: str, place: Place) -> None:
        self.database, self.place = database, place
        self.rows: dict[str, Row] = {}
        self.has_crashed = False

    def measure(self, side: Side, scenario: str, count: int) -> None:
        try:
            with self.place() as url:
                measured = side.run(scenario, url, count)
        except ScenarioFailed as failed:
            say(f"{self.database}: {scenario} of {side.name} failed: {failed}")
            self.has_crashed |= side.name != "peer"
            for name in names_of(scenario):
                self.row(name).values.setdefault(side.name, []).append(None)
            return
        # The floor measures one thing, and is asked for it by any scenario's name.
        for name, each in zip(names_of(scenario), measured, strict=True):
            row = self.row(name)
            row.unit = each.unit
            row.values.setdefault(side.name, []).append(each.value)

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(name))


def names_of(scenario: str) -> list[str]:
    """A scenario's rows in the table."""
    return [name for name in GOALS if name == scenario or name.startswith(f"{scenario}:")]


def measure_all(bench: Bench, sides: list[Side], scenarios: list[str], rounds: int) -> None:
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            for side in sides:
                count = side.count(SIZES[scenario])
                if count is not None:
                    say(f"{bench.database}, round {number} of {rounds}: {scenario}, {side.name}")
                    bench.measure(side, scenario, count)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = arguments()
    sides = all_sides()
    benches: list[Bench] = []
    for database in [options.database] if options.database else PLACES:
        scenarios = [
            name
            for name, size in SIZES.items()
            if database in size.databases and (not options.only or name in options.only)
        ]
        if not scenarios:
            continue
        with folder() as disk, PLACES[database](disk) as place:
            bench = Bench(database, place)
            measure_all(bench, sides, scenarios, options.rounds)
        print(f"{drawn(database, list(bench.rows.values()))}\n", flush=True)
        benches.append(bench)
    if options.json:
        options.json.write_text(json.dumps(everything(benches, options.rounds), indent=2) + "\n")
    return int(any(bench.has_crashed for bench in benches))


def everything(benches: list[Bench], rounds: int) -> dict[str, object]:
    """Every value of every round, for those who want to see how far they lie apart."""
    return {
        "rounds": rounds,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "databases": {
            bench.database: [
                {**asdict(row), "medians": {side: row.median(side) for side in row.values}}
                for row in bench.rows.values()
            ]
            for bench in benches
        },
    }


if __name__ == "__main__":
    sys.exit(main())
