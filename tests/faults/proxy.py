"""A way to Postgres over TCP on which requests are late, and answers get lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url

LARGEST = 1 << 16


class Proxy:
    """Carries bytes between clients and one server."""

    def __init__(self, server: str) -> None:
        url = make_url(server)
        self._server = f"{url.query['host']}/.s.PGSQL.{url.port or 5432}"
        self._door = socket.create_server(("127.0.0.1", 0))
        way = url.set(host="127.0.0.1", port=self._door.getsockname()[1], query={})
        #: What clients connect to.
        self.url = way.render_as_string(hide_password=False)
        #: So late comes each request.
        self.seconds_late = 0.0
        self._answers_pass = True
        self._lines: list[socket.socket] = []
        self._lock = threading.Lock()
        self._pause = threading.Event()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def lose_answers(self) -> None:
        """From now on requests are carried, and no answer is."""
        self._answers_pass = False

    def heal(self) -> None:
        """The broken lines are found to be broken, and new ones work."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._answers_pass = True
        for each in lines:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._door.close()
        self.heal()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._door.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                with self._lock:
                    self._lines += [client, server]
                threading.Thread(target=self._carry, args=(client, server, True), name="proxy", daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, False), name="proxy", daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, are_requests: bool) -> None:
        with suppress(OSError), source:
            while data := source.recv(LARGEST):
                if are_requests:
                    self._pause.wait(self.seconds_late)
                elif not self._answers_pass:
                    continue
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_to(server: str) -> Iterator[Proxy]:
    """A way to this server for the length of the block."""
    made = Proxy(server)
    try:
        yield made
    finally:
        made.close()
