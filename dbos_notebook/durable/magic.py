"""`%%step NAME`: run an ordinary cell once, and answer it from its record from then on."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class, no_var_expand

from dbos_notebook.cells.options import CellParser, options_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def parser() -> CellParser:
    """The options of `%%step`."""
    made = CellParser(
        "%%step",
        "Run the cell as a step: what it gives is recorded, and as long as its code and inputs are the same it is answered "
        "from the record, also after a restart.",
        "%%step model --needs raw --retry 3\n  model = fit(raw)",
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
        options = options_of(parser(), line, words)
        if options is None:
            return
        if not options.name.isidentifier():
            raise UsageError(f"%%step: {options.name!r} cannot be a name; use letters, digits and _")
        if options.retry < 0 or options.interval < 0:
            raise UsageError("%%step: --retry and --interval must not be negative")
        from dbos_notebook.durable.recording import CellRun  # brings pandas: loading the extension must be quick

        CellRun(self.shell, options, cell).run()


def words(line: str) -> list[str]:
    """The options as they are typed; names may have commas between them."""
    return shlex.split(line.replace(",", " "))


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
