"""What only looks: runs and their steps, what belongs to them, and the state of the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbos_notebook import door
from dbos_notebook.commands.targets import Target, id_of, ids_of
from dbos_notebook.frames import UNFINISHED
from dbos_notebook.typed import moment_of
from dbos_notebook.views.code import source_view
from dbos_notebook.views.handle import facts_view, text_view
from dbos_notebook.views.live import LiveRun, watch_run
from dbos_notebook.views.run import run_view, snapshot_of
from dbos_notebook.views.tail import Tail

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from dbos_notebook.source import Source
    from dbos_notebook.views.view import View

Moment = str | datetime
MOST_COUNTED = 1_000


def status(*, at: Source | None = None) -> View:
    """Where the runtime stores, what runs, what waits and what failed lately."""
    here = at or door.source()
    versions_frame, queues_frame = here.versions(), here.queues()
    unfinished = here.runs(status=sorted(UNFINISHED), limit=MOST_COUNTED, values=False)["status"]
    failed = here.runs(status="ERROR", since=timedelta(days=1), limit=MOST_COUNTED, values=False)
    counts = [(name, int((unfinished == name).sum())) for name in ("PENDING", "ENQUEUED", "DELAYED")]
    latest = versions_frame.index[versions_frame["latest"]].tolist()
    session = [("database", door.session().looked_at), ("kernel", door.session().executor_id)] if at is None else []
    return facts_view(
        "dbos_notebook",
        [
            *session,
            ("runs", f"{int(versions_frame['runs'].sum()):,}"),
            *((name, _counted(number)) for name, number in counts),
            ("failed in 24 h", _counted(len(failed))),
            ("queues", ", ".join(str(each) for each in queues_frame.index[:10])),
            ("latest version", str(latest[0]) if latest else ""),
        ],
    )


def _counted(number: int) -> str:
    return f"{number:,} or more" if number >= MOST_COUNTED else f"{number:,}"


def runs(
    *,
    since: Moment | timedelta | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    at: Source | None = None,
    **filters: Any,
) -> pd.DataFrame:
    """Runs, the newest first. `filters` are those of `DBOS.list_workflows`; `since` may be such as "24h"."""
    here = at or door.source()
    if limit is None:
        limit = door.session().settings.limit if at is None else None
    if isinstance(since, timedelta):
        filters["since"] = since
    elif since is not None:
        filters["start_time"] = moment_of(since).isoformat()
    if until is not None:
        filters["end_time"] = moment_of(until).isoformat()
    return here.runs(limit=limit, **filters)


def steps(*targets: Target, at: Source | None = None) -> pd.DataFrame:
    """The steps of these runs in one frame."""
    here = at or door.source()
    return here.steps(*ids_of(here, *targets))


def show(target: Target, *, at: Source | None = None) -> View:
    """One run as it is now: its header, steps with bars, prints and errors."""
    here = at or door.source()
    return run_view(snapshot_of(here, id_of(here, target)))


def watch(target: Target, *, at: Source | None = None) -> LiveRun:
    """One run, followed to its end where outputs can be replaced."""
    here = at or door.source()
    return watch_run(here, id_of(here, target), pause_seconds=pause_seconds(at))


def pause_seconds(at: Source | None) -> float:
    """How long live views wait between two looks."""
    return 0.25 if at is not None else float(door.session().settings.refresh_seconds)


def timeline(target: Target, *, at: Source | None = None) -> go.Figure:
    """When the steps of a run were at work, as a plotly figure."""
    from dbos_notebook.figures.timeline import timeline as drawn  # here: plotly takes half a second to load

    here = at or door.source()
    workflow_id = id_of(here, target)
    return drawn(here.steps(workflow_id), here.family(workflow_id), **_theme(at))


def tree(target: Target, *, at: Source | None = None) -> go.Figure:
    """A run with its parents, children and forks, as a plotly figure."""
    from dbos_notebook.figures.tree import tree as drawn  # see timeline

    here = at or door.source()
    return drawn(here.family(id_of(here, target)), **_theme(at))


def _theme(at: Source | None) -> dict[str, Any]:
    return {} if at is not None else {"theme": door.session().settings.theme}


def queues(*, at: Source | None = None) -> pd.DataFrame:
    """Queues with their limits, and what waits and runs on them."""
    return (at or door.source()).queues()


def schedules(*, at: Source | None = None) -> pd.DataFrame:
    """Schedules with when they fired last and fire next."""
    return (at or door.source()).schedules()


def versions(*, at: Source | None = None) -> pd.DataFrame:
    """Versions of the application and how many runs each has."""
    return (at or door.source()).versions()


def events(*targets: Target, at: Source | None = None) -> pd.DataFrame:
    """The events of these runs."""
    here = at or door.source()
    return here.events(*ids_of(here, *targets))


def messages(*targets: Target, at: Source | None = None) -> pd.DataFrame:
    """What was sent to these runs, received or not."""
    here = at or door.source()
    return here.messages(*ids_of(here, *targets))


def streams(target: Target, key: str | None = None, *, at: Source | None = None) -> pd.DataFrame:
    """What the streams of a run hold, or one of them."""
    here = at or door.source()
    found = here.streams(*ids_of(here, target))
    return found if key is None else found[found["key"] == key].reset_index(drop=True)


def tail(target: Target, key: str | None = None, *, at: Source | None = None) -> Tail:
    """A stream as it grows; `.stop()` ends it, `.frame()` has its values. Without `key`: the only one there is."""
    here = at or door.source()
    workflow_id = id_of(here, target)
    if key is None:
        keys = sorted(set(here.streams(workflow_id)["key"].tolist()))
        if len(keys) != 1:
            raise ValueError(f"say which stream: {', '.join(keys)}" if keys else "this run has no stream yet; name one")
        key = str(keys[0])
    return Tail(here, workflow_id, key, pause_seconds=pause_seconds(at))


def log(lines: int = 50) -> View:
    """The last lines of the runtime's log."""
    kept = door.session().log[-lines:] if lines > 0 else []
    return text_view("\n".join(kept) or "Nothing is logged.")


def value(target: Target, step: int | None = None, *, at: Source | None = None) -> Any:
    """What a step returned, or the run itself: the value, decoded."""
    here = at or door.source()
    return here.value(id_of(here, target), step)


def code(target: Target, *, at: Source | None = None) -> View:
    """The source that a run ran, as it was then."""
    here = at or door.source()
    return source_view(here, id_of(here, target))


def waiting(*, at: Source | None = None) -> View:
    """Runs that wait for code that is not defined in this kernel."""
    from dbos_notebook.cells import waiting as cells  # here: it belongs to a notebook, the rest to any database

    groups = cells.waiting((at or door.source()).client)
    lines = [f"{group}: waits for {group.name} in version {group.version or 'any'}" for group in groups]
    return text_view("\n".join(lines) or "No run waits for code.")


def explorer() -> Any:
    """The explorer: runs to filter and choose, and buttons for what can be done with them."""
    from dbos_notebook.explore import explorer as opened  # here: only who opens it needs widgets
    from dbos_notebook.replay.check import fits

    return opened(fits=fits)


def config(**settings: Any) -> View:
    """The settings of the notebook; those that are given are changed."""
    held = door.session().settings
    names = sorted(held.traits(config=True))
    for name, value in settings.items():
        if name not in names:
            raise ValueError(f"there is no setting {name!r}; there are {', '.join(names)}")
        setattr(held, name, value)
    return facts_view("settings", [(name, str(getattr(held, name))) for name in names])
