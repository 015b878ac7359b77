"""What can be done with the chosen run: the buttons and the fields they take their values from."""

from __future__ import annotations

from typing import Any

from dbos_notebook.explore.actions import Cancel, Delete, Fork, Resume, Send, ToFrame
from dbos_notebook.explore.parts import Desk, Doer, area, bar, button, dropdown, offer, text
from dbos_notebook.explore.state import Detail, PickedStream, State, StepRow, Tailed, allowed
from dbos_notebook.views.html import line, look

# Numbers of steps begin at 1. None would be no choice at all, which a page shows as an empty field.
NONE = 0
STOPPED = ("where it stopped", NONE)
NO_STEP = ("no step", NONE)


class RunForms:
    """Fork, resume, cancel, delete and send, about the run that is shown."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._run_id: str | None = None
        self._make_fork()
        self.message = text("message", "literal, JSON or variable", "260px")
        self.topic = text("topic", "none", "150px")
        self.resume = Doer(desk, Resume, self._about(lambda run: Resume((run,))))
        self.cancel = Doer(desk, Cancel, self._about(lambda run: Cancel((run,))), style="warning")
        self.delete = Doer(desk, Delete, self._about(lambda run: Delete((run,))), style="danger")
        self.send = Doer(desk, Send, self._sending)
        for control in (self.start, self.code, self.replaced, self.by, self.message, self.topic):
            control.observe(lambda _: self._refresh(), names=["value"])
        self._is_allowed: frozenset[str] = frozenset()
        self.box = area(
            bar(self.resume.button, self.cancel.button, self.delete.button),
            bar(self.start, self.code),
            bar(self.replaced, self.by, self.fork.button),
            bar(self.message, self.topic, self.send.button),
        )

    def _make_fork(self) -> None:
        self.start = dropdown("fork from", [STOPPED], "270px")
        self.code = dropdown("code", [("newest of this notebook", True), ("same as the run", False)], "230px")
        self.replaced = dropdown("replace output of", [NO_STEP], "270px")
        self.by = text("with", "literal, JSON or variable", "230px")
        self.fork = Doer(self._desk, Fork, self._forking, style="primary")

    def _about(self, make: Any) -> Any:
        return lambda: None if self._run_id is None else make(self._run_id)

    def _forking(self) -> Fork | None:
        if self._run_id is None:
            return None
        start, replaced = self.start.value or None, self.replaced.value or None
        if replaced is not None and start is not None and replaced >= start:
            raise ValueError("an output can only be replaced of a step before the one to fork from")
        by = self.by.value if replaced is not None else ""
        return Fork(self._run_id, start, bool(self.code.value), replaced, by)

    def _sending(self) -> Send | None:
        if self._run_id is None or not self.message.value.strip():
            return None
        return Send(self._run_id, self.message.value, self.topic.value.strip())

    def draw(self, state: State) -> None:
        detail = state.detail
        self.box.layout.display = "none" if detail is None else None
        if detail is None:
            self._run_id, self._is_allowed = None, frozenset()
            return
        is_other = detail.run.workflow_id != self._run_id
        self._run_id, self._is_allowed = detail.run.workflow_id, allowed(detail.run.status)
        steps = [(_named(each), each.step) for each in detail.steps]
        offer(self.start, [STOPPED, *steps], NONE if is_other else self.start.value)
        done = [(_named(each), each.step) for each in detail.steps if each.status == "SUCCESS"]
        offer(self.replaced, [NO_STEP, *done], NONE if is_other else self.replaced.value)
        if is_other:
            self.by.value = self.message.value = self.topic.value = ""
        self._refresh()

    def _refresh(self) -> None:
        self.by.disabled = not self.replaced.value
        for doer, verb in (
            (self.fork, "Fork"),
            (self.resume, "Resume"),
            (self.cancel, "Cancel"),
            (self.delete, "Delete"),
            (self.send, "Send"),
        ):
            doer.refresh(verb in self._is_allowed)
        # Only what is typed is missing, and it comes in no message before the field is left: a click would be lost.
        self.send.button.disabled = "Send" not in self._is_allowed


class StreamForms:
    """Follow a stream, stop, and take it into the notebook."""

    def __init__(self, desk: Desk) -> None:
        self._detail: Detail | None = None
        self._key = ""
        self.key = dropdown("stream", [], "240px")
        self.tail = button("Tail", tooltip="Show new values as they come")
        self.stop = button("Stop", tooltip="Show no new values")
        self.variable = text("as", "name of a variable", "200px")
        self.variable.value = "stream"
        self.to_frame = Doer(desk, ToFrame, self._taking)
        desk.on_change(self.key, lambda key: PickedStream(key or ""))
        desk.on_click(self.tail, lambda: Tailed(on=True))
        desk.on_click(self.stop, lambda: Tailed(on=False))
        self.box = bar(self.key, self.tail, self.stop, self.variable, self.to_frame.button)

    def _taking(self) -> ToFrame | None:
        if self._detail is None or not self._key:
            return None
        return ToFrame(self._detail.run.workflow_id, self._key, self.variable.value.strip())

    def draw(self, state: State) -> None:
        self._detail = state.detail
        keys = () if state.detail is None else state.detail.streams
        self.box.layout.display = None if state.look.tab == "streams" and keys else "none"
        self._key = state.look.stream if state.look.stream in keys else next(iter(keys), "")
        offer(self.key, [(line(key, 40), key) for key in keys], self._key or None)
        self.tail.disabled, self.stop.disabled = state.look.is_tailing, not state.look.is_tailing
        run = self._key and state.detail and state.detail.run.workflow_id
        self.tail.tooltip = f"Show new values as they come. Same as: %dbos tail {run} {self._key}" if run else ""
        self.to_frame.refresh()


def _named(step: StepRow) -> str:
    return f"{step.step} {line(step.name, 28)} {look(step.status).glyph}"
