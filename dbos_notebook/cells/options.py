"""The options of cell magics: parsed as on a command line, with errors and help for a cell."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError


class CellParser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving, and prints its help without."""

    def __init__(self, magic: str, description: str, example: str) -> None:
        super().__init__(
            prog=magic,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> Any:
        raise UsageError(f"{self.prog}: {message}. {self.prog} --help tells the options.")

    def exit(self, status: int = 0, message: str | None = None) -> Any:
        raise _Told


class _Told(Exception):  # noqa: N818 - not an error: the help was printed
    """Nothing else is to be done."""


def options_of(
    parser: CellParser, line: str, words: Callable[[str], list[str]] = shlex.split
) -> argparse.Namespace | None:
    """What the line says; None: it asked for help, which is printed. Raises UsageError."""
    try:
        return parser.parse_args(words(line))
    except _Told:
        return None
    except ValueError as error:
        raise UsageError(f"{parser.prog}: {error}; quote what has spaces or quotes") from None
