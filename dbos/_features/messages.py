"""Messages to workflows: send and recv.

A message is sent exactly once: the record of the sending step and the message are one commit. It is taken exactly
once: the oldest unread message of a topic is marked and becomes the record of the receiving step in one commit, and
only the run that owns the workflow can do so. That commit is handed over, so an answer that is sent at once goes with
it. A message is kept, marked as consumed. Waiting is the bell's business.

A message that nobody can read is taken like any other, and `recv` raises: the next `recv` gets the next message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, Text, bindparam, exists, literal_column, or_, select, true, update

from dbos._kernel.codec import WorkflowSerializationFormat
from dbos._kernel.journal import (
    RECORD,
    STANDING,
    answer,
    check_standing,
    commit,
    ensure_running,
    explain_refusal,
    held,
    is_recorded,
    promise,
    put_in_turn,
    record,
    record_error,
    record_statement,
    record_value,
    refuse_in_transaction,
    replay,
    reread,
)
from dbos._kernel.naming import checked_id, new_id, pairs_in
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.slot import Slot
from dbos._kernel.statement import Entry, kind, statement
from dbos._kernel.waiting import checked_timeout, wait_until, waking_moment
from dbos.error import DBOSConcurrentReceiveError, DBOSException, DBOSNonExistentWorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.job import Put
    from dbos._kernel.schema import Tables
    from dbos._kernel.scope import Run
    from dbos._kernel.statement import Conn, Row

SEND_NAME, SEND_BULK_NAME, RECV_NAME = "DBOS.send", "DBOS.send_bulk", "DBOS.recv"
# How a message without a topic is stored.
NO_TOPIC = "__null__topic__"


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A message for `send_bulk`."""

    destination_id: str
    message: Any
    topic: str | None = None
    #: The message is sent once to its destination, however often it is sent with this key.
    idempotency_key: str | None = None


class Letter(NamedTuple):
    """A message as it is stored, in the order of SEND's columns."""

    message_uuid: str
    destination_uuid: str
    topic: str
    message: str
    serialization: str | None
    #: The sending workflow and its owner, by whose right it is sent.
    guard_id: str | None
    guard_owner: str | None

    @property
    def channel(self) -> Channel:
        return message_for(self.destination_uuid, self.topic)


def message_for(workflow_id: str, topic: str) -> Channel:
    """Rung when a message of that topic is sent to that workflow; the trigger on Postgres says the same."""
    return ("message", f"{workflow_id}::{topic}")


# -- statements ------------------------------------------------------------------------------------------------


def _exists(t: Tables, workflow_id: ColumnElement[Any]) -> ColumnElement[bool]:
    return exists(select(literal_column("1")).select_from(t.status).where(t.status.c.workflow_uuid == workflow_id))


@kind(2, rank=1, **RECORD.columns, destination=Text())
def RECORD_SEND(t: Tables, given: FromClause) -> Executable:
    """Record that a workflow sent a message, if there is somebody to send it to."""
    return record_statement(t, given, _exists(t, given.c.destination), holds=True)


@kind(
    1,
    rank=2,
    message_uuid=Text(),
    destination_uuid=Text(),
    topic=Text(),
    message=Text(),
    serialization=Text(),
    guard_id=Text(),
    guard_owner=Text(),
)
def SEND(t: Tables, given: FromClause) -> Executable:
    """A message for a workflow that exists, unless it was sent before; its time is the database's."""
    columns = [name for name in SEND.names if not name.startswith("guard_")]
    allowed = or_(given.c.guard_id.is_(None), held(t, given.c.guard_id, given.c.guard_owner))
    source = select(*(given.c[name] for name in columns)).where(_exists(t, given.c.destination_uuid), allowed)
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.messages)
        .from_select(columns, source)
        .on_conflict_do_nothing()
        .returning(t.messages.c.message_uuid)
    )


@statement
def RECORD_BULK(t: Tables) -> Executable:
    """Record the sending of many messages."""
    return record_statement(t, t.dialect.rows(RECORD.columns, many=True), holds=True)


@statement
def SEND_MANY(t: Tables) -> Executable:
    """Many messages at once."""
    return SEND.build(t, t.dialect.rows(SEND.columns, many=True))


@statement
def SENT(t: Tables) -> Executable:
    return select(t.messages.c.message_uuid).where(t.messages.c.message_uuid == bindparam("message_id"))


@statement
def ADDRESSEES(t: Tables) -> Executable:
    """Which of these ids are of workflows."""
    return select(t.status.c.workflow_uuid).where(t.dialect.among(t.status.c.workflow_uuid, "workflow_ids"))


@statement
def FORKS(t: Tables) -> Executable:
    """What was forked from these workflows."""
    c = t.status.c
    return select(c.workflow_uuid, c.forked_from).where(t.dialect.among(c.forked_from, "workflow_ids"))


