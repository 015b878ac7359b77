"""The log under telemetry: every record gets the ids of where it was written, and may be sent to collectors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dbos._hooks.telemetry import FORMATS, Spans, exporting, take_leave
from dbos._kernel.scope import HERE
from dbos._kernel.trace import set_tracer

if TYPE_CHECKING:
    from dbos._hooks.telemetry import TelemetrySettings

logger = logging.getLogger("dbos")


class Ids(logging.Filter):
    """Gives each record the ids of its application, workflow and trace."""

    def __init__(self, settings: TelemetrySettings, spans: Spans) -> None:
        super().__init__()
        names = FORMATS[settings.format]
        self._fixed = {**spans.identity, **settings.attributes}
        self._workflow, self._spans = names["workflow"], spans

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self.facts().items():
            record.__dict__.setdefault(name, value)
        return True

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self._fixed)
        place = HERE.get()
        if place is not None and place.run is not None:
            facts[self._workflow] = place.run.workflow_id
        span = self._spans.current()
        if span is not None and span.get_span_context().is_valid:
            facts["traceId"] = f"{span.get_span_context().trace_id:032x}"
        return facts


class Sender(logging.Handler):
    """Hands records over to a logger of OpenTelemetry."""

    def __init__(self, level: str, target: Any, ids: Ids) -> None:
        super().__init__(level)
        self._target, self._ids = target, ids

    def emit(self, record: logging.LogRecord) -> None:
        from opentelemetry._logs import SeverityNumber

        try:
            body = record.getMessage()
            # Five of theirs for each step of ten of Python's, from DEBUG as 5 to CRITICAL as 21.
            number = SeverityNumber(min(max(1 + record.levelno // 10 * 4, 1), 21))
            facts = {**self._ids.facts(), "code.file.path": record.pathname, "code.line.number": record.lineno}
            self._target.emit(
                timestamp=int(record.created * 10**9),
                severity_number=number,
                severity_text=record.levelname,
                body=body,
                attributes=facts,
            )
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be told is not worth more
            self.handleError(record)


def sending(settings: TelemetrySettings, spans: Spans) -> list[Callable[[], Any]]:
    """Give records their ids, send them to the configured collectors; how to end that."""
    ids = Ids(settings, spans)
    logger.addFilter(ids)
    ends: list[Callable[[], Any]] = [lambda: logger.removeFilter(ids)]
    if not settings.logs:
        return ends
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    provider = LoggerProvider(resource=Resource.create({"service.name": settings.service}), shutdown_on_exit=False)
    for url in settings.logs:
        provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=url)))
    handler = Sender(settings.log_level, provider.get_logger("dbos"), ids)
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        provider.shutdown()

    return [*ends, end]


def switch_on(settings: TelemetrySettings, app_id: str, app_version: str, executor_id: str) -> Callable[[], None]:
    """Make spans and tell the log from now on; the function that ends it."""
    spans = Spans(settings, app_id, app_version, executor_id)
    farewells = exporting(settings)
    ends = sending(settings, spans)
    set_tracer(spans)

    def end() -> None:
        set_tracer(None)
        take_leave([*farewells, *ends])

    return end
