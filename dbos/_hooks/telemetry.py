"""OpenTelemetry: spans of workflows and what they do, and the log, to collectors or to a provider of the program's.

Spans carry ids, names, times and states, never arguments, results or parameters; what an error says is left out with
`otlp_error_messages: False`. Whatever is exported waits in memory, in threads of the exporters: a collector that does
not answer loses spans, and never holds up a workflow or the end of the runtime for more than a second.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbos._kernel.scope import CALLER, Here
from dbos.error import DBOSInitializationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

    from dbos._kernel.scope import Caller, Run

TRACER = "dbos-tracer"
# The attribute of a workflow in which it takes along who enqueued it, as W3C writes it.
CARRIER = "traceparent"
# How long the end of a runtime waits for what is still to be exported.
FAREWELL_SECONDS = 1.0

# What operations in workflows are called in their spans; others have none, because they are read or asked for often.
OPERATIONS = {
    "DBOS.sleep": "sleep",
    "DBOS.recv": "recv",
    "DBOS.send": "send",
    "DBOS.sendBulk": "send_bulk",
    "DBOS.setEvent": "set_event",
    "DBOS.getEvent": "get_event",
    "DBOS.writeStream": "write_stream",
    "DBOS.closeStream": "close_stream",
    "DBOS.createSchedule": "createSchedule",
    "DBOS.applySchedules": "applySchedules",
    "DBOS.listSchedules": "listSchedules",
    "DBOS.getSchedule": "getSchedule",
    "DBOS.pauseSchedule": "pauseSchedule",
    "DBOS.resumeSchedule": "resumeSchedule",
    "DBOS.deleteSchedule": "deleteSchedule",
    "DBOS.backfillSchedule": "backfillSchedule",
    "DBOS.triggerSchedule": "triggerSchedule",
}

# The two ways to name attributes.
FORMATS = {
    "legacy": {
        "workflow": "operationUUID",
        "type": "operationType",
        "application": "applicationID",
        "version": "applicationVersion",
        "executor": "executorID",
        "user": "authenticatedUser",
        "roles": "authenticatedUserRoles",
        "assumed_role": "authenticatedUserAssumedRole",
        "queue": "queueName",
        "step": "stepID",
    },
    "semconv": {
        "workflow": "dbos.operation.workflow_id",
        "type": "dbos.operation.type",
        "application": "dbos.application.id",
        "version": "dbos.application.version",
        "executor": "dbos.executor.id",
        "user": "dbos.auth.user",
        "roles": "dbos.auth.roles",
        "assumed_role": "dbos.auth.assumed_role",
        "queue": "dbos.queue.name",
        "step": "dbos.operation.step_id",
    },
}


@dataclass(frozen=True)
class TelemetrySettings:
    """What a configuration says of telemetry."""

    service: str
    traces: tuple[str, ...]
    logs: tuple[str, ...]
    attributes: Mapping[str, str]
    log_level: str
    format: str = "legacy"
    tells_errors: bool = True


def settings_of(given: Mapping[str, Any]) -> TelemetrySettings | None:
    """The settings in a configuration; None: no telemetry. Raises DBOSInitializationError for what makes no sense."""
    chosen = given.get("otel_attribute_format", "legacy")
    if not isinstance(chosen, str) or chosen not in FORMATS:
        raise DBOSInitializationError(f"otel_attribute_format must be one of {', '.join(FORMATS)}, not {chosen!r}")
    traces, logs = (_endpoints(given, key) for key in ("otlp_traces_endpoints", "otlp_logs_endpoints"))
    attributes = given.get("otlp_attributes") or {}
    if not isinstance(attributes, Mapping):
        raise DBOSInitializationError(f"otlp_attributes must be a dict, not {type(attributes).__name__}")
    if not given.get("enable_otlp"):
        return None
    level = str(given.get("otlp_log_level") or given.get("log_level") or "INFO").upper()
    tells_errors = bool(given.get("otlp_error_messages", True))
    return TelemetrySettings(str(given.get("name", "")), traces, logs, attributes, level, chosen, tells_errors)


def _endpoints(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    urls = given.get(key) or ()
    if not isinstance(urls, list | tuple) or not all(isinstance(url, str) and urlsplit(url).hostname for url in urls):
        raise DBOSInitializationError(f"{key} must be a list of URLs, as in ['http://localhost:4318/v1/traces']")
    return tuple(urls)


def tracer() -> Tracer:
    """The tracer of OpenTelemetry under our name, for spans of the program's own."""
    return _api().get_tracer(TRACER)  # type: ignore[no-any-return]  # a module


def _api() -> Any:
    # Imported by those who use it: it is an extra, and nobody else should wait for it.
    try:
        from opentelemetry import trace
    except ImportError:
        raise DBOSInitializationError(
            "Telemetry needs OpenTelemetry: pip install 'dbos-notebook[otel]', or set enable_otlp to False"
        ) from None
    return trace


# -- spans -----------------------------------------------------------------------------------------------------

# The innermost of our spans; the program's own are not among them.
_SPAN: ContextVar[Span | None] = ContextVar("dbos_span", default=None)


