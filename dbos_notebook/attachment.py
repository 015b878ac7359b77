"""Looking at another database: the one of an application, which is read and, unless it is allowed, not touched.

An attachment is a client and never a runtime: nothing of that application is executed, taken from a queue, recovered or
migrated here, and nothing is unpickled to be listed. A password comes from the environment or from a prompt; one that
stands in the cell is refused, because it would be saved with the notebook.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from dbos import DBOSClient
from dbos_notebook.masking import Mask
from dbos_notebook.session import KINDS, in_words
from dbos_notebook.source import Source

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
PASSWORD = "password"  # noqa: S105 - the name of a parameter
TIMEOUT = timedelta(seconds=30)


class NotAttachableError(ValueError):
    """An address cannot be attached as it was given; the message says what to give."""


class Attachment:
    """A database that is looked at, and what may be done there."""

    def __init__(
        self,
        url: URL,
        *,
        read_only: bool = True,
        mask: Iterable[str] = (),
        timeout: timedelta = TIMEOUT,
        schema: str = "dbos",
    ) -> None:
        self._url, self.read_only, self.timeout = url, read_only, timeout
        if timeout <= timedelta():
            raise ValueError("the timeout of a statement is longer than nothing, such as 30s")
        limits: dict[str, Any] = (
            {"read_only": True, "statement_timeout_seconds": timeout.total_seconds()} if read_only else {}
        )
        self.client = DBOSClient(system_database_url=_text(url), dbos_system_schema=schema, **limits)
        self.source = Source(self.client, mask=Mask(mask))

    @property
    def words(self) -> str:
        """The database and what may be done there, without a password."""
        said = [in_words(_text(self._url))]
        said.append("read-only" if self.read_only else "actions are allowed")
        if self.source.mask:
            said.append(f"masked: {', '.join(sorted(self.source.mask.names))}")
        return ", ".join(said)

    def __repr__(self) -> str:
        return f"<Attachment {self.words}>"

    def close(self) -> None:
        """Disconnect."""
        self.client.destroy()


def address(given: str | None, *, ask: bool = False, cell: str = "") -> URL:
    """The URL that is meant: a URL, a file, or `$NAME` of the environment. With `ask` its password is asked for.

    `cell` is the text of the cell that asks, in which no password may stand.
    """
    if given is None:
        given = getpass.getpass("URL of the database: ") if ask else ""
        ask = False
    if not given.strip():
        raise NotAttachableError("say which database: a URL, a SQLite file, or $NAME of an environment variable")
    url = _parsed(_from_environment(given.strip()))
    secret = url.password if isinstance(url.password, str) else None
    if secret and secret in cell:
        raise NotAttachableError(
            "a password in a cell is saved with the notebook and its history. Put the URL into an environment variable "
            f"and attach $NAME, or leave the password out and be asked: %dbos attach {_shown(url)} --ask"
        )
    if ask:
        url = url.set(
            password=getpass.getpass(f"Password of {url.username or 'the user'} at {url.host or 'the server'}: ")
        )
    return url


def _from_environment(given: str) -> str:
    found = VARIABLE.fullmatch(given)
    if found is None:
        return given
    name = found.group(1) or found.group(2)
    try:
        return os.environ[name]
    except KeyError:
        raise NotAttachableError(f"there is no environment variable {name}, and no variable of the notebook") from None


def _parsed(given: str) -> URL:
    if "://" not in given:
        file, _, query = given.partition("?")
        given = f"sqlite:///{Path(file).expanduser().resolve()}" + (f"?{query}" if query else "")
    try:
        url = make_url(given)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in KINDS:
        # Whatever it is, it may hold a password: only its first word is said.
        raise NotAttachableError(
            f"no such database: {given.partition(':')[0][:40]}. It takes sqlite:/// and postgresql:// URLs, and files"
        )
    word = url.query.get(PASSWORD)
    if isinstance(word, str):  # where its other form would be shown
        url = url.difference_update_query([PASSWORD]).set(password=word)
    return url


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _shown(url: URL) -> str:
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database).render_as_string()
