"""Signed values are bound to their place: what is copied is signed anew, and what is moved by somebody else is refused."""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import (
    DBOS,
    AsyncSQLAlchemyDatasource,
    DBOSClient,
    Debouncer,
    PortableWorkflowError,
    Queue,
    Serializer,
    SetWorkflowID,
    SignedSerializer,
    SQLAlchemyDatasource,
    extension,
)
from dbos.error import DBOSException, DBOSSerializationError
from dbos.extension import Slot
from dbos.testing import FakeClock
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

SIGNED = SignedSerializer({"k1": b"old-canary-" * 4}, application="test-app")
OTHER = SignedSerializer({"k1": b"new-canary-" * 4}, application="test-app")
caught: list[str] = []


@pytest.fixture(autouse=True)
def nobody_caught() -> None:
    caught.clear()


def catch(word: str) -> str:
    caught.append(word)
    return word


class Trap:
    """Whoever unpickles it is caught with its word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __reduce__(self) -> Any:
        return (catch, (self.word,))


# -- what is copied --------------------------------------------------------------------------------------------


# What the program below comes to, in the order of its list.
X = {"a": (1,)}
OUTPUTS = [[X], {"inside"}, ("apart",), {"child": X}, {"child": X}, {"child": 7}]
EXPECTED = [*OUTPUTS, {"message"}, None, X, None, {"e": X}, [X], ["no", "nothing"]]


def defined_child(hand: Hand) -> Any:
    @hand.workflow(name="child")
    async def child(do: Inside, x: Any) -> Any:
        if x is None:
            raise ValueError("nothing")
        return {"child": x}

    return child


class Program:
    """A workflow that gets values in all the ways there are; and how often its step was done."""

    def __init__(self, hand: Hand, source: Any) -> None:
        self.done = 0
        queue, child = Queue("queue"), defined_child(hand)

        @hand.step(name="work")
        def work(x: Any) -> Any:
            self.done += 1
            return [x]

        @hand.step(name="fails")
        def fails() -> None:
            raise ValueError("no")

        @DBOS.transaction(name="inside")
        def inside(x: Any) -> Any:
            return {x}

        @source.transaction(name="apart")
        @hand.function
        async def apart(do: Inside, x: Any) -> Any:
            return (x,)

        @hand.workflow(name="whole")
        async def whole(do: Inside, x: Any) -> Any:
            me = str(DBOS.workflow_id)
            await do.set_event("e", x)
            await do.write_stream("t", x)
            await do.write_stream("t", [x])
            await do.close_stream("t")
            told = []
            for attempt in (fails, lambda: child(None)):
                try:
                    await do(attempt())
                except ValueError as error:
                    told.append(str(error))
            beside = await do.start(child, x)
            queued = await do.enqueue_workflow(queue.name, child, 7)
            got = [
                await do(work(x)),
                inside("inside"),
                await do(apart("apart")),
                await do(child(x)),
                await do(beside.get_result()),
                await do(queued.get_result()),
                await do.recv("topic", 10),
                await do.recv(None, 0),
                await do.get_event(me, "e", 0),
                await do.get_event(me, "never", 0),
                await do.get_all_events(me),
                await do.read_stream_offset(me, "t", 1),
                told,
            ]
            await do(work("last"))
            return got

        self.workflow = whole

    def play(self, hand: Hand) -> Any:
        with SetWorkflowID("w"):
            handle = hand.start(self.workflow, X)
        hand.do("send", "w", {"message"}, "topic")
        return handle.result()


@pytest.fixture
def program(hand: Hand, tmp_path: Path) -> Iterator[Program]:
    url = f"sqlite:///{tmp_path}/app.sqlite"
    make = AsyncSQLAlchemyDatasource.create if hand.is_async else SQLAlchemyDatasource.create
    source: Any = hand.call(make, url)
    yield Program(hand, source)
    DBOS.destroy()
    hand.call(source.close)


def ensure_readable(workflow_id: str) -> None:
    """Whatever a workflow has can be read; a listing shows the text of what cannot."""
    (status,) = DBOS.list_workflows(workflow_ids=[workflow_id])
    steps = DBOS.list_workflow_steps(workflow_id)
    assert 20 < len(steps)
    assert "k1:" not in repr([status.input, status.output, status.error, steps])
    assert {"e": X} == DBOS.get_all_events(workflow_id)
    assert [X, [X]] == list(DBOS.read_stream(workflow_id, "t"))


def test_what_is_recorded_is_read_after_a_crash(app: App, hand: Hand, rows: Rows, program: Program) -> None:
    app.launch(serializer=SIGNED)
    assert EXPECTED == program.play(hand)
    rows.interrupt("w")
    app.restart(serializer=SIGNED)

    assert EXPECTED == hand.do("retrieve_workflow", "w").result()
    assert 2 == program.done
    ensure_readable("w")


def test_a_fork_has_the_values_of_its_original(app: App, hand: Hand, program: Program) -> None:
    app.launch(serializer=SIGNED)
    program.play(hand)
    fork = hand.do("fork_workflow", "w", 99)
    of_fork = hand.do("fork_workflow", fork.workflow_id, 99)
    work = next(s["function_id"] for s in DBOS.list_workflow_steps("w") if s["function_name"] == "work")
    changed = hand.do("fork_workflow", "w", 99, replacement_outputs={work: "changed"})

    assert EXPECTED == fork.result() == of_fork.result()
    assert ["changed", *EXPECTED[1:]] == changed.result()
    assert 2 == program.done
    for each in ("w", fork.workflow_id, of_fork.workflow_id, changed.workflow_id):
        ensure_readable(each)


def test_a_long_workflow_is_signed_page_by_page(app: App, hand: Hand) -> None:
    @hand.workflow(name="long")
    async def long(do: Inside) -> None:
        for number in range(600):
            await do.write_stream("t", {number})

    app.launch(serializer=SIGNED)
    with SetWorkflowID("w"):
        hand.call(long)
    fork = hand.do("fork_workflow", "w", 601)
    fork.result()

    assert [{number} for number in range(600)] == list(DBOS.read_stream(fork.workflow_id, "t"))
    assert "k1:" not in repr(DBOS.list_workflow_steps(fork.workflow_id))


def test_a_rewound_workflow_keeps_what_it_received(app: App, hand: Hand, rows: Rows, program: Program) -> None:
    app.launch(serializer=SIGNED)
    program.play(hand)
    last = max(step["function_id"] for step in DBOS.list_workflow_steps("w"))
    handle = hand.do("rewind_workflow", "w", start_step=last)

    assert EXPECTED == handle.result()
    assert 3 == program.done
    assert [True] == [each.consumed for each in DBOS.list_messages(["w"])]
    ensure_readable("w")


def test_copies_of_an_archive_are_signed_anew(app: App, hand: Hand, program: Program) -> None:
    app.launch(serializer=SIGNED)
    program.play(hand)
    archive = io.StringIO()
    DBOS.export_workflows(archive, ["w"])
    copies = DBOS.import_workflows(io.StringIO(archive.getvalue()), new_ids=True)
    (copy,) = (each for each in copies if DBOS.retrieve_workflow(each).get_status().name == "whole")
    (again,) = [DBOS.fork_workflow(copy, 99)]

    assert EXPECTED == DBOS.retrieve_workflow(copy).get_result() == again.get_result()
    ensure_readable(copy)
    ensure_readable(again.workflow_id)


@pytest.mark.parametrize("serializer", [None, OTHER], ids=["no keys", "other keys"])
def test_without_the_keys_nothing_is_copied(app: App, hand: Hand, program: Program, serializer: Serializer) -> None:
    app.launch(serializer=SIGNED)
    program.play(hand)
    archive = io.StringIO()
    DBOS.export_workflows(archive, ["w"])
    before = {each.workflow_id for each in DBOS.list_workflows()}

    with DBOSClient(system_database_url=app.database, serializer=serializer) as client:
        with pytest.raises(DBOSException, match=r"line 2 .* values are signed"):
            client.import_workflows(io.StringIO(archive.getvalue()), new_ids=True)
        if serializer is None:
            with pytest.raises(DBOSSerializationError, match="signed_py_pickle is not available"):
                client.fork_workflow("w", 99)
            with pytest.raises(DBOSSerializationError, match="signed_py_pickle is not available"):
                client.rewind_workflow("w", start_step=99)

    assert before == {each.workflow_id for each in DBOS.list_workflows()}


def test_a_burst_has_the_inputs_of_its_last_call(app: App, hand: Hand, clock: FakeClock) -> None:
    @hand.workflow(name="work")
    async def work(do: Inside, x: Any) -> Any:
        return x

    app.launch(serializer=SIGNED)
    debouncer: Any = (Debouncer.create_async if hand.is_async else Debouncer.create)(work)
    debounce = debouncer.debounce_async if hand.is_async else debouncer.debounce
    handles = [hand.call(debounce, "key", 10, {n}) for n in range(3)]
    clock.wait_for_sleeper(clock.now_ms() + 10_000)
    clock.advance(10)

    assert {2} == hand.call(handles[0].get_result)


def test_a_message_to_all_forks_is_one_for_each(app: App, hand: Hand) -> None:
    @hand.workflow(name="receives")
    async def receives(do: Inside) -> Any:
        return await do.recv("topic", 10)

    app.launch(serializer=SIGNED)
    with SetWorkflowID("w"):
        handle = hand.start(receives)
    fork = hand.do("fork_workflow", "w", 1)
    hand.do("send", "w", {"x"}, "topic", send_to_forks=True)

    assert {"x"} == handle.result() == fork.result()


def test_a_schedule_gives_its_context(app: App, hand: Hand) -> None:
    app.launch(serializer=SIGNED)

    @hand.workflow(name="scheduled")
    async def scheduled(do: Inside, moment: Any, context: Any) -> Any:
        return context

    hand.do("create_schedule", schedule_name="one", workflow_fn=scheduled, schedule="0 0 1 1 *", context={"x"})

    assert {"x"} == hand.do("trigger_schedule", "one").result()
    assert {"x"} == hand.do("get_schedule", "one")["context"]


def test_code_is_tried_on_signed_records(app: App, hand: Hand, program: Program) -> None:
    app.launch(serializer=SIGNED)
    program.play(hand)
    records = extension.Records(None, catch)

    assert extension.rehearse("w", None, records, outputs={1: None}).fits
    (stored,) = DBOS.list_values(["w"])
    assert stored.output is not None
    assert stored.output.startswith("k1:")
    assert isinstance(records.value(stored.output, stored.serialization, Slot.output("w")), list)
    trap = base64.b64encode(pickle.dumps(Trap("somebody else's"))).decode()
    for text, name in ((trap, "py_pickle"), (stored.output, stored.serialization)):
        with pytest.raises(DBOSSerializationError):
            records.value(text, name, Slot.output("another"))
    assert [] == caught


# -- what somebody else moves ----------------------------------------------------------------------------------


def play_traps(hand: Hand, rows: Rows) -> None:
    """Two workflows, "a" and "b", and two schedules, "one" and "two", whose values are traps; "c" is to receive one."""

    @hand.step(name="make")
    def make(word: str) -> Trap:
        return Trap(word)

    @hand.workflow(name="traps")
    async def traps(do: Inside, *args: Any) -> Any:
        for key in ("e", "f"):
            await do.set_event(key, Trap("event"))
            await do.write_stream(key, Trap("value"))
        await do(make("step"))
        await do(make("step"))
        return Trap("output")

    @hand.workflow(name="receives")
    async def receives(do: Inside) -> Any:
        return await do.recv("topic", 0)

    for workflow_id in ("a", "b"):
        with SetWorkflowID(workflow_id):
            hand.start(traps, Trap("inputs")).result()
    rows.add("c", "receives", status="CANCELLED")
    hand.do("send", "a", Trap("message"), "topic")
    hand.do("send", "c", Trap("message"), "another")
    for name in ("one", "two"):
        context = Trap("context")
        hand.do("create_schedule", schedule_name=name, workflow_fn=traps, schedule="0 0 1 1 *", context=context)


def again(app: App, hand: Hand, rows: Rows) -> Any:
    rows.interrupt("a")
    app.restart(serializer=SIGNED)
    return hand.do("retrieve_workflow", "a").result()


def result(app: App, hand: Hand, rows: Rows) -> Any:
    app.restart(serializer=SIGNED)
    return hand.do("retrieve_workflow", "a").result()


def event(app: App, hand: Hand, rows: Rows) -> Any:
    return hand.do("get_event", "a", "e", 0)


def events(app: App, hand: Hand, rows: Rows) -> Any:
    return hand.do("get_all_events", "a")


def stream(app: App, hand: Hand, rows: Rows) -> Any:
    return list(DBOS.read_stream("a", "e"))


def received(app: App, hand: Hand, rows: Rows) -> Any:
    return hand.do("resume_workflow", "c").result()


def triggered(app: App, hand: Hand, rows: Rows) -> Any:
    return hand.do("trigger_schedule", "one")


def put(table: str, column: str, where: str, table_from: str, column_from: str, where_from: str) -> str:
    value = f"(SELECT {column_from} FROM {{}}{table_from} WHERE {where_from})"
    return f"UPDATE {{}}{table} SET {column} = {value} WHERE {where}"


STATUS, STEPS, EVENTS, STREAMS = "workflow_status", "operation_outputs", "workflow_events", "streams"
A, B = "workflow_uuid = 'a'", "workflow_uuid = 'b'"
STEP = f"{A} AND function_id = 5"
SCHEDULES, ONE, TWO = "workflow_schedules", "schedule_name = 'one'", "schedule_name = 'two'"
MESSAGES = "UPDATE {}notifications SET"
FAILED = "status = 'ERROR', output = NULL, error"


def by_key(table: str, key: str, table_from: str, workflow_id: str, key_from: str) -> str:
    """Put one event or stream value of "a" in place of another one, or of another workflow's."""
    where, where_from = f"{A} AND key = '{key}'", f"workflow_uuid = '{workflow_id}' AND key = '{key_from}'"
    return put(table, "value", where, table_from, "value", where_from)


