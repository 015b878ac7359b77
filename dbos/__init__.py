"""Durable workflows on SQLite or Postgres: a workflow that was started is run to its end, whatever happens.

Decorate functions with `@DBOS.workflow()` and `@DBOS.step()`, then `DBOS(config=...)` and `DBOS.launch()`.
"""

from dbos import error
from dbos._engine.handle import WorkflowHandle, WorkflowHandleAsync
from dbos._engine.order import EnqueueOptions
from dbos._engine.queue import DuplicationPolicy
from dbos._engine.step import StepOptions
from dbos._faces.client import DBOSClient
from dbos._faces.config import DBOSConfig
from dbos._faces.datasources import AsyncSQLAlchemyDatasource, SQLAlchemyDatasource
from dbos._faces.dbos import DBOS
from dbos._faces.debouncer import Debouncer, DebouncerClient
from dbos._faces.decorators import DBOSConfiguredInstance
from dbos._faces.migration import run_dbos_database_migrations
from dbos._faces.options import (
    DBOSContextEnsure,
    DBOSContextSetAuth,
    PropagateOtelContext,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos._faces.queue import Queue
from dbos._faces.reservation import StepReservation
from dbos._faces.scheduling import ScheduleInput
from dbos._faces.validation import make_pydantic_args_validator, pydantic_args_validator
from dbos._features.aggregates import Metric, WorkflowAggregate, WorkflowRate
from dbos._features.failures import StoredFailure
from dbos._features.inspection import (
    QueueBacklog,
    StoredEvent,
    StoredMessage,
    StoredStep,
    StoredStreamEntry,
    StoredValues,
)
from dbos._features.messages import SendMessage
from dbos._features.notes import CodeSource, WorkflowNote
from dbos._features.schedules import ClientScheduleInput, WorkflowSchedule
from dbos._hooks.kafka import KafkaMessage
from dbos._kernel.codec import (
    DBOSPortableJSONSerializer,
    PortableWorkflowError,
    Serializer,
    WorkflowSerializationFormat,
)
from dbos._kernel.model import StepInfo, VersionInfo, WorkflowStatus, WorkflowStatusString
from dbos._kernel.naming import WorkflowIDReusePolicy
from dbos._kernel.signed import JSONOnlySerializer, SignedSerializer

__all__ = [
    "DBOS",
    "AsyncSQLAlchemyDatasource",
    "ClientScheduleInput",
    "CodeSource",
    "DBOSClient",
    "DBOSConfig",
    "DBOSConfiguredInstance",
    "DBOSContextEnsure",
    "DBOSContextSetAuth",
    "DBOSPortableJSONSerializer",
    "Debouncer",
    "DebouncerClient",
    "DuplicationPolicy",
    "EnqueueOptions",
    "JSONOnlySerializer",
    "KafkaMessage",
    "Metric",
    "PortableWorkflowError",
    "PropagateOtelContext",
    "Queue",
    "QueueBacklog",
    "SQLAlchemyDatasource",
    "ScheduleInput",
    "SendMessage",
    "Serializer",
    "SetEnqueueOptions",
    "SetWorkflowAttributes",
    "SetWorkflowID",
    "SetWorkflowTimeout",
    "SignedSerializer",
    "StepInfo",
    "StepOptions",
    "StepReservation",
    "StoredEvent",
    "StoredFailure",
    "StoredMessage",
    "StoredStep",
    "StoredStreamEntry",
    "StoredValues",
    "VersionInfo",
    "WorkflowAggregate",
    "WorkflowHandle",
    "WorkflowHandleAsync",
    "WorkflowIDReusePolicy",
    "WorkflowNote",
    "WorkflowRate",
    "WorkflowSchedule",
    "WorkflowSerializationFormat",
    "WorkflowStatus",
    "WorkflowStatusString",
    "error",
    "make_pydantic_args_validator",
    "pydantic_args_validator",
    "run_dbos_database_migrations",
]
