"""Checkpoints, in the table ``standing`` (its name since schema 2)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import implementer

from harn.store.checkpoints import ICheckpoints, encode_checkpoints
from harn.store.sqlite.executor import Idea, reads, writes
from harn.store.sqlite.session import Session

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

TABLES = """
-- Values by name, as JSON, that outlive a restart.
CREATE TABLE standing (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
"""

_PUT = "INSERT INTO standing (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

_BEGINNING = "SELECT name, value FROM standing WHERE name >= ? AND name < ? ORDER BY name"


@implementer(ICheckpoints)
class SQLiteCheckpoints(Idea):
    """`ICheckpoints` on SQLite."""

    def put(self, name: str, value: Any) -> Deferred[None]:
        """See `ICheckpoints.put`."""
        return self._put(encode_checkpoints({name: value}))

    @writes
    def _put(self, session: Session, encoded: Mapping[str, bytes | None]) -> None:
        put_all(session, encoded)

    @reads
    def get(self, connection: sqlite3.Connection, name: str) -> Any:
        """See `ICheckpoints.get`."""
        row = connection.execute("SELECT value FROM standing WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0])

    @reads
    def beginning(self, connection: sqlite3.Connection, prefix: str) -> Mapping[str, Any]:
        """See `ICheckpoints.beginning`."""
        rows = connection.execute(_BEGINNING, (prefix, prefix + "\U0010ffff"))
        return {name: msgspec.json.decode(value) for name, value in rows}


def put_all(session: Session, encoded: Mapping[str, bytes | None]) -> None:
    """Put values that `encode_checkpoints` made; None deletes."""
    for name, value in encoded.items():
        if value is None:
            session.connection.execute("DELETE FROM standing WHERE name = ?", (name,))
        else:
            session.connection.execute(_PUT, (name, value))
