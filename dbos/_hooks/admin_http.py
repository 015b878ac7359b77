"""One connection to the admin server: read a request, have it done, write the answer, close.

Whatever comes, the client gets an answer, and but for few in JSON. A request must have arrived as a whole within a few
seconds and a body has a limit, so that nobody holds a thread by sending slowly or much; one connection is one request.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from dbos._hooks.admin_endpoints import ENDPOINTS, Asked
from dbos._hooks.openapi import Endpoint, Refusal, check, document
from dbos.error import (
    DBOSConflictingWorkflowError,
    DBOSDatabaseUnavailableError,
    DBOSException,
    DBOSNonExistentWorkflowError,
)

if TYPE_CHECKING:
    from threading import Semaphore

    from dbos._engine.runtime import Runtime
    from dbos._hooks.admin_guard import Guard

logger = logging.getLogger("dbos")

REQUEST_SECONDS, TURN_SECONDS, ANSWER_SECONDS, FAREWELL_SECONDS = 10.0, 10.0, 30.0, 1.0
LONGEST_BODY, LONGEST_LINE = 1_000_000, 65_536
# So much of a body that is refused is still taken in: who is cut off while sending would not read the answer.
MOST_IGNORED = 16_000_000
DOCUMENT_PATH = "/openapi.json"
WORDS = {"true": True, "false": False}


def serve(connection: socket.socket, guard: Guard, runtime: Runtime, turns: Semaphore) -> None:
    """Answer the one request of a connection; only so many as there are turns ask the database at once."""
    connection.setblocking(True)
    try:
        _Conversation(connection, guard, runtime, turns)
    except OSError as error:
        logger.debug("A client of the admin server went away: %s", error)


def turn_away(connection: socket.socket) -> None:
    """Say that there are too many connections already; without waiting."""
    body = b'{"error": "There are too many connections"}'
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    try:
        connection.setblocking(False)
        connection.send(head.encode() + b"Connection: close\r\n\r\n" + body)
    except OSError:
        logger.debug("A client of the admin server could not be told that there are too many")
    finally:
        connection.close()


class _Patient(io.RawIOBase):
    """Reads from a socket until a moment, however slowly it comes."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection, self.until = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class _Conversation(BaseHTTPRequestHandler):
    """The request and its answer; everything happens while it is made."""

    protocol_version = "HTTP/1.1"
    # Also who says no version gets an answer with headers.
    default_request_version = "HTTP/1.0"
    server_version, sys_version = "dbos", ""

    def __init__(self, connection: socket.socket, guard: Guard, runtime: Runtime, turns: Semaphore) -> None:
        self.guard, self.runtime, self.turns = guard, runtime, turns
        self.answered = False
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]  # the server is asked for nothing

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Patient(self.connection, REQUEST_SECONDS))

    def handle(self) -> None:
        self.close_connection = True
        try:
            self._converse()
        except TimeoutError:
            if not self.answered:
                self._refuse(Refusal(408, f"The request did not arrive within {REQUEST_SECONDS:.0f} seconds"))
        except Refusal as refusal:
            self._refuse(refusal)
        self._part()

    def _converse(self) -> None:
        self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""
        self.raw_requestline = self.rfile.readline(LONGEST_LINE + 1)
        if not self.raw_requestline:
            self.answered = True  # nobody is there
            return
        if len(self.raw_requestline) > LONGEST_LINE:
            raise Refusal(414, "The address is too long")
        if not self.parse_request():  # it has answered, unless there was only an empty line
            if not self.answered:
                raise Refusal(400, "The request is empty")
            return
        if len(self.requestline.split()) < 3:
            raise Refusal(400, "The request is not of HTTP/1.0 or HTTP/1.1")
        self._answer()

    def _answer(self) -> None:
        target = urlsplit(self.path)
        if target.scheme or target.netloc or not target.path.startswith("/"):
            raise Refusal(400, "The address must be a path")
        methods, path = _matching(target.path)
        endpoint = methods.get(self.command)
        # Before anything else is said: a page must not even learn which paths there are.
        self.guard.admit(self.headers, changes_by_get=endpoint is not None and endpoint.changes)
        if target.path == DOCUMENT_PATH and self.command == "GET":
            self._send(200, json.dumps(self._document()), "application/json")
            return
        if endpoint is None:
            allowed = ", ".join(methods) or ("GET" if target.path == DOCUMENT_PATH else "")
            if allowed:
                raise Refusal(405, f"Only {allowed} is possible here", Allow=allowed)
            raise Refusal(404, "There is no such path")
        asked = Asked(self.runtime, path, _query(endpoint, target.query), self._body(endpoint))
        with nullcontext() if endpoint.is_instant else self._turn():
            result = _done(endpoint, asked)
        text = str(result) if endpoint.media_type == "text/plain" else json.dumps(result)
        self._send(endpoint.status, "" if endpoint.result is None else text, endpoint.media_type)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self.turns.acquire(timeout=TURN_SECONDS):
            raise Refusal(503, "Too many requests wait for the database")
        try:
            yield
        finally:
            self.turns.release()

    def _document(self) -> dict[str, Any]:
        return document(
            ENDPOINTS,
            title="DBOS admin server",
            version=self.runtime.app_version,
            server=f"http://{self.guard.settings.name}:{self.guard.port}",
            has_token=self.guard.settings.token is not None,
        )

    def _body(self, endpoint: Endpoint) -> Any:
        """The body, checked; one of an endpoint that takes none is read and not looked at."""
        if self.headers.get("Transfer-Encoding") is not None:
            raise Refusal(411, "Say how long the body is, with Content-Length")
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise Refusal(400, "Content-Length must be one number")
        if len(lengths[0]) > len(str(LONGEST_BODY)) or int(lengths[0]) > LONGEST_BODY:
            raise Refusal(413, f"The body must not be longer than {LONGEST_BODY} bytes")
        text = self.rfile.read(int(lengths[0]))
        if len(text) < int(lengths[0]):
            raise Refusal(400, "The body is shorter than Content-Length says")
        if endpoint.body is None:
            return None
        if not text.strip() and endpoint.body["type"] == "object":
            text = b"{}"
        try:
            value = json.loads(text.decode(), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise Refusal(endpoint.unreadable_status, f"Invalid JSON input: {error}") from None
        check(endpoint.body, value, "The body")
        return value

    # -- writing -----------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        text = json.dumps({"error": refusal.message}) if refusal.message else ""
        self._send(refusal.status, text, "application/json", **refusal.headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses, in our form."""
        self._refuse(Refusal(int(code), message or "The request is not understood"))

    def _send(self, status: int, text: str, media_type: str, **headers: str) -> None:
        self.answered = True
        self.connection.settimeout(ANSWER_SECONDS)
        body = text.encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(body)

    def _part(self) -> None:
        """Close so that the client can read the answer, also where it was still sending."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
            rest, ignored = _Patient(self.connection, FAREWELL_SECONDS), 0
            buffer = bytearray(65_536)
            while ignored < MOST_IGNORED and (read := rest.readinto(buffer)):
                ignored += read
        except OSError:
            logger.debug("A client of the admin server did not hang up")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _matching(path: str) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """The endpoints of a path by method, and the parameters in it."""
    parts = path.split("/")
    found: dict[str, Endpoint] = {}
    parameters: dict[str, str] = {}
    for endpoint in ENDPOINTS:
        names = endpoint.path.split("/")
        if len(names) == len(parts) and all(
            name == part or (name.startswith("{") and part) for name, part in zip(names, parts, strict=True)
        ):
            found[endpoint.method] = endpoint
            parameters = {
                name[1:-1]: _decoded(part) for name, part in zip(names, parts, strict=True) if name.startswith("{")
            }
    return found, parameters


def _decoded(part: str) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except ValueError:
        raise Refusal(400, "The path is not UTF-8") from None
    check({"type": "string"}, text, "The path")
    return text


def _query(endpoint: Endpoint, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="replace"):
        if name not in endpoint.query or value not in WORDS:
            known = ", ".join(f"{each}=true" for each in endpoint.query) or "nothing"
            raise Refusal(400, f"The query {name}={value} is not understood; there is {known}")
        found[name] = WORDS[value]
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _done(endpoint: Endpoint, asked: Asked) -> Any:
    """What the endpoint comes to; its errors as refusals."""
    try:
        return endpoint.answer(asked)
    except Refusal:
        raise
    except DBOSNonExistentWorkflowError as error:
        raise Refusal(404, error.message) from None
    except DBOSConflictingWorkflowError as error:
        raise Refusal(409, error.message) from None
    except DBOSDatabaseUnavailableError as error:
        raise Refusal(503, error.message) from None
    except DBOSException as error:
        raise Refusal(500, error.message) from None
    except Exception as error:
        logger.exception("The admin server could not do %s %s", endpoint.method, endpoint.path)
        # Only its kind: what it says may be meant for the operator alone.
        raise Refusal(500, f"It failed with {type(error).__name__}; the log says more") from None
