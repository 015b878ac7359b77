"""Application versions: which there were, and which is the latest."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import BigInteger, Text, bindparam, desc, select, update

from dbos._kernel.bell import queued
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import CANCELLED, DEAD_LETTER, DELAYED, ENQUEUED, VersionInfo
from dbos._kernel.naming import checked_id, new_id
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import one_of, statement
from dbos.error import DBOSException

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

# Rung when a version is listed, or made the latest: schedules start the workflows of that one.
CHANGED = ("version", "")

# What may go on, and does not at the moment.
MOVABLE = (CANCELLED, DEAD_LETTER, DELAYED, ENQUEUED)


@statement
def ENLIST(t: Tables) -> Executable:
    """Note a version, the first time it is seen."""
    now = bindparam("now", type_=BigInteger())
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.versions)
        .values(version_id=bindparam("new_id"), version_name=bindparam("name"), version_timestamp=now, created_at=now)
        .on_conflict_do_nothing()
    )


@statement
def VERSIONS(t: Tables) -> Executable:
    """All versions, the latest first."""
    c = t.versions.c
    columns = (c.version_id, c.version_name, c.version_timestamp, c.created_at)
    return select(*columns).order_by(desc(c.version_timestamp), desc(c.created_at), c.version_name)


@statement
def PROMOTE_VERSION(t: Tables) -> Executable:
    """Make a version the latest."""
    c = t.versions.c
    moment = bindparam("now", type_=BigInteger())
    return update(t.versions).values(version_timestamp=moment).where(c.version_name == bindparam("name"))


@statement
def ASSIGN(t: Tables) -> Executable:
    """Let workflows that neither run nor have ended for good be run by another version."""
    c = t.status.c
    return (
        update(t.status)
        .values(application_version=bindparam("version", type_=Text()), updated_at=bindparam("now", type_=BigInteger()))
        .where(t.dialect.among(c.workflow_uuid, "workflow_ids"), one_of(c.status, MOVABLE))
        .returning(c.workflow_uuid, c.queue_name)
    )


async def enlist(here: Here, name: str) -> bool:
    """Note the version of this launch; say whether it is the latest."""

    def work(conn: Conn) -> bool:
        conn.run(ENLIST, new_id=new_id(), name=name, now=here.ground.clock.now_ms())
        return str(conn.run(VERSIONS)[0].version_name) == name

    is_latest: bool = await here.tx(work, rings=[CHANGED])
    return is_latest


@op("DBOS.listApplicationVersions", blocks=True)
async def list_application_versions(here: Here) -> list[VersionInfo]:
    """Return all application versions that were launched on this database, the latest first."""
    refuse_in_transaction(here, "DBOS.listApplicationVersions")
    rows = await here.read(lambda conn: conn.run(VERSIONS))
    return [cast(VersionInfo, row._asdict()) for row in rows]


@op("DBOS.getLatestApplicationVersion", blocks=True)
async def get_latest_application_version(here: Here) -> VersionInfo:
    """Return the latest application version. Raises DBOSException if there is none."""
    versions = await list_application_versions.plan(here)
    if not versions:
        raise DBOSException("No application version was launched on this database yet")
    return versions[0]


@op("DBOS.assignApplicationVersion")
async def assign_application_version(here: Here, workflow_ids: list[str], application_version: str | None) -> list[str]:
    """Let workflows go on with another version of the code; None: with any.

    They wait to be run, or were cancelled or given up and may be resumed. Return their ids: what runs, succeeded or
    failed stays with its own.
    """
    refuse_in_transaction(here, "DBOS.assignApplicationVersion")
    rings: list[Channel] = []

    def work(conn: Conn) -> list[str]:
        now_ms = here.ground.clock.now_ms()
        rows = conn.run(ASSIGN, workflow_ids=list(workflow_ids), version=application_version, now=now_ms)
        rings[:] = {queued(row.queue_name) for row in rows if row.queue_name}
        return [row.workflow_uuid for row in rows]

    moved: list[str] = await here.tx(work, rings=rings)
    return moved


@op("DBOS.setLatestApplicationVersion", blocks=True)
async def set_latest_application_version(here: Here, version_name: str) -> None:
    """Make a version the latest, to roll back to it or forward again. An unknown name is passed over."""
    refuse_in_transaction(here, "DBOS.setLatestApplicationVersion")
    name = checked_id(version_name, "A version name")
    now_ms = here.ground.clock.now_ms()
    await here.tx(lambda conn: conn.run(PROMOTE_VERSION, name=name, now=now_ms), rings=[CHANGED])
