"""The servers on a store: the description that each gives of itself, and which of them were fenced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field
from zope.interface import Interface

from harn.store.proposals import Proposal, Vote

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted

NOTE = "server/"
"""Names of the values in which servers describe themselves begin so; their number follows."""
STARTING, SERVING, DRAINING = "starting", "serving", "draining"


class ServerNote(msgspec.Struct, frozen=True, kw_only=True):
    """
    The description that a server gives of itself.

    :ivar status: `STARTING`, `SERVING` or `DRAINING`.
    :ivar url: of its listener; empty until it serves.
    :ivar generation: the number of its live generation.
    :ivar version: of harn.
    :ivar outstanding: deliveries that it has and has not ended, as of its last heartbeat.
    :ivar not_ready: why it should get no requests; empty when it should. Both are None where it does not say so:
        another version wrote it.
    """

    status: str = STARTING
    url: str = ""
    generation: int = 0
    version: str = ""
    outstanding: int | None = None
    not_ready: tuple[str, ...] | None = None


class ServerRow(Struct, frozen=True, kw_only=True):
    """
    A server that was neither fenced nor has ended.

    :ivar home: names its state directory.
    :ivar started_at: seconds, Unix, by its own clock.
    :ivar seen_at: the same of its last heartbeat; for others it is a value that differs from that of the heartbeat
        before.
    """

    incarnation: int
    host: str
    pid: int
    home: str
    started_at: float
    seen_at: float
    note: ServerNote = field(default_factory=ServerNote)

    @property
    def name(self) -> str:
        """The name of the server, for people and reports."""
        return f"{self.host}:{self.pid}"


class ServersFound(Struct, frozen=True, kw_only=True):
    """
    The servers on a store at one moment.

    :ivar owners: numbers under which there are unfinished deliveries.
    """

    rows: tuple[ServerRow, ...] = ()
    owners: frozenset[int] = frozenset()


class IServers(Interface):
    """The servers on a store."""

    def look() -> Deferred[ServersFound]:
        """Return the servers; cost grows with their number alone."""

    def fence(beats: Mapping[int, float]) -> Deferred[Collection[int]]:
        """
        Stop servers from writing anything from now on, so that their deliveries may be taken over.

        :param beats: by number the ``seen_at`` at which they were found to be silent; one that has renewed its
            heartbeat since is left alone.
        :return: the numbers of those that are fenced now.
        """

    def take_turn() -> Deferred[int]:
        """
        Acquire the turn to reload, unless another server that lives has it.

        :return: the number of the server that has it now.
        """

    def end_turn() -> Deferred[None]:
        """Release the turn, if this server has it."""

    def propose(proposal: Proposal) -> Deferred[Proposal]:
        """
        Write a proposal to the other servers that serve; return it with those that are asked.

        One that ``is_alone`` is dropped if there are any, or one has begun to start; without others, it is adopted.
        """

    def vote(proposal_id: str, vote: Vote) -> Deferred[Proposal]:
        """Add the vote of this server, and decide if it was the last one; return the last proposal as it is then."""

    def decide(proposal_id: str, *, is_late: bool = False) -> Deferred[Proposal]:
        """Decide if no vote is missing any more, or if it is too late for votes; return the proposal as it is then."""

    def proposal() -> Deferred[Proposal | None]:
        """Return the last proposal."""

    def note(note: ServerNote) -> Deferred[None]:
        """Keep the description that this server gives of itself."""


def read_note(value: bytes | None) -> ServerNote:
    """Read a note; one that is missing or of another form says nothing."""
    try:
        return ServerNote() if value is None else msgspec.json.decode(value, type=ServerNote)
    except msgspec.MsgspecError:
        return ServerNote()
