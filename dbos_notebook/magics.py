"""`%dbos`: one magic with verbs. It parses text, calls the command, and returns what that returns.

Errors are told in one line; `%dbos config short_errors=False` shows them whole.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, output_can_be_silenced

from dbos_notebook import commands, completion, door
from dbos_notebook.cells import define
from dbos_notebook.verbs import HelpAskedError, WrongWordsError, overview, understood, verb_of
from dbos_notebook.views.handle import text_view
from dbos_notebook.views.html import line as on_one_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

HELP = frozenset({"-h", "--help", "help"})
ERROR_LIMIT = 600
# The one verb that stands above a cell.
CELL_VERB = "fork"


@magics_class
class DbosMagics(Magics):
    """The magic; `%dbos --help` tells its verbs."""

    @output_can_be_silenced
    @line_cell_magic
    def dbos(self, line: str, cell: str | None = None) -> Any:
        """Durable workflows: `%dbos` opens the explorer, `%dbos --help` lists all verbs."""
        try:
            return self._done(_words(line), cell)
        except HelpAskedError as asked:
            return text_view(str(asked))
        except (UsageError, WrongWordsError) as error:
            raise UsageError(_short(error)) from None
        except Exception as error:
            if not _wants_short():
                raise
            raise UsageError(_short(error)) from error

    def _done(self, words: list[str], cell: str | None) -> Any:
        if words and words[0] in HELP:
            return text_view(overview())
        if not words:
            if cell is not None:
                raise WrongWordsError(f"%%dbos wants a verb: %%dbos {CELL_VERB} ID")
            return commands.explorer()
        verb = verb_of(words[0])
        given = verb.parser().parse_args(words[1:])
        if cell is not None:
            if verb.name != CELL_VERB:
                raise WrongWordsError(f"%%dbos {verb.name} takes no cell; write %dbos {verb.name}")
            self._run(cell)
        assert self.shell is not None
        variables = self.shell.user_ns
        return verb.act(understood(given, variables), variables)

    def _run(self, cell: str) -> None:
        """Run the cell's body as a cell of its own: what it defines is the newest code from then on."""
        assert self.shell is not None
        before, names = dict(self.shell.user_ns), define.functions_in(self.shell.transform_cell(cell))  # type: ignore[no-untyped-call]  # IPython's
        ran = self.shell.run_cell(cell, store_history=False)  # type: ignore[no-untyped-call]  # IPython's
        if not ran.success:
            raise UsageError("the cell failed, so nothing was forked")
        define.mend(self.shell.user_ns, before, names)


def _words(line: str) -> list[str]:
    # A semicolon silences what is returned; it is no word.
    try:
        return shlex.split(line.rstrip().removesuffix(";"))
    except ValueError as error:
        raise WrongWordsError(f"%dbos: {error}; quote what has spaces or quotes") from None


def _short(error: BaseException) -> str:
    said = str(error) or type(error).__name__
    # A built-in name tells nothing of `LookupError: no such run`; without a message it is all there is.
    return on_one_line(said, ERROR_LIMIT)


def _wants_short() -> bool:
    return bool(door.settings().short_errors)


def register(shell: InteractiveShell) -> None:
    """Have `%dbos` and its completion in this shell, and its settings under `%config`."""
    settings, configurables = door.settings(), _configurables(shell)
    magics = DbosMagics(shell)
    # It has no settings of its own; those of the session stand there instead.
    configurables[:] = [each for each in configurables if each is not magics]
    shell.register_magics(magics)
    if settings not in configurables:
        configurables.append(settings)
    completion.register(shell)


def unregister(shell: InteractiveShell) -> None:
    """Take them back."""
    completion.unregister(shell)
    settings, configurables = door.settings(), _configurables(shell)
    if settings in configurables:
        configurables.remove(settings)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("dbos", None)
    shell.magics_manager.registry.pop(DbosMagics.__name__, None)


def _configurables(shell: InteractiveShell) -> list[Any]:
    """What `%config` knows; its own type says less than it holds."""
    found: list[Any] = shell.configurables
    return found
