"""Fixtures of the hooks: an application with an admin server, and raw requests to it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dbos._faces.ambient import instance
from dbos._hooks.admin import AdminServer
from tests.conftest import App


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Admin:
    """A client that sends exactly what it is told, byte for byte."""

    def __init__(self, server: AdminServer) -> None:
        self.server = server
        assert server.port is not None
        self.port: int = server.port
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, sent: bytes) -> Answer:
        with self.connect() as connection:
            connection.sendall(sent)
            return self.read(connection)

    def read(self, connection: socket.socket) -> Answer:
        whole = b""
        while part := connection.recv(65_536):
            whole += part
        head, _, body = whole.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(first.split()[1]), headers, body)

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        """One request; a header that is None is left out, and `_` in its name stands for `-`."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given: dict[str, str | None] = {"Host": f"localhost:{self.port}"}
        if method == "POST":
            given["Content-Length"] = str(len(content))
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
        return self.raw(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content)


Launch = Callable[..., Admin]


@pytest.fixture
def admin(app: App) -> Launch:
    """Launch the application with an admin server."""

    def launch(**config: Any) -> Admin:
        app.launch(run_admin_server=True, admin_port=0, **config)
        return Admin(served())

    return launch


def served() -> AdminServer:
    made = instance()
    assert made is not None
    assert made.launched is not None
    (server,) = (each for each in made.launched.services if isinstance(each, AdminServer))
    return server
