"""The servers on a store: their rows, and what each says about itself, which is in the table ``standing``."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from zope.interface import implementer

from harn.store.executor import Idea, reads, writes
from harn.store.postgres.connection import PostgresConnection
from harn.store.postgres.generations import STANDING
from harn.store.postgres.recovery import owners_of_unfinished
from harn.store.postgres.session import PostgresSession
from harn.store.servers import NOTE, IServers, ServerNote, ServerRow, ServersFound, read_note

_LOOK = (
    "SELECT s.incarnation, s.host, s.pid, s.home, s.started_at, s.seen_at, n.value FROM servers s"
    f" LEFT JOIN standing n ON n.name = '{NOTE}' || s.incarnation WHERE s.ended_at IS NULL ORDER BY s.incarnation"
)
_FENCE = (
    "UPDATE servers s SET ended_at = s.seen_at FROM unnest($1::bigint[], $2::float8[]) AS silent (incarnation, seen_at)"
    " WHERE s.incarnation = silent.incarnation AND s.seen_at = silent.seen_at AND s.ended_at IS NULL"
    " RETURNING s.incarnation"
)


@implementer(IServers)
class PostgresServers(Idea):
    """`IServers` on PostgreSQL."""

    @reads
    def look(self, connection: PostgresConnection) -> ServersFound:
        """See `IServers.look`."""
        rows = tuple(
            ServerRow(
                incarnation=incarnation,
                host=host,
                pid=pid,
                home=home,
                started_at=started_at,
                seen_at=seen_at,
                note=read_note(value),
            )
            for incarnation, host, pid, home, started_at, seen_at, value in connection.execute(_LOOK)
        )
        return ServersFound(rows=rows, owners=frozenset(owners_of_unfinished(connection)))

    @writes
    def fence(self, session: PostgresSession, beats: Mapping[int, float]) -> Collection[int]:
        """See `IServers.fence`."""
        rows = session.connection.execute(_FENCE, (list(beats), [float(each) for each in beats.values()])).fetchall()
        fenced = [incarnation for (incarnation,) in rows]
        STANDING.put_all(session, {f"{NOTE}{each}": None for each in fenced})
        return fenced

    @writes
    def note(self, session: PostgresSession, note: ServerNote) -> None:
        """See `IServers.note`."""
        STANDING.put_all(session, {f"{NOTE}{session.incarnation}": msgspec.json.encode(note)})
