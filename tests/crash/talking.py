"""Programs that talk to each other and are killed at every moment: messages, events, streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbos import DBOS, SendMessage, SetWorkflowID
from dbos import error as dboserror
from dbos.testing import FakeClock, Ledger, use_clock
from tests.crash.scenarios import Act, ended
from tests.waiting import eventually


def conversation(ledger: Ledger) -> Act:
    """Two workflows send each other messages, one by one and many at once, and one of them to nobody."""

    @DBOS.step(name="think")
    def think(x: object) -> object:
        ledger.note()
        return x

    @DBOS.workflow(name="answers")
    def answers() -> list[object]:
        heard: list[object] = []
        for _ in range(2):
            heard.append(think(DBOS.recv("question", 60)))
            DBOS.send("asks", heard[-1], "answer")
        heard.extend(DBOS.recv(timeout_seconds=60) for _ in range(3))
        return heard

    @DBOS.workflow(name="asks")
    def asks() -> list[object]:
        heard: list[object] = []
        for number in range(2):
            DBOS.send("answers", number, "question")
            heard.append(DBOS.recv("answer", 60))
        DBOS.send_bulk([SendMessage("answers", number, idempotency_key=f"key-{number}") for number in range(3)])
        try:
            DBOS.send("nobody", 1)
        except dboserror.DBOSNonExistentWorkflowError as error:
            heard.append(str(error))
        return heard

    def act() -> object:
        handles = []
        for workflow_id, workflow in (("answers", answers), ("asks", asks)):
            with SetWorkflowID(workflow_id):
                handles.append(DBOS.start_workflow(workflow))
        return [handle.get_result() for handle in handles]

    return act


def silence(ledger: Ledger) -> Act:
    """Nobody says anything: a message and an event are waited for in vain."""

    @DBOS.step(name="give up")
    def give_up() -> int:
        ledger.note()
        return 1

    @DBOS.workflow(name="waits")
    def waits() -> list[object]:
        return [DBOS.recv("t", 10), DBOS.get_event("waits", "e", 10), DBOS.recv("t", 0), give_up()]

    def act() -> object:
        with SetWorkflowID("waits"):
            handle = DBOS.start_workflow(waits)
        for times in (1, 2):
            # Time stands still until the next wait has begun, so that every life gets as far as the others.
            eventually(lambda times=times: ended(handle) or sleeps("waits") >= times)  # type: ignore[misc]
            clock.advance(10)
        return handle.get_result()

    clock = FakeClock()
    use_clock(clock)
    return act


def sleeps(workflow_id: str) -> int:
    return sum(each["function_name"] == "DBOS.sleep" for each in DBOS.list_workflow_steps(workflow_id))


def events(ledger: Ledger) -> Act:
    """A workflow sets events, another waits for them, and a fork of the first has those of the steps it keeps."""

    @DBOS.step(name="measure")
    def measure(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="sets")
    def sets() -> None:
        DBOS.set_event("first", measure(1))
        DBOS.set_event("latest", measure(2))
        DBOS.set_event("latest", measure(3))

    @DBOS.workflow(name="gets")
    def gets() -> list[object]:
        found = [DBOS.get_event("sets", "first", 60)]
        DBOS.get_result("sets")
        return [*found, DBOS.get_event("sets", "latest"), DBOS.get_all_events("sets")]

    @DBOS.workflow(name="compares")
    def compares() -> list[object]:
        with SetWorkflowID("fork"):
            handle = DBOS.fork_workflow("sets", 5)
        handle.get_result()
        return [DBOS.get_all_events("sets"), DBOS.get_all_events("fork")]

    def act() -> object:
        with SetWorkflowID("gets"):
            getting = DBOS.start_workflow(gets)
        with SetWorkflowID("sets"):
            sets()
        with SetWorkflowID("compares"):
            return [getting.get_result(), compares()]

    return act


def streams(ledger: Ledger) -> Act:
    """A stream is written by a workflow and read by another as it comes; a second one never closes."""

    @DBOS.step(name="make")
    def make(x: int) -> int:
        ledger.note()
        return x

    @DBOS.workflow(name="writes")
    def writes() -> str:
        for number in range(3):
            DBOS.write_stream("closed", make(number))
            DBOS.write_stream("open", number)
        DBOS.close_stream("closed")
        try:
            DBOS.write_stream("closed", 3)
        except dboserror.DBOSException as error:
            return str(error)
        return "written"

    @DBOS.workflow(name="reads")
    def reads() -> list[object]:
        return [list(DBOS.read_stream("writes", key)) for key in ("closed", "open")]

    def act() -> object:
        with SetWorkflowID("writes"):
            DBOS.start_workflow(writes)
        with SetWorkflowID("reads"):
            return reads()

    return act


def gathered_talk(ledger: Ledger) -> Act:
    """Async writes, events and messages all at once: what is there at the end is there once."""

    @DBOS.workflow(name="talks")
    async def talks() -> list[object]:
        await asyncio.gather(
            *(DBOS.write_stream_async("k", number) for number in range(4)),
            *(DBOS.set_event_async(f"e{number}", number) for number in range(3)),
            *(DBOS.send_async("talks", "word") for _ in range(3)),
        )
        heard = [await DBOS.recv_async(timeout_seconds=0) for _ in range(4)]
        return [heard, await DBOS.get_all_events_async("talks")]

    @DBOS.step(name="count")
    async def count() -> list[object]:
        # In a step and sorted: which value comes first is chance, also from life to life.
        return sorted([value async for value in DBOS.read_stream_async("talks", "k")])

    @DBOS.workflow(name="counts")
    async def counts() -> list[object]:
        return await count()

    async def run() -> object:
        with SetWorkflowID("talks"):
            handle = await DBOS.start_workflow_async(talks)
        await handle.get_result()
        with SetWorkflowID("counts"):
            counting = await DBOS.start_workflow_async(counts)
        return await counting.get_result()

    return lambda: asyncio.run(run())


TALKING: dict[str, Callable[[Ledger], Act]] = {
    each.__name__: each for each in (conversation, silence, events, streams, gathered_talk)
}
