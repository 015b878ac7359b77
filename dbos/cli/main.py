"""The command `dbos`: reads the command line, runs one command, and says in one line what went wrong.

What a command needs of the runtime is imported when it runs, so that `dbos --help` and completion stay quick.
Exit codes: 0 done, 1 failed, 2 not understood (or not confirmed), 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dbos.cli.failure import Failure, expected_errors, in_one_line
from dbos.cli.parser import make_parser

if TYPE_CHECKING:
    from argparse import Namespace

Command = Callable[["Namespace"], int | None]

INTERRUPTED = 130
# What a program ends with whose reader has gone away.
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    _open_standard_streams()
    arguments = make_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know all characters of a name
    try:
        code = command_named(arguments.run)(arguments)
        sys.stdout.flush()
    except Failure as failure:
        return _say(failure, failure.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Or the interpreter would flush into the same pipe when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except expected_errors() as error:
        return _say(error, 1)
    return code or 0


def _open_standard_streams() -> None:
    """Put nothing in the place of those that whoever started us has closed: Python has None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we live


def command_named(name: str) -> Command:
    """The function that a command's name in the parser, "module:function", stands for."""
    module, _, function = name.partition(":")
    return cast("Command", getattr(importlib.import_module(f"dbos.cli.{module}"), function))


def _say(error: Exception, exit_code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"dbos: {in_one_line(error)}\n")
    return exit_code
