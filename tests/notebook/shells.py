"""A shell with `%dbos` and a session of its own, without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from dbos import DBOS
from dbos_notebook import magics, session
from dbos_notebook.session import Session
from dbos_notebook.views import handle, live


@pytest.fixture
def shell(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell whose session has a database of its own, and is not launched yet."""
    file = tmp_path / "test.sqlite"
    file.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv(session.URL_VARIABLE, f"sqlite:///{file}")
    mine = Session()
    monkeypatch.setattr(session, "_current", mine)
    made = InteractiveShell()
    magics.register(made)
    handle.register(made)
    yield made
    handle.unregister(made)
    magics.unregister(made)
    live.stop_all()
    mine.end()
    DBOS.destroy(destroy_registry=True)


def line(shell: InteractiveShell, text: str) -> Any:
    """What `%dbos text` returns."""
    return shell.run_line_magic("dbos", text)


def result(shell: InteractiveShell, code: str) -> Any:
    """What a cell comes to; raises what it raised."""
    return shell.run_cell(code).result
