"""Taking workflows that wait: the one way in which stored work becomes a run.

A claim changes the row's owner, counts the attempt and brings the journal, in one transaction. Only workflows
whose code is registered here (function, class and instance) are claimed, so work whose definition comes later waits and counts no attempt.
What was started too often is dead-lettered and what is past its deadline cancelled in the same transaction.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos._engine.attributes import noted_attributes
from dbos._engine.flow import KEYLESS, Flow, Taken
from dbos._engine.transitions import ADOPT, BURY, CANCEL, CLAIM, CLAIM_KEYLESS, CLAIM_PARTITION, CLAIMED, STAMP
from dbos._kernel.bell import done, queued
from dbos._kernel.extension import installed
from dbos._kernel.journal import load
from dbos._kernel.model import WORKFLOW_FAILURE, Recorded
from dbos._kernel.scope import Caller, Run
from dbos._kernel.trace import installed_tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbos._engine.queue import QueueSpec
    from dbos._engine.registry import WorkflowSpec
    from dbos._engine.runtime import Runtime
    from dbos._kernel.bell import Channel
    from dbos._kernel.scope import Here
    from dbos._kernel.statement import Conn, Row

logger = logging.getLogger("dbos")


class Claimed(NamedTuple):
    """A workflow that is ours to run now."""

    run: Run
    spec: WorkflowSpec
    class_name: str | None
    config_name: str | None
    inputs: str | None
    serialization: str | None


class Claims(NamedTuple):
    """What a claim took, and what it ended instead."""

    taken: list[Claimed]
    ended: list[str]
    #: For a queue with limits: when a rate lets the next one start, and the partition that was served last.
    due_ms: int | None = None
    partition: str = ""


def claim_work(runtime: Runtime, owner: str, queue: QueueSpec, most: int, after: str) -> Callable[[Conn], Claims]:
    """The transaction that takes the next workflows of a queue; of partitions, those after the given one first."""
    specs, targets = dict(runtime.registry.workflows), runtime.registry.targets()
    whose = {
        "queue": queue.name,
        "names": list(specs),
        "targets": targets,
        "owner": owner,
        "executor_id": runtime.executor_id,
        "version": runtime.app_version,
        "versions": runtime.versions(),
    }

    def take(conn: Conn) -> Taken:
        def next_ones(number: int, now_ms: int, partition: str | None) -> list[Row]:
            if partition is None:
                return conn.run(CLAIM, most=number, now=now_ms, **whose)
            if partition == KEYLESS:
                return conn.run(CLAIM_KEYLESS, most=number, now=now_ms, **whose)
            return conn.run(CLAIM_PARTITION, most=number, now=now_ms, partition=partition, **whose)

        if not queue.is_limited:
            return Taken(next_ones(most, runtime.clock.now_ms(), None))
        return Flow(conn, queue, runtime.taken_from(queue.name), runtime.clock, next_ones).claim(most, after)

    return _claiming(runtime, owner, take, specs, (queued(queue.name),) if queue.is_freed_by_ends else ())


def adopt_work(
    runtime: Runtime, owner: str, spec: WorkflowSpec, workflow_id: str, seen_owner: str | None
) -> Callable[[Conn], Claims]:
    """The transaction that takes one workflow which nobody runs; nothing is taken if somebody was faster."""

    def take(conn: Conn) -> Taken:
        found = conn.run(
            ADOPT,
            workflow_id=workflow_id,
            seen_owner=seen_owner or "",
            owner=owner,
            executor_id=runtime.executor_id,
            version=spec.version or runtime.app_version,
            now=runtime.clock.now_ms(),
        )
        return Taken(found)

    return _claiming(runtime, owner, take, {spec.name: spec})


def _claiming(
    runtime: Runtime,
    owner: str,
    take: Callable[[Conn], Taken],
    specs: dict[str, WorkflowSpec],
    frees: tuple[Channel, ...] = (),
) -> Callable[[Conn], Claims]:
    tries = 0
    begun: list[Run] = []

    def work(conn: Conn) -> Claims:
        nonlocal tries
        tries += 1
        # A second try means that the first one's answer was lost: it may have been committed.
        rows = conn.run(CLAIMED, owner=owner) if tries > 1 else []
        while begun:
            runtime.leave(begun.pop())
        taken = Taken(rows) if rows else take(conn)
        claims = _sort_out(runtime, conn, taken.rows, owner, specs)
        for each in claims.taken:
            each.run.frees = frees
            # Before the commit: who cancels the workflow after that is heard.
            runtime.enter(each.run)
            begun.append(each.run)
        return claims._replace(due_ms=taken.due_ms, partition=taken.partition)

    return work


def _sort_out(runtime: Runtime, conn: Conn, rows: list[Row], owner: str, specs: dict[str, WorkflowSpec]) -> Claims:
    """The runs of these rows in the order in which they are to begin, and those that are ended instead."""
    claims = Claims([], [])
    if not rows:
        return claims
    now = runtime.clock.now_ms()
    known = [row.workflow_uuid for row in rows if row.has_journal]
    journals = load(conn, known) if known else {}
    # Only who traces wants to know who enqueued them.
    noted = noted_attributes(conn, [row.workflow_uuid for row in rows]) if installed_tracer() is not None else {}
    for row in sorted(rows, key=_turn):
        spec = _code_of(runtime, row, specs)
        most = spec.max_recovery_attempts
        if most is not None and row.recovery_attempts > most + 1:
            conn.run(BURY, workflow_id=row.workflow_uuid, owner=owner, now=now)
            logger.warning("Workflow %s was started %d times and is dead-lettered", row.workflow_uuid, most + 1)
            claims.ended.append(row.workflow_uuid)
            told = {"workflow_name": row.name, "workflow_id": row.workflow_uuid}
            runtime.report(WORKFLOW_FAILURE, row.name, error="MaxRecoveryAttemptsExceeded", **told)
        elif row.workflow_deadline_epoch_ms is not None and row.workflow_deadline_epoch_ms <= now:
            conn.run(CANCEL, workflow_ids=[row.workflow_uuid], now=now)
            claims.ended.append(row.workflow_uuid)
        else:
            _stamp(conn, row, owner, spec)
            run = _run_of(runtime, row, owner, journals.get(row.workflow_uuid, {}))
            run.carrier = noted.get(row.workflow_uuid, {})
            taken = Claimed(run, spec, row.class_name, row.config_name, row.inputs, row.serialization)
            claims.taken.append(taken)
    return claims


def _stamp(conn: Conn, row: Row, owner: str, spec: WorkflowSpec) -> None:
    """Note by which code it runs, where that is told apart; and that no attempt was used up.

    Work that waits for its code is taken up because somebody ran a cell, not by a machine that may do so for ever.
    """
    version = spec.version or row.application_version
    attempts = row.recovery_attempts if installed() is None else min(row.recovery_attempts, 1)
    if (version, attempts) != (row.application_version, row.recovery_attempts):
        conn.run(STAMP, workflow_id=row.workflow_uuid, owner=owner, version=version, attempts=attempts)


def _code_of(runtime: Runtime, row: Row, specs: dict[str, WorkflowSpec]) -> WorkflowSpec:
    """The code a workflow began with, if it is told apart and here; else what has its name now."""
    began = runtime.registry.versions.get(row.application_version)
    return specs[row.name] if began is None or began.name != row.name else began


def _turn(row: Row) -> tuple[int, int, int]:
    return row.priority, row.created_at, getattr(row, "arrival", 0)


def _run_of(runtime: Runtime, row: Row, owner: str, journal: dict[int, Recorded]) -> Run:
    run = Run(runtime, row.workflow_uuid, owner, row.name)
    run.journal, run.is_recovered = journal, True
    run.deadline_ms = row.workflow_deadline_epoch_ms
    run.format = row.serialization
    run.queue = None if row.queue_name is None else (row.queue_name, row.queue_partition_key or KEYLESS)
    roles: Any = json.loads(row.authenticated_roles) if row.authenticated_roles else None
    run.enqueued_ms = row.created_at if row.recovery_attempts <= 1 else None
    run.caller = Caller(row.authenticated_user, tuple(roles) if roles else None, row.assumed_role)
    return run


async def adopt(
    here: Here, runtime: Runtime, spec: WorkflowSpec, workflow_id: str, seen_owner: str | None
) -> Claimed | None:
    """Take a workflow which nobody runs, if nobody is faster."""
    owner = runtime.new_owner()
    with runtime.new_rows(owner):
        claims = await here.tx(adopt_work(runtime, owner, spec, workflow_id, seen_owner))
    runtime.bell.ring(map(done, claims.ended))
    return claims.taken[0] if claims.taken else None
