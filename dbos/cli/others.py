"""Commands that other packages bring: found by what they declare when they are installed, and loaded when they are run."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from dbos.cli.failure import Failure

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

COMMANDS, LOADERS = "dbos.commands", "dbos.loaders"


def run(arguments: Namespace) -> int | None:
    """Hand the words after the command to the package that brings it."""
    found = _found(COMMANDS, arguments.brought)
    if found is None:
        raise Failure(f"`dbos {arguments.brought}` comes with a package that is not installed here")
    code: int | None = found.load()(arguments.words)
    return code


def loader(kind: str) -> Callable[[str], str]:
    """What defines the workflows of files of that kind, and returns a name for them."""
    found = _found(LOADERS, kind)
    if found is None:
        raise Failure(f"files that end with .{kind} are served by a package that is not installed here")
    load: Callable[[str], str] = found.load()
    return load


def _found(group: str, name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None)
