"""`dbos migrate`, `dbos reset` and `dbos schema`: the database as a whole."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from dbos import DBOSClient, run_dbos_database_migrations
from dbos._faces.config import parsed
from dbos._kernel.migrate import drop_database
from dbos.cli import config_file, database, output
from dbos.cli.ask import confirm
from dbos.cli.failure import Failure, expected_errors, in_one_line

if TYPE_CHECKING:
    from argparse import Namespace


def migrate(arguments: Namespace) -> None:
    url = database.address(arguments)
    run_dbos_database_migrations(
        url,
        app_database_url=database.application_address(arguments),
        schema=arguments.schema,
        application_role=arguments.app_role,
    )
    for command in config_file.commands("database", "migrate"):
        code = subprocess.run(command, shell=True, check=False).returncode  # noqa: S602 - what the user's own file says
        if code:
            raise Failure(f"the command {command!r} of {config_file.CONFIG_FILE} ended with {code}")
    if arguments.json:
        output.document({"database": database.shown(url), "schema": arguments.schema, "complete": True})
    else:
        output.line(f"The tables are complete in {database.shown(url)}.")


def reset(arguments: Namespace) -> None:
    url = database.address(arguments)
    confirm(arguments, f"Delete the database {database.shown(url)} with all workflows")
    # Not by `DBOS.reset_system_database`: a DBOS that exists in this process already would reset its own.
    drop_database(parsed(url))
    if arguments.json:
        output.document({"database": database.shown(url), "deleted": True})
    else:
        output.line(f"Deleted {database.shown(url)}; `dbos migrate` or the next launch makes it anew.")


def schema(arguments: Namespace) -> None:
    url = database.address(arguments)
    try:
        DBOSClient(system_database_url=url, dbos_system_schema=arguments.schema).destroy()
    except expected_errors() as error:
        if not arguments.json:
            raise
        output.document({**_where(arguments, url), "complete": False, "reason": in_one_line(error)})
        raise Failure("the tables are not complete; --json says why on standard output") from error
    if arguments.json:
        output.document({**_where(arguments, url), "complete": True, "reason": None})
    else:
        output.line(f"The tables are complete in {database.shown(url)}.")


def _where(arguments: Namespace, url: str) -> dict[str, str]:
    return {"database": database.shown(url), "schema": arguments.schema}
