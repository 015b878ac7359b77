"""Taking workflows that wait: the one way in which stored work becomes a run.

A claim changes the row's owner, counts the attempt and brings the journal, in one transaction. Only workflows
whose code is registered here (function, class and instance) are claimed, so work whose definition comes later waits and counts no attempt.
What was started too often is dead-lettered and what is past its deadline cancelled in the same transaction.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos._engine.transitions import ADOPT, BURY, CANCEL, CLAIM, CLAIMED
from dbos._kernel.bell import done
from dbos._kernel.journal import load
from dbos._kernel.model import Recorded
from dbos._kernel.scope import Caller, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbos._engine.registry import WorkflowSpec
    from dbos._engine.runtime import Runtime
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


def claim_work(runtime: Runtime, owner: str, queue: str, most: int) -> Callable[[Conn], Claims]:
    """The transaction that takes the next workflows of a queue."""
    specs, targets = dict(runtime.registry.workflows), runtime.registry.targets()

    def take(conn: Conn) -> list[Row]:
        return conn.run(
            CLAIM,
            queue=queue,
            names=list(specs),
            targets=targets,
            most=most,
            owner=owner,
            executor_id=runtime.executor_id,
            version=runtime.app_version,
            now=runtime.clock.now_ms(),
        )

    return _claiming(runtime, owner, take, specs)


def adopt_work(
    runtime: Runtime, owner: str, spec: WorkflowSpec, workflow_id: str, seen_owner: str | None
) -> Callable[[Conn], Claims]:
    """The transaction that takes one workflow which nobody runs; nothing is taken if somebody was faster."""

    def take(conn: Conn) -> list[Row]:
        return conn.run(
            ADOPT,
            workflow_id=workflow_id,
            seen_owner=seen_owner or "",
            owner=owner,
            executor_id=runtime.executor_id,
            version=runtime.app_version,
            now=runtime.clock.now_ms(),
        )

    return _claiming(runtime, owner, take, {spec.name: spec})


def _claiming(
    runtime: Runtime, owner: str, take: Callable[[Conn], list[Row]], specs: dict[str, WorkflowSpec]
) -> Callable[[Conn], Claims]:
    tries = 0

    def work(conn: Conn) -> Claims:
        nonlocal tries
        tries += 1
        # A second try means that the first one's answer was lost: it may have been committed.
        rows = conn.run(CLAIMED, owner=owner) if tries > 1 else []
        return _take(runtime, conn, rows or take(conn), owner, specs)

    return work


def _take(runtime: Runtime, conn: Conn, rows: list[Row], owner: str, specs: dict[str, WorkflowSpec]) -> Claims:
    claims = Claims([], [])
    if not rows:
        return claims
    now = runtime.clock.now_ms()
    journals = load(conn, [row.workflow_uuid for row in rows])
    for row in rows:
        spec = specs[row.name]
        most = spec.max_recovery_attempts
        if most is not None and row.recovery_attempts > most + 1:
            conn.run(BURY, workflow_id=row.workflow_uuid, owner=owner, now=now)
            logger.warning("Workflow %s was started %d times and is dead-lettered", row.workflow_uuid, most + 1)
            claims.ended.append(row.workflow_uuid)
        elif row.workflow_deadline_epoch_ms is not None and row.workflow_deadline_epoch_ms <= now:
            conn.run(CANCEL, workflow_ids=[row.workflow_uuid], now=now)
            claims.ended.append(row.workflow_uuid)
        else:
            run = _run_of(runtime, row, owner, journals[row.workflow_uuid])
            taken = Claimed(run, spec, row.class_name, row.config_name, row.inputs, row.serialization)
            claims.taken.append(taken)
    return claims


def _run_of(runtime: Runtime, row: Row, owner: str, journal: dict[int, Recorded]) -> Run:
    run = Run(runtime, row.workflow_uuid, owner, row.name)
    run.journal, run.is_recovered = journal, True
    run.deadline_ms = row.workflow_deadline_epoch_ms
    run.format = row.serialization
    roles: Any = json.loads(row.authenticated_roles) if row.authenticated_roles else None
    run.caller = Caller(row.authenticated_user, tuple(roles) if roles else None, row.assumed_role)
    return run


async def adopt(
    here: Here, runtime: Runtime, spec: WorkflowSpec, workflow_id: str, seen_owner: str | None
) -> Claimed | None:
    """Take a workflow which nobody runs, if nobody is faster."""
    owner = runtime.new_owner()
    with runtime.new_rows(owner):
        claims = await here.tx(adopt_work(runtime, owner, spec, workflow_id, seen_owner))
        for each in claims.taken:
            runtime.enter(each.run)
    runtime.bell.ring(map(done, claims.ended))
    return claims.taken[0] if claims.taken else None
