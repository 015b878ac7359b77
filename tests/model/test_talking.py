"""Any order of messages, events and places on queues, with deaths, forks and cancellations between them.

The machine of `machine.py` with further acts (`acts.talks`) and the reference of `talking.py`. Time passes from one
moment to the next at which something happens by itself, so that two of them never meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis.stateful import initialize, invariant, rule

from dbos import DBOS, Queue, SetEnqueueOptions, SetWorkflowID, WorkflowHandle
from tests.compat.acts import beside
from tests.conftest import App
from tests.model.acts import Act, letters, orders, talking_beginnings, talks
from tests.model.laws import TalkingLaws
from tests.model.machine import PATIENCE_SECONDS, Statuses, walk
from tests.model.programs import Program, Turnstile
from tests.model.scripts import TALKING
from tests.model.talking import TalkingReference

#: A queue, a priority, a deduplication id, a partition.
Place = tuple[str, int | None, str | None, str | None]
#: An id, the name of a script, a place and a delay; and a topic with a key.
Order = tuple[str, str, Place, float | None]
Letter = tuple[str, str | None]
# Longer than any example lasts: who waits for an event outside of workflows waits until it is set.
FOREVER_SECONDS = 10_000_000


class Talks(Statuses):
    """One program whose workflows talk and use queues, and its users."""

    reference: TalkingReference
    laws: TalkingLaws

    def __init__(self, app: App, clear: Callable[[], None], program: Program) -> None:
        super().__init__(app, clear, program)
        self.queues = program.queues

    @initialize(beginnings=talking_beginnings, orders=orders, letters=letters)
    def launch_and_talk(
        self, beginnings: list[tuple[str, int | None, int]], orders: list[Order], letters: list[Letter]
    ) -> None:
        """With some that wait on queues, and something to read for a listener."""
        self.numbers = itertools.count()
        self.awaited_events: list[tuple[Future[Any], str, str]] = []
        self.launch([("listener", None, 0), *beginnings])
        self.enqueue_several(orders)
        self.send_several("a", letters)
        self.go_on("a", 2)

    def launch(self, beginnings: list[tuple[str, int | None, int]]) -> None:
        super().launch(beginnings)

    def new_reference(self) -> None:
        self.reference, self.laws = TalkingReference(self.clock.now_ms()), TalkingLaws()

    @rule(act=talks)
    def do(self, act: Act) -> None:
        self.pass_time(0.001)  # nothing is enqueued in the same millisecond as something else
        super().do(act)

    def go_on(self, workflow_id: str, most: int) -> None:
        for _ in range(most):
            self.pass_time(0.001)
            super().go_on(workflow_id, 1)
            self.all_is_as_the_reference_says()  # what it tells others is told before they are started, or gone

    # -- queues ------------------------------------------------------------------------------------------------

    def enqueue_several(self, orders: list[Order]) -> None:
        for order in orders:
            self.pass_time(0.001)
            self.enqueue(*order)
            self.all_is_as_the_reference_says()

    def serve(self, queue: str) -> None:
        """Let what runs from a queue go on."""
        for each in list(self.reference.workflows.values()):
            if (each.queue, each.status) == (queue, "PENDING"):
                self.go_on(each.workflow_id, 4)

    def enqueue(self, workflow_id: str, name: str, place: Place, delay: float | None) -> None:
        queue, priority, deduplication_id, partition = place

        def done() -> WorkflowHandle[Any]:
            options = SetEnqueueOptions(
                priority=priority,
                deduplication_id=deduplication_id,
                queue_partition_key=partition,
                delay_seconds=delay,
            )
            with SetWorkflowID(workflow_id), options:
                return self.queues[queue].enqueue(self.functions[name])

        def planned() -> bool:
            return self.reference.enqueue(workflow_id, name, queue, priority, deduplication_id, partition, delay)

        is_new, handle = self.agree(planned, done)
        self.reference.settle()
        if is_new and delay is None:
            self.laws.note_enqueued(workflow_id, queue, partition, priority)
        assert handle is None or workflow_id == handle.workflow_id

    # -- messages and events -----------------------------------------------------------------------------------

    def send_several(self, workflow_id: str, letters: list[Letter]) -> None:
        for topic, key in letters:
            self.send(workflow_id, topic, key)

    def send(self, workflow_id: str, topic: str, key: str | None) -> None:
        text = f"# {topic} {next(self.numbers)}"
        self.agree(
            lambda: self.reference.send(workflow_id, text, topic, key),
            lambda: DBOS.send(workflow_id, text, topic, idempotency_key=key),
        )

    def wait_for_event(self, workflow_id: str, key: str) -> None:
        self.awaited_events.append((beside(DBOS.get_event, workflow_id, key, FOREVER_SECONDS), workflow_id, key))

    # -- time, and death ---------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """From each moment at which something happens by itself to the next."""
        last_ms = self.reference.now_ms + int(seconds * 1000)
        while (moment := self.reference.next_moment(last_ms)) is not None:
            super().pass_time((moment - self.reference.now_ms) / 1000)
            self.all_is_as_the_reference_says()
        super().pass_time((last_ms - self.reference.now_ms) / 1000)

    def die_and_relaunch(self, seconds: float) -> None:
        self.awaited_events.clear()
        super().die_and_relaunch(seconds)

    # -- what holds after each of them -------------------------------------------------------------------------

    @invariant()
    def events_have_their_latest_values(self) -> None:
        for each in self.reference.workflows:
            assert self.reference.events(each) == DBOS.get_all_events(each)

    @invariant()
    def who_waits_for_an_event_is_told(self) -> None:
        still = []
        for waiter, workflow_id, key in self.awaited_events:
            expected = self.reference.events(workflow_id).get(key)
            if expected is None:
                assert not waiter.done()
                still.append((waiter, workflow_id, key))
            else:
                assert expected == waiter.result(PATIENCE_SECONDS)
        self.awaited_events = still


@pytest.mark.timeout(900)  # for the minutes in which a failure is made small
def test_any_order_of_acts(app: App, clear: Callable[[], None]) -> None:
    queues = [
        Queue("serial", concurrency=1),
        Queue("ranked", concurrency=1, priority_enabled=True),
        Queue("parted", concurrency=1, partition_queue=True),
    ]
    program = Program(Turnstile(), TALKING, queues)
    walk(lambda: Talks(app, clear, program), examples=40)
