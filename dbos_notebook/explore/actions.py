"""What the explorer's buttons do.

An action is a record, made when a button is clicked, and performed later by the explorer's own thread. Each knows the
`%dbos` command that does the same, and what it asks first if it destroys something. How it went is said in words; what
is true afterwards the next reading of the database tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from dbos_notebook import repair
from dbos_notebook.replay.preflight import checked
from dbos_notebook.typed import value_of
from dbos_notebook.views.words import count, short

if TYPE_CHECKING:
    from dbos_notebook.source import Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action went, in words, and the run to look at now."""

    words: str
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What actions work with: the data, the notebook's variables, and the versions of its newest code by workflow."""

    source: Source
    variables: MutableMapping[str, Any]
    newest: Callable[[str], str | None]


class Action(Protocol):
    """One click."""

    #: What the button says.
    verb: ClassVar[str]

    @property
    def command(self) -> str:
        """The magic that does the same."""
        ...

    @property
    def question(self) -> str | None:
        """What is asked first, if this destroys something."""
        ...

    def perform(self, bench: Bench) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class _Harmless:
    @property
    def question(self) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Fork(_Harmless):
    """Run again from a step, with what was recorded before it."""

    verb: ClassVar[str] = "Fork"
    workflow_id: str
    #: None: the failed step, else the first incomplete one.
    step: int | None = None
    with_newest_code: bool = True
    replaced_step: int | None = None
    #: A literal, JSON, or the name of a variable.
    replaced_by: str = ""

    @property
    def command(self) -> str:
        start = "" if self.step is None else f" --from {self.step}"
        code = "" if self.with_newest_code else " --same-code"
        output = "" if self.replaced_step is None else f" --set {self.replaced_step}={_quoted(self.replaced_by)}"
        return f"%dbos fork {self.workflow_id}{start}{code}{output}"

    def perform(self, bench: Bench) -> Outcome:
        outputs = None
        if self.replaced_step is not None:
            outputs = {self.replaced_step: value_of(self.replaced_by, bench.variables)}
        run = bench.source.run(self.workflow_id)
        version = bench.newest(run.name) if self.with_newest_code else run.app_version
        if self.with_newest_code:
            found = checked(bench.source, self.workflow_id, self.step, outputs)
            if found.difference is not None:
                raise ValueError(f"{found.difference_in_words} {self.command} --force forks it all the same")
        fork = bench.source.fork(self.workflow_id, self.step, version=version, outputs=outputs)
        start = "where it stopped" if self.step is None else f"step {self.step}"
        return Outcome(f"Forked {short(self.workflow_id)} from {start}: the fork is {short(fork)}.", fork)


@dataclass(frozen=True, slots=True)
class Resume(_Harmless):
    """Go on with runs at their first incomplete step."""

    verb: ClassVar[str] = "Resume"
    workflow_ids: tuple[str, ...]
    #: By the code that is defined now, whatever they began with.
    new_code: bool = False

    @property
    def command(self) -> str:
        return f"%dbos resume {' '.join(self.workflow_ids)}{' --new-code' if self.new_code else ''}"

    def perform(self, bench: Bench) -> Outcome:
        bench.source.resume(*self.workflow_ids, new_code=self.new_code)
        return Outcome(f"Resumed {runs(self.workflow_ids)}.")


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop runs before their next step."""

    verb: ClassVar[str] = "Cancel"
    workflow_ids: tuple[str, ...]

    @property
    def command(self) -> str:
        return f"%dbos cancel {' '.join(self.workflow_ids)} --yes"

    @property
    def question(self) -> str | None:
        return f"Cancel {runs(self.workflow_ids)}? It stops before its next step, and can be resumed."

    def perform(self, bench: Bench) -> Outcome:
        bench.source.cancel(*self.workflow_ids)
        return Outcome(f"Cancelled {runs(self.workflow_ids)}.")


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget runs and everything that they recorded."""

    verb: ClassVar[str] = "Delete"
    workflow_ids: tuple[str, ...]

    @property
    def command(self) -> str:
        return f"%dbos delete {' '.join(self.workflow_ids)} --yes"

    @property
    def question(self) -> str | None:
        return f"Delete {runs(self.workflow_ids)} with all recorded steps? This cannot be undone."

    def perform(self, bench: Bench) -> Outcome:
        bench.source.delete(*self.workflow_ids)
        return Outcome(f"Deleted {runs(self.workflow_ids)}.")


@dataclass(frozen=True, slots=True)
class Send(_Harmless):
    """Send a message to a run."""

    verb: ClassVar[str] = "Send"
    workflow_id: str
    #: A literal, JSON, or the name of a variable.
    message: str
    topic: str = ""

    @property
    def command(self) -> str:
        topic = f" --topic {_quoted(self.topic)}" if self.topic else ""
        return f"%dbos send {self.workflow_id} {_quoted(self.message)}{topic}"

    def perform(self, bench: Bench) -> Outcome:
        bench.source.send(self.workflow_id, value_of(self.message, bench.variables), self.topic or None)
        return Outcome(f"Sent to {short(self.workflow_id)}.")


