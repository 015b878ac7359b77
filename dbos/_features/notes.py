"""Reading what an extension keeps: notes of steps and workflows, and the source of each version of their code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, select

from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import statement, statement_of
from dbos.error import DBOSSchemaError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn


class WorkflowNote(NamedTuple):
    """What is kept beside a step of a workflow; beside the workflow itself where the step id is 0."""

    workflow_id: str
    step_id: int
    kind: str
    text: str


class CodeSource(NamedTuple):
    """The source of one version of a workflow's code."""

    version: str
    workflow: str
    text: str
    created_at: int


@statement_of(WorkflowNote._make)
def NOTES(t: Tables) -> Executable:
    c = t.notes.c
    mine = t.dialect.among(c.workflow_uuid, "workflow_ids")
    return select(c.workflow_uuid, c.function_id, c.kind, c.text).where(mine).order_by(*t.notes.primary_key)


@statement_of(WorkflowNote._make)
def NOTES_OF_KINDS(t: Tables) -> Executable:
    c = t.notes.c
    wanted = (t.dialect.among(c.workflow_uuid, "workflow_ids"), t.dialect.among(c.kind, "kinds"))
    return select(c.workflow_uuid, c.function_id, c.kind, c.text).where(*wanted).order_by(*t.notes.primary_key)


@statement
def SOURCES(t: Tables) -> Executable:
    c = t.sources.c
    return select(c.version, c.workflow, c.text, c.created_at).where(t.dialect.among(c.version, "versions"))


@statement
def KEEP_SOURCE(t: Tables) -> Executable:
    c = t.sources.c
    given = {c.version: "version", c.workflow: "workflow", c.text: "text"}
    values = {column.name: bindparam(name, type_=Text()) for column, name in given.items()}
    insert = t.dialect.insert(t.sources).values(**values, created_at=bindparam("now", type_=BigInteger()))
    return insert.on_conflict_do_nothing()  # type: ignore[no-any-return]  # the two dialects' inserts have no common type


@op("DBOS.listNotes")
async def list_notes(here: Here, workflow_ids: list[str], kinds: list[str] | None = None) -> list[WorkflowNote]:
    """Return what an extension has kept of these workflows, in the order of their steps; `kinds` chooses some of it."""

    def work(conn: Conn) -> list[WorkflowNote]:
        if not conn.tables.layout.own:  # another program's database: nothing was ever kept there
            return []
        if kinds is None:
            return conn.run(NOTES, workflow_ids=list(workflow_ids))
        return conn.run(NOTES_OF_KINDS, workflow_ids=list(workflow_ids), kinds=list(kinds))

    found: list[WorkflowNote] = await here.read(work)
    return found


@op("DBOS.listSources")
async def list_sources(here: Here, versions: list[str]) -> list[CodeSource]:
    """Return the source of these versions of workflows, as far as an extension has kept it."""

    def work(conn: Conn) -> list[CodeSource]:
        if not conn.tables.layout.own:  # as above
            return []
        return [CodeSource(*row) for row in conn.run(SOURCES, versions=list(versions))]

    found: list[CodeSource] = await here.read(work)
    return found


@op("DBOS.keepSource")
async def keep_source(here: Here, version: str, workflow: str, text: str) -> None:
    """Keep the source of a version of a workflow's code. What is kept already stays as it is."""
    now = here.ground.clock.now_ms()

    def work(conn: Conn) -> None:
        if not conn.tables.layout.own:
            raise DBOSSchemaError("The database has no place for sources yet: launch the application once")
        conn.run(KEEP_SOURCE, version=version, workflow=workflow, text=text, now=now)

    await here.tx(work)
