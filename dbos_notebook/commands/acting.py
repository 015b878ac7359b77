"""What changes something: launching, waiting, and what is done to runs and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbos_notebook import door
from dbos_notebook.cells.crash import arm, disarm
from dbos_notebook.commands.looking import pause_seconds
from dbos_notebook.commands.targets import Target, id_of, ids_of
from dbos_notebook.replay.preflight import Preflight, checked
from dbos_notebook.typed import moment_of
from dbos_notebook.views import progress, words
from dbos_notebook.views.handle import text_view
from dbos_notebook.views.live import Live, LiveRun, watch_run

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source
    from dbos_notebook.views.view import View

MOST_NAMED = 8


def launch(url: str | None = None) -> View:
    """Start the runtime on a database: a URL, a file, `sqlite`, `postgres` (embedded), or the one beside the notebook."""
    return text_view(door.session().launch(url))


def wait(*targets: Target, timeout: float | None = None, at: Source | None = None) -> pd.DataFrame:
    """Wait for runs to end, in any way, with a progress bar; return them. Raises TimeoutError, and the runs go on."""
    here = at or door.source()
    return progress.wait(here, ids_of(here, *targets), timeout)


async def wait_async(
    *targets: Target,
    timeout: float | None = None,  # noqa: ASYNC109 - as in `wait`
    at: Source | None = None,
) -> pd.DataFrame:
    """`await` it to wait for runs while buttons go on working; see `wait`."""
    here = at or door.source()
    return await progress.wait_async(here, ids_of(here, *targets), timeout)


def fork(
    target: Target,
    step: int | str | None = None,
    *,
    version: str | None = None,
    same_code: bool = False,
    outputs: Mapping[int, Any] | None = None,
    force: bool = False,
    at: Source | None = None,
) -> LiveRun:
    """Run again from a step (its number or name), by default the one that failed; what came before is kept.

    The newest code runs it, or with `same_code` that of the original, or that of a `version`. `outputs` maps kept steps
    to what they shall have returned. Newest code is played on what is kept first: where it does not fit, ValueError says
    at which step, and nothing is forked unless with `force`. `preflight` shows that, and which children are kept.
    """
    here = at or door.source()
    original = here.run(id_of(here, target))
    if same_code and version is not None:
        raise ValueError("give same_code or version, not both")
    if not (force or same_code or version is not None):
        found = checked(here, original.workflow_id, step, outputs)
        if found.difference is not None:
            raise ValueError(
                f"{found.difference_in_words} Nothing was forked; --force (force=True) does it all the same"
            )
    code = original.app_version if same_code else version
    made = here.fork(original.workflow_id, step, version=code, outputs=dict(outputs) if outputs else None)
    return watch_run(here, made, pause_seconds=pause_seconds(at))


def preflight(
    target: Target,
    step: int | str | None = None,
    *,
    outputs: Mapping[int, Any] | None = None,
    at: Source | None = None,
) -> Preflight:
    """What a fork would do: whether the newest code fits what is kept, and which children are kept or run again."""
    here = at or door.source()
    return checked(here, id_of(here, target), step, outputs)


def resume(*targets: Target, new_code: bool = False, at: Source | None = None) -> pd.DataFrame:
    """Let runs go on at their first incomplete step; with `new_code` by the code that is defined now."""
    here = at or door.source()
    return here.runs(workflow_ids=here.resume(*ids_of(here, *targets), new_code=new_code))


def crash(step: str | None) -> View:
    """Kill this kernel when a step of that name has run and is not yet recorded, to see what survives; None: do not."""
    if step is None:
        disarm()
        return text_view("Nothing will be killed.")
    arm(step)
    return text_view(f"Armed: when the step {step} has run, this kernel is killed before that is recorded.")


def cancel(*targets: Target, yes: bool = False, at: Source | None = None) -> pd.DataFrame | View:
    """Stop runs before their next step; of several at once only with `yes`. They can be resumed."""
    here = at or door.source()
    ids = ids_of(here, *targets)
    if len(ids) > 1 and not yes:
        return _refused(here, f"cancel {words.count(len(ids), 'run')}", ids)
    return here.runs(workflow_ids=here.cancel(*ids))


def delete(*targets: Target, yes: bool = False, at: Source | None = None) -> View:
    """Forget runs and everything that they recorded, only with `yes`."""
    here = at or door.source()
    ids = ids_of(here, *targets)
    if not yes:
        return _refused(here, f"delete {words.count(len(ids), 'run')} with all recorded steps", ids)
    here.delete(*ids)
    return text_view(f"Deleted {words.count(len(ids), 'run')}.")


def _refused(here: Source, what: str, ids: Sequence[str]) -> View:
    named = here.runs(workflow_ids=list(ids[:MOST_NAMED]), values=False)
    lines = [
        f"  {workflow_id}  {name}  {state}"
        for workflow_id, name, state in zip(named.index, named["name"], named["status"], strict=True)
    ]
    if len(ids) > MOST_NAMED:
        lines.append(f"  ... and {len(ids) - MOST_NAMED:,} more")
    return text_view(
        "\n".join([f"Nothing was done. This would {what}:", *lines, "Say yes to do it: yes=True, or --yes."])
    )


def send(target: Target, message: Any, topic: str | None = None, *, at: Source | None = None) -> View:
    """Send a message to a run."""
    here = at or door.source()
    workflow_id = id_of(here, target)
    here.send(workflow_id, message, topic)
    return text_view(f"Sent to {words.short(workflow_id)}" + (f", topic {topic}." if topic else "."))


def trigger(schedule: str, *, at: Source | None = None) -> LiveRun:
    """Start now what a schedule starts."""
    here = at or door.source()
    return watch_run(here, here.trigger(schedule), pause_seconds=pause_seconds(at))


def backfill(
    schedule: str, start: str | datetime, end: str | datetime, *, yes: bool = False, at: Source | None = None
) -> Live | View:
    """Start all that a schedule would have started between two moments, only with `yes`; its progress is returned."""
    here = at or door.source()
    begin, stop = moment_of(start), moment_of(end)
    if begin >= stop:
        raise ValueError("the end of a backfill comes after its start")
    here.schedule_named(schedule)
    if not yes:
        span = f"{begin.isoformat(sep=' ', timespec='minutes')} and {stop.isoformat(sep=' ', timespec='minutes')}"
        words_ = f"Nothing was done. This would start every run that {schedule} would have started between {span}."
        return text_view(f"{words_}\nSay yes to do it: yes=True, or --yes.")
    return progress.progress(here, here.backfill(schedule, begin, stop), f"backfill of {schedule}")


def pause(schedule: str, *, at: Source | None = None) -> pd.DataFrame:
    """Let a schedule start nothing until it goes on."""
    here = at or door.source()
    here.pause(schedule)
    return _one(here, schedule)


def unpause(schedule: str, *, at: Source | None = None) -> pd.DataFrame:
    """Let a paused schedule go on."""
    here = at or door.source()
    here.unpause(schedule)
    return _one(here, schedule)


def _one(here: Source, schedule: str) -> pd.DataFrame:
    found = here.schedules()
    return found[found.index == schedule]
