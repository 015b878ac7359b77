"""Which database a command works on, and how it is opened.

An address comes from `--sys-db-url`, else from the environment, else from `dbos-config.yaml`. A client that is opened here decodes no stored
value unless the user asked for that: decoding may run code which lies in the database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dbos import DBOSClient, Serializer
from dbos._faces.config import VALID_NAME, parsed, urls_of
from dbos.cli import config_file
from dbos.cli.config_file import CONFIG_FILE
from dbos.cli.failure import Misuse

if TYPE_CHECKING:
    from argparse import Namespace

URL_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"


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
    found = config_file.text("system_database_url")
    if found:
        return found
    # Of the application's database that of the system follows, and of a name that in the working directory.
    application, name = config_file.text("database_url"), config_file.text("name")
    if application:
        system, _ = urls_of(None, application)
        return system.render_as_string(hide_password=False)
    if name:
        if not VALID_NAME.fullmatch(name):
            raise Misuse(f"name in {CONFIG_FILE} must be 3 to 30 of a-z, 0-9, - and _")
        return f"sqlite:///{name.replace('-', '_')}.sqlite"
    raise Misuse(f"which database? Give --sys-db-url, set {URL_VARIABLE}, or write {CONFIG_FILE}")


def application_address(arguments: Namespace) -> str | None:
    """The address of the database of transactions, where it is said."""
    given: str | None = getattr(arguments, "db_url", None)
    return given or config_file.text("database_url")


def shown(url: str) -> str:
    """An address that may be read by anybody."""
    return parsed(url).set(query={}).render_as_string(hide_password=True)


def reader(arguments: Namespace) -> DBOSClient:
    """A client to look with."""
    return _client(arguments, None if getattr(arguments, "values", False) else AsStored())


def onlooker(arguments: Namespace, *, read_only: bool) -> DBOSClient:
    """A client that decodes nothing, whatever it is asked; with `read_only` the database refuses its writes too."""
    return _client(arguments, AsStored(), read_only=read_only)


def actor(arguments: Namespace) -> DBOSClient:
    """A client to act with."""
    return _client(arguments, None)


def _client(arguments: Namespace, serializer: Serializer | None, *, read_only: bool = False) -> DBOSClient:
    url = address(arguments)
    return DBOSClient(
        system_database_url=url,
        application_database_url=application_address(arguments),
        dbos_system_schema=arguments.schema,
        serializer=serializer,
        read_only=read_only,
    )