@statement
def OLDEST(t: Tables) -> Executable:
    """The next messages of a topic."""
    c = t.messages.c
    return (
        select(c.message_uuid, c.message, c.serialization)
        .where(c.destination_uuid == bindparam("workflow_id"), c.topic == bindparam("topic"), ~c.consumed)
        .order_by(c.created_at_epoch_ms, t.dialect.arrival(t.messages), c.message_uuid)
        .limit(bindparam("most", type_=Integer()))
    )


@statement
def UNREAD(t: Tables) -> Executable:
    """Which of these workflows have a message of which topic."""
    c = t.messages.c
    given = t.dialect.rows({"workflow_id": Text(), "topic": Text()}, many=True)
    unread: Select[Any] = select(literal_column("1")).where(
        c.destination_uuid == given.c.workflow_id, c.topic == given.c.topic, ~c.consumed
    )
    return select(given.c.workflow_id, given.c.topic).where(exists(unread))


@kind(2, rank=1, **RECORD.columns, message_uuid=Text())
def RECORD_RECV(t: Tables, given: FromClause) -> Executable:
    """Record a message as what a workflow received, if nobody received it yet."""
    c = t.messages.c
    unread = exists(select(literal_column("1")).where(c.message_uuid == given.c.message_uuid, ~c.consumed))
    return record_statement(t, given, unread, holds=True)


@kind(1, rank=2, message_uuid=Text(), workflow_uuid=Text(), function_id=Integer(), owner=Text())
def CONSUME(t: Tables, given: FromClause) -> Executable:
    """Mark the message that a workflow has on record."""
    c, step = t.messages.c, t.steps.c
    on_record: Select[Any] = select(literal_column("1")).where(
        step.workflow_uuid == given.c.workflow_uuid, step.function_id == given.c.function_id
    )
    return (
        update(t.messages)
        .values(consumed=true())
        .where(
            c.message_uuid == given.c.message_uuid,
            exists(on_record),
            held(t, given.c.workflow_uuid, given.c.owner),
        )
        .returning(c.message_uuid)
    )


def look_for_messages(conn: Conn, keys: list[str]) -> list[str]:
    """Those who wait for a message and have one."""
    pairs = [pair for key in keys for pair in pairs_in(key)]
    return [f"{row.workflow_id}::{row.topic}" for row in conn.run(UNREAD, rows=_rows(pairs))]


# -- send ------------------------------------------------------------------------------------------------------


def _letter(here: Here, wanted: SendMessage, choice: WorkflowSerializationFormat | None, fresh_id: str) -> Letter:
    """The message as it will be stored. Raises for names and values that cannot be."""
    destination = checked_id(wanted.destination_id, "A destination workflow ID")
    topic = NO_TOPIC if wanted.topic is None else checked_id(wanted.topic, "A topic")
    serializer = here.serializer(choice)
    text = here.ground.codec.encode(wanted.message, serializer, Slot.message(destination, topic), "a message")
    run = here.run
    return Letter(
        fresh_id if wanted.idempotency_key is None else _keyed_id(wanted.idempotency_key, destination),
        destination,
        topic,
        text,
        serializer.name(),
        None if run is None else run.workflow_id,
        None if run is None else run.owner,
    )


def _keyed_id(key: str, destination: str) -> str:
    return f"{checked_id(key, 'An idempotency key')}::{destination}"


@op(SEND_NAME)
async def send(
    here: Here,
    destination_id: str,
    message: Any,
    topic: str | None = None,
    *,
    idempotency_key: str | None = None,
    serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
    send_to_forks: bool = False,
) -> None:
    """Send a message to a workflow, which takes it with `recv`, now or later.

    From a workflow it is sent exactly once. Elsewhere give an `idempotency_key`: a message is sent to a destination
    once, however often it is sent with the same key. `send_to_forks` sends it to all forks of the workflow too.
    Raises DBOSNonExistentWorkflowError if there is no such workflow; one that has ended never takes it.
    """
    refuse_in_transaction(here, SEND_NAME)
    wanted = SendMessage(destination_id, message, topic, idempotency_key)
    if send_to_forks:
        await _post(here, SEND_NAME, [wanted], serialization_type, send_to_forks=True)
    elif here.in_body:
        await _send_as_step(here, wanted, serialization_type)
    else:
        await _send_directly(here, _letter(here, wanted, serialization_type, new_id()))


