"""Repairing many workflows at once: those that a filter describes are cancelled, resumed, or forked from a failure.

It stands above the slices because it is made of them: what is found by one is acted on by another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from dbos._engine.many import cancel
from dbos._engine.selection import checked
from dbos._features import control, fork, listing
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import TERMINAL, UNFINISHED, WorkflowFilter
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos.error import DBOSMisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence

Repair = Literal["cancel", "resume", "fork_from_last_failure", "fork_from_last_step", "fork"]
# What each is done to: the rest of what matches is passed over, because it would not change.
POSSIBLE: dict[str, frozenset[str]] = {
    "cancel": UNFINISHED,
    "resume": frozenset({"CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}),
    "fork": TERMINAL,
    "fork_from_last_failure": TERMINAL,
    "fork_from_last_step": TERMINAL,
}
# So many are acted on in one transaction.
BATCH = 100


@op("DBOS.repairWorkflows")
async def repair_workflows(
    here: Here,
    /,
    repair: Repair,
    *,
    limit: int,
    dry_run: bool = False,
    queue_name: str | None = None,
    application_version: str | None = None,
    **filters: Any,
) -> list[str]:
    """Do one thing to all workflows that match conditions, at most `limit` of them; return their ids, oldest first.

    `repair` is "cancel" (what has not ended), "resume" (what is cancelled or dead-lettered), "fork" (what has ended,
    from its first step), "fork_from_last_failure" or "fork_from_last_step". `filters` are the conditions of
    `list_workflows`, and at least one must be given. Workflows that the repair means nothing to are passed over and
    do not count. `dry_run` only says which they are. A resumed or forked one goes to `queue_name`, else it starts at
    once; `application_version` is for forks.

    Each is repaired by itself: who is killed in the midst of it repeats the call, which for "fork" forks those again
    that were forked already, unless `was_forked_from=False` is one of the conditions. Not inside a workflow, which
    would not know on its replay what it had found.
    """
    refuse_in_transaction(here, "DBOS.repairWorkflows")
    if here.in_body:
        raise DBOSMisuseError("repair_workflows() cannot be called in the body of a workflow; call it in a step")
    if repair not in get_args(Repair):
        raise ValueError(f"There is no repair {repair!r}; there are {', '.join(get_args(Repair))}")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"limit must be a whole number of at least 1, not {limit!r}")
    conditions = {key: value for key, value in filters.items() if value is not None}
    if not conditions:
        raise ValueError("Give at least one condition: what matches none is everything")
    ids = await _repairable(here, repair, limit, conditions)
    if dry_run:
        return ids
    for first in range(0, len(ids), BATCH):
        await _act(here, repair, ids[first : first + BATCH], queue_name, application_version)
    return ids


async def _repairable(here: Here, repair: Repair, limit: int, conditions: dict[str, Any]) -> list[str]:
    asked = conditions.pop("status", None)
    statuses = (
        POSSIBLE[repair] if asked is None else POSSIBLE[repair] & {*([asked] if isinstance(asked, str) else asked)}
    )
    checked(cast("WorkflowFilter", {"status": asked}))
    wanted = {**conditions, "status": sorted(statuses), "limit": limit, "load_input": False, "load_output": False}
    return [each.workflow_id for each in await listing.find(here, checked(cast("WorkflowFilter", wanted)))]


async def _act(here: Here, repair: Repair, ids: Sequence[str], queue: str | None, version: str | None) -> None:
    if repair == "cancel":
        await cancel(here, list(ids), cancel_children=False)
        return
    if repair == "resume":
        await control.resume(here, list(ids), queue)
        return
    given: dict[str, Any] = {"queue_name": queue, "application_version": version}
    for each in ids:
        if repair == "fork":
            await fork.fork_workflow.plan(here, each, 1, **given)
        else:
            mode: dict[str, Any] = {repair.removeprefix("fork_"): True}
            await fork.fork_from_failure.plan(here, each, **mode, **given)
