"""Handles: a workflow in the hand, in both colours, from one set of plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from sqlalchemy import select

from dbos._engine.result import await_ending, result_step
from dbos._engine.status import get_workflow_status
from dbos._kernel.bell import done
from dbos._kernel.extension import installed
from dbos._kernel.journal import refuse_in_transaction, step_op
from dbos._kernel.model import TERMINAL
from dbos._kernel.naming import sought
from dbos._kernel.plan import arun, op, run
from dbos._kernel.scope import HERE
from dbos._kernel.statement import statement
from dbos._kernel.waiting import wait_until
from dbos.error import DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.model import WorkflowStatus
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Awaited, Ground, Here, Run

R = TypeVar("R")
H = TypeVar("H", bound="Handle[Any]")


class Handle(Generic[R]):
    """What both colours share: the id, where it lives, and its run if that is in this process."""

    def __init__(
        self, ground: Ground, workflow_id: str, run: Run | Awaited | None = None, *, may_be_missing: bool = False
    ) -> None:
        #: The workflow's id.
        self.workflow_id = workflow_id
        self._ground, self._run, self._may_be_missing = ground, run, may_be_missing

    def get_workflow_id(self) -> str:
        """Return the workflow's id."""
        return self.workflow_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id}>"

    def as_awaited(self) -> Generator[Any, Any, R]:
        """What `await handle` does where an extension lets handles be awaited: it gives what `get_result` gives.

        Elsewhere they are not: programs tell by that what a function of either colour came to.
        """
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        extension = installed()
        if extension is None or HERE.get() is not None:
            return await arun(self._result())
        with extension.waits(self.workflow_id):
            return await arun(self._result())

    async def _result(self) -> Any:
        here = _here(self._ground)
        refuse_in_transaction(here, "DBOS.getResult")
        # A run of a runtime that has ended is over, whatever has become of its workflow since.
        known = self._run if here.ground is self._ground else None
        if here.in_body:
            return await result_step(here, self.workflow_id, run=known, may_be_missing=self._may_be_missing)
        ending = await await_ending(here, self.workflow_id, run=known, may_be_missing=self._may_be_missing)
        return ending.unwrap()

    async def _status(self) -> WorkflowStatus:
        status = await get_workflow_status.plan(_here(self._ground), self.workflow_id)
        if status is None:
            raise DBOSNonExistentWorkflowError("target", self.workflow_id)
        return status


class WorkflowHandle(Handle[R]):
    """A workflow, for sync code."""

    def get_result(self, *, polling_interval_sec: float = 1.0) -> R:
        """Wait for the workflow to end and return its result, or raise its error.

        `polling_interval_sec` is accepted for programs that give it; nothing is polled.
        """
        return run(self._result())  # type: ignore[no-any-return]  # the stored value has the type the code promised

    def get_status(self) -> WorkflowStatus:
        """Return the workflow's status. Raises DBOSNonExistentWorkflowError if there is no such workflow."""
        return run(self._status())


class WorkflowHandleAsync(Handle[R]):
    """A workflow, for async code."""

    async def get_result(self, *, polling_interval_sec: float = 1.0) -> R:
        """Wait for the workflow to end and return its result, or raise its error.

        `polling_interval_sec` is accepted for programs that give it; nothing is polled.
        """
        return await arun(self._result())

    async def get_status(self) -> WorkflowStatus:
        """Return the workflow's status. Raises DBOSNonExistentWorkflowError if there is no such workflow."""
        return await arun(self._status())


class Reference(NamedTuple):
    """A workflow that a plan found or started; its handle's colour is chosen by the face."""

    ground: Ground
    workflow_id: str
    run: Run | Awaited | None = None
    may_be_missing: bool = False

    def handle(self) -> WorkflowHandle[Any]:
        return WorkflowHandle(self.ground, self.workflow_id, self.run, may_be_missing=self.may_be_missing)

    def handle_async(self) -> WorkflowHandleAsync[Any]:
        return WorkflowHandleAsync(self.ground, self.workflow_id, self.run, may_be_missing=self.may_be_missing)


def _here(ground: Ground) -> Here:
    """Where the handle is used; a client's handle is outside, also in a workflow."""
    here = HERE.get()
    while here is None or here.ground is not ground:
        if ground.successor is None:
            return ground.here
        ground = ground.successor
    return here


@op("DBOS.getResult")
async def get_result(here: Here, workflow_id: str) -> Any:
    """Wait for the workflow with this id to end and return its result, or raise its error."""
    refuse_in_transaction(here, "DBOS.getResult")
    sought(workflow_id)
    if here.in_body:
        return await result_step(here, workflow_id)
    return (await await_ending(here, workflow_id)).unwrap()


async def first_done(here: Here, handles: Sequence[H]) -> H:
    """The first of these workflows to end, in any way. A recorded step in a workflow."""
    if not handles:
        raise ValueError("handles must not be empty")
    by_id = {handle.workflow_id: handle for handle in handles}
    if len(by_id) != len(handles):
        raise ValueError("handles must not contain duplicate workflow IDs")
    return by_id[await _wait_first.plan(here, list(by_id))]


@op("DBOS.retrieveWorkflow")
async def retrieve_workflow(here: Here, workflow_id: str, existing_workflow: bool = True) -> Reference:
    """Return a handle of the workflow with this id.

    Raises DBOSNonExistentWorkflowError if there is none; with `existing_workflow=False` the handle's `get_result`
    waits for the workflow to be created instead.
    """
    sought(workflow_id)
    if not existing_workflow:
        return Reference(here.ground, workflow_id, may_be_missing=True)
    if here.in_body:
        exists = await get_workflow_status.plan(here, workflow_id) is not None
    else:
        refuse_in_transaction(here, "DBOS.getStatus")
        exists = bool(await here.read(lambda conn: conn.run(STATUSES, workflow_ids=[workflow_id])))
    if not exists:
        raise DBOSNonExistentWorkflowError("target", workflow_id)
    return Reference(here.ground, workflow_id, here.ground.running(workflow_id) or here.ground.expect(workflow_id))


@statement
def STATUSES(t: Tables) -> Executable:
    """The statuses of several workflows."""
    c = t.status.c
    return select(c.workflow_uuid, c.status).where(t.dialect.among(c.workflow_uuid, "workflow_ids"))


@step_op("DBOS.waitFirst")
async def _wait_first(here: Here, workflow_ids: list[str]) -> str:
    """Wait for the first of these workflows to end."""

    async def look() -> str | None:
        rows = await here.read(lambda conn: conn.run(STATUSES, workflow_ids=workflow_ids))
        statuses = {row.workflow_uuid: row.status for row in rows}
        for workflow_id in workflow_ids:
            if workflow_id not in statuses:
                raise DBOSNonExistentWorkflowError("target", workflow_id)
            if statuses[workflow_id] in TERMINAL:
                return workflow_id
        return None

    first = await wait_until(here, look, *map(done, workflow_ids))
    assert first is not None  # there is no moment at which this wait ends without one
    return first
