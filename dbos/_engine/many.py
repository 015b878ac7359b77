"""What is done to many workflows in one transaction: cancel them, forget them, find what they started.

Whoever controls workflows, repairs them or tidies up comes here; the statements that change a status stand in
`transitions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from dbos._engine.transitions import CANCEL, QUEUES_OF
from dbos._kernel.bell import done, queued, stop
from dbos._kernel.model import TERMINAL
from dbos._kernel.statement import one_of, statement

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Here
    from dbos._kernel.statement import Conn


@statement
def CHILDREN(t: Tables) -> Executable:
    """The workflows that these started."""
    return select(t.status.c.workflow_uuid).where(t.dialect.among(t.status.c.parent_workflow_id, "workflow_ids"))


@statement
def DELETE(t: Tables) -> Executable:
    """Forget these workflows; what they own goes with them."""
    return delete(t.status).where(t.dialect.among(t.status.c.workflow_uuid, "workflow_ids"))


@statement
def DELETE_ENDED(t: Tables) -> Executable:
    """Forget those of these workflows that are over: one may have been resumed since somebody looked."""
    c = t.status.c
    over = (t.dialect.among(c.workflow_uuid, "workflow_ids"), one_of(c.status, TERMINAL))
    return delete(t.status).where(*over).returning(c.workflow_uuid)


@statement
def DELETE_STEPS(t: Tables) -> Executable:
    """Forget the steps of these workflows: on a database of a later release no trigger does so."""
    return delete(t.steps).where(t.dialect.among(t.steps.c.workflow_uuid, "workflow_ids"))


@statement
def DELETE_INPUT(t: Tables) -> Executable:
    return delete(t.side_input).where(t.dialect.among(t.side_input.c.workflow_uuid, "workflow_ids"))


@statement
def DELETE_OUTPUT(t: Tables) -> Executable:
    return delete(t.side_output).where(t.dialect.among(t.side_output.c.workflow_uuid, "workflow_ids"))


def with_descendants(conn: Conn, workflow_ids: list[str]) -> list[str]:
    """These workflows and everything that they started, directly or not."""
    found = dict.fromkeys(workflow_ids)
    generation = list(found)
    while generation:
        children = [row.workflow_uuid for row in conn.run(CHILDREN, workflow_ids=generation)]
        generation = [each for each in children if each not in found]
        found.update(dict.fromkeys(generation))
    return list(found)


def freed(conn: Conn, workflow_ids: list[str]) -> list[Channel]:
    """The queues on which these workflows run, and others may start once they are taken from there."""
    return [queued(row.queue_name) for row in conn.run(QUEUES_OF, workflow_ids=workflow_ids)]


async def cancel(here: Here, workflow_ids: list[str], *, cancel_children: bool) -> list[str]:
    """Cancel workflows that have not ended, and wake whoever waits for them or in them; the ids of those."""
    rings: list[Channel] = []  # what the work finds to ring; it may be done twice

    def work(conn: Conn) -> list[str]:
        wanted = with_descendants(conn, workflow_ids) if cancel_children else workflow_ids
        queues = freed(conn, wanted)
        cancelled = [row.workflow_uuid for row in conn.run(CANCEL, workflow_ids=wanted, now=here.ground.clock.now_ms())]
        rings[:] = [channel(each) for each in cancelled for channel in (stop, done)]
        rings.extend(queues)
        return cancelled

    found: list[str] = await here.tx(work, rings=rings)
    return found


def remove_rows(conn: Conn, workflow_ids: list[str]) -> list[Channel]:
    """Forget workflows with everything they own, and say who is to hear of it."""
    queues = freed(conn, workflow_ids)
    conn.run(DELETE, workflow_ids=workflow_ids)
    _remove_owned(conn, workflow_ids)
    return [*(channel(each) for each in workflow_ids for channel in (stop, done)), *queues]


def remove_ended(conn: Conn, workflow_ids: list[str]) -> list[str]:
    """Forget those of the workflows that are over; their ids."""
    gone = [row.workflow_uuid for row in conn.run(DELETE_ENDED, workflow_ids=workflow_ids)]
    _remove_owned(conn, gone)
    return gone


def _remove_owned(conn: Conn, workflow_ids: list[str]) -> None:
    """What no key of the database takes along with the row of its workflow."""
    conn.run(DELETE_STEPS, workflow_ids=workflow_ids)
    if conn.tables.layout.split:
        conn.run(DELETE_INPUT, workflow_ids=workflow_ids)
        conn.run(DELETE_OUTPUT, workflow_ids=workflow_ids)
