"""`dbos version`: that of this command, and those of an application."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dbos.cli import database, output
from dbos.cli.failure import Failure
from dbos.cli.output import Column

if TYPE_CHECKING:
    from argparse import Namespace

    from dbos import VersionInfo

DISTRIBUTION = "dbos-notebook"
VERSIONS = (
    Column("VERSION", "version_name", whole=True),
    Column("LATEST", "is_latest", whole=True),
    Column("CREATED", "created", whole=True),
    Column("WORKFLOWS", "workflows", whole=True),
)


def own(arguments: Namespace) -> None:
    try:
        found: str | None = version(DISTRIBUTION)
    except PackageNotFoundError:
        found = None
    if arguments.json:
        output.document({"version": found})
    else:
        output.line(f"DBOS CLI version: {found or 'unknown (not installed)'}")


def list_(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        found, counts = client.list_application_versions(), client.count_by_version()
    records: list[dict[str, Any]] = [
        {**each, "is_latest": not place, "workflows": counts.get(each["version_name"], 0)}
        for place, each in enumerate(found)
    ]
    if arguments.json:
        output.document(records)
        return
    rows = [{**each, "created": output.moment(each["created_at"])} for each in records]
    output.table(VERSIONS, rows, empty="No version of the application was launched yet.")


def latest(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        _show(arguments, client.get_latest_application_version())


def set_(arguments: Namespace) -> None:
    with database.reader(arguments) as client:
        known = [each["version_name"] for each in client.list_application_versions()]
        if arguments.version not in known:
            raise Failure(f"there is no version {arguments.version!r}; see `dbos version list`")
        client.set_latest_application_version(arguments.version)
        _show(arguments, client.get_latest_application_version())


def _show(arguments: Namespace, found: VersionInfo) -> None:
    record: dict[str, Any] = dict(found)
    if arguments.json:
        output.document(record)
    else:
        output.line(record["version_name"])
