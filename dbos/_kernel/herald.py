"""Telling other processes on Postgres what was rung in this one: notifications on a channel of ours.

A runtime's listener passes rings on after the commits they are about, several of them together. A client, which
has no listener, sends them in the same commit (`Lane.announces`): one round trip instead of two. A runtime does
not do so, because commits that notify go one after another through the whole server.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import Text, bindparam, func, select

from dbos._kernel.statement import Entry, constant, kind, statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import FromClause
    from sqlalchemy.sql.expression import Executable

    from dbos._kernel.bell import Channel
    from dbos._kernel.schema import Tables
    from dbos._kernel.statement import Conn

OUR_CHANNEL = "notebook_bell"
# On which other programs on the same database tell of what, and hear it; the payload is the key of our ring.
PEER_CHANNELS = {
    "message": "dbos_notifications_channel",
    "event": "dbos_workflow_events_channel",
    "stream": "dbos_streams_channel",
}
# In the later layout no trigger tells of these: their processes do it themselves, and so do we.
TOLD_TO_PEERS = ("event", "stream")
# A notification holds less than 8,000 bytes.
LONGEST_PAYLOAD = 7_500


@statement
def NOTIFY(_: Tables) -> Executable:
    return select(func.pg_notify(OUR_CHANNEL, bindparam("payload")))


@statement
def NOTIFY_PEERS(_: Tables) -> Executable:
    return select(func.pg_notify(bindparam("channel"), bindparam("payload")))


@kind(1, rank=20, payload=Text())
def ANNOUNCE(_: Tables, given: FromClause) -> Executable:
    """The same as a row, to go with the rows that it tells of."""
    return select(given.c.payload, func.pg_notify(constant(OUR_CHANNEL), given.c.payload))


def notify(conn: Conn, channels: Iterable[Channel]) -> None:
    """Tell of these rings, now or with the transaction that is open."""
    for payload in _payloads(channels):
        conn.run(NOTIFY, payload=payload)


def notify_peers(conn: Conn, channels: Iterable[Channel]) -> None:
    """Tell other programs on a database of the later layout, as their processes tell us."""
    for kind_of_ring, key in dict.fromkeys(channels):
        if kind_of_ring in TOLD_TO_PEERS:
            conn.run(NOTIFY_PEERS, channel=PEER_CHANNELS[kind_of_ring], payload=key)


def announcements(channels: Iterable[Channel]) -> list[Entry]:
    """The rows that tell of these rings."""
    return [Entry(ANNOUNCE, (payload,)) for payload in _payloads(channels)]


def _payloads(channels: Iterable[Channel]) -> list[str]:
    """The channels as notifications, none too long."""
    return _split(list(dict.fromkeys(channels)))


def _split(channels: list[Channel]) -> list[str]:
    if not channels:
        return []
    whole = json.dumps(channels)
    if len(whole.encode()) <= LONGEST_PAYLOAD:
        return [whole]
    middle = len(channels) // 2
    return [*_split(channels[:middle]), *_split(channels[middle:])] if middle else []
