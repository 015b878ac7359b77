"""Every table and index, once.

The tables that all DBOS programs know are in the classic layout: names, columns and types are shared with them.
Which of them carry an index is ours to choose: partial where a value is rare, none where no statement needs it.
What only we have stands apart, under names that begin with `notebook_`.

A database may also be in the split layout of later releases, where inputs and outputs live in tables of their
own. We write classic and read both; `Layout` says what was found, and the expressions at the end of `Tables`
are the only place that knows the difference.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DefaultClause,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    cast,
    func,
    literal_column,
    null,
    select,
    text,
)

from dbos._kernel.layout import CLASSIC, Layout

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

    from dbos._kernel.dialect import Dialect

# The row of `dbos_migrations` that other DBOS programs read. Ours is the classic layout and never another number.
CLASSIC_VERSION = {"postgresql": 19, "sqlite": 17}
# Our own tables count by themselves, in `notebook_migrations`.
OWN_VERSION = 3


# True of every row. Only a listing says it, so that an index with this condition serves no other statement: a claim
# that a planner without statistics led there would read all that its queue ever did.
OF_A_LISTING = f"created_at > {-(2**63) + 1}"

# The indexes of `workflow_status`, each as lean as its use allows: name, columns, unique, condition.
STATUS_INDEXES = (
    ("workflow_status_created_at_index", ("created_at",), False, None),
    (
        "idx_workflow_status_in_flight",
        ("queue_name", "status", "priority", "created_at"),
        False,
        "status IN ('ENQUEUED', 'PENDING')",
    ),
    (
        "uq_workflow_status_dedup_id",
        ("queue_name", "deduplication_id"),
        True,
        "deduplication_id IS NOT NULL",
    ),
    (
        "idx_workflow_status_partition",
        ("queue_name", "queue_partition_key", "priority", "created_at"),
        False,
        "status = 'ENQUEUED' AND queue_partition_key IS NOT NULL",
    ),
    # What ended well is not in it, so it costs nothing until something fails.
    (
        "idx_workflow_status_failed",
        ("status", "created_at"),
        False,
        "status IN ('CANCELLED', 'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')",
    ),
    ("idx_workflow_status_delayed", ("delay_until_epoch_ms",), False, "status = 'DELAYED'"),
    ("idx_workflow_status_forked_from", ("forked_from",), False, "forked_from IS NOT NULL"),
    (
        "idx_workflow_status_parent_workflow_id",
        ("parent_workflow_id",),
        False,
        "parent_workflow_id IS NOT NULL",
    ),
    (
        "idx_workflow_status_deadline",
        ("workflow_deadline_epoch_ms",),
        False,
        "status = 'PENDING' AND workflow_deadline_epoch_ms IS NOT NULL",
    ),
    ("idx_workflow_status_name", ("name", "created_at"), False, OF_A_LISTING),
    (
        "idx_workflow_status_user",
        ("authenticated_user", "created_at"),
        False,
        f"authenticated_user IS NOT NULL AND {OF_A_LISTING}",
    ),
)


class Tables:
    """The tables of one database, under its schema name and in its layout."""

    def __init__(self, dialect: Dialect, schema: str | None, layout: Layout = CLASSIC) -> None:
        self.dialect, self.schema, self.layout = dialect, schema if dialect.has_schemas else None, layout
        self.metadata = MetaData(schema=self.schema)
        self.status = self._status()
        self.steps = self._steps()
        self.messages = self._messages()
        self.events, self.event_history = self._events()
        self.streams = self._streams()
        self.schedules = self._schedules()
        self.versions = self._versions()
        self.migrations = Table("dbos_migrations", self.metadata, Column("version", self._big, primary_key=True))
        if dialect.has_schemas:
            self._event_dispatch()
        self.own_migrations = Table(
            "notebook_migrations", self.metadata, Column("version", self._big, primary_key=True)
        )
        self.leases = self._leases()
        self.starts, self.alerts, self.untold = self._starts(), self._alerts(), self._untold()
        self.schedule_origins, self.debounces = self._schedule_origins(), self._debounces()
        self.attribute_rows, self.notes, self.sources = self._attribute_rows(), self._notes(), self._sources()
        later = MetaData(schema=self.schema)  # never created by us
        # Later releases have a table of queues; where it is missing we have one of our own, of the same columns.
        self.queues = self._queues("queues", later) if layout.split else self._queues("notebook_queues", self.metadata)
        self.side_input = Table("workflow_input", later, Column("workflow_uuid", Text), Column("inputs", Text))
        self.side_output = Table(
            "workflow_output", later, Column("workflow_uuid", Text), Column("output", Text), Column("error", Text)
        )

    # SQLite counts rows by an INTEGER key only, and its other readers expect that word.
    @property
    def _big(self) -> type[TypeEngine[int]]:
        return BigInteger if self.dialect.has_schemas else Integer

    def _moment(self, name: str) -> Column[Any]:
        return Column(name, self._big, nullable=False, server_default=DefaultClause(text(self.dialect.now_default)))

    def _workflow(self, name: str = "workflow_uuid", **options: Any) -> Column[Any]:
        """A column that names a workflow and goes when the workflow goes."""
        target = ForeignKey(self.status.c.workflow_uuid, ondelete="CASCADE", onupdate="CASCADE")
        return Column(name, Text, target, nullable=False, **options)

    def _status(self) -> Table:
        false = DefaultClause(text("FALSE"))
        table = Table(
            "workflow_status",
            self.metadata,
            Column("workflow_uuid", Text, primary_key=True),
            Column("status", Text),
            Column("name", Text),
            Column("authenticated_user", Text),
            Column("assumed_role", Text),
            Column("authenticated_roles", Text),
            Column("request", Text),
            Column("output", Text),
            Column("error", Text),
            Column("executor_id", Text),
            self._moment("created_at"),
            self._moment("updated_at"),
            Column("application_version", Text),
            Column("application_id", Text),
            Column("class_name", String(255)),
            Column("config_name", String(255)),
            Column("recovery_attempts", self._big, server_default=text("0")),
            Column("queue_name", Text),
            Column("workflow_timeout_ms", self._big),
            Column("workflow_deadline_epoch_ms", self._big),
            Column("inputs", Text),
            Column("started_at_epoch_ms", self._big),
            Column("deduplication_id", Text),
            Column("priority", Integer, nullable=False, server_default=text("0")),
            Column("queue_partition_key", Text),
            Column("forked_from", Text),
            Column("owner_xid", Text),
            Column("parent_workflow_id", Text),
            Column("serialization", Text),
            Column("delay_until_epoch_ms", BigInteger),
            Column("was_forked_from", Boolean, nullable=False, server_default=false),
            *([Column("completed_at", self._big)] if self.layout.extended else []),
            *([Column("attributes", Text)] if self.layout.attributes == "column" else []),
        )
        for name, columns, unique, condition in STATUS_INDEXES:
            Index(name, *(table.c[column] for column in columns), unique=unique, **self._where(condition))
        if self.dialect.has_schemas:
            # In most collations the key itself does not know where a prefix begins and ends.
            key = table.c.workflow_uuid
            Index("idx_workflow_status_prefix", key, postgresql_ops={key.name: "text_pattern_ops"})
        return table

    def _where(self, condition: str | None) -> dict[str, Any]:
        # Only the word of this dialect: SQLAlchemy would load the other one for its own.
        return {} if condition is None else {f"{self.dialect.name}_where": text(condition)}

    def _steps(self) -> Table:
        # On Postgres a foreign key doubles the cost of a step; there the trigger `forget_steps` does its other job. On
        # SQLite it costs nothing to speak of, and a later release that rebuilds the table would trip over a trigger.
        if self.dialect.has_schemas:
            workflow = Column("workflow_uuid", Text, primary_key=True)
        else:
            workflow = self._workflow(primary_key=True)
        table = Table(
            "operation_outputs",
            self.metadata,
            workflow,
            Column("function_id", Integer, primary_key=True, autoincrement=False),
            Column("function_name", Text, nullable=False, server_default=text("''")),
            Column("output", Text),
            Column("error", Text),
            Column("child_workflow_id", Text),
            Column("started_at_epoch_ms", BigInteger),
            Column("completed_at_epoch_ms", BigInteger),
            Column("serialization", Text),
        )
        # For whoever looks at what failed: else every step of a failed workflow is read for the one that did.
        where = self._where("error IS NOT NULL")
        Index("idx_operation_outputs_failed", table.c.workflow_uuid, table.c.function_id, **where)
        return table

    def _messages(self) -> Table:
        table = Table(
            "notifications",
            self.metadata,
            Column(
                "message_uuid",
                Text,
                primary_key=True,
                server_default=DefaultClause(text(self.dialect.random_id_default)),
            ),
            self._workflow("destination_uuid"),
            Column("topic", Text),
            Column("message", Text, nullable=False),
            self._moment("created_at_epoch_ms"),
            Column("serialization", Text),
            Column("consumed", Boolean, nullable=False, server_default=DefaultClause(text("FALSE"))),
        )
        # The unread ones of a topic, oldest first, however many were read before.
        c = table.c
        Index("idx_workflow_topic", c.destination_uuid, c.topic, c.consumed, c.created_at_epoch_ms)
        return table

    def _events(self) -> tuple[Table, Table]:
        def table(name: str, *keys: Column[Any]) -> Table:
            return Table(
                name,
                self.metadata,
                self._workflow(primary_key=True),
                *keys,
                Column("value", Text, nullable=False),
                Column("serialization", Text),
            )

        def key() -> Column[Any]:
            return Column("key", Text, primary_key=True)

        step = Column("function_id", Integer, primary_key=True, autoincrement=False)
        return table("workflow_events", key()), table("workflow_events_history", step, key())

    def _streams(self) -> Table:
        return Table(
            "streams",
            self.metadata,
            self._workflow(primary_key=True),
            Column("key", Text, primary_key=True),
            Column("value", Text, nullable=False),
            Column("offset", Integer, primary_key=True, autoincrement=False),
            Column("function_id", Integer, nullable=False, server_default=text("0")),
            Column("serialization", Text),
        )

    def _schedules(self) -> Table:
        return Table(
            "workflow_schedules",
            self.metadata,
            Column("schedule_id", Text, primary_key=True),
            Column("schedule_name", Text, nullable=False, unique=True),
            Column("workflow_name", Text, nullable=False),
            Column("workflow_class_name", Text),
            Column("schedule", Text, nullable=False),
            Column("status", Text, nullable=False, server_default=text("'ACTIVE'")),
            Column("context", Text, nullable=False),
            Column("last_fired_at", Text),
            Column("automatic_backfill", Boolean, nullable=False, server_default=DefaultClause(text("FALSE"))),
            Column("cron_timezone", Text),
            Column("queue_name", Text),
        )

    def _versions(self) -> Table:
        return Table(
            "application_versions",
            self.metadata,
            Column("version_id", Text, primary_key=True),
            Column("version_name", Text, nullable=False, unique=True),
            self._moment("version_timestamp"),
            self._moment("created_at"),
        )

    def _event_dispatch(self) -> Table:
        """Unused by everybody, but part of the classic layout on Postgres."""
        return Table(
            "event_dispatch_kv",
            self.metadata,
            Column("service_name", Text, primary_key=True),
            Column("workflow_fn_name", Text, primary_key=True),
            Column("key", Text, primary_key=True),
            Column("value", Text),
            Column("update_seq", Numeric(38, 0)),
            Column("update_time", Numeric(38, 15)),
        )

    def _leases(self) -> Table:
        """Who is alive: one row per launch, renewed by its heartbeat."""
        return Table(
            "notebook_leases",
            self.metadata,
            Column("owner_id", Text, primary_key=True),
            Column("executor_id", Text, nullable=False),
            Column("application_version", Text, nullable=False),
            # The machine and process, so that a neighbour sees a death at once instead of waiting for the lease.
            Column("host", Text, nullable=False),
            Column("process", Text, nullable=False),
            Column("started_at", self._big, nullable=False),
            Column("expires_at", self._big, nullable=False),
        )

    def _starts(self) -> Table:
        """When workflows of a queue with a rate limit were started: their rows forget it when they are recovered."""
        table = Table(
            "notebook_starts",
            self.metadata,
            Column("start_id", self._big, primary_key=True, autoincrement=True),
            Column("queue_name", Text, nullable=False),
            Column("queue_partition_key", Text),
            Column("started_at", self._big, nullable=False),
            Column("number", Integer, nullable=False),
        )
        Index("idx_notebook_starts", table.c.queue_name, table.c.started_at)
        return table

    def _alerts(self) -> Table:
        """What was told, and when: each condition is told once, by one of all processes."""
        return Table(
            "notebook_alerts",
            self.metadata,
            Column("rule", Text, primary_key=True),
            Column("subject", Text, primary_key=True),
            Column("raised_at", self._big, nullable=False),
        )

    def _untold(self) -> Table:
        """Alerts on their way to a handler, and the launch that takes them there."""
        return Table(
            "notebook_untold",
            self.metadata,
            Column("alert_id", self._big, primary_key=True, autoincrement=True),
            Column("rule", Text, nullable=False),
            Column("message", Text, nullable=False),
            Column("facts", Text, nullable=False),
            Column("owner_id", Text, nullable=False),
            Column("tries", Integer, nullable=False),
            Column("due_at", self._big, nullable=False),
        )

    def _schedule_origins(self) -> Table:
        """Since when each schedule is as it is now: what was due before is none of its affair."""
        return Table(
            "notebook_schedules",
            self.metadata,
            Column("schedule_id", Text, primary_key=True),
            Column("counts_from", self._big, nullable=False),
        )

    def _debounces(self) -> Table:
        """The workflows that wait for the end of a burst of calls, and the moment at which each starts at the latest."""
        return Table(
            "notebook_debounces",
            self.metadata,
            Column("workflow_uuid", Text, primary_key=True),
            Column("deadline", self._big),
        )

    def _attribute_rows(self) -> Table:
        """The attributes of workflows as JSON, where the shared table has no column for them."""
        return Table(
            "notebook_attributes",
            self.metadata,
            self._workflow(primary_key=True),
            Column("attributes", Text, nullable=False),
        )

    def _notes(self) -> Table:
        """What an extension keeps of steps, and of workflows (as those of step 0): previews, prints, attempts."""
        return Table(
            "notebook_notes",
            self.metadata,
            self._workflow(primary_key=True),
            Column("function_id", Integer, primary_key=True),
            Column("kind", Text, primary_key=True),
            Column("text", Text, nullable=False),
        )

    def _sources(self) -> Table:
        """The source of each version of a workflow's code, where an extension knows it."""
        return Table(
            "notebook_sources",
            self.metadata,
            Column("version", Text, primary_key=True),
            Column("workflow", Text, nullable=False),
            Column("text", Text, nullable=False),
            Column("created_at", self._big, nullable=False),
        )

    def _queues(self, name: str, metadata: MetaData) -> Table:
        false = DefaultClause(text("FALSE"))
        return Table(
            name,
            metadata,
            Column("queue_id", Text, primary_key=True),
            Column("name", Text, nullable=False, unique=True),
            Column("concurrency", Integer),
            Column("worker_concurrency", Integer),
            Column("rate_limit_max", Integer),
            Column("rate_limit_period_sec", Float),
            Column("priority_enabled", Boolean, nullable=False, server_default=false),
            Column("partition_queue", Boolean, nullable=False, server_default=false),
            Column("polling_interval_sec", Float, nullable=False, server_default=text("1.0")),
            self._moment("created_at"),
            self._moment("updated_at"),
            Column("application_name", Text),
            Column("partition_concurrency", Integer),
            Column("partition_worker_concurrency", Integer),
            Column("partition_rate_limit_max", Integer),
            Column("partition_rate_limit_period_sec", Float),
        )

    @cached_property
    def own(self) -> list[Table]:
        return [table for table in self.metadata.sorted_tables if table.name.startswith("notebook_")]

    @cached_property
    def shared(self) -> list[Table]:
        return [table for table in self.metadata.sorted_tables if table not in self.own]

    # -- the two layouts, read alike ---------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> ColumnElement[Any]:
        return self._either(self.status.c.inputs, self.side_input.c.inputs)

    @cached_property
    def output(self) -> ColumnElement[Any]:
        return self._either(self.status.c.output, self.side_output.c.output)

    @cached_property
    def error(self) -> ColumnElement[Any]:
        return self._either(self.status.c.error, self.side_output.c.error)

    @cached_property
    def completed_at(self) -> ColumnElement[Any]:
        return self.status.c.completed_at if self.layout.extended else null().label("completed_at")

    @cached_property
    def attributes(self) -> ColumnElement[Any]:
        """What users noted of a workflow, as JSON text."""
        if self.layout.attributes == "nowhere":
            return null().label("attributes")
        if self.layout.attributes == "column":
            return cast(self.status.c.attributes, Text).label("attributes")
        c = self.attribute_rows.c
        noted = select(c.attributes).where(c.workflow_uuid == self.status.c.workflow_uuid)
        return noted.correlate(self.status).scalar_subquery().label("attributes")

    @cached_property
    def this_workflow(self) -> ColumnElement[str]:
        """The id of the row, for a query inside a statement on it.

        In words: a statement that returns what it changed names columns without their table on SQLite, and inside
        the query that would be the other table's own.
        """
        name = self.dialect.named.identifier_preparer.format_table(self.status)
        return literal_column(f"{name}.workflow_uuid", Text())

    def _either(self, classic: Column[Any], side: Column[Any]) -> ColumnElement[Any]:
        if not self.layout.split:
            return classic.label(classic.name)
        elsewhere = select(side).where(side.table.c.workflow_uuid == self.this_workflow).scalar_subquery()
        return func.coalesce(elsewhere, classic).label(classic.name)

    def ending(self, moment: ColumnElement[Any] | None) -> dict[str, Any]:
        """What else an UPDATE sets when a workflow ends at that moment; None: when it is to go on."""
        return {"completed_at": moment} if self.layout.extended else {}
