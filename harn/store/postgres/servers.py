"""The servers on a store: their rows, and what each says about itself, which is in the table ``standing``."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from zope.interface import implementer

from harn.errors import StoreError
from harn.store.changes import GENERATIONS
from harn.store.checkpoints import encode_checkpoints
from harn.store.executor import Idea, reads, writes
from harn.store.postgres.connection import PostgresConnection
from harn.store.postgres.generations import STANDING
from harn.store.postgres.recovery import owners_of_unfinished
from harn.store.postgres.session import PostgresSession
from harn.store.proposals import PROPOSAL, TURN, Proposal, ProposalState, Vote, decided, voted
from harn.store.servers import (
    DRAINING,
    NOTE,
    SERVING,
    STARTING,
    IServers,
    ServerNote,
    ServerRow,
    ServersFound,
    read_note,
)

_LOOK = (
    "SELECT s.incarnation, s.host, s.pid, s.home, s.started_at, s.seen_at, n.value FROM servers s"
    f" LEFT JOIN standing n ON n.name = '{NOTE}' || s.incarnation WHERE s.ended_at IS NULL ORDER BY s.incarnation"
)
_FENCE = (
    "UPDATE servers s SET ended_at = s.seen_at FROM unnest($1::bigint[], $2::float8[]) AS silent (incarnation, seen_at)"
    " WHERE s.incarnation = silent.incarnation AND s.seen_at = silent.seen_at AND s.ended_at IS NULL"
    " RETURNING s.incarnation"
)
_ADOPTED = (
    "UPDATE generations SET adopted_at = coalesce(adopted_at, $1::float8) WHERE number = $2::bigint"
    " AND digest <> ''"  # a generation that was withdrawn has none
)


@implementer(IServers)
class PostgresServers(Idea):
    """`IServers` on PostgreSQL."""

    @reads
    def look(self, connection: PostgresConnection) -> ServersFound:
        """See `IServers.look`."""
        return ServersFound(rows=_rows(connection), owners=frozenset(owners_of_unfinished(connection)))

    @writes
    def fence(self, session: PostgresSession, beats: Mapping[int, float]) -> Collection[int]:
        """See `IServers.fence`."""
        rows = session.connection.execute(_FENCE, (list(beats), [float(each) for each in beats.values()])).fetchall()
        fenced = [incarnation for (incarnation,) in rows]
        STANDING.put_all(session, {f"{NOTE}{each}": None for each in fenced})
        return fenced

    @writes
    def take_turn(self, session: PostgresSession) -> int:
        """See `IServers.take_turn`."""
        holder = STANDING.read(session.connection, TURN)
        if holder is None or holder not in _living(session.connection):
            holder = session.incarnation
            STANDING.put_all(session, encode_checkpoints({TURN: holder}))
        return int(holder)

    @writes
    def end_turn(self, session: PostgresSession) -> None:
        """See `IServers.end_turn`."""
        if STANDING.read(session.connection, TURN) == session.incarnation:
            STANDING.put_all(session, {TURN: None})

    @writes
    def propose(self, session: PostgresSession, proposal: Proposal) -> Proposal:
        """See `IServers.propose`."""
        rows = _rows(session.connection)
        (own,) = (each for each in rows if each.incarnation == session.incarnation)
        asked = (SERVING, STARTING) if proposal.is_alone else (SERVING,)
        members = {
            str(each.incarnation): f"{each.host}:{each.pid}"
            for each in rows
            if each.note.status in asked and each.home != own.home
        }
        return self._keep(session, msgspec.structs.replace(proposal, by=session.incarnation, members=members))

    @writes
    def vote(self, session: PostgresSession, proposal_id: str, vote: Vote) -> Proposal:
        """See `IServers.vote`."""
        proposal = _proposal(session.connection)
        if proposal is None or proposal.id != proposal_id:
            raise StoreError(f"proposal {proposal_id} is not the last one any more")
        return self._keep(session, voted(proposal, session.incarnation, vote))

    @writes
    def decide(self, session: PostgresSession, proposal_id: str, *, is_late: bool = False) -> Proposal:
        """See `IServers.decide`."""
        proposal = _proposal(session.connection)
        if proposal is None or proposal.id != proposal_id:
            raise StoreError(f"proposal {proposal_id} is not the last one any more")
        return self._keep(session, proposal, is_late=is_late)

    def _keep(self, session: PostgresSession, proposal: Proposal, *, is_late: bool = False) -> Proposal:
        """
        Write a proposal with its state; the generation counts as adopted from the decision on.

        A server that drains cuts off its own reload, and takes part in no other. What its proposer has withdrawn is not
        adopted either.
        """
        before = _proposal(session.connection)
        taking_part = {each.incarnation for each in _rows(session.connection) if each.note.status != DRAINING}
        after = decided(proposal, taking_part, is_late=is_late)
        if after.state is ProposalState.ADOPTED and before != after:
            at = float(self._executor.wall.seconds())
            if session.connection.execute(_ADOPTED, (at, after.generation)).rowcount:
                session.notify(GENERATIONS)
            else:
                after = msgspec.structs.replace(after, state=ProposalState.DROPPED)
        if after != before:
            STANDING.put_all(session, {PROPOSAL: msgspec.json.encode(after)})
            session.notify(PROPOSAL)
        return after

    @reads
    def proposal(self, connection: PostgresConnection) -> Proposal | None:
        """See `IServers.proposal`."""
        return _proposal(connection)

    @writes
    def note(self, session: PostgresSession, note: ServerNote) -> None:
        """See `IServers.note`."""
        STANDING.put_all(session, {f"{NOTE}{session.incarnation}": msgspec.json.encode(note)})


def _rows(connection: PostgresConnection) -> tuple[ServerRow, ...]:
    """Return the servers that have neither ended nor been fenced."""
    return tuple(
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


def _living(connection: PostgresConnection) -> set[int]:
    return {each.incarnation for each in _rows(connection)}


def _proposal(connection: PostgresConnection) -> Proposal | None:
    value = STANDING.read(connection, PROPOSAL)
    return None if value is None else msgspec.convert(value, Proposal)
