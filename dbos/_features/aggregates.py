"""How many workflows there are of which kind, and how many come in which stretch of time: for dashboards and alerts.

Counting happens in the database; nothing is decoded and nothing is recorded in a workflow. What no index serves reads
as many rows as the conditions leave, so dashboards bound the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import BigInteger, ColumnElement, bindparam, func, literal_column, select, union_all

from dbos._engine.selection import checked, conditions, describes_none
from dbos._kernel.clock import epoch_ms_of
from dbos._kernel.journal import refuse_in_transaction
from dbos._kernel.model import WorkflowFilter
from dbos._kernel.plan import op
from dbos._kernel.scope import Here
from dbos._kernel.statement import constant, statement

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn, Row

# What workflows can be counted by, and the column of each.
GROUPS = {
    "status": "status",
    "name": "name",
    "queue_name": "queue_name",
    "executor_id": "executor_id",
    "application_version": "application_version",
}
# Conditions of a listing that mean nothing to a count.
PAGING = ("limit", "offset", "sort_desc", "load_input", "load_output")
# A chart of more stretches nobody can read.
MOST_INTERVALS = 100_000


class WorkflowAggregate(NamedTuple):
    """How many workflows have these values: `group` holds one for each thing that was counted by."""

    group: dict[str, str | None]
    number: int


class Metric(NamedTuple):
    """A count over a stretch of time: of workflows (`workflow_count`) or steps (`step_count`) of a name."""

    metric_type: str
    metric_name: str
    value: int


class WorkflowRate(NamedTuple):
    """How many workflows of a name and status were created in the interval that begins at a moment (in ms)."""

    begins_at: int
    name: str
    status: str
    number: int


@statement
def METRICS(t: Tables) -> Executable:
    """How many workflows were created, and steps completed, between two moments, by name."""
    w, s = t.status.c, t.steps.c
    start, end = bindparam("start", type_=BigInteger()), bindparam("end", type_=BigInteger())

    def of(kind: str, name: ColumnElement[Any], moment: ColumnElement[Any]) -> Any:
        counted = (constant(kind).label("kind"), name.label("name"), func.count().label("number"))
        return select(*counted).where(moment >= start, moment <= end).group_by(name)

    workflows = of("workflow_count", w.name, w.created_at)
    return union_all(workflows, of("step_count", s.function_name, s.completed_at_epoch_ms))


def _wanted(filters: dict[str, Any]) -> WorkflowFilter:
    """The conditions of a count."""
    useless = sorted(set(filters) & set(PAGING))
    if useless:
        raise TypeError(f"a count has no such condition: {', '.join(useless)}")
    return checked(cast("WorkflowFilter", filters))


@op("DBOS.getWorkflowAggregates")
async def get_workflow_aggregates(
    here: Here,
    /,
    *,
    group_by_status: bool = False,
    group_by_name: bool = False,
    group_by_queue_name: bool = False,
    group_by_executor_id: bool = False,
    group_by_application_version: bool = False,
    **filters: Any,
) -> list[WorkflowAggregate]:
    """Return how many workflows there are of each status, name, queue, executor or version, or of each combination.

    At least one `group_by_...` must be given, else it raises ValueError. `filters` are the conditions of
    `list_workflows`. Groups without workflows are left out; the largest comes first.
    """
    refuse_in_transaction(here, "DBOS.getWorkflowAggregates")
    flags = (group_by_status, group_by_name, group_by_queue_name, group_by_executor_id, group_by_application_version)
    chosen = [name for name, is_wanted in zip(GROUPS, flags, strict=True) if is_wanted]
    if not chosen:
        raise ValueError(f"At least one of {', '.join(f'group_by_{name}' for name in GROUPS)} must be given")
    wanted = _wanted(filters)
    if describes_none(wanted):
        return []

    def read(conn: Conn) -> list[Row]:
        columns = [conn.tables.status.c[GROUPS[name]] for name in chosen]
        number = func.count().label("number")
        query = select(*columns, number).where(*conditions(conn.tables, wanted)).group_by(*columns)
        return conn.run_once(query.order_by(number.desc(), *columns))

    return [
        WorkflowAggregate(dict(zip(chosen, row[:-1], strict=True)), int(row.number)) for row in await here.read(read)
    ]


@op("DBOS.getMetrics")
async def get_metrics(here: Here, start_time: str, end_time: str) -> list[Metric]:
    """Return how many workflows were created, and how many steps completed, between two moments, by their names.

    The moments are ISO 8601 texts, local time where they name no zone, and belong to the stretch. Steps are counted by
    reading all of them.
    """
    refuse_in_transaction(here, "DBOS.getMetrics")
    bounds = {"start": epoch_ms_of(start_time), "end": epoch_ms_of(end_time)}
    rows = await here.read(lambda conn: conn.run(METRICS, **bounds))
    return sorted(Metric(row.kind, row.name or "", int(row.number)) for row in rows)


@op("DBOS.getWorkflowRates")
async def get_workflow_rates(
    here: Here, /, start_time: str, end_time: str, interval_seconds: float, **filters: Any
) -> list[WorkflowRate]:
    """Return how many workflows were created in each interval between two moments, by name and status.

    The moments are ISO 8601 texts, local time where they name no zone; `filters` are the conditions of
    `list_workflows`. Intervals begin at the first moment; those without workflows are left out.
    """
    refuse_in_transaction(here, "DBOS.getWorkflowRates")
    start, end, interval = epoch_ms_of(start_time), epoch_ms_of(end_time), int(interval_seconds * 1000)
    if interval < 1 or (end - start) / interval > MOST_INTERVALS:
        raise ValueError(
            f"interval_seconds must be at least 0.001 and make no more than {MOST_INTERVALS} intervals, "
            f"but is {interval_seconds!r}"
        )
    wanted: WorkflowFilter = {**_wanted(filters), "start_time": start_time, "end_time": end_time}
    if describes_none(wanted):
        return []

    def read(conn: Conn) -> list[Row]:
        c = conn.tables.status.c
        # In words: the same parameter twice is two expressions to Postgres, and it could not group by them.
        place = ((c.created_at - literal_column(str(start))) // literal_column(str(interval))).label("place")
        columns = (place, c.name, c.status)
        query = select(*columns, func.count().label("number")).where(*conditions(conn.tables, wanted))
        return conn.run_once(query.group_by(*columns).order_by(*columns))

    return [
        WorkflowRate(start + int(row.place) * interval, row.name or "", row.status, int(row.number))
        for row in await here.read(read)
    ]
