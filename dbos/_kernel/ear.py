"""Hearing of commits that other processes made.

On Postgres one connection listens, and the same one passes on what this process commits: a ring of ours is a
NOTIFY a moment later, several of them one. On SQLite nobody tells, so we look whether the file changed: a
pragma of three microseconds, every few milliseconds. Either way a full look follows from time to time, because
a notification can be lost and another program may send none.
"""

from __future__ import annotations

import json
import os
import selectors
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from dbos._kernel.herald import OUR_CHANNEL, PEER_CHANNELS, notify, notify_peers
from dbos._kernel.service import Service

if TYPE_CHECKING:
    from dbos._kernel.bell import Channel
    from dbos._kernel.scope import Ground
    from dbos._kernel.statement import Conn

# Every so often everything that is waited for is looked at, whatever was heard.
FULL_LOOK_MS = 5_000
# How often a server is asked for what other programs do without a word, and expect to be asked for.
SHORT_LOOK_MS = 1_000
# How often the file is looked at: so long after it last changed, so many milliseconds apart.
PACES_MS = ((500, 2), (1_500, 5))
SLOWEST_MS = 40
# At least so long between two NOTIFYs of ours; what is rung meanwhile goes together.
GATHER_MS = 5
RUNG_BY = {channel: kind for kind, channel in PEER_CHANNELS.items()}


def ear_for(ground: Ground) -> Service:
    """The way in which this database lets us hear."""
    return WireEar(ground) if ground.store.dialect.notifies else FileEar(ground)


class FileEar(Service):
    """Sees that the file changed."""

    name = "listener"
    serves_to_the_end = True

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground.bell, ground.clock)
        self.ground, self.store = ground, ground.store
        self._changed_ms = self._full_look_ms = 0

    def tick(self) -> int | None:
        now_ms = self.clock.now_ms()
        version = self.store.lane.glance()
        changed, due = version is not None and version != self.store.looked_at, now_ms >= self._full_look_ms
        if due:
            self._full_look_ms = now_ms + FULL_LOOK_MS
            self.ground.look_around()
        if changed:
            self._changed_ms = now_ms
        if changed or due:
            self.store.read(self.bell.look)
            self.store.looked_at = version
        still_ms = now_ms - self._changed_ms
        return now_ms + next((pace for until, pace in PACES_MS if still_ms < until), SLOWEST_MS)


class WireEar(Service):
    """Listens, and tells others."""

    name = "listener"
    serves_to_the_end = True

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground.bell, ground.clock)
        self.ground, self.store = ground, ground.store
        self._conn: Conn | None = None
        self._said: list[Channel] = []
        self._said_lock = threading.Lock()
        self._quiet_until_ms = self._full_look_ms = self._short_look_ms = 0
        self._hear, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        ground.bell.herald = self.say

    def say(self, channels: list[Channel]) -> None:
        """Pass a ring on to other processes, soon."""
        with self._said_lock:
            first = not self._said
            self._said.extend(channels)
        if first:
            self._prod()

    def stop(self) -> None:
        self._stopping = True
        self._prod()

    def _prod(self) -> None:
        try:
            os.write(self._wake, b".")
        except OSError:
            return  # full of earlier prods, or closed: either way nothing is lost

    def _round(self) -> None:
        pause_ms = self._tick()
        if pause_ms is not None:
            self._sleep(None, pause_ms)

    def _close(self) -> None:
        self.bell.herald = None
        self._drop()
        os.close(self._wake)
        os.close(self._hear)

    def tick(self) -> None:
        if self._conn is None:
            self._conn = self._connect()
            self._full_look_ms = 0  # whatever happened while we did not listen
        now_ms = self.clock.now_ms()
        if now_ms >= self._full_look_ms:
            self._full_look_ms, self._short_look_ms = now_ms + FULL_LOOK_MS, now_ms + SHORT_LOOK_MS
            self.ground.look_around()
            self.store.read(self.bell.look)
        elif now_ms >= self._short_look_ms:
            self._short_look_ms = now_ms + SHORT_LOOK_MS
            if self.bell.awaits(self.ground.impatient):
                self.store.read(partial(self.bell.look, kinds=self.ground.impatient))
        try:
            self._pass_on()
            next_look_ms = min(self._full_look_ms, self._short_look_ms)
            self._sleep(self._conn.raw, self._quiet_until_ms if self._said else next_look_ms)
            self._take_in(self._conn.raw)
        except BaseException:
            self._drop()
            raise

    def _connect(self) -> Conn:
        conn = self.store.connect()
        try:
            for channel in (OUR_CHANNEL, *PEER_CHANNELS.values()):
                conn.say(f"LISTEN {channel}")
        except BaseException:
            self.store.discard(conn, broken=True)
            raise
        return conn

    def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            self.store.discard(conn, broken=True)  # it listens: not for anybody else's use

    def _sleep(self, raw: Any, until_ms: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._hear, selectors.EVENT_READ)
            if raw is not None:
                selector.register(raw.fileno(), selectors.EVENT_READ)
            for key, _ in selector.select(max((until_ms - self.clock.now_ms()) / 1000, 0)):
                if key.fd == self._hear:
                    os.read(self._hear, 4096)

    def _take_in(self, raw: Any) -> None:
        heard: list[Channel] = []
        own_pid = raw.info.backend_pid
        for note in raw.notifies(timeout=0):
            if note.channel == OUR_CHANNEL:
                if note.pid != own_pid:
                    heard.extend((kind, key) for kind, key in json.loads(note.payload))
            else:
                heard.append((RUNG_BY[note.channel], note.payload))
        self.bell.ring_here(heard)

    def _pass_on(self) -> None:
        now_ms = self.clock.now_ms()
        if not self._said or now_ms < self._quiet_until_ms or self._conn is None:
            return
        self._quiet_until_ms = now_ms + GATHER_MS
        with self._said_lock:
            said, self._said = self._said, []
        notify(self._conn, said)
        if self.store.tables.layout.split:
            notify_peers(self._conn, said)
        # What came in beside the answers has left the socket: no sleep would end for it.
        self._take_in(self._conn.raw)
