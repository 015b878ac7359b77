"""Attaching: from now on everything that looks, looks at another database; reading alone, unless actions are allowed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dbos_notebook import door
from dbos_notebook.attachment import TIMEOUT, Attachment, address
from dbos_notebook.source import span_of
from dbos_notebook.views.handle import text_view

if TYPE_CHECKING:
    from dbos_notebook.views.view import View


def attach(
    url: str | None = None,
    *,
    read_only: bool = True,
    mask: Iterable[str] = (),
    timeout: str | timedelta = TIMEOUT,
    ask: bool = False,
    schema: str = "dbos",
) -> View:
    """Look at another database: a URL, a SQLite file, or `$NAME` of the environment; without one, say what is attached.

    It is only read, unless `read_only=False` allows actions on its runs; nothing of it is ever run here. `mask` names
    fields that are shown as `***`, `timeout` is how long a statement may take. With `ask` the password is asked for.
    """
    session = door.session()
    if url is None and not ask:
        return text_view(_told(session.attachment))
    names = mask.split(",") if isinstance(mask, str) else list(mask)
    found = address(url, ask=ask, cell=_cell())
    made = Attachment(found, read_only=read_only, mask=names, timeout=span_of(timeout), schema=schema)
    session.look_at(made)
    return text_view(_told(made))


def detach() -> View:
    """Look at the notebook's own database again."""
    session = door.session()
    if session.attachment is None:
        return text_view("Nothing is attached.")
    session.look_at(None)
    return text_view(f"Detached. The notebook looks at its own database: {session.place}.")


def _told(attachment: Attachment | None) -> str:
    session = door.session()
    if attachment is None:
        return (
            f"Nothing is attached; the notebook looks at {session.place}. %dbos attach URL attaches another database."
        )
    allowed = (
        "It is only read: to act on its runs attach it with --actions."
        if attachment.read_only
        else "Actions on its runs are allowed; none of them runs here."
    )
    own = f" The runtime of this notebook goes on with {session.place}." if session.is_launched else ""
    return f"Attached: {attachment.words}. {allowed}{own} %dbos detach goes back."


def _cell() -> str:
    """The text of the cell that runs, as it was typed; empty where that is not known."""
    history: Any = getattr(door.session().shell, "history_manager", None)
    typed: list[str] = getattr(history, "input_hist_raw", None) or []
    return typed[-1] if typed else ""
