"""The child of a fork, where nothing of the parent's runtime is used, and nothing is closed either.

Threads are not copied by a fork, but locks are, held for ever by threads that are gone; and to close a copied connection
would end the parent's, or break the locks on its file. So all that holds such things says here that it exists. In the
child it gets fresh locks, refuses every use with an error that says what to do, and is kept until the process ends.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from dbos.error import DBOSException, DBOSInitializationError, DBOSRuntimeEndedError

if TYPE_CHECKING:
    from sqlalchemy import URL


class Copied(Protocol):
    """What a fork copies, though it must not be used there."""

    def after_fork(self) -> None:
        """In the child: take fresh locks, and refuse what would reach the database."""


_alive: WeakSet[Copied] = WeakSet()


def watch_forks(each: Copied) -> None:
    """Let this know when it finds itself in the child of a fork."""
    _alive.add(each)


def keep_for_ever(each: object) -> None:
    """Never collect this, not even when the interpreter ends and takes everything down."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def farewell_of_fork(inside: bool) -> BaseException:
    """What is raised by what comes in the child; in a workflow, which goes on in the parent, nothing can swallow it."""
    message = (
        f"DBOS was launched before this process was forked from process {os.getppid()}, and cannot be used here. Call "
        "DBOS(config=...) and DBOS.launch() in the child, or make a DBOSClient in it."
    )
    return DBOSRuntimeEndedError(message) if inside else DBOSException(message)


def file_of(url: URL) -> Path | None:
    """The file behind a URL of SQLite."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    if not url.database.startswith("file:"):
        return Path(url.database)
    from urllib.request import url2pathname  # brings the whole of http, for a rare way to write a file

    return Path(url2pathname(urlsplit(url.database).path))


# Files that the parent had open. SQLite in the child believes to hold locks on them that only the parent holds.
_foreign: set[tuple[int, int]] = set()


def _identity(url: URL) -> tuple[int, int] | None:
    file = file_of(url)
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def leave_to_parent(url: URL) -> None:
    """In the child: never open this file, if it is one."""
    identity = _identity(url)
    if identity is not None:
        _foreign.add(identity)


def refuse_file_of_parent(url: URL) -> None:
    """Raise DBOSInitializationError for a file that was open when this process was forked."""
    if _foreign and _identity(url) in _foreign:
        raise DBOSInitializationError(
            f"The file {str(url.database)!r} was open when this process was forked from process {os.getppid()}: SQLite "
            "would damage it if both wrote. Start processes with multiprocessing.get_context('spawn'), fork before "
            "DBOS.launch(), or use Postgres."
        )


def _in_child() -> None:
    for each in list(_alive):
        keep_for_ever(each)
        each.after_fork()
    _alive.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)
