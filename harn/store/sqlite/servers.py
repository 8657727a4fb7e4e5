"""The server on a store: SQLite has one at a time, so that nothing is to be found about others."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

import msgspec
from zope.interface import implementer

from harn.errors import StoreError
from harn.store.executor import Idea, reads, writes
from harn.store.proposals import Proposal, Vote, decided
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
    def take_turn(self, session: Session) -> int:
        """See `IServers.take_turn`."""
        return session.incarnation

    @writes
    def end_turn(self, session: Session) -> None:
        """See `IServers.end_turn`."""

    @writes
    def propose(self, session: Session, proposal: Proposal) -> Proposal:
        """See `IServers.propose`: no other server is asked."""
        return decided(msgspec.structs.replace(proposal, by=session.incarnation), [session.incarnation])

    @writes
    def vote(self, session: Session, proposal_id: str, vote: Vote) -> Proposal:
        """See `IServers.vote`."""
        raise StoreError(f"proposal {proposal_id} is not the last one any more")

    @writes
    def decide(self, session: Session, proposal_id: str, *, is_late: bool = False) -> Proposal:
        """See `IServers.decide`."""
        raise StoreError(f"proposal {proposal_id} is not the last one any more")

    @reads
    def proposal(self, connection: sqlite3.Connection) -> Proposal | None:
        """See `IServers.proposal`."""
        return None

    @writes
    def note(self, session: Session, note: ServerNote) -> None:
        """See `IServers.note`."""
