"""Where commands and views find what they work on: the session of this kernel, unless a source is given to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbos_notebook.session import DbosNotebook, Session
    from dbos_notebook.source import Source


def session() -> Session:
    """The session of this kernel."""
    # Inside: a session loads the magics, and these come here.
    from dbos_notebook.session import current

    return current()


def settings() -> DbosNotebook:
    """The settings of this kernel's session."""
    return session().settings


def source_if_launched() -> Source | None:
    """The data, where something is there to look at already; asking for completion launches nothing."""
    here = session()
    return here.source if here.attachment is not None or here.is_launched else None


def own_source_if_launched() -> Source | None:
    """The data of the runtime of this kernel, whatever else is looked at: for what that runtime runs."""
    here = session()
    return here.own_source if here.is_launched else None


def source() -> Source:
    """The data of this kernel's session, which launches its runtime if there is none."""
    return session().source
