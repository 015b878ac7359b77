"""OpenTelemetry: which spans there are, whose children they are, what they say, and what they never say."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dbos import DBOS, PropagateOtelContext, Queue, SetWorkflowID
from dbos.error import DBOSInitializationError, DBOSMaxStepRetriesExceeded
from tests.compat.acts import again
from tests.compat.conftest import Log, log, rows
from tests.compat.rows import Rows
from tests.conftest import App
from tests.hand import Hand, Inside

__all__ = ["log", "rows"]

ROOT = Path(__file__).parents[2]
PROVIDER = TracerProvider()
CANARY = "canary-7f3a"


class Seen:
    """The spans that have ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        return [each.name for each in self.all()]

    def one(self, name: str) -> ReadableSpan:
        (found,) = (each for each in self.all() if each.name == name)
        return found

    def tree(self) -> dict[str, str | None]:
        """The parent of each, by name."""
        by_id = {each.context.span_id: each.name for each in self.all()}
        return {each.name: by_id[each.parent.span_id] if each.parent else None for each in self.all()}

    def above(self, name: str) -> list[str]:
        """What this one is inside of; frameworks put spans of their own between."""
        by_id = {each.context.span_id: each for each in self.all()}
        found, span = [], self.one(name)
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            found.append(span.name)
        return found


@pytest.fixture
def seen() -> Iterator[Seen]:
    """A provider of the program's own, which OpenTelemetry lets a process set once."""
    if trace.get_tracer_provider() is not PROVIDER:
        trace.set_tracer_provider(PROVIDER)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    before = PROVIDER._active_span_processor._span_processors
    PROVIDER._active_span_processor._span_processors = (processor,)
    yield Seen(exporter)
    PROVIDER._active_span_processor._span_processors = before


def test_spans_are_as_workflows_are(app: App, hand: Hand, seen: Seen) -> None:
    """Steps and operations are children of their workflow, a child workflow of its parent, a user's span of its step."""

    @hand.step(name="leaf")
    def leaf() -> None:
        DBOS.span.set_attribute("mine", 1)
        with DBOS.tracer.start_as_current_span("users"):
            pass

    @hand.workflow(name="child")
    async def child(do: Inside) -> None:
        await do.set_event("k", 1)

    @hand.workflow(name="parent")
    async def parent(do: Inside) -> None:
        await do(leaf())
        await do.sleep(0.001)
        await do.list_workflows()
        await (await do.start(child)).get_result() if hand.is_async else (await do.start(child)).get_result()

    app.launch(enable_otlp=True, otlp_attributes={"team": "blue"})
    with DBOS.tracer.start_as_current_span("outer"), SetWorkflowID("w"):
        if hand.is_async:
            hand.call(in_span, parent)
        else:
            parent()
    DBOS.destroy()

    expected = {"users": "leaf", "leaf": "parent", "sleep": "parent", "child": "parent", "set_event": "child"}
    found = seen.tree()
    assert expected == {name: found[name] for name in expected}
    assert set(found) == {*expected, "parent", "outer"}
    leaf_span, parent_span = seen.one("leaf"), seen.one("parent")
    assert 1 == leaf_span.attributes["mine"]
    assert ("w", "step", "blue") == tuple(
        leaf_span.attributes[key] for key in ("operationUUID", "operationType", "team")
    )
    facts = dict(parent_span.attributes)
    assert {"operationUUID": "w", "operationType": "workflow", "applicationVersion": "v1"}.items() <= facts.items()
    assert {"executorID": "local", "authenticatedUser": "", "authenticatedUserRoles": ""}.items() <= facts.items()
    assert "queueName" not in facts
    assert all(each.status.is_ok for each in seen.all() if each.name in ("parent", "leaf", "sleep", "child"))


async def in_span(workflow: Callable[..., Any]) -> None:
    await workflow()


def test_nothing_is_made_unless_it_is_asked_for(app: App, seen: Seen) -> None:
    @DBOS.workflow(name="plain")
    def plain() -> Any:
        return DBOS.span

    app.launch()

    assert plain() is None
    assert [] == seen.names()


def test_failures_and_attempts(app: App, hand: Hand, seen: Seen) -> None:
    @hand.step(name="fails", retries_allowed=True, max_attempts=2, interval_seconds=0)
    def fails() -> None:
        raise ValueError(CANARY)

    @hand.workflow(name="failing")
    async def failing(do: Inside) -> None:
        await do(fails())

    app.launch(enable_otlp=True)
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing)
    step, workflow = seen.one("fails"), seen.one("failing")

    assert ["Step attempt 1 failed", "Step attempt 2 failed"] == [each.name for each in step.events]
    assert CANARY == step.events[0].attributes["error"]
    assert "exceeded its maximum of 2" in step.status.description == workflow.status.description
    app.relaunch(enable_otlp=True, otlp_error_messages=False)
    with pytest.raises(DBOSMaxStepRetriesExceeded):
        hand.call(failing)
    assert "DBOSMaxStepRetriesExceeded" == seen.all()[-1].status.description
    assert CANARY not in "".join(each.to_json() for each in seen.all()[2:])


