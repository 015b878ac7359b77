"""The state of the explorer, and how each message changes it.

`update` is arithmetic: it reads nothing and does nothing, it returns the next state and the commands that follow from
the message. A reading is believed only if it answers the question that is asked now; what came for an older page, run
or tab is dropped. No message of a button changes what is shown of a run: only a reading does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, assert_never

from dbos_notebook.explore.actions import Action, Outcome

Section = Literal["runs", "schedules", "triage", "patch"]
Tab = Literal["timeline", "tree", "steps", "source", "events", "streams", "messages", "log", "error"]
Order = Literal["newest", "oldest", "name", "status", "longest"]

SECTIONS: tuple[Section, ...] = ("runs", "schedules", "triage", "patch")
TABS: tuple[Tab, ...] = ("timeline", "tree", "steps", "source", "events", "streams", "messages", "log", "error")
PAGE_SIZE = 15

#: The obstacle of a run that nobody has tried on the newest code.
NOT_CHECKED = "not checked"

#: Runs that may still change by themselves.
LIVE = frozenset({"PENDING", "ENQUEUED", "DELAYED"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs to list; an empty word is no condition."""

    status: str = ""
    name: str = ""
    queue: str = ""
    prefix: str = ""
    #: An age such as "24h" or "7d", or a date.
    since: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A run as the list shows it."""

    workflow_id: str
    name: str
    status: str
    created: datetime | None = None
    seconds: float | None = None
    queue: str = ""
    version: str = ""
    forked_from: str = ""


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step that one can fork from."""

    step: int
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as its list shows it."""

    name: str
    workflow: str
    status: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of failures, and how many of its runs can be forked and resumed."""

    number: int
    fingerprint: str
    words: str
    forkable: int
    resumable: int


@dataclass(frozen=True, slots=True)
class FitRow:
    """A run of the chosen workflow, and what keeps it from fitting the newest code, as far as that was looked at."""

    run: Row
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a tab shows: HTML, and perhaps a figure as plotly's JSON text."""

    html: str = ""
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that has to be read for what is on the screen."""

    section: Section = "runs"
    wanted: Wanted = field(default_factory=Wanted)
    order: Order = "newest"
    page: int = 0
    chosen: str | None = None
    tab: Tab = "timeline"
    stream: str = ""
    is_tailing: bool = True
    workflow: str = ""
    #: How the patch of that workflow is to be called; empty: like what is new.
    patch: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    """What was read of the chosen run."""

    run: Row
    shown: Shown
    steps: tuple[StepRow, ...] = ()
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is on the screen."""

    look: Look = field(default_factory=Look)
    rows: tuple[Row, ...] = ()
    has_more: bool = False
    read_at: datetime | None = None
    #: Names that the filters offer.
    names: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    detail: Detail | None = None
    schedules: tuple[ScheduleRow, ...] = ()
    table: str = ""
    groups: tuple[GroupRow, ...] = ()
    fits: tuple[FitRow, ...] = ()
    newest: str = ""
    #: The source of the workflow with a guard for those that do not fit; empty: none is needed, or known.
    guarded: str = ""
    #: The action that waits for a yes.
    asked: Action | None = None
    #: Actions that wait for the explorer's thread, the first of which it performs.
    queued: tuple[Action, ...] = ()
    notice: str = ""
    error: str = ""
    unread: str = ""
    is_kernel_busy: bool = False


# -- messages --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entered:
    """Another part of the explorer is wanted."""

    section: Section


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The filter was changed."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Ordered:
    """Another order is wanted."""

    order: Order


@dataclass(frozen=True, slots=True)
class Turned:
    """To a later page, or with a negative number to an earlier one."""

    by: int


@dataclass(frozen=True, slots=True)
class Chose:
    """A run was chosen, or with None left."""

    workflow_id: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """Another tab of the chosen run is wanted."""

    tab: Tab


@dataclass(frozen=True, slots=True)
class PickedStream:
    """A stream was chosen."""

    key: str


@dataclass(frozen=True, slots=True)
class Tailed:
    """Start to follow the stream, or stop."""

    on: bool


@dataclass(frozen=True, slots=True)
class PickedWorkflow:
    """A workflow to patch was chosen."""

    name: str


@dataclass(frozen=True, slots=True)
class NamedPatch:
    """The patch was given a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A button was clicked."""

    action: Action


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The question was answered with yes."""


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The question was answered with no, or what is said was read."""


@dataclass(frozen=True, slots=True)
class Did:
    """An action succeeded."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Failed:
    """An action or a callback raised an error."""

    reason: str
    was_action: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """A reading raised an error; the next good one ends it."""

    reason: str


@dataclass(frozen=True, slots=True)
class KernelBusy:
    """The kernel runs a cell for some time, or has ended it."""

    is_busy: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A reading of the database; None where nothing was read."""

    look: Look
    at: datetime
    rows: tuple[Row, ...] | None = None
    has_more: bool = False
    queues: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    detail: Detail | None = None
    schedules: tuple[ScheduleRow, ...] | None = None
    table: str = ""
    groups: tuple[GroupRow, ...] | None = None
    fits: tuple[FitRow, ...] | None = None
    newest: str = ""
    guarded: str = ""


