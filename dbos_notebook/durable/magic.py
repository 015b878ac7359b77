"""`%%step NAME`: run an ordinary cell once, and answer it from its record from then on."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"%%step: {message}. %%step --help tells the options.")

    def exit(self, status: int = 0, message: str | None = None) -> Any:
        raise _Told


class _Told(Exception):  # noqa: N818 - not an error: the help was printed
    """Nothing else is to be done."""


def parser() -> argparse.ArgumentParser:
    """The options of `%%step`."""
    made = _Parser(
        prog="%%step",
        description="Run the cell as a step: what it gives is recorded, and as long as its code and inputs are the same "
        "it is answered from the record, also after a restart.",
        epilog="example:\n  %%step model --needs raw --retry 3\n  model = fit(raw)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", help="what the step is called: mostly the name of what the cell gives")
    made.add_argument("--needs", nargs="+", default=[], metavar="NAME", help="what it needs beside what its code names")
    made.add_argument(
        "--retry", "--retries", type=int, default=0, metavar="N", help="if it fails, try it so many times again"
    )
    made.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="before the first of these; each waits twice as long")  # fmt: skip
    made.add_argument("--again", action="store_true", help="run it though there is a record of it")
    return made


@magics_class
class StepMagic(Magics):
    """`%%step`."""

    @no_var_expand
    @cell_magic
    def step(self, line: str, cell: str) -> None:
        """Run the cell as a step that is recorded; `--help` tells the options."""
        try:
            options = parser().parse_args(words(line))
        except _Told:
            return
        if not options.name.isidentifier():
            raise UsageError(f"%%step: {options.name!r} cannot be a name; use letters, digits and _")
        if options.retry < 0 or options.interval < 0:
            raise UsageError("%%step: --retry and --interval must not be negative")
        from dbos_notebook.durable.recording import CellRun  # brings pandas: loading the extension must be quick

        CellRun(self.shell, options, cell).run()


def words(line: str) -> list[str]:
    """The options as they are typed; names may have commas between them."""
    try:
        return shlex.split(line.replace(",", " "))
    except ValueError as error:
        raise UsageError(f"%%step: {error}; quote what has spaces or quotes") from None


def register(shell: InteractiveShell) -> None:
    """Offer the magic."""
    add: Any = shell.register_magics
    add(StepMagic(shell=shell))


def unregister(shell: InteractiveShell) -> None:
    """Take it back."""
    shell.magics_manager.magics["cell"].pop("step", None)
    recording = sys.modules.get("dbos_notebook.durable.recording")
    if recording is not None:
        recording.store().forget()
