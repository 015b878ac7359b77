"""Commands that other packages bring: found by what they declare when they are installed, and loaded when they are run."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from dbos.cli.failure import Failure

if TYPE_CHECKING:
    from argparse import Namespace

GROUP = "dbos.commands"


def run(arguments: Namespace) -> int | None:
    """Hand the words after the command to the package that brings it."""
    for found in entry_points(group=GROUP, name=arguments.brought):
        code: int | None = found.load()(arguments.words)
        return code
    raise Failure(f"`dbos {arguments.brought}` comes with a package that is not installed here")
