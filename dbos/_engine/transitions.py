"""The status machine: every statement that changes a workflow's status, and nothing else that does.

    (start)   BEGIN   -> PENDING | ENQUEUED | DELAYED   in `row`
    PENDING   FINISH  -> SUCCESS | ERROR            only by the run that owns it
    DELAYED   PROMOTE -> ENQUEUED                   when its moment has come
    ENQUEUED  CLAIM   -> PENDING                    takes ownership: a new `owner_xid`
    PENDING   REQUEUE -> ENQUEUED                   its owner is gone; the owner is cleared
    PENDING   BURY    -> MAX_RECOVERY_ATTEMPTS_EXCEEDED
    any that has not ended    CANCEL -> CANCELLED
    any but SUCCESS, ERROR    RESUME -> ENQUEUED
    any that has ended        REWIND -> ENQUEUED        with fewer steps on record

A terminal status is written once and left only by RESUME, REWIND or deletion. Whoever takes a workflow away from its
run (CANCEL, RESUME, REQUEUE, CLAIM) changes `owner_xid`, and the run is refused at its next write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    update,
)

from dbos._kernel.journal import RECORD, is_mine, record_statement
from dbos._kernel.model import (
    CANCELLED,
    DEAD_LETTER,
    DELAYED,
    ENQUEUED,
    FINISHED,
    INTERNAL_QUEUE,
    PENDING,
    TARGET_SEPARATOR,
    TERMINAL,
    UNFINISHED,
)
from dbos._kernel.statement import constant, has_status, kind, one_of, statement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables

NOW: Any = bindparam("now", type_=BigInteger())


@kind(2, rank=1, **RECORD.columns, class_name=Text(), config_name=Text())
def RECORD_CHILD(t: Tables, given: FromClause) -> Executable:
    """Record in the parent that it started a child: only where there is that workflow, of that function."""
    child = t.status.alias("child").c
    there = exists(
        select(literal_column("1")).where(
            child.workflow_uuid == given.c.child_workflow_id,
            child.name == given.c.function_name,
            func.coalesce(child.class_name, constant("")) == func.coalesce(given.c.class_name, constant("")),
            func.coalesce(child.config_name, constant("")) == func.coalesce(given.c.config_name, constant("")),
        )
    )
    return record_statement(t, given, there)


@kind(
    2,
    rank=10,
    workflow_uuid=Text(),
    function_id=Integer(),
    owner=Text(),
    function_name=Text(),
    child_workflow_id=Text(),
    started_at_epoch_ms=BigInteger(),
    completed_at_epoch_ms=BigInteger(),
)
def RECORD_RESULT(t: Tables, given: FromClause) -> Executable:
    """Record in one workflow the outcome of another, copied inside the database."""
    columns = [name for name in RECORD_RESULT.names if name != "owner"]
    me = t.status.alias("me")
    mine = exists(
        select(literal_column("1")).where(
            me.c.workflow_uuid == given.c.workflow_uuid,
            me.c.owner_xid == given.c.owner,
            me.c.status.concat(constant("")) == constant(PENDING),
        )
    )
    source = (
        select(*(given.c[name] for name in columns), t.output, t.error, t.status.c.serialization)
        .select_from(given.join(t.status, t.status.c.workflow_uuid == given.c.child_workflow_id))
        .where(mine, one_of(t.status.c.status, FINISHED))
    )
    return (  # type: ignore[no-any-return]  # the two dialects' inserts have no common type
        t.dialect.insert(t.steps)
        .from_select([*columns, "output", "error", "serialization"], source)
        .on_conflict_do_nothing()
        .returning(t.steps.c.workflow_uuid, t.steps.c.function_id)
    )


@kind(1, rank=5, workflow_uuid=Text(), owner=Text(), status=Text(), output=Text(), error=Text(), now=BigInteger())
def FINISH(t: Tables, given: FromClause) -> Executable:
    """The outcome of a workflow that is PENDING and ours."""
    return (
        update(t.status)
        .values(
            status=given.c.status,
            output=given.c.output,
            error=given.c.error,
            updated_at=given.c.now,
            deduplication_id=null(),
            owner_xid=null(),
            **t.ending(given.c.now),
        )
        .where(is_mine(t, given.c.workflow_uuid, given.c.owner))
        .returning(t.status.c.workflow_uuid)
    )


# What a run needs of its row, and what says whose turn it is.
def run_columns(t: Tables) -> list[ColumnElement[Any]]:
    c = t.status.c
    return [
        c.workflow_uuid,
        c.priority,
        c.created_at,
        c.queue_partition_key,
        c.name,
        c.class_name,
        c.config_name,
        t.inputs,
        c.serialization,
        c.authenticated_user,
        c.assumed_role,
        c.authenticated_roles,
        c.workflow_deadline_epoch_ms,
        c.recovery_attempts,
        c.application_version,
        c.queue_name,
        # Whether there is a journal to load: for a first run there is none.
        exists(select(literal_column("1")).where(t.steps.c.workflow_uuid == t.this_workflow)).label("has_journal"),
    ]


def _claiming(t: Tables, version: ColumnElement[Any]) -> dict[str, Any]:
    """What taking a workflow sets: the new owner, one more attempt, and a deadline that begins now."""
    c = t.status.c
    begins = and_(c.workflow_deadline_epoch_ms.is_(None), c.workflow_timeout_ms.isnot(None))
    return {
        "status": PENDING,
        "executor_id": bindparam("executor_id"),
        "application_version": version,
        "started_at_epoch_ms": NOW,
        "updated_at": NOW,
        "owner_xid": bindparam("owner"),
        "recovery_attempts": c.recovery_attempts + 1,
        "workflow_deadline_epoch_ms": case((begins, NOW + c.workflow_timeout_ms), else_=c.workflow_deadline_epoch_ms),
    }


def target_key(t: Tables) -> ColumnElement[Any]:
    """What a workflow was called on: the names of the class and the instance."""
    c = t.status.c
    return (
        func.coalesce(c.class_name, constant(""))
        .concat(constant(TARGET_SEPARATOR))
        .concat(func.coalesce(c.config_name, constant("")))
    )


def _claim(t: Tables, *conditions: ColumnElement[bool]) -> Executable:
    """Take the next workflows of a queue whose code is here: the most urgent first, then in the order of arrival."""
    c = t.status.c
    version = func.coalesce(c.application_version, bindparam("version"))
    next_ones = (
        select(c.workflow_uuid)
        .where(
            c.queue_name == bindparam("queue"),
            has_status(t, ENQUEUED),
            or_(c.application_version.is_(None), t.dialect.among(c.application_version, "versions")),
            t.dialect.among(c.name, "names"),
            t.dialect.among(target_key(t), "targets"),
            *conditions,
        )
        .order_by(c.priority, c.created_at, t.dialect.arrival(t.status))
        .limit(bindparam("most", type_=Integer()))
    )
    return t.dialect.claim(t.status, _claiming(t, version), next_ones, run_columns(t))  # type: ignore[no-any-return]  # as above


@statement
def CLAIM(t: Tables) -> Executable:
    """Take the next workflows of a queue."""
    return _claim(t)


@statement
def CLAIM_PARTITION(t: Tables) -> Executable:
    """Take the next workflows of one partition."""
    return _claim(t, t.status.c.queue_partition_key == bindparam("partition"))


@statement
def CLAIM_KEYLESS(t: Tables) -> Executable:
    """Take the next workflows of a queue that belong to no partition."""
    return _claim(t, func.coalesce(t.status.c.queue_partition_key, constant("")) == constant(""))


@statement
def CLAIMED(t: Tables) -> Executable:
    """What a claim took whose answer was lost."""
    arrival = t.dialect.arrival(t.status).label("arrival")
    return select(*run_columns(t), arrival).where(t.status.c.owner_xid == bindparam("owner"), has_status(t, PENDING))


@statement
def ADOPT(t: Tables) -> Executable:
    """Take one workflow that nobody runs."""
    c = t.status.c
    nobody = func.coalesce(c.owner_xid, "") == bindparam("seen_owner")
    return (
        update(t.status)
        .values(_claiming(t, bindparam("version")))
        .where(c.workflow_uuid == bindparam("workflow_id"), one_of(c.status, UNFINISHED), nobody)
        .returning(*run_columns(t))
    )


@statement
def STAMP(t: Tables) -> Executable:
    """Note which code a workflow of ours is run by, and for the how manieth time it is started."""
    c = t.status.c
    mine = and_(c.workflow_uuid == bindparam("workflow_id"), c.owner_xid == bindparam("owner"))
    values: dict[str, Any] = {"application_version": bindparam("version"), "recovery_attempts": bindparam("attempts")}
    return update(t.status).values(values).where(mine)


@statement
def BURY(t: Tables) -> Executable:
    """Dead-letter a workflow that was started too often."""
    return (
        update(t.status)
        .values(
            status=DEAD_LETTER,
            queue_name=None,
            deduplication_id=None,
            started_at_epoch_ms=None,
            owner_xid=None,
            updated_at=NOW,
        )
        .where(t.status.c.workflow_uuid == bindparam("workflow_id"), t.status.c.owner_xid == bindparam("owner"))
    )


@statement
def PROMOTE(t: Tables) -> Executable:
    """Make the delayed workflows whose moment has come ready to be claimed.

    A debounced one gives its deduplication id back in the same moment: the next call begins another one.
    """
    c = t.status.c
    is_debounced = exists().where(t.debounces.c.workflow_uuid == c.workflow_uuid)
    return (
        update(t.status)
        .values(status=ENQUEUED, deduplication_id=case((is_debounced, null()), else_=c.deduplication_id))
        .where(has_status(t, DELAYED), c.delay_until_epoch_ms <= NOW)
        .returning(c.workflow_uuid, c.queue_name)
    )


@statement
def FORGET_DEBOUNCES(t: Tables) -> Executable:
    """These workflows cannot be put off any more."""
    return delete(t.debounces).where(t.dialect.among(t.debounces.c.workflow_uuid, "workflow_ids"))


@statement
def NEXT_DELAY(t: Tables) -> Executable:
    """When the next delayed workflow is due."""
    return select(func.min(t.status.c.delay_until_epoch_ms).label("due")).where(has_status(t, DELAYED))


def _requeued(t: Tables) -> dict[str, Any]:
    return {
        "status": ENQUEUED,
        "queue_name": func.coalesce(t.status.c.queue_name, INTERNAL_QUEUE),
        "started_at_epoch_ms": None,
        "owner_xid": None,
        "updated_at": NOW,
    }


def owner_id(t: Tables) -> ColumnElement[Any]:
    """The launch that owns a row: an owner is `<launch>:<claim>`."""
    return func.substr(t.status.c.owner_xid, 1, OWNER_ID_LENGTH)


OWNER_ID_LENGTH = 20


@statement
def REQUEUE_OWNED(t: Tables) -> Executable:
    """Put the work of a launch that is gone back on its queues, for whoever has its code."""
    return (
        update(t.status)
        .values(_requeued(t))
        .where(has_status(t, PENDING), owner_id(t) == bindparam("owner_id"))
        .returning(t.status.c.workflow_uuid, t.status.c.queue_name)
    )


@statement
def GIVE_BACK(t: Tables) -> Executable:
    """Put back what was claimed under this right and did not begin."""
    c = t.status.c
    return (
        update(t.status)
        .values(_requeued(t))
        .where(
            has_status(t, PENDING), c.owner_xid == bindparam("owner"), not_(t.dialect.among(c.workflow_uuid, "begun"))
        )
        .returning(c.workflow_uuid)
    )


@statement
def REQUEUE_ABANDONED(t: Tables) -> Executable:
    """Put back the work of these executors that no living launch owns, and that of ours which does not run."""
    c = t.status.c
    alive = select(t.leases.c.owner_id).where(t.leases.c.expires_at > NOW)
    mine = owner_id(t) == bindparam("owner_id")
    return (
        update(t.status)
        .values(_requeued(t))
        .where(
            has_status(t, PENDING),
            t.dialect.among(c.executor_id, "executor_ids"),
            t.dialect.among(c.application_version, "versions"),
            or_(
                c.owner_xid.is_(None),
                and_(mine, ~t.dialect.among(c.workflow_uuid, "running"), ~t.dialect.among(c.owner_xid, "beginning")),
                and_(~mine, owner_id(t).not_in(alive)),
            ),
        )
        .returning(c.workflow_uuid, c.queue_name)
    )


@statement
def ABANDONABLE(t: Tables) -> Executable:
    """The PENDING workflows of these executors, whoever runs them."""
    c = t.status.c
    return select(c.workflow_uuid).where(
        has_status(t, PENDING),
        t.dialect.among(c.executor_id, "executor_ids"),
        t.dialect.among(c.application_version, "versions"),
    )


def _cancelled(t: Tables) -> dict[str, Any]:
    return {
        "status": CANCELLED,
        "queue_name": None,
        "deduplication_id": None,
        "started_at_epoch_ms": None,
        "owner_xid": None,
        "updated_at": NOW,
        **t.ending(NOW),
    }


@statement
def CANCEL(t: Tables) -> Executable:
    """Cancel these workflows, unless they have ended."""
    c = t.status.c
    return (
        update(t.status)
        .values(_cancelled(t))
        .where(t.dialect.among(c.workflow_uuid, "workflow_ids"), one_of(c.status, UNFINISHED))
        .returning(c.workflow_uuid)
    )


@statement
def QUEUES_OF(t: Tables) -> Executable:
    """The queues on which these workflows run."""
    c = t.status.c
    running = (t.dialect.among(c.workflow_uuid, "workflow_ids"), has_status(t, PENDING), c.queue_name.isnot(None))
    return select(c.queue_name).distinct().where(*running)


@statement
def CANCEL_EXPIRED(t: Tables) -> Executable:
    """Cancel what runs past its deadline."""
    c = t.status.c
    return (
        update(t.status)
        .values(_cancelled(t))
        .where(has_status(t, PENDING), c.workflow_deadline_epoch_ms <= NOW)
        .returning(c.workflow_uuid)
    )


@statement
def RESUME(t: Tables) -> Executable:
    """Make these workflows go on after their last step, unless they have finished."""
    c = t.status.c
    return (
        update(t.status)
        .values(
            status=ENQUEUED,
            queue_name=bindparam("queue"),
            recovery_attempts=0,
            workflow_deadline_epoch_ms=None,
            deduplication_id=None,
            started_at_epoch_ms=None,
            delay_until_epoch_ms=case((c.status == DELAYED, null()), else_=c.delay_until_epoch_ms),
            owner_xid=None,
            updated_at=NOW,
            **t.ending(None),
        )
        .where(t.dialect.among(c.workflow_uuid, "workflow_ids"), ~one_of(c.status, FINISHED))
        .returning(c.workflow_uuid)
    )


@statement
def REWIND(t: Tables) -> Executable:
    """Make a workflow that has ended go on from an earlier step, for any version of the code unless one is named."""
    c = t.status.c
    return (
        update(t.status)
        .values(
            status=ENQUEUED,
            queue_name=bindparam("queue"),
            queue_partition_key=bindparam("partition_key", type_=Text()),
            application_version=bindparam("version", type_=Text()),
            output=None,
            error=None,
            recovery_attempts=0,
            workflow_deadline_epoch_ms=None,
            deduplication_id=None,
            started_at_epoch_ms=None,
            delay_until_epoch_ms=None,
            owner_xid=None,
            updated_at=NOW,
            **t.ending(None),
        )
        .where(c.workflow_uuid == bindparam("workflow_id"), one_of(c.status, TERMINAL))
        .returning(c.workflow_uuid)
    )