async def _send_as_step(here: Here, wanted: SendMessage, choice: WorkflowSerializationFormat | None) -> None:
    run = here.run
    assert run is not None
    step_id = run.next_step()
    found = replay(run, step_id, SEND_NAME)
    if found is not None:
        answer(run, found)
        return
    # Nobody sees the message before what was recorded earlier: it is written after that, or together with it.
    await ensure_running(run, settles=False)
    started_ms = here.ground.clock.now_ms()
    letter = _letter(here, wanted, choice, new_id())
    step = Entry(RECORD_SEND, (*record(run, step_id, SEND_NAME, started_ms=started_ms).row, letter.destination_uuid))
    recorded, _ = await put_in_turn(here, step, Entry(SEND, letter), rings=[letter.channel])
    if not recorded and not await is_recorded(run, step):
        error = DBOSNonExistentWorkflowError("send", letter.destination_uuid)
        await record_error(here, step_id, SEND_NAME, error, started_ms)
        raise error
    run.confirm()


async def _send_directly(here: Here, letter: Letter) -> None:
    """Send from a step, or from outside of any workflow."""
    (sent,) = await here.put(Entry(SEND, letter), rings=[letter.channel])
    if sent:
        return
    await _ensure_allowed(here)
    if not await here.read(lambda conn: conn.run(SENT, message_id=letter.message_uuid)):
        raise DBOSNonExistentWorkflowError("send", letter.destination_uuid)


async def _ensure_allowed(here: Here) -> None:
    """Raise if the workflow, from a step of which something was sent, was cancelled or taken over."""
    run = here.run
    if run is not None:
        check_standing(run, await here.read(lambda conn: conn.first(STANDING, workflow_id=run.workflow_id, step_id=0)))


# -- many at once ----------------------------------------------------------------------------------------------


@op(SEND_BULK_NAME)
async def send_bulk(
    here: Here,
    messages: list[SendMessage],
    *,
    serialization_type: WorkflowSerializationFormat | None = WorkflowSerializationFormat.DEFAULT,
    send_to_forks: bool = False,
) -> None:
    """Send several messages, all or (if one cannot be sent) none, in their order; see `send`."""
    refuse_in_transaction(here, SEND_BULK_NAME)
    await _post(here, SEND_BULK_NAME, list(messages), serialization_type, send_to_forks=send_to_forks)


class Posted(NamedTuple):
    """What became of a posting."""

    missing: list[str]
    #: False: the step was not recorded, or nothing was sent.
    done: bool


async def _post(
    here: Here,
    name: str,
    wanted: list[SendMessage],
    choice: WorkflowSerializationFormat | None,
    *,
    send_to_forks: bool,
) -> None:
    """Send all of these in one transaction, with the record of the step where it is one."""
    run, step_id = here.run, 0
    if here.in_body:
        assert run is not None
        step_id = run.next_step()
        found = replay(run, step_id, name)
        if found is not None:
            answer(run, found)
            return
        await ensure_running(run)
    started_ms = here.ground.clock.now_ms()
    base = new_id()
    letters = [_letter(here, each, choice, f"{base}-{number:06}") for number, each in enumerate(wanted)]
    keys = [each.idempotency_key for each in wanted]
    step = None if run is None or not here.in_body else record(run, step_id, name, started_ms=started_ms)
    rings: list[Channel] = []

    def work(conn: Conn) -> Posted:
        missing = _missing(conn, letters)
        if missing:
            return Posted(missing, done=False)
        posted = [*letters, *(_to_forks(here, conn, letters, keys) if send_to_forks else ())]
        rings[:] = [letter.channel for letter in posted]
        # No step was recorded: it was before and the answer was lost, or the workflow is not ours any more.
        if step is not None and not conn.run(RECORD_BULK, rows=_rows([step.row])):
            return Posted([], done=False)
        return Posted([], bool(conn.run(SEND_MANY, rows=_rows(posted))) or step is not None)

    posted: Posted = await here.tx(work, rings=rings)
    if posted.missing:
        error = DBOSNonExistentWorkflowError("send", ", ".join(posted.missing))
        if step is not None:
            await record_error(here, step_id, name, error, started_ms)
        raise error
    if step is not None and run is not None:
        if not posted.done:
            await explain_refusal(run, step)
        run.confirm()
    elif not posted.done:
        await _ensure_allowed(here)


