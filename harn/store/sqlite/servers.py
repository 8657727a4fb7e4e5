"""The rows of servers: each start makes one, and the heartbeat renews it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from harn.store.heartbeat import LAPSE
from harn.store.sqlite.session import Session

_LIVING = (
    "SELECT incarnation FROM servers WHERE incarnation <> ?1 AND seen_at > ?2"
    " AND seen_at > (SELECT started_at FROM servers WHERE incarnation = ?1)"
)


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


def living(connection: sqlite3.Connection, ours: int | None, now: float) -> Collection[int]:
    """
    Give the other servers that live: whose heartbeat came after our start, and within `LAPSE`.

    Those that were silent since then are gone, as we hold the state directory's lock.
    """
    return [incarnation for (incarnation,) in connection.execute(_LIVING, (ours, now - LAPSE))]
