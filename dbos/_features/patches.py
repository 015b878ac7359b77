"""Patches: a workflow's code is changed while workflows that began with the old code are still to be finished.

`patch` asks the history. Where it goes on beyond this point without the patch's marker, the old code wrote it; where
it ends here, the marker is recorded before the new code runs. The look and the taking of the step id are one moment,
in which no other task of the workflow runs.
"""

from __future__ import annotations

from dbos._kernel.journal import commit, ensure_running, record, refuse_in_transaction
from dbos._kernel.naming import checked_name
from dbos._kernel.plan import op
from dbos._kernel.scope import Here, Run
from dbos.error import DBOSException, DBOSPatchNondeterminismError

PATCH, DEPRECATE = "DBOS.patch", "DBOS.deprecatePatch"


@op(PATCH)
async def patch(here: Here, patch_name: str) -> bool:
    """Return True where the new code is to run, and False in a workflow that came by here with the old code.

    Needs `enable_patching` in the configuration. Raises DBOSException outside of a workflow's body, and
    DBOSPatchNondeterminismError when the workflow begins another operation meanwhile: then another run of it might
    take its step ids in another order.
    """
    run = _run(here, PATCH)
    checked_name(patch_name, "The name of a patch")
    step_id, marker = run.steps_taken + 1, f"{PATCH}-{patch_name}"
    if _is_marked(run, step_id, marker):
        run.next_step()
        del run.journal[step_id]
        return True
    # Also where the history has a gap just here: a later record shows that the old code came by.
    if any(recorded >= step_id for recorded in run.journal):
        return False
    run.next_step()
    await ensure_running(run)
    await commit(here, record(run, step_id, marker))
    if run.steps_taken != step_id:
        raise DBOSPatchNondeterminismError(run.workflow_id, step_id, patch_name)
    return True


@op(DEPRECATE)
async def deprecate_patch(here: Here, patch_name: str) -> bool:
    """Pass over the marker of a patch, where the workflow has it, and write none. Always True.

    For a patch that no unfinished workflow comes without; when none comes with it either, the call can be removed.
    """
    run = _run(here, "DBOS.deprecate_patch")
    checked_name(patch_name, "The name of a patch")
    step_id = run.steps_taken + 1
    if _is_marked(run, step_id, f"{PATCH}-{patch_name}"):
        run.next_step()
        del run.journal[step_id]
    return True


def _is_marked(run: Run, step_id: int, marker: str) -> bool:
    found = run.journal.get(step_id)
    return found is not None and found.name == marker


def _run(here: Here, title: str) -> Run:
    refuse_in_transaction(here, title)
    if here.run is None or not here.in_body:
        raise DBOSException(f"{title} must be called from a workflow")
    return here.run