def test_what_is_enqueued_is_a_trace_of_its_own_or_joins_the_callers(app: App, seen: Seen) -> None:
    """With the time that it waited."""
    queue = Queue("line")

    @DBOS.workflow(name="queued")
    def queued(x: int) -> int:
        return x

    app.launch(enable_otlp=True)
    with DBOS.tracer.start_as_current_span("outer"):
        queue.enqueue(queued, 1).get_result()
        alone = seen.one("queued")
        with PropagateOtelContext():
            joined_id = queue.enqueue(queued, 2).get_result() and DBOS.list_workflows()[-1].workflow_id
    DBOS.destroy()
    queued_spans = [each for each in seen.all() if each.name == "queued"]
    joined = next(each for each in queued_spans if each.attributes["operationUUID"] == joined_id)
    outer, waits = seen.one("outer"), [each for each in seen.all() if each.name == "queue wait"]

    assert alone.parent is None
    assert (outer.context.trace_id, outer.context.span_id) == (joined.context.trace_id, joined.parent.span_id)
    assert ["line"] * 2 == [each.attributes["queueName"] for each in waits]
    assert all(each.start_time <= each.end_time for each in waits)


def test_a_replayed_step_has_a_span_too(app: App, rows: Rows, seen: Seen) -> None:
    @DBOS.step(name="leaf")
    def leaf() -> None:
        pass

    @DBOS.workflow(name="whole")
    def whole() -> None:
        leaf()

    app.launch(enable_otlp=True)
    with SetWorkflowID("w"):
        whole()
    again(rows, "w").get_result()

    assert 2 == seen.names().count("leaf")


def test_attributes_in_the_other_format(app: App, seen: Seen) -> None:
    @DBOS.workflow(name="plain")
    def plain() -> None:
        pass

    app.launch(enable_otlp=True, otel_attribute_format="semconv")
    with SetWorkflowID("w"):
        plain()
    facts = seen.one("plain").attributes

    assert {"dbos.operation.workflow_id": "w", "dbos.operation.type": "workflow"}.items() <= dict(facts).items()
    assert not any(key.startswith("operation") for key in facts)


def test_log_records_say_where_they_were_written(app: App, log: Log, seen: Seen) -> None:
    @DBOS.workflow(name="talks")
    def talks() -> None:
        DBOS.logger.warning("here")

    app.launch(enable_otlp=True)
    DBOS.logger.setLevel(logging.INFO)
    with SetWorkflowID("w"):
        talks()
    (record,) = (each for each in log.records if each.getMessage() == "here")

    assert ("w", "v1", "local") == (record.operationUUID, record.applicationVersion, record.executorID)
    assert f"{seen.one('talks').context.trace_id:032x}" == record.traceId


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"otlp_traces_endpoints": "http://localhost"}, "must be a list of URLs"),
        ({"otlp_logs_endpoints": ["nonsense"]}, "otlp_logs_endpoints must be a list of URLs"),
        ({"otel_attribute_format": "mine"}, "must be one of legacy, semconv"),
        ({"otlp_attributes": ["a"]}, "must be a dict, not list"),
    ],
)
def test_settings_that_make_no_sense(app: App, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(DBOSInitializationError, match=says):
        app.launch(enable_otlp=True, **wrong)


# -- collectors ------------------------------------------------------------------------------------------------


class Collector(ThreadingHTTPServer):
    """A real one: it keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies: dict[str, list[bytes]] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        import gzip

        body = self.rfile.read(int(self.headers["content-length"]))
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.bodies.setdefault(self.path, []).append(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


PROGRAM = """
import sys
from dbos import DBOS
url, traces, logs = sys.argv[1:]
DBOS(config={"name": "told-app", "system_database_url": url, "run_admin_server": False, "enable_otlp": True,
             "otlp_traces_endpoints": [traces], "otlp_logs_endpoints": [logs], "console_log_level": "CRITICAL",
             "otlp_log_level": "INFO"})

@DBOS.step()
def leaf(secret):
    return secret

@DBOS.workflow()
def whole(secret):
    DBOS.logger.critical("told")
    return leaf(secret)

for _ in range(2):
    DBOS.launch()
    whole("canary-7f3a")
    DBOS.destroy()
    DBOS(config={"name": "told-app", "system_database_url": url, "run_admin_server": False, "enable_otlp": True,
                 "otlp_traces_endpoints": [traces], "otlp_logs_endpoints": [logs]})
print("ended")
"""


def run_program(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/t.sqlite", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_collectors_get_spans_and_log(collector: Collector, tmp_path: Path) -> None:
    """Of every launch of a process, also what was made last; never arguments or results."""
    ended = run_program(tmp_path, f"{collector.url}/v1/traces", f"{collector.url}/v1/logs")
    spans = [
        span.name
        for body in collector.bodies["/v1/traces"]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    records = [
        record
        for body in collector.bodies["/v1/logs"]
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]

    assert "ended\n" == ended.stdout
    assert ["leaf", "leaf", "whole", "whole"] == sorted(spans)
    told = [each for each in records if each.body.string_value == "told"]
    assert 2 == len(told)
    assert "operationUUID" in {each.key for each in told[0].attributes}
    assert CANARY.encode() not in b"".join(body for bodies in collector.bodies.values() for body in bodies)


def test_a_collector_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    """Nor one that takes everything and never answers."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        ended = run_program(tmp_path, "http://127.0.0.1:9/v1/traces", f"http://127.0.0.1:{port}/v1/logs")

    assert (0, "ended\n") == (ended.returncode, ended.stdout)