class Spans:
    """Makes the spans of one launch."""

    def __init__(self, settings: TelemetrySettings, app_id: str, app_version: str, executor_id: str) -> None:
        self._api = _api()
        self._tracer = tracer()
        self._settings, self._names = settings, FORMATS[settings.format]
        self.identity = {
            self._names["application"]: app_id,
            self._names["version"]: app_version,
            self._names["executor"]: executor_id,
        }

    def span(self, name: str, kind: str, run: Run) -> AbstractContextManager[Any]:
        if kind != "workflow":
            return self._within(name, self._facts(kind, run.caller, self._names["workflow"], run.workflow_id))
        return self._workflow(name, run)

    @contextmanager
    def _workflow(self, name: str, run: Run) -> Iterator[Span]:
        facts = self._facts("workflow", run.caller, self._names["workflow"], run.workflow_id)
        queue = run.queue[0] if run.queue is not None else None
        if queue is not None:
            facts[self._names["queue"]] = queue
        parent = self._parent(run)
        with self._within(name, facts, parent) as span:
            if queue is not None and run.enqueued_ms is not None:
                waited = {**facts, self._names["type"]: "queue"}
                waiting = self._tracer.start_span("queue wait", attributes=waited, start_time=run.enqueued_ms * 10**6)
                waiting.end(max(run.enqueued_ms, run.ground.clock.now_ms()) * 10**6)
            yield span

    def _parent(self, run: Run) -> Any:
        """The context of who enqueued the workflow, if it was taken along; None: the one that is here."""
        if not isinstance(run.carrier.get(CARRIER), str):
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        return TraceContextTextMapPropagator().extract({CARRIER: run.carrier[CARRIER]})

    def operation(self, title: str, place: Any) -> AbstractContextManager[Any]:
        name = OPERATIONS.get(title)
        if name is None or not isinstance(place, Here) or not place.in_body or place.run is None:
            return nullcontext()
        return self.span(name, "step", place.run)

    def handler(self, name: str, facts: dict[str, Any]) -> AbstractContextManager[Any]:
        from opentelemetry.propagate import extract

        headers = facts.pop("headers", {})
        return self._within(name, {**self._facts("handler", CALLER.get()), **facts}, extract(headers))

    @contextmanager
    def _within(self, name: str, facts: dict[str, Any], parent: Any = None) -> Iterator[Span]:
        span = self._tracer.start_span(name, context=parent, attributes=facts)
        token = _SPAN.set(span)
        try:
            with self._api.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            self._mark(span, error)
            raise
        finally:
            _SPAN.reset(token)
            if span.is_recording() and getattr(span, "status", None) is not None and _is_unset(span):
                span.set_status(self._api.StatusCode.OK)
            span.end()

    def event(self, name: str, facts: dict[str, Any]) -> None:
        span = _SPAN.get()
        if span is not None:
            told = {key: self._told(each) if isinstance(each, BaseException) else each for key, each in facts.items()}
            span.add_event(name, told)

    def failed(self, error: BaseException) -> None:
        span = _SPAN.get()
        if span is not None:
            self._mark(span, error)

    def current(self) -> Span | None:
        return _SPAN.get()

    def carrier(self, context: Any) -> dict[str, str]:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, context)
        return {key: value for key, value in carrier.items() if key == CARRIER}

    def _mark(self, span: Span, error: BaseException) -> None:
        span.set_status(self._api.StatusCode.ERROR, self._told(error))

    def _told(self, error: BaseException) -> str:
        return str(error) if self._settings.tells_errors else type(error).__qualname__

    def _facts(self, kind: str, caller: Caller, *more: str) -> dict[str, Any]:
        names = self._names
        facts: dict[str, Any] = {names["type"]: kind, **self.identity}
        facts[names["user"]] = caller.user or ""
        facts[names["roles"]] = json.dumps(list(caller.roles)) if caller.roles else ""
        facts[names["assumed_role"]] = caller.assumed_role or ""
        facts.update(zip(more[::2], more[1::2], strict=True))
        return {**facts, **self._settings.attributes}


def _is_unset(span: Any) -> bool:
    return bool(span.status.is_unset)


# -- where they go ---------------------------------------------------------------------------------------------


class Outlet:
    """Passes spans on to the exporters of the present launch: a process has one provider, and may launch again."""

    def __init__(self) -> None:
        self.processors: list[SpanProcessor] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        for each in self.processors:
            each.on_start(span, parent_context)

    def _on_ending(self, span: Any) -> None:
        """Nobody behind us asks for it."""

    def on_end(self, span: Any) -> None:
        for each in self.processors:
            each.on_end(span)

    def shutdown(self) -> None:
        self.processors = []

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return all([each.force_flush(timeout_millis) for each in self.processors])  # noqa: C419 - each of them


# Of the provider that is ours; a provider of the program's has exporters of its own.
_outlet: Outlet | None = None


def _our_outlet(service: str) -> Outlet | None:
    """The outlet of our provider, which is made if the program has none; None: the program has one."""
    global _outlet  # noqa: PLW0603 - OpenTelemetry lets a process set its provider once
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    api = _api()
    if _outlet is None and isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        # At the end of the process nobody waits for a collector.
        provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        _outlet = Outlet()
        provider.add_span_processor(_outlet)  # type: ignore[arg-type]  # it does what one does
        api.set_tracer_provider(provider)
    return _outlet


def exporting(settings: TelemetrySettings) -> list[Callable[[], Any]]:
    """Send spans to the configured collectors; how to end that."""
    if not settings.traces:
        return []
    outlet = _our_outlet(settings.service)
    if outlet is None:
        return []
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    outlet.processors = [BatchSpanProcessor(OTLPSpanExporter(endpoint=url)) for url in settings.traces]
    return [each.shutdown for each in outlet.processors]


def take_leave(farewells: list[Callable[[], Any]]) -> None:
    """Export what there is still, in a second; what is left then is lost."""
    threads = [threading.Thread(target=each, name="dbos-telemetry", daemon=True) for each in farewells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FAREWELL_SECONDS / len(threads))
    if _outlet is not None:
        _outlet.shutdown()
