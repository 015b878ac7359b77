"""Alerts: a workflow failed, a queue is slow, another process of the application is gone.

Failures and deaths are told by those who see them happen; queues are looked at from time to time, at the head of each:
what is next and has waited too long. Who tells of something first notes it in the database, so each condition is told
by one process until it is over: a slow queue when its head moves on, failures of a workflow and deaths of an executor
when none was told for a while.

With the note goes the alert itself, in a row that is deleted once the handler has returned. Whoever sees that the process
died before takes the row over, so each alert is told at least once; and again where the death came after the handler had
returned. A handler that raises, or that the process does not survive, is asked a few times and no more.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, delete, insert, or_, select, update

from dbos._kernel.job import Tx
from dbos._kernel.model import ENQUEUED, SLOW_QUEUE, UNRESPONSIVE, WORKFLOW_FAILURE
from dbos._kernel.plan import perform
from dbos._kernel.service import Service
from dbos._kernel.statement import has_status, statement
from dbos.error import DBOSInitializationError

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

logger = logging.getLogger("dbos")

# Within such a time failures are counted together, and one of a kind is told once.
PERIOD_MS = 60_000
# How often the heads of queues are looked at, at most and at least.
SOONEST_LOOK_MS, LATEST_LOOK_MS = 100, 15_000
# Rung when something is to be told.
RAISED: Channel = ("alert", "")
# So many that are still to be noted are kept.
MOST_WAITING = 1000
# How often a handler is asked that raises or does not survive it, and when again after the first time; then twice that.
MOST_TRIES, RETRY_MS = 3, 1000

RULE, SUBJECT = bindparam("rule", type_=Text()), bindparam("subject", type_=Text())
NOW: Any = bindparam("now", type_=BigInteger())

# Is told the rule, a sentence, and facts.
AlertHandler = Callable[[str, str, dict[str, str]], Any]


@dataclass(frozen=True)
class AlertRules:
    """When to tell; 0 is never."""

    #: So many failures of one workflow within a minute.
    failures: int = 1
    #: The next workflow of a queue waits for so long.
    queue_seconds: float = 300.0
    #: Whether the death of another process is told.
    unresponsive: bool = True


class Alert(NamedTuple):
    """Something to tell."""

    rule: str
    subject: str
    message: str
    facts: dict[str, str]
    #: When it happened, which is not when it is told.
    at_ms: int


def rules_of(given: Mapping[str, Any]) -> AlertRules | None:
    """The rules in a configuration; None: it has none, and only who has a handler is told."""
    keys = {"alert_failures": "failures", "alert_queue_sec": "queue_seconds", "alert_unresponsive": "unresponsive"}
    chosen = {name: given[key] for key, name in keys.items() if given.get(key) is not None}
    for key in ("alert_failures", "alert_queue_sec"):
        value = given.get(key, 0)
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise DBOSInitializationError(f"{key} must be a number of at least 0, not {value!r}")
    return AlertRules(**chosen) if chosen else None


# -- statements ------------------------------------------------------------------------------------------------


@statement
def RAISE(t: Tables) -> Executable:
    """Note that this was told now, unless it was since a given moment."""
    c = t.alerts.c
    inserted = t.dialect.insert(t.alerts).values(rule=RULE, subject=SUBJECT, raised_at=NOW)
    return inserted.on_conflict_do_update(  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        index_elements=["rule", "subject"],
        set_={"raised_at": NOW},
        where=c.raised_at < bindparam("since", type_=BigInteger()),
    ).returning(c.rule)


@statement
def IS_OVER(t: Tables) -> Executable:
    c = t.alerts.c
    return delete(t.alerts).where(c.rule == RULE, c.subject == SUBJECT)


@statement
def RAISED_OF(t: Tables) -> Executable:
    c = t.alerts.c
    return select(c.subject).where(c.rule == RULE)


@statement
def NOTE_UNTOLD(t: Tables) -> Executable:
    columns = ("rule", "message", "facts", "owner_id", "tries", "due_at")
    return insert(t.untold).values({name: bindparam(name) for name in columns})


def _is_mine(t: Tables) -> Any:
    """It is this launch's to tell, or nobody's that lives."""
    c = t.untold.c
    return or_(c.owner_id == bindparam("owner"), c.owner_id.not_in(select(t.leases.c.owner_id)))


@statement
def UNTOLD(t: Tables) -> Executable:
    c = t.untold.c
    return select(c.alert_id, c.due_at).where(_is_mine(t)).order_by(c.alert_id)


@statement
def TAKE_UNTOLD(t: Tables) -> Executable:
    c = t.untold.c
    taken = update(t.untold).values(owner_id=bindparam("owner"), tries=c.tries + 1)
    return taken.where(c.alert_id == bindparam("alert_id"), _is_mine(t)).returning(c.rule, c.message, c.facts, c.tries)


@statement
def TELL_LATER(t: Tables) -> Executable:
    return update(t.untold).values(due_at=bindparam("due")).where(t.untold.c.alert_id == bindparam("alert_id"))


@statement
def IS_TOLD(t: Tables) -> Executable:
    return delete(t.untold).where(t.untold.c.alert_id == bindparam("alert_id"))


@statement
def HEAD(t: Tables) -> Executable:
    """What is next on a queue, and since when it waits there."""
    c = t.status.c
    waiting = select(c.workflow_uuid, c.updated_at).where(
        c.queue_name == bindparam("queue", type_=Text()), has_status(t, ENQUEUED)
    )
    return waiting.order_by(c.priority, c.created_at).limit(1)


# -- the service -----------------------------------------------------------------------------------------------


class Alarm(Service):
    """Tells of what happens, in its own thread: a handler that takes its time holds up nothing but the next alert."""

    name = "alarm"
    serves_to_the_end = True

    def __init__(self, runtime: Runtime, rules: AlertRules, handler: AlertHandler | None) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime, self.rules, self.handler = runtime, rules, handler
        self._waiting: deque[Alert] = deque(maxlen=MOST_WAITING)
        self._lately: dict[str, deque[int]] = {}
        self._next_look_ms = 0
        runtime.witnesses.append(self.saw)

    def channels(self) -> list[Channel]:
        return [RAISED]

    def saw(self, rule: str, subject: str, facts: dict[str, str]) -> None:
        """Something happened that may be worth an alert. Called where it happened, so it only takes a note."""
        now_ms = self.clock.now_ms()
        if rule == WORKFLOW_FAILURE and self.rules.failures and self._is_enough(subject, now_ms):
            self._waiting.append(Alert(rule, subject, f"Workflow {subject} failed: {facts['error']}", facts, now_ms))
        elif rule == UNRESPONSIVE and self.rules.unresponsive:
            message = f"Executor {subject} is gone or does not answer; its work is taken over"
            self._waiting.append(Alert(rule, subject, message, facts, now_ms))
        elif rule != UNRESPONSIVE:  # who is gone may have left something to tell
            return
        self.bell.ring_here([RAISED])

    def _is_enough(self, name: str, now_ms: int) -> bool:
        lately = self._lately.setdefault(name, deque(maxlen=max(1, int(self.rules.failures))))
        lately.append(now_ms)
        return len(lately) >= self.rules.failures and lately[0] > now_ms - PERIOD_MS

    def tick(self) -> int | None:
        while self._waiting:
            alert = self._waiting[0]
            self._note(alert, since=alert.at_ms - PERIOD_MS)
            self._waiting.popleft()  # only now: a database that is away does not lose it
        now_ms = self.clock.now_ms()
        if self.rules.queue_seconds and now_ms >= self._next_look_ms:
            self._look_at_queues()
            pace = int(self.rules.queue_seconds * 1000) // 4
            self._next_look_ms = now_ms + min(max(pace, SOONEST_LOOK_MS), LATEST_LOOK_MS)
        next_ms = self._tell_due()
        return min(next_ms, self._next_look_ms) if self.rules.queue_seconds else next_ms

    def _look_at_queues(self) -> None:
        names = list(self.runtime.queues())

        def look(conn: Conn) -> tuple[set[str], dict[str, Any]]:
            raised = {row.subject for row in conn.run(RAISED_OF, rule=SLOW_QUEUE)}
            return raised, {name: conn.first(HEAD, queue=name) for name in names}

        raised, heads = self.runtime.store.read(look)
        now_ms = self.clock.now_ms()
        for name, head in heads.items():
            waited = 0.0 if head is None else (now_ms - head.updated_at) / 1000
            is_slow = waited >= self.rules.queue_seconds
            if is_slow and name not in raised:
                facts = {"queue_name": name, "workflow_id": head.workflow_uuid, "waiting_seconds": f"{waited:.0f}"}
                message = f"The next workflow of queue {name} has waited for {waited:.0f} s"
                self._note(Alert(SLOW_QUEUE, name, message, facts, now_ms), since=0)
            elif not is_slow and name in raised:
                self._do(lambda conn, name=name: conn.run(IS_OVER, rule=SLOW_QUEUE, subject=name))  # type: ignore[misc]  # mypy knows no such lambda

    def _note(self, alert: Alert, since: int) -> None:
        """Note that it is to be told, unless it was since then, here or elsewhere."""

        def note(conn: Conn) -> None:
            if conn.run(RAISE, rule=alert.rule, subject=alert.subject, now=alert.at_ms, since=since):
                facts, owner = json.dumps(alert.facts), self.runtime.owner_id
                told = {"rule": alert.rule, "message": alert.message, "facts": facts}
                conn.run(NOTE_UNTOLD, **told, owner_id=owner, tries=0, due_at=alert.at_ms)

        self._do(note)

    def _do(self, work: Callable[[Conn], Any]) -> Any:
        return perform(Tx(self.runtime.store.lane, work))

    def _tell_due(self) -> int:
        """Tell what is due, ours and of those who are gone; when to look again."""
        owner = self.runtime.owner_id
        while True:
            waiting = self.runtime.store.read(lambda conn: conn.run(UNTOLD, owner=owner))
            now_ms = self.clock.now_ms()
            due = next((each.alert_id for each in waiting if each.due_at <= now_ms), None)
            if due is None:
                return min([now_ms + LATEST_LOOK_MS, *(int(each.due_at) for each in waiting)])
            for taken in self._do(lambda conn, due=due: conn.run(TAKE_UNTOLD, owner=owner, alert_id=due)):  # type: ignore[misc]  # as above
                if self._tell(taken):
                    self._do(lambda conn, due=due: conn.run(IS_TOLD, alert_id=due))  # type: ignore[misc]  # as above
                else:
                    later_ms = self.clock.now_ms() + (RETRY_MS << taken.tries - 1)
                    self._do(lambda conn, due=due, at=later_ms: conn.run(TELL_LATER, alert_id=due, due=at))  # type: ignore[misc]  # as above

    def _tell(self, alert: Row) -> bool:
        """Ask the handler; whether there is nothing more to do."""
        facts = json.loads(alert.facts)
        if self.handler is None:
            logger.warning("%s: %s %s", alert.rule, alert.message, facts)
            return True
        if alert.tries > MOST_TRIES:
            logger.error("No process survived to tell of %s, and it is given up: %s", alert.rule, alert.message)
            return True
        is_last = bool(alert.tries == MOST_TRIES)
        try:
            self.handler(alert.rule, alert.message, facts)
        except Exception:
            what_next = "is not asked again" if is_last else "is asked again"
            logger.exception("The alert handler failed on %s and %s: %s", alert.rule, what_next, alert.message)
            return is_last
        return True