# What is put in another's place: the word of its trap, how it gets there, and who reads it then.
ATTACKS: dict[str, tuple[str, str, Callable[[App, Hand, Rows], Any]]] = {
    "another step": ("step", put(STEPS, "output", STEP, STEPS, "output", f"{A} AND function_id = 6"), again),
    "another's step": ("step", put(STEPS, "output", STEP, STEPS, "output", f"{B} AND function_id = 5"), again),
    "output as step": ("output", put(STEPS, "output", STEP, STATUS, "output", A), again),
    "step as its error": ("step", put(STEPS, "output = NULL, error", STEP, STEPS, "output", STEP), again),
    "another's inputs": ("inputs", put(STATUS, "inputs", A, STATUS, "inputs", B), again),
    "output as inputs": ("output", put(STATUS, "inputs", A, STATUS, "output", A), again),
    "another's output": ("output", put(STATUS, "output", A, STATUS, "output", B), result),
    "step as output": ("step", put(STATUS, "output", A, STEPS, "output", STEP), result),
    "output as error": ("output", put(STATUS, FAILED, A, STATUS, "output", A), result),
    "another event": ("event", by_key(EVENTS, "e", EVENTS, "a", "f"), event),
    "another's event": ("event", by_key(EVENTS, "e", EVENTS, "b", "e"), events),
    "another stream": ("value", by_key(STREAMS, "e", STREAMS, "a", "f"), stream),
    "event in a stream": ("event", by_key(STREAMS, "e", EVENTS, "a", "e"), stream),
    "another's message": ("message", f"{MESSAGES} destination_uuid = 'c' WHERE destination_uuid = 'a'", received),
    "another topic": ("message", f"{MESSAGES} topic = 'topic' WHERE destination_uuid = 'c'", received),
    "another schedule": ("context", put(SCHEDULES, "context", ONE, SCHEDULES, "context", TWO), triggered),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_value_of_another_place_is_refused_before_it_is_read(app: App, hand: Hand, rows: Rows, attack: str) -> None:
    word, statement, look = ATTACKS[attack]
    app.launch(serializer=SIGNED)
    play_traps(hand, rows)
    caught.clear()
    rows.run(statement)

    with pytest.raises((DBOSSerializationError, PortableWorkflowError), match="signed for another place"):
        look(app, hand, rows)
    assert word not in caught


def test_a_copy_makes_nothing_valid(app: App, hand: Hand, rows: Rows) -> None:
    """A fork copies what was put in another's place, and neither of them reads it."""
    app.launch(serializer=SIGNED)
    play_traps(hand, rows)
    caught.clear()
    rows.run(put(STEPS, "output", STEP, STEPS, "output", f"{B} AND function_id = 5"))

    with pytest.raises(DBOSSerializationError, match="signed for another place"):
        hand.do("fork_workflow", "a", 99).result()
    assert "step" not in caught