# Somebody looks at something else.
Looked = Entered | Narrowed | Ordered | Turned | Chose | Opened | PickedStream | Tailed | PickedWorkflow | NamedPatch
Message = Looked | Asked | Confirmed | Dismissed | Did | Failed | Unread | KernelBusy | Seen


# -- commands --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Read again, now."""


@dataclass(frozen=True, slots=True)
class Perform:
    """Have an action performed."""

    action: Action


Command = Read | Perform
Next = tuple[State, tuple[Command, ...]]


def update(state: State, message: Message) -> Next:
    """The next state, and what has to be done."""
    match message:
        case Seen():
            return _seen(state, message), ()
        case Asked(action):
            return _asked(state, action)
        case Confirmed():
            return (state, ()) if state.asked is None else _queued(state, state.asked)
        case Dismissed():
            return replace(state, asked=None, error="", notice=""), ()
        case Did(outcome):
            return _did(state, outcome)
        case Failed(reason, was_action):
            left = state.queued[1:] if was_action else state.queued
            return replace(state, error=reason, notice="", queued=left), ()
        case Unread(reason):
            return replace(state, unread=reason), ()
        case KernelBusy(is_busy):
            return replace(state, is_kernel_busy=is_busy), ()
        case _:
            return _looked(state, message)


def _looked(state: State, message: Looked) -> Next:
    look = state.look
    match message:
        case Entered(section):
            # What was said of the one part is not about the other.
            state = replace(state, notice="", error="", asked=None) if section != look.section else state
            look = replace(look, section=section)
        case Narrowed(wanted):
            look = replace(look, wanted=wanted, page=0)
        case Ordered(order):
            look = replace(look, order=order, page=0)
        case Turned(by):
            if by > 0 and not state.has_more:
                return state, ()
            look = replace(look, page=max(0, look.page + by))
        case Chose(workflow_id):
            look = replace(look, chosen=workflow_id, stream="", is_tailing=True)
        case Opened(tab):
            look = replace(look, tab=tab)
        case PickedStream(key):
            look = replace(look, stream=key)
        case Tailed(on):
            look = replace(look, is_tailing=on)
        case PickedWorkflow(name):
            look = replace(look, workflow=name)
        case NamedPatch(name):
            look = replace(look, patch=name)
        case _:
            assert_never(message)
    if look == state.look:
        return state, ()
    return _at(state, look), (Read(),)


def _at(state: State, look: Look) -> State:
    """The state that looks there: what belongs to another run or workflow is not shown meanwhile."""
    if look.chosen != state.look.chosen:
        # A question about one run must not be answered with another in view.
        state = replace(state, detail=None, asked=None)
    elif look.tab != state.look.tab and state.detail is not None:
        state = replace(state, detail=replace(state.detail, shown=Shown()))
    if look.workflow != state.look.workflow:
        state = replace(state, fits=(), guarded="")
    return replace(state, look=look)


def _asked(state: State, action: Action) -> Next:
    if action.question is not None:
        return replace(state, asked=action, error="", notice=""), ()
    return _queued(state, action)


def _queued(state: State, action: Action) -> Next:
    queued = (*state.queued, action)
    notice = f"{action.verb}: queued."
    return replace(state, asked=None, queued=queued, notice=notice, error=""), (Perform(action),)


def _did(state: State, outcome: Outcome) -> Next:
    state = replace(state, queued=state.queued[1:], notice=outcome.words, error="")
    if outcome.chosen is not None and outcome.chosen != state.look.chosen:
        state = _at(state, replace(state.look, chosen=outcome.chosen))
    return state, (Read(),)


def _seen(state: State, seen: Seen) -> State:
    if seen.look != state.look:
        return state
    return replace(
        state,
        unread="",
        read_at=seen.at,
        rows=state.rows if seen.rows is None else seen.rows,
        has_more=state.has_more if seen.rows is None else seen.has_more,
        names=state.names if seen.names is None else _merged(state.names, seen.names),
        queues=state.queues if seen.queues is None else seen.queues,
        detail=seen.detail,
        schedules=state.schedules if seen.schedules is None else seen.schedules,
        table=seen.table,
        groups=state.groups if seen.groups is None else seen.groups,
        fits=state.fits if seen.fits is None else seen.fits,
        newest=seen.newest or state.newest,
        guarded=seen.guarded,
    )


def _merged(known: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*known, *found})) if not set(found) <= set(known) else known


def allowed(status: str) -> frozenset[str]:
    """The verbs that make sense for a run in this status."""
    always = {"Fork", "Delete"}
    if status == "PENDING":
        return frozenset(always | {"Cancel", "Send"})
    if status in LIVE:
        # A run that waits in a queue starts at once when it is resumed.
        return frozenset(always | {"Cancel", "Send", "Resume"})
    if status in {"CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}:
        return frozenset(always | {"Send", "Resume"})
    return frozenset(always)