def _rows(rows: Iterable[tuple[Any, ...]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False)


def _missing(conn: Conn, letters: list[Letter]) -> list[str]:
    """The destinations that do not exist."""
    wanted = list(dict.fromkeys(letter.destination_uuid for letter in letters))
    known = {row.workflow_uuid for row in conn.run(ADDRESSEES, workflow_ids=wanted)}
    return [each for each in wanted if each not in known]


def _to_forks(here: Here, conn: Conn, letters: list[Letter], keys: list[str | None]) -> list[Letter]:
    """The same messages for everything that was forked from their destinations, directly or not."""
    copies: list[Letter] = []
    forks: dict[str, list[str]] = {}
    generation = list({letter.destination_uuid for letter in letters})
    while generation:
        rows = conn.run(FORKS, workflow_ids=generation)
        for row in rows:
            forks.setdefault(row.forked_from, []).append(row.workflow_uuid)
        generation = [row.workflow_uuid for row in rows]
    for letter, key in zip(letters, keys, strict=True):
        for fork in _below(letter.destination_uuid, forks):
            copy_id = f"{letter.message_uuid}::{fork}" if key is None else _keyed_id(key, fork)
            slots = Slot.message(letter.destination_uuid, letter.topic), Slot.message(fork, letter.topic)
            text = here.ground.codec.moved(letter.message, letter.serialization, *slots) or ""
            copies.append(letter._replace(message_uuid=copy_id, destination_uuid=fork, message=text))
    return copies


def _below(workflow_id: str, forks: dict[str, list[str]]) -> list[str]:
    found = list(forks.get(workflow_id, ()))
    for each in found:  # grows while it is read
        found.extend(forks.get(each, ()))
    return found


# -- recv ------------------------------------------------------------------------------------------------------


@op(RECV_NAME)
async def recv(here: Here, topic: str | None = None, timeout_seconds: float = 60) -> Any:
    """Take the next message that was sent to this workflow, of a topic or without one; None if none comes in time.

    Messages of a topic come in the order in which they were sent, each of them once. The time to wait is not counted
    anew after a crash. Raises DBOSSerializationError for a message that cannot be read, which is taken nevertheless,
    and DBOSConcurrentReceiveError while another `recv` of this workflow waits for the same.
    """
    refuse_in_transaction(here, RECV_NAME)
    run = here.run
    if run is None or not here.in_body:
        raise DBOSException("recv() must be called from within a workflow, and not from a step")
    stored_topic = NO_TOPIC if topic is None else checked_id(topic, "A topic")
    seconds = checked_timeout(timeout_seconds)
    step_id, wait_id = run.next_step(), run.next_step()
    found = replay(run, step_id, RECV_NAME)
    if found is not None:
        run.journal.pop(wait_id, None)
        return reread(run, found, "A message")
    await ensure_running(run, settles=False)  # what it takes is written after what was recorded earlier
    place, me = (RECV_NAME, stored_topic), object()
    if run.notes.setdefault(place, me) is not me:
        error = DBOSConcurrentReceiveError(run.workflow_id, topic)
        await record_error(here, step_id, RECV_NAME, error, here.ground.clock.now_ms())
        raise error
    try:
        return await _receive(here, run, stored_topic, seconds, step_id, wait_id)
    finally:
        del run.notes[place]


async def _receive(here: Here, run: Run, topic: str, seconds: float, step_id: int, wait_id: int) -> Any:
    started_ms = here.ground.clock.now_ms()

    async def look() -> Row | None:
        taken = _taken(run, topic)
        rows = await here.read(
            lambda conn: conn.run(OLDEST, workflow_id=run.workflow_id, topic=topic, most=1 + len(taken))
        )
        return next((row for row in rows if row.message_uuid not in taken), None)

    channel = message_for(run.workflow_id, topic)
    if seconds:
        message = await wait_until(here, look, channel, moment=lambda: waking_moment(here, wait_id, seconds))
    else:
        message = await look()
    if message is None:
        await record_value(here, step_id, RECV_NAME, None, started_ms)
        return None
    slots = Slot.message(run.workflow_id, topic), Slot.step_output(run.workflow_id, step_id)
    text = here.ground.codec.copied(message.message, message.serialization, *slots)
    await _take(here, run, topic, message._replace(message=text), step_id, started_ms)
    return here.ground.codec.read(message.message, message.serialization, slots[0], "A message")


def _taken(run: Run, topic: str) -> dict[str, Put]:
    """The messages of a topic that this run has taken, and that are not marked yet."""
    place = (RECV_NAME, topic, "taken")
    taken: dict[str, Put] = {key: job for key, job in run.notes.get(place, {}).items() if not job.done}
    run.notes[place] = taken
    return taken


async def _take(here: Here, run: Run, topic: str, message: Row, step_id: int, started_ms: int) -> None:
    """Hand over the record and the mark: they are written together with what the workflow sends next, or before it."""
    text, serialization = message.message, message.serialization
    row = record(run, step_id, RECV_NAME, output=text, serialization=serialization, started_ms=started_ms).row
    step = Entry(RECORD_RECV, (*row, message.message_uuid))
    mark = Entry(CONSUME, (message.message_uuid, run.workflow_id, step_id, run.owner))

    async def mend() -> None:
        # Gone meanwhile: another program took it too, without owning this workflow. The code has it all the same.
        if not await is_recorded(run, step):
            await commit(here, Entry(RECORD, row))

    _taken(run, topic)[message.message_uuid] = await promise(run, step, mend, mark)
