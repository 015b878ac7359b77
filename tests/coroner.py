"""The coroner: what must hold of a system database after every fault, whatever the fault was.

Each law is one function over the rows, which says what is wrong. The fixture `coroner` asks them all after each test of
tests/faults, tests/crash and tests/processes, and `python -m tests.soak` when it has settled. The numbers are those of the
catalogue.

C1 is asked of what was acknowledged, where a test says so, and of every child that a step started. There is no law for
C6 here, because limits are facts of a program: the tests of queues count the history by `most_at_once`.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbos import DBOS
from dbos._engine.transitions import OWNER_ID_LENGTH
from dbos.testing import launched, use_clock
from tests.compat.rows import Rows
from tests.databases import CANARY
from tests.waiting import eventually

# These take a second id for their wait, which is recorded only if they had to wait.
WAITING_STEPS = ("DBOS.recv", "DBOS.getEvent")
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
# What asyncio and threading say of what went wrong behind everybody's back.
UNSEEN_TROUBLE = re.compile("never retrieved|never awaited|was destroyed|Exception in thread|Exception ignored")


# -- laws over the rows ----------------------------------------------------------------------------------------


def lost_children(rows: Rows) -> Iterator[str]:
    """C1: a workflow that a step has started is there."""
    for row in rows.run(
        """
        SELECT o.workflow_uuid, o.function_id, o.child_workflow_id FROM {}operation_outputs o
        LEFT JOIN {}workflow_status s ON s.workflow_uuid = o.child_workflow_id
        WHERE o.child_workflow_id IS NOT NULL AND s.workflow_uuid IS NULL
        """
    ):
        yield f"C1 {row.workflow_uuid}: its step {row.function_id} started {row.child_workflow_id}, which is lost"


def gaps_in_steps(rows: Rows) -> Iterator[str]:
    """C2: what is recorded of a run is a beginning of it, without gaps."""
    steps: dict[str, dict[int, str]] = defaultdict(dict)
    for row in rows.run("SELECT workflow_uuid, function_id, function_name FROM {}operation_outputs"):
        steps[row.workflow_uuid][row.function_id] = row.function_name
    for workflow_id, found in steps.items():
        waits = {number + 1 for number, name in found.items() if name in WAITING_STEPS}
        missing = set(range(1, max(found) + 1)) - set(found) - waits
        if missing:
            yield f"C2 {workflow_id}: steps {sorted(missing)} are missing before step {max(found)}"


def gaps_in_streams(rows: Rows) -> Iterator[str]:
    """C2: the values of a stream are numbered without gaps."""
    for row in rows.run(
        """
        SELECT workflow_uuid, key, count(*) AS number, max("offset") AS last FROM {}streams
        GROUP BY workflow_uuid, key HAVING count(*) <> max("offset") + 1
        """
    ):
        yield f"C2 {row.workflow_uuid}: stream {row.key} has {row.number} values, and the last is number {row.last}"


def stranded(rows: Rows) -> Iterator[str]:
    """C4: once everybody has looked, nothing is taken by one who is gone, and what waits waits on a queue."""
    leases = {row.owner_id for row in rows.run("SELECT owner_id FROM {}notebook_leases")}
    for row in rows.run(
        "SELECT workflow_uuid, status, owner_xid, queue_name FROM {}workflow_status WHERE status NOT IN "
        f"({', '.join(map(repr, ENDED))})"
    ):
        # Owners of another form are other programs, of which nobody here knows whether they live.
        is_ours = re.fullmatch(rf".{{{OWNER_ID_LENGTH}}}:\d+", row.owner_xid or "")
        if row.status == "PENDING" and is_ours and row.owner_xid[:OWNER_ID_LENGTH] not in leases:
            yield f"C4 {row.workflow_uuid}: PENDING, and its owner {row.owner_xid} is gone"
        if row.status != "PENDING" and row.queue_name is None:
            yield f"C4 {row.workflow_uuid}: {row.status} on no queue"


def orphans(rows: Rows) -> Iterator[str]:
    """C7: what belongs to a workflow does not outlive it."""
    left = [
        f"SELECT '{each.table}' AS place, {each.name} AS id FROM {{}}{each.table} WHERE {each.name} NOT IN "  # noqa: S608 - names from the database
        "(SELECT workflow_uuid FROM {}workflow_status)"
        for each in owning_columns(rows)
    ]
    for row in rows.run(" UNION ALL ".join(left)):
        yield f"C7 {row.id}: gone, and still in {row.place}"


def owning_columns(rows: Rows) -> list[sa.Row[Any]]:
    """The columns, of whatever tables there are, that say whose a row is."""
    names = "('workflow_uuid', 'destination_uuid')"
    if rows.is_postgres:
        return rows.run(
            'SELECT relname AS "table", attname AS name FROM pg_attribute JOIN pg_class c ON c.oid = attrelid '
            f"WHERE relkind = 'r' AND relnamespace = to_regnamespace('dbos') AND attname IN {names}"
        )
    return rows.run(
        'SELECT m.name AS "table", c.name AS name FROM sqlite_master m, pragma_table_info(m.name) c '
        f"WHERE m.type = 'table' AND c.name IN {names}"
    )


def broken_file(rows: Rows) -> Iterator[str]:
    """C7: a SQLite file is whole."""
    if not rows.is_postgres:
        yield from (f"C7 {row[0]}" for row in rows.run("PRAGMA integrity_check") if row[0] != "ok")
        yield from (f"C7 foreign key: {tuple(row)}" for row in rows.run("PRAGMA foreign_key_check"))


def left_open(rows: Rows) -> Iterator[str]:
    """C8: when all have ended, nobody sits in a transaction or on a lock."""
    if rows.is_postgres:
        for row in rows.run(
            """
            SELECT pid, application_name, state, query FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'dbos_transact'
            """
        ):
            yield f"C8 connection {row.pid} is still there, {row.state}: {row.query[:60]}"
        for row in rows.run(
            """
            SELECT pid FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """
        ):
            yield f"C8 connection {row.pid} holds an advisory lock"


AT_REST = (lost_children, gaps_in_steps, gaps_in_streams, orphans, broken_file)


def autopsy(url: str, laws: Iterable[Callable[[Rows], Iterator[str]]] = AT_REST) -> list[str]:
    """Everything that is wrong with the rows of a database."""
    rows = Rows(url)
    try:
        with rows.kept():
            if "workflow_status" not in {each.table for each in owning_columns(rows)}:
                return []  # nothing ever came to be, or it is a database of the user's own
            return [finding for law in laws for finding in law(rows)]
    except sa.exc.DatabaseError as error:
        return [f"C7 the database cannot be read: {error.orig!r}"]


# -- laws over what programs noted -----------------------------------------------------------------------------


def lost(acknowledged: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """C1: what was acknowledged is there, and came to what it had to come to."""
    return [
        f"C1 {workflow_id}: {found.get(workflow_id, 'lost')!r}, not {expected!r}"
        for workflow_id, expected in acknowledged.items()
        if found.get(workflow_id) != expected
    ]


def repeated(executions: Iterable[str], deaths: int, at_once: int) -> list[str]:
    """C3: a step runs once, and once more for a death that it did not survive; a death costs at most what ran then."""
    ran = Counter(executions)
    again = ran.total() - len(ran)
    wrong = [f"C3 {again} steps were run again for {deaths} deaths"] if again > deaths * at_once else []
    return wrong + [f"C3 {step}: ran {times} times" for step, times in ran.items() if times > 1 + deaths]


def most_at_once(spans: Iterable[tuple[int, int]]) -> int:
    """C6: how many of these spans of time had a moment in common. Who ends when another begins made room for it."""
    running = most = 0
    for _, change in sorted(event for began, ended in spans for event in ((began, 1), (ended, -1))):
        running += change
        most = max(most, running)
    return most


def unseen_trouble(text: str) -> list[str]:
    """C9: what nobody should see in an output."""
    return [f"C9 {line}" for line in text.splitlines() if UNSEEN_TROUBLE.search(line)]


def leaks(text: str) -> list[str]:
    """C10: no secret is in an output."""
    return [f"C10 {line}" for line in text.splitlines() if CANARY in line]


# -- in a test -------------------------------------------------------------------------------------------------


class Coroner(logging.Handler):
    """Hears what is logged during a test, and examines what is left after it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[logging.LogRecord] = []
        #: Of others, such as a notebook's in the same process.
        self._threads_before = set(threading.enumerate())
        self._excused: list[re.Pattern[str]] = []

    def excuse(self, *patterns: str) -> None:
        """Findings that this test brings about on purpose."""
        self._excused += map(re.compile, patterns)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the errors of everybody; the runtime's log does not reach the root."""
        loggers = logging.getLogger(), DBOS.logger
        for each in loggers:
            each.addHandler(self)
        try:
            yield
        finally:
            for each in loggers:
                each.removeHandler(self)

    def examine(self, url: str | None, files: Iterable[Path]) -> list[str]:
        """After the end of everything: what is wrong."""
        findings = [f"C9 {record.getMessage()}" for record in self.said if record.levelno >= logging.ERROR]
        lines = [logging.Formatter().format(record) for record in self.said]
        findings += [finding for line in lines for finding in (*leaks(line), *unseen_trouble(line))]
        gc.collect()  # what nobody can reach any more is no leak
        findings += self._threads()
        for file in files:
            findings += self._handles(file) + autopsy(f"sqlite:///{file}")
        if url is not None:
            findings += autopsy(url)
            if not findings:  # else it may be no database at all
                findings += self._undertake(url)
        return self.without_excuse(findings)

    def read(self, outputs: Iterable[str]) -> list[str]:
        """What is wrong with what this process and its children have printed."""
        return self.without_excuse(wrong for text in outputs for wrong in (*leaks(text), *unseen_trouble(text)))

    def without_excuse(self, findings: Iterable[str]) -> list[str]:
        """Those that this test did not announce, each once."""
        return [each for each in dict.fromkeys(findings) if not any(one.search(each) for one in self._excused)]

    def _threads(self) -> list[str]:
        """C8: no thread of ours outlives the runtime."""

        def left() -> list[str]:
            new = set(threading.enumerate()) - self._threads_before
            return [each.name for each in new if each.name.startswith("dbos-") and each.is_alive()]

        return self._settled(lambda: [f"C8 thread {name} is left" for name in left()])

    def _handles(self, file: Path) -> list[str]:
        """C8: nobody in this process holds the file."""

        def held() -> list[str]:
            found = []
            for each in os.scandir("/proc/self/fd"):
                try:
                    found.append(os.readlink(each.path))
                except OSError:  # that of the scan itself
                    continue
            return [f"C8 {name} is still open" for name in found if name.startswith(str(file))]

        return self._settled(held)

    def _undertake(self, url: str) -> list[str]:
        """C4, C5 and C8: a runtime that knows no code comes twice; nothing is stranded, and what has ended stays."""
        use_clock(None)
        rows = Rows(url)
        ended = f"SELECT * FROM {{}}workflow_status WHERE status IN ({', '.join(map(repr, ENDED))})"  # noqa: S608 - words of ours
        before = {row.workflow_uuid: tuple(row) for row in rows.run(ended)}
        findings = []
        for _ in range(2):
            DBOS.listen_queues([])
            with launched(
                {
                    "name": "coroner",
                    "system_database_url": url,
                    "application_version": "coroner",
                    "log_level": "CRITICAL",
                }
            ):
                findings += autopsy(url, [stranded])
            DBOS.destroy(destroy_registry=True)
            after = {row.workflow_uuid: tuple(row) for row in rows.run(ended)}
            findings += [
                f"C5 {each}: had ended, and was changed" for each, row in before.items() if after.get(each) != row
            ]
        return findings + self._settled(lambda: autopsy(url, [left_open]))

    @staticmethod
    def _settled(look: Callable[[], list[str]]) -> list[str]:
        """What is still so after a while: threads and connections take a moment to end."""
        try:
            eventually(lambda: not look(), 5)
        except AssertionError:
            return look()
        return []


@pytest.fixture(autouse=True)
def coroner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Coroner]:
    """Examines what a test leaves; a folder whose tests inject faults imports it into its conftest."""
    url = request.getfixturevalue("database") if "database" in request.fixturenames else None
    made = Coroner()
    with made.listening():
        yield made
        DBOS.destroy(destroy_registry=True)
    findings = made.examine(url, sorted(tmp_path.glob("*.sqlite")))
    assert not findings, "\n".join(findings)
