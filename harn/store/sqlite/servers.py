"""The server on a store: SQLite has one at a time, so that nothing is to be found about others."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

from zope.interface import implementer

from harn.store.executor import Idea, reads, writes
from harn.store.servers import IServers, ServerNote, ServerRow, ServersFound
from harn.store.sqlite.connection import Session

_LOOK = "SELECT host, pid, started_at, seen_at FROM servers WHERE incarnation = ?"


@implementer(IServers)
class SQLiteServers(Idea):
    """`IServers` on SQLite; the lock of the state directory says what this server need not write."""

    @reads
    def look(self, connection: sqlite3.Connection) -> ServersFound:
        """See `IServers.look`."""
        ours = self._executor.incarnation
        return ServersFound(
            rows=tuple(
                ServerRow(incarnation=ours, host=host, pid=pid, home="", started_at=started_at, seen_at=seen_at)
                for host, pid, started_at, seen_at in connection.execute(_LOOK, (ours,))
            )
        )

    @writes
    def fence(self, session: Session, beats: Mapping[int, float]) -> Collection[int]:
        """See `IServers.fence`."""
        return []

    @writes
    def note(self, session: Session, note: ServerNote) -> None:
        """See `IServers.note`."""
