"""Before something is destroyed, and while something takes long: what is said to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from dbos.cli.failure import Failure, Misuse
from dbos.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace

T = TypeVar("T")

# So many are acted on in one transaction: few enough to be quick, enough to be few transactions.
BATCH = 500


def confirm(arguments: Namespace, what: str) -> None:
    """Go on only if the user wants that; without a terminal to ask at, --yes has to say so."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise Misuse(f"{what}? There is no terminal to ask at: give --yes if so")
    sys.stderr.write(f"{printable(what)}? This cannot be undone. [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing was done")


def in_batches(verb: str, things: Sequence[T], act: Callable[[list[T]], object]) -> None:
    """Do something with many things, some at a time, and tell a person at the terminal how far it is."""
    for done, batch in _batches(things):
        act(batch)
        progress(f"{verb} {done} of {len(things)}", is_last=done == len(things))


def progress(text: str, *, is_last: bool) -> None:
    """Overwrite one line of the terminal; a log file is spared."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}" + ("\n" if is_last else ""))
        sys.stderr.flush()


def _batches(things: Sequence[T]) -> Iterator[tuple[int, list[T]]]:
    for start in range(0, len(things), BATCH):
        batch = list(things[start : start + BATCH])
        yield start + len(batch), batch


def given_ids(arguments: Namespace) -> list[str]:
    """The ids of the command line, each once; a `-` among them stands for those on standard input."""
    found: dict[str, None] = {}
    for each in arguments.ids:
        found.update(dict.fromkeys(sys.stdin.read().split() if each == "-" else [each]))
    return list(found)
