"""The rows of servers: each start makes one, and the heartbeat renews it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

from harn.store.heartbeat import LAPSE
from harn.store.sqlite.session import Session

_SEEN = "SELECT incarnation, seen_at FROM servers"
_SEEN_BETWEEN = _SEEN + " WHERE seen_at > ? AND seen_at <= ?"


def register(session: Session, *, pid: int, host: str, now: float) -> int:
    """Write a new row for this server, in a transaction of its own; give its number, which was never given before."""
    inserted = session.connection.execute(
        "INSERT INTO servers (pid, host, started_at, seen_at) VALUES (?, ?, ?, ?)", (pid, host, now, now)
    )
    return int(inserted.lastrowid or 0)


def renew(session: Session, *, pid: int, host: str, now: float) -> None:
    """Note that this server was alive at ``now`` (seconds, Unix)."""
    session.connection.execute(
        "INSERT INTO servers (incarnation, pid, host, started_at, seen_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (incarnation) DO UPDATE SET seen_at = excluded.seen_at",
        (session.incarnation, pid, host, now, now),
    )


def last_seen(connection: sqlite3.Connection) -> Mapping[int, float]:
    """Return by incarnation when each server was alive last (seconds, Unix)."""
    return dict(connection.execute(_SEEN).fetchall())


def living(
    connection: sqlite3.Connection, ours: int, seen_at_start: Mapping[int, float], now: float
) -> Collection[int]:
    """
    Return the other servers that live: whose heartbeat came after our start, and within `LAPSE`.

    Those that were silent since then are gone, as we hold the state directory's lock. A heartbeat is known for one that
    came after our start by its being another than before, not by its time: the clock may have been set back.

    :param seen_at_start: what `last_seen` returned when we started.
    """
    return [
        incarnation
        for incarnation, seen_at in connection.execute(_SEEN_BETWEEN, (now - LAPSE, now + LAPSE))
        if incarnation != ours and seen_at_start.get(incarnation) != seen_at
    ]
