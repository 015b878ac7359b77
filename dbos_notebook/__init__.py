"""Durable workflows in Jupyter: write them in cells, watch them, explore what failed, and repair it.

`%load_ext dbos_notebook` loads it into a notebook; `%dbos --help` tells the rest. Stands on the public API of `dbos`
alone.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext dbos_notebook`."""
    from dbos_notebook import extension  # when it is asked for: whoever imports one module need not load all

    extension.load(shell)


def unload_ipython_extension(_: InteractiveShell) -> None:
    """`%unload_ext dbos_notebook`."""
    from dbos_notebook import extension  # as above

    extension.unload()


def __dir__() -> list[str]:
    """What there is to be called, for who presses the tabulator key."""
    commands = import_module(f"{__name__}.commands")
    return sorted({*__all__, *commands.__all__, *(each for each in globals() if each.startswith("__"))})


def __getattr__(name: str) -> Any:
    """The Python calls of what `%dbos` does: `dbos_notebook.runs(status="ERROR")`."""
    # Asked for every module of ours too, before that is imported: none of them needs the commands for it.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
        commands = import_module(f"{__name__}.commands")
        if name in commands.__all__:
            return getattr(commands, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
