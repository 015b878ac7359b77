"""Those who talk with each other over one database: processes of any package, and bare SQL."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg

from tests.interop.peers import environment
from tests.waiting import eventually

LIMIT_SECONDS = 60
HERE = Path(__file__).parent


class Refused(Exception):
    """The other side raised."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Process:
    """A process that does what it is told."""

    def __init__(self, *command: str | Path) -> None:
        # Not here: neither this folder nor the current one may come before the package it is to find. And its
        # tracebacks quote the source of that package, which is not for us to read.
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
            env=environment(),
        )
        self._rest = b""

    def __call__(self, action: str, **arguments: Any) -> Any:
        self.ask(action, **arguments)
        return self.answer()

    def ask(self, action: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": action, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        answer = json.loads(self._line())
        if "error" in answer:
            raise Refused(answer["error"], answer["text"])
        return answer["value"]

    def _line(self) -> bytes:
        out = self._process.stdout
        assert out is not None
        while b"\n" not in self._rest:
            readable, _, _ = select.select([out], [], [], LIMIT_SECONDS)
            assert readable, f"no answer within {LIMIT_SECONDS} seconds"
            more = os.read(out.fileno(), 65536)
            assert more, f"the process ended with {self._process.wait()}"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def kill(self) -> None:
        """End at once, as by kill -9."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


class Sql:
    """A program that has no package at all: it calls the functions in the database, and reads its tables."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)

    def __call__(self, action: str, **arguments: Any) -> Any:
        return getattr(self, action)(**arguments)

    def kill(self) -> None:
        self._conn.close()

    def _one(self, sql: str, *values: Any) -> Any:
        row = self._conn.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def enqueue(self, name: str, workflow_id: str | None = None, args: Any = (), kwargs: Any = None) -> str:
        texts = [json.dumps(each) for each in args]
        query = "SELECT dbos.enqueue_workflow(%s, 'interop', %s::json[], %s::json, workflow_id => %s)"
        return str(self._one(query, name, texts, json.dumps(kwargs or {}), workflow_id))

    def result(self, workflow_id: str) -> Any:
        def ended() -> Any:
            query = "SELECT status, output, error FROM dbos.workflow_status WHERE workflow_uuid = %s"
            status, output, error = self._conn.execute(query, (workflow_id,)).fetchone() or ("", None, None)
            return (output, error) if status in ("SUCCESS", "ERROR") else None

        output, error = eventually(ended)
        if error is not None:
            raise Refused(json.loads(error)["name"], json.loads(error)["message"])
        return json.loads(output)

    def status(self, workflow_id: str) -> Any:
        query = "SELECT status, name, executor_id FROM dbos.workflow_status WHERE workflow_uuid = %s"
        status, name, executor_id = self._conn.execute(query, (workflow_id,)).fetchone() or (None, None, None)
        return {"status": status, "name": name, "executor_id": executor_id, "output": self.result(workflow_id)}

    def steps(self, workflow_id: str) -> Any:
        query = "SELECT function_id, function_name FROM dbos.operation_outputs WHERE workflow_uuid = %s ORDER BY 1"
        return [list(row) for row in self._conn.execute(query, (workflow_id,))]

    def send(self, workflow_id: str, message: Any, topic: str | None = None, key: str | None = None) -> None:
        key = key or str(uuid.uuid4())
        self._one("SELECT dbos.send_message(%s, %s::json, %s, %s)", workflow_id, json.dumps(message), topic, key)

    def event(self, workflow_id: str, key: str, seconds: float = 0) -> Any:
        query = "SELECT value FROM dbos.workflow_events WHERE workflow_uuid = %s AND key = %s"
        return json.loads(self._one(query, workflow_id, key) or "null")

    def stream(self, workflow_id: str, key: str) -> Any:
        query = 'SELECT value FROM dbos.streams WHERE workflow_uuid = %s AND key = %s ORDER BY "offset"'
        return [json.loads(value) for (value,) in self._conn.execute(query, (workflow_id, key))]

    def end(self) -> None:
        """Nothing to take leave of."""
