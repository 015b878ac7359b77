"""Changing what is noted of a workflow; see `dbos._engine.attributes` for how it is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, select

from dbos._engine.attributes import attributes_of, attributes_text, set_attributes
from dbos._kernel.journal import step_op
from dbos._kernel.scope import Here
from dbos._kernel.statement import statement
from dbos.error import DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn


@statement
def LOCK(t: Tables) -> Executable:
    """Let changes of one workflow's attributes come one after the other."""
    c = t.status.c
    workflow_id = c.workflow_uuid == bindparam("workflow_id", type_=Text())
    return select(c.workflow_uuid).where(workflow_id).with_for_update(key_share=True)


@statement
def NOTED(t: Tables) -> Executable:
    """What is noted of a workflow: read after its lock was got, for what was committed before that."""
    return select(t.attributes).where(t.status.c.workflow_uuid == bindparam("workflow_id", type_=Text()))


@step_op("DBOS.updateWorkflowAttributes")
async def update_workflow_attributes(
    here: Here, workflow_id: str, attributes: dict[str, Any] | None, *, merge: bool = False
) -> None:
    """Replace what is noted of a workflow, at any time; None: by nothing.

    With `merge` the given keys are set and the others stay, in one transaction. Raises DBOSNonExistentWorkflowError if
    there is no such workflow.
    """
    if attributes is None and merge:
        raise DBOSException("Cannot merge None into workflow attributes")
    text = None if attributes is None else attributes_text(attributes)

    def work(conn: Conn) -> None:
        if not conn.run(LOCK, workflow_id=workflow_id):
            raise DBOSNonExistentWorkflowError("target", workflow_id)
        noted = attributes_of(conn.run(NOTED, workflow_id=workflow_id)[0].attributes) if merge else None
        set_attributes(conn, workflow_id, json.dumps({**noted, **json.loads(text or "{}")}) if noted else text)

    await here.tx(work)