@dataclass(frozen=True, slots=True)
class ToFrame(_Harmless):
    """Make a stream's values so far a DataFrame in the notebook."""

    verb: ClassVar[str] = "To DataFrame"
    workflow_id: str
    key: str
    variable: str

    @property
    def command(self) -> str:
        return f"{self.variable} = %dbos streams {self.workflow_id} {_quoted(self.key)}"

    def perform(self, bench: Bench) -> Outcome:
        if not self.variable.isidentifier():
            raise ValueError(f"{self.variable!r} cannot be the name of a variable")
        frame = bench.source.streams(self.workflow_id)
        frame = frame[frame["key"] == self.key].reset_index(drop=True)
        bench.variables[self.variable] = frame
        return Outcome(f"{self.variable} is a DataFrame of {count(len(frame), 'value')}.")


@dataclass(frozen=True, slots=True)
class Trigger(_Harmless):
    """Start what a schedule starts, now."""

    verb: ClassVar[str] = "Trigger now"
    schedule: str

    @property
    def command(self) -> str:
        return f"%dbos trigger {_quoted(self.schedule)}"

    def perform(self, bench: Bench) -> Outcome:
        bench.source.trigger(self.schedule)
        return Outcome(f"Triggered {self.schedule}.")


@dataclass(frozen=True, slots=True)
class Backfill:
    """Start what a schedule would have started between two moments."""

    verb: ClassVar[str] = "Backfill"
    schedule: str
    start: datetime
    end: datetime

    @property
    def command(self) -> str:
        return f"%dbos backfill {_quoted(self.schedule)} {self.start.isoformat()} {self.end.isoformat()} --yes"

    @property
    def question(self) -> str | None:
        span = f"{self.start:%Y-%m-%d %H:%M} and {self.end:%Y-%m-%d %H:%M %Z}"
        return f"Start every run that {self.schedule} would have started between {span}?"

    def perform(self, bench: Bench) -> Outcome:
        if self.start >= self.end:
            raise ValueError("the end of a backfill comes after its start")
        bench.source.backfill(self.schedule, self.start, self.end)
        return Outcome(f"Backfilled {self.schedule}.")


@dataclass(frozen=True, slots=True)
class Pause(_Harmless):
    """Let a schedule start nothing until it goes on."""

    verb: ClassVar[str] = "Pause"
    schedule: str

    @property
    def command(self) -> str:
        return f"%dbos pause {_quoted(self.schedule)}"

    def perform(self, bench: Bench) -> Outcome:
        bench.source.pause(self.schedule)
        return Outcome(f"Paused {self.schedule}.")


@dataclass(frozen=True, slots=True)
class Unpause(_Harmless):
    """Let a paused schedule go on."""

    verb: ClassVar[str] = "Unpause"
    schedule: str

    @property
    def command(self) -> str:
        return f"%dbos unpause {_quoted(self.schedule)}"

    def perform(self, bench: Bench) -> Outcome:
        bench.source.unpause(self.schedule)
        return Outcome(f"{self.schedule} goes on.")


@dataclass(frozen=True, slots=True)
class TryGroup(_Harmless):
    """Say what forking or resuming a group of failures would do, and do nothing."""

    verb: ClassVar[str] = "Dry run"
    fingerprint: str
    tried: Literal["fork", "resume"] = "fork"

    @property
    def command(self) -> str:
        return f"%dbos {self.tried} --group {self.fingerprint} --dry-run"

    def perform(self, bench: Bench) -> Outcome:
        act = repair.fork_group if self.tried == "fork" else repair.resume_group
        return Outcome(act(bench.source, self.fingerprint, dry_run=True).text)


@dataclass(frozen=True, slots=True)
class ForkGroup(_Harmless):
    """Fork every run of a group of failures; its count was typed, which confirms it."""

    verb: ClassVar[str] = "Fork group"
    fingerprint: str
    confirm: int

    @property
    def command(self) -> str:
        return f"%dbos fork --group {self.fingerprint} --confirm {self.confirm}"

    def perform(self, bench: Bench) -> Outcome:
        repair.fork_group(bench.source, self.fingerprint, confirm=self.confirm)
        return Outcome(f"Forked {count(self.confirm, 'run')}.")


@dataclass(frozen=True, slots=True)
class ResumeGroup(_Harmless):
    """Resume every run of a group of failures that can be; see `ForkGroup`."""

    verb: ClassVar[str] = "Resume group"
    fingerprint: str
    confirm: int

    @property
    def command(self) -> str:
        return f"%dbos resume --group {self.fingerprint} --confirm {self.confirm}"

    def perform(self, bench: Bench) -> Outcome:
        repair.resume_group(bench.source, self.fingerprint, confirm=self.confirm)
        return Outcome(f"Resumed {count(self.confirm, 'run')}.")


def guard(name: str) -> str:
    """The lines that keep runs in flight on their old path when a workflow changes."""
    return f"if DBOS.patch({json.dumps(name)}):\n    ...  # the new way\nelse:\n    ...  # the old way"


def runs(workflow_ids: tuple[str, ...]) -> str:
    """These runs, as people say it."""
    return short(workflow_ids[0]) if len(workflow_ids) == 1 else count(len(workflow_ids), "run")


def _quoted(text: str) -> str:
    return text if text.isidentifier() else json.dumps(text, ensure_ascii=False)
