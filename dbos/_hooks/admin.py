"""The admin server of a runtime: whether there is one, where it listens, and whom it hears.

It controls workflows, so the question is who may talk to it. By default it listens on the loopback interface only,
where any program of this machine may. A web page in a browser of this machine may not: what has an origin, comes from
another site, or is addressed to another name (as after DNS rebinding) is refused. Any other address needs a token.

The socket is bound at launch, and what serves it is imported and run in threads: a launch waits for neither.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbos._kernel.pool import Pool
from dbos._kernel.service import Service
from dbos.error import DBOSInitializationError

if TYPE_CHECKING:
    from dbos._engine.runtime import Runtime
    from dbos._hooks.admin_guard import Guard

logger = logging.getLogger("dbos")

TOKEN_VARIABLE = "DBOS_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_PORT, DEFAULT_HOST = 3001, "127.0.0.1"
# So many connections are listened to at once, the rest is turned away; so many of their requests ask the database at once.
MOST_CONNECTIONS, MOST_TURNS = 128, 16


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where the admin server listens, and the token that its clients must show."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Only this machine reaches it."""
        if self.host == "localhost":
            return True
        import ipaddress  # a moment that only those spend who launch an admin server

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """The host as an address on the web shows it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def settings_of(given: Mapping[str, Any]) -> AdminSettings | None:
    """The settings that a configuration makes; None: there is to be no admin server."""
    if not given.get("run_admin_server", True):
        return None
    port, host = given.get("admin_port", DEFAULT_PORT), given.get("admin_host", DEFAULT_HOST)
    token = given.get("admin_token") or os.environ.get(TOKEN_VARIABLE) or None
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise DBOSInitializationError(f"admin_port must be a whole number from 0 to 65535, not {port!r}")
    if not isinstance(host, str) or not host:
        raise DBOSInitializationError(f"admin_host must be a name or an address, not {host!r}")
    if token is not None and (not isinstance(token, str) or not token.isascii() or not token.isprintable()):
        raise DBOSInitializationError("admin_token must be a text of printable ASCII characters")
    settings = AdminSettings(host, port, token)
    if not settings.is_local and token is None:
        raise DBOSInitializationError(
            f"admin_host {host!r} can be reached from other machines, so the admin server needs a token: set "
            f"admin_token or {TOKEN_VARIABLE}, or leave admin_host at {DEFAULT_HOST}"
        )
    return settings


class AdminServer(Service):
    """Accepts connections, and lets a few threads serve them."""

    name = "admin server"
    serves_to_the_end = True

    def __init__(self, runtime: Runtime, settings: AdminSettings) -> None:
        super().__init__(runtime.bell, runtime.clock)
        self.runtime, self.settings = runtime, settings
        self._listening: socket.socket | None = None
        # A thread for each, or a few that send nothing would keep all others from being heard.
        self._pool = Pool("dbos-admin", MOST_CONNECTIONS)
        self._turns = threading.BoundedSemaphore(MOST_TURNS)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._waker: socket.socket | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; None: it could not."""
        return None if self._listening is None else int(self._listening.getsockname()[1])

    def tick(self) -> int | None:
        """Nothing is due by the clock."""
        return None

    def start(self) -> None:
        """Listen; where the port is taken, say so and go on without."""
        host, port = self.settings.host, self.settings.port
        try:
            self._listening = _listening_socket(host, port)
        except OSError as error:
            logger.warning(
                "There is no admin server, because %s:%s cannot be listened on (%s). Set admin_port to another port, "
                "or run_admin_server to False.",
                host,
                port,
                error.strerror or error,
            )
            self._ended.set()
            return
        # Closing a socket wakes nobody who waits for it; a byte in this pair does.
        self._waker, woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, args=(woken,), name="dbos-admin", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End: nothing is accepted any more, and whoever is connected is cut off."""
        if self._stopping:
            return
        super().stop()
        if self._waker is not None:
            with contextlib.suppress(OSError):  # it may have ended already, by an error
                self._waker.send(b"x")

    def _accept(self, woken: socket.socket) -> None:
        assert self._listening is not None
        try:
            # Here and not above: it takes longer to import than to launch.
            from dbos._hooks.admin_guard import Guard
            from dbos._hooks.admin_http import serve, turn_away

            guard = Guard(self.settings, int(self._listening.getsockname()[1]))
            logger.info("Admin server on http://%s:%s", self.settings.name, guard.port)
            with selectors.DefaultSelector() as ready:
                ready.register(self._listening, selectors.EVENT_READ)
                ready.register(woken, selectors.EVENT_READ)
                while not self._stopping:
                    ready.select()
                    try:
                        connection, _ = self._listening.accept()
                    except OSError:  # it was woken, or the client has gone already, or there are no descriptors left
                        self.clock.pause(0.01)
                        continue
                    if self._enter(connection):
                        self._pool.submit(self._attend, serve, connection, guard)
                    else:
                        turn_away(connection)
        except ImportError as error:  # by a process that may not read the library any more
            logger.warning("The admin server cannot serve: %s", error)
        finally:
            self._close(self._listening, woken, self._waker)
            self._ended.set()

    def _enter(self, connection: socket.socket) -> bool:
        with self._lock:
            has_room = not self._stopping and len(self._connections) < MOST_CONNECTIONS
            if has_room:
                self._connections.add(connection)
            return has_room

    def _attend(self, serve: Any, connection: socket.socket, guard: Guard) -> None:
        try:
            serve(connection, guard, self.runtime, self._turns)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _close(self, *own: socket.socket | None) -> None:
        for each in own:
            if each is not None:
                each.close()
        with self._lock:
            connections = list(self._connections)
        for each in connections:
            try:
                each.shutdown(socket.SHUT_RDWR)  # whoever reads from it ends; who answers may be cut off
            except OSError:
                logger.debug("A client of the admin server had gone already")
        self._pool.close()


# A forked child has copies of them, and the port would be taken for as long as it lives.
_all_listening: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_in_child() -> None:
    for each in list(_all_listening):
        each.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _listening_socket(host: str, port: int) -> socket.socket:
    # As bytes, or every launch would load what names in other scripts need.
    name = host.encode() if host.isascii() else host
    family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two programs listen on one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(MOST_CONNECTIONS)
        made.setblocking(False)
        _all_listening.add(made)
    except BaseException:
        made.close()
        raise
    return made
