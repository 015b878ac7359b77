"""Which database a command works on, and how it is opened.

An address comes from `--sys-db-url`, else from the environment. A client that is opened here decodes no stored
value unless the user asked for that: decoding may run code which lies in the database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbos import DBOSClient, Serializer
from dbos._faces.config import parsed
from dbos.cli.failure import Misuse

if TYPE_CHECKING:
    from argparse import Namespace

URL_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
CONFIG_FILE = "dbos-config.yaml"


class AsStored(Serializer):
    """Leaves values as the texts they are stored as."""

    def serialize(self, data: Any) -> str:
        raise NotImplementedError("Nothing is stored by who only looks")

    def deserialize(self, serialized_data: str) -> str:
        return serialized_data


def address(arguments: Namespace) -> str:
    """The address of the system database."""
    found = arguments.sys_db_url or os.environ.get(URL_VARIABLE)
    if found:
        return str(found)
    unread = f" ({CONFIG_FILE} is not read by this release)" if Path(CONFIG_FILE).exists() else ""
    raise Misuse(f"which database? Give --sys-db-url or set {URL_VARIABLE}{unread}")


def shown(url: str) -> str:
    """An address that may be read by anybody."""
    return parsed(url).set(query={}).render_as_string(hide_password=True)


def reader(arguments: Namespace) -> DBOSClient:
    """A client to look with."""
    return _client(arguments, None if getattr(arguments, "values", False) else AsStored())


def actor(arguments: Namespace) -> DBOSClient:
    """A client to act with."""
    return _client(arguments, None)


def _client(arguments: Namespace, serializer: Serializer | None) -> DBOSClient:
    url = address(arguments)
    return DBOSClient(
        system_database_url=url,
        application_database_url=getattr(arguments, "db_url", None),
        dbos_system_schema=arguments.schema,
        serializer=serializer,
    )
