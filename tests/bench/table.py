"""The table: medians, how many times better ours is, and what we aim for.

A ratio is always of medians and always says better as more: rates are divided by the peer's, and the peer's times
by ours.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

TITLES = {"sqlite": "SQLite", "postgres": "Postgres"}
HEADINGS = ("unit", "ours", "peer", "floor", "x peer", "x floor", "goal", "reached")
FAILED = "failed"
LESS_IS_BETTER = ("s", "ms", "times", "%")


@dataclass(frozen=True)
class Goal:
    """What a scenario is to reach: so many times the peer, so much of the floor, a value."""

    sqlite: float | None = None
    postgres: float | None = None
    floor: float | None = None
    value: float | None = None


GOALS = {
    "sequential": Goal(sqlite=8, postgres=6, floor=0.6),
    "concurrent": Goal(sqlite=20, postgres=20),
    "async": Goal(sqlite=15, postgres=15),
    "sleepers": Goal(sqlite=8, postgres=8),
    "sleepers: beyond their sleep": Goal(sqlite=8, postgres=8, value=1.5),
    "long": Goal(sqlite=8, postgres=6),
    "growth": Goal(value=1.3),
    "fork": Goal(sqlite=50, postgres=50),
    "recovery": Goal(value=1_000),
    "round trip": Goal(value=5),
    "stream": Goal(sqlite=20, postgres=20),
    "live reader": Goal(value=10),
    "enqueue": Goal(sqlite=5, postgres=5),
    "drain": Goal(sqlite=40, postgres=40),
    "queue": Goal(value=10),
    "queue: from a client": Goal(value=10),
    "fan-out": Goal(sqlite=50, postgres=50),
    "idle": Goal(value=1),
}


@dataclass
class Row:
    """One measured thing on one database: the values of each side, one of a round. None: that round failed."""

    name: str
    unit: str = ""
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def median(self, side: str) -> float | None:
        """None if the side was not measured, or failed: the rounds it survived may be the easy ones."""
        found = [value for value in self.values.get(side, []) if value is not None]
        return statistics.median(found) if found and not self.has_failed(side) else None

    def has_failed(self, side: str) -> bool:
        return None in self.values.get(side, [])

    def times(self, side: str) -> float | None:
        """How many times better ours is."""
        ours, other = self.median("ours"), self.median(side)
        if not ours or not other:
            return None
        return other / ours if self.unit in LESS_IS_BETTER else ours / other

    def goals(self, database: str) -> list[tuple[str, float | None, float]]:
        """Each goal's words, what was found, and what it has to be at least."""
        goal = GOALS[self.name]
        found: list[tuple[str, float | None, float]] = []
        peer = goal.sqlite if database == "sqlite" else goal.postgres
        if peer is not None:
            found.append((f">= {peer:g}x peer", self.times("peer"), peer))
        if goal.floor is not None:
            found.append((f">= {goal.floor:g}x floor", self.times("floor"), goal.floor))
        if goal.value is not None:
            sign = -1 if self.unit in LESS_IS_BETTER else 1
            ours = self.median("ours")
            words = f"{'<=' if sign < 0 else '>='} {goal.value:,g} {self.unit}"
            found.append((words, None if ours is None else sign * ours, sign * goal.value))
        return found

    def cells(self, database: str) -> list[str]:
        goals = self.goals(database)
        if any(value is None for _, value, _ in goals):
            reached = "?"
        else:
            reached = "yes" if all(value >= least for _, value, least in goals if value is not None) else "no"
        return [
            self.name,
            self.unit,
            *(self._cell(side) for side in ("ours", "peer", "floor")),
            *(_ratio(self.times(side)) for side in ("peer", "floor")),
            ", ".join(words for words, _, _ in goals),
            reached,
        ]

    def _cell(self, side: str) -> str:
        median = self.median(side)
        if median is None:
            return FAILED if self.has_failed(side) else ""
        return f"{median:,.0f}" if median >= 100 else f"{median:.2f}"


def _ratio(times: float | None) -> str:
    return "" if times is None else f"{times:.1f}x" if times >= 10 else f"{times:.2f}x"


def drawn(database: str, rows: list[Row]) -> str:
    """The rows under each other: words to the left, numbers to the right."""
    lines = [[TITLES[database], *HEADINGS], *(row.cells(database) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    numbers = range(2, 7)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
