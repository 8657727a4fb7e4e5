"""
The membership of a server: its heartbeat, its looks at the others, and what follows from them.

A server that was silent for too long is fenced by any other: in one transaction, after which it writes nothing. Then
all that live take over its deliveries, slice by slice. One that was fenced while it lives, since it was stopped for a
while, finds that out with its next write: it drops its deliveries, and continues under a new number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.errors import EventLogUnavailable, ServerFenced
from harn.lifecycle import Fenced, Lifecycle, ServersSeen, TakenAway
from harn.server import RecordWriter
from harn.servers.operations import own_id, server_id
from harn.servers.sights import BEAT, LOOK, Sights, leader, left_behind
from harn.store.interfaces import IStore
from harn.store.servers import DRAINING, STARTING, ServerNote, ServerRow, ServersFound

log = Logger(namespace="harn.servers")

TOPIC = "orchestrator.servers"
"""The topic of the records about servers."""
REMINDER = 60.0
"""Seconds between two lines about the servers that one which starts waits for."""


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the topic: which server it is about, and who says so."""

    id: str
    incarnation: int
    by: str


class Clocks(Struct, frozen=True):
    """The reactor's time, and the time of day."""

    clock: IReactorTime
    wall: WallTime


class Condition(Struct, frozen=True):
    """The condition of a server, which it describes with its heartbeats; see `ServerNote`."""

    outstanding: int
    not_ready: tuple[str, ...]


class IConditions(Protocol):
    """The source of the condition of this server."""

    def now(self) -> Condition:
        """Return it."""


class Membership:
    """
    One server among those on its store.

    :ivar others: the other servers that live, as of the last look. ``is_leading``: see `leader`.
    :ivar fenced: how often this server was fenced. ``taken_away``: deliveries that were dropped for it.
    :ivar conditions: what this server says about itself with its next heartbeat; None until a feature sets it.
    """

    def __init__(
        self, clocks: Clocks, store: IStore, lifecycle: Lifecycle, records: RecordWriter, version: str
    ) -> None:
        self._clock = clocks.clock
        self._wall = clocks.wall
        self.store = store
        self._lifecycle = lifecycle
        self._records = records
        self._sights = Sights()
        self._note = ServerNote(version=version)
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clocks.clock
        self._beat_at = float("-inf")
        self._is_beating = self._is_looking = self._is_noting = self._is_rejoining = False
        self._has_beaten, self._is_blind = True, False
        self.others: tuple[ServerRow, ...] = ()
        self.is_leading = True
        self._leader = 0
        self._home = ""
        self.fenced = self.taken_away = 0
        self.conditions: IConditions | None = None
        self._is_recorded = False
        lifecycle.subscribe(TakenAway, self._taken_away)

    @property
    def id(self) -> str:
        """The name of this server."""
        return own_id()

    @property
    def incarnation(self) -> int:
        """The number of this server."""
        return self.store.incarnation

    @property
    def leader(self) -> int:
        """The number of the server that does what one of them all does; 0 where that is not known."""
        return self.store.incarnation if self.is_leading else self._leader

    async def look(self) -> tuple[Sequence[ServerRow], Collection[int]]:
        """
        Return the servers on the store now, and the numbers of those that were silent at the last look.

        :raises EventLogUnavailable: the store cannot be read.
        """
        found: ServersFound = await self.store.servers.look()
        own = [
            replace(each, note=self.observed()) if each.incarnation == self.incarnation else each for each in found.rows
        ]
        return own, self._sights.silent(self._clock.seconds())

    def age_of(self, row: ServerRow) -> float | None:
        """Return the seconds since the heartbeat of a row was seen, by this server's clock; None where none is sent."""
        if not self._loop.running:
            return None
        now, sight = self._clock.seconds(), self._sights.by_number.get(row.incarnation)
        if row.incarnation == self.incarnation:
            return max(0.0, now - self._beat_at) if self._beat_at >= 0.0 else None
        return now - sight.since if sight is not None and sight.beat == row.seen_at else 0.0

    def notes(self) -> Sequence[ServerNote]:
        """Return the descriptions of this server, now, and of the others, as of the last look."""
        return [self.observed(), *(each.note for each in self.others)]

    async def in_status(self, *statuses: str) -> Sequence[str]:
        """
        Look, and return the names of the other servers in a status, but of a program that this one replaces.

        :raises EventLogUnavailable: the store cannot be read.
        """
        if self.store.is_shared:
            self._seen(await self.store.servers.look())
        found = [each for each in self.others if each.note.status in statuses and each.home != self._home]
        return [server_id(each.host, each.pid) for each in found]

    async def settled(self) -> None:
        """
        Wait until the servers that began to start before this one serve, or are gone.

        There is no limit: to start beside them could adopt two generations, and the large backlog of one may take it
        minutes. So that an operator sees what this one waits for, it is logged again and again.
        """
        waited, named = 0.0, list[str]()
        while starting := self._starting_before():
            if starting != named or waited >= REMINDER:
                log.warn("waiting until {names} has started; if that hangs, stop it", names=", ".join(starting))
                waited, named = 0.0, starting
            await deferLater(self._clock, LOOK)
            waited += LOOK

    def _starting_before(self) -> list[str]:
        return [
            server_id(each.host, each.pid)
            for each in self.others
            if each.note.status == STARTING and each.home != self._home and each.incarnation < self.incarnation
        ]

    def name_of(self, number: int) -> str:
        """Return the name of another server, or its number where it is gone."""
        found = [server_id(each.host, each.pid) for each in self.others if each.incarnation == number]
        return found[0] if found else f"number {number}"

    # Its life

    async def begin(self) -> None:
        """
        Begin the heartbeats and the looks, once the store is open; where only one server may use it, do nothing.

        :raises EventLogUnavailable: the store cannot be read.
        """
        if not self.store.is_shared:
            return
        await self.store.servers.note(self._note)
        self._seen(await self.store.servers.look())
        looping: Deferred[Any] = self._loop.start(LOOK, now=False)
        looping.addErrback(lambda failure: log.failure("looking at the other servers ended", failure))

    async def close(self) -> None:
        """Record the end of this server, if its start was recorded, and stop taking part."""
        if self._is_recorded:
            self._is_recorded = False
            await self._record("server_ended", self.id, self.store.incarnation)
        self.leave()

    def leave(self) -> None:
        """Stop taking part; the store notes the end when it is closed."""
        if self._loop.running:
            self._loop.stop()

    def describe(self, **changes: Any) -> Deferred[None]:
        """
        Change the description that this server gives of itself; ``changes`` are fields of a `ServerNote`.

        :return: fires when it is written, or could not be.
        """
        self._note = msgspec.structs.replace(self.observed(), **changes)
        return self._write_note() if self._loop.running else succeed(None)

    def _write_note(self) -> Deferred[None]:
        self._is_noting = True
        writing: Deferred[None] = self.store.servers.note(self._note)
        return writing.addErrback(_ignored).addBoth(self._noted)

    def _noted(self, _: object) -> None:
        self._is_noting = False

    @property
    def note(self) -> ServerNote:
        """The description that this server gives of itself."""
        return self._note

    def observed(self) -> ServerNote:
        """Return the description of this server with its condition now."""
        if self.conditions is None:
            return self._note
        now = self.conditions.now()
        return msgspec.structs.replace(self._note, outstanding=now.outstanding, not_ready=now.not_ready)

    # Each second

    def _turn(self) -> None:
        """Renew the heartbeat, and look at the others: a look that takes long must not delay the heartbeats."""
        # Where this server's writes fail while it can read, those of the others may fail, too.
        self._is_blind = self._is_blind or self._is_beating or not self._has_beaten
        now = self._clock.seconds()
        if now - self._beat_at >= BEAT - LOOK / 2.0 and not self._is_beating:
            self._beat_at = now
            self._is_beating = True
            self._tell_condition()
            maybeDeferred(self.store.heartbeat, self._wall.seconds()).addBoth(self._beaten)
        self.look_again()

    def look_again(self) -> None:
        """
        Look at the others now, unless a look is under way.

        What they decided before they knew of this server concerns it, too.
        """
        if self._loop.running and not self._is_looking:
            self._is_looking = True
            Deferred.fromCoroutine(self._look()).addErrback(_looked_in_vain).addBoth(self._looked)

    def _tell_condition(self) -> None:
        """Write the condition if it has changed: with the heartbeat, in the same transaction."""
        observed = self.observed()
        if observed != self._note and not self._is_noting:
            self._note = observed
            self._write_note()

    def _looked(self, _: object) -> None:
        self._is_looking = False

    async def _look(self) -> None:
        told = None if self._is_noting else self._note
        found: ServersFound = await self.store.servers.look()
        is_blind, self._is_blind = self._is_blind, False
        self._seen(found, is_blind=is_blind)
        if told is self._note:  # else the look may have found what it said before
            self._repair_note(found)
        silent = self._sights.silent(self._clock.seconds())
        if silent and not is_blind and not self._is_rejoining:
            await self._fence(silent)

    def _repair_note(self, found: ServersFound) -> None:
        """Write the description of this server again if it was lost: others ask only servers that serve."""
        own = next((each for each in found.rows if each.incarnation == self.store.incarnation), None)
        if own is not None and own.note != self._note and self._loop.running and not self._is_noting:
            self._write_note()

    def _beaten(self, result: object) -> None:
        self._is_beating = False
        self._has_beaten = not isinstance(result, Failure)
        if isinstance(result, Failure):
            if result.check(ServerFenced) is not None:
                if not self._is_rejoining:
                    self._is_rejoining = True
                    rejoining = Deferred.fromCoroutine(self._rejoin())
                    rejoining.addErrback(_looked_in_vain).addBoth(self._rejoined)
            elif result.check(EventLogUnavailable) is None:
                log.failure("the heartbeat failed, and is tried again", result)

    def _seen(self, found: ServersFound, *, is_blind: bool = False) -> None:
        ours = self.store.incarnation
        own = next((each for each in found.rows if each.incarnation == ours), None)
        self._home = "" if own is None else own.home
        self.others = tuple(each for each in found.rows if each.incarnation != ours)
        beats = {each.incarnation: each.seen_at for each in self.others}
        self._sights = self._sights.looked(beats, self._clock.seconds(), is_blind=is_blind)
        draining = [each.incarnation for each in self.others if each.note.status == DRAINING]
        self._leader = 0 if own is None else leader(own, self.others, draining)
        self.is_leading = self._leader == ours
        has_left = bool(left_behind(found.owners, (each.incarnation for each in found.rows)))
        self._lifecycle.emit(ServersSeen(tuple(beats), self.is_leading, has_left and own is not None))

    async def _fence(self, silent: dict[int, float]) -> None:
        """Stop servers that are silent from writing, unless they have renewed their heartbeats since."""
        rows = {each.incarnation: each for each in self.others}
        for number in await self.store.servers.fence(silent):
            row = rows[number]
            log.error(
                "server {id} (number {number}) is silent, and writes nothing more: its unfinished deliveries are taken"
                " over",
                id=server_id(row.host, row.pid),
                number=number,
            )
            await self._record("server_fenced", server_id(row.host, row.pid), number)
        self._seen(await self.store.servers.look())

    async def _rejoin(self) -> None:
        """Register this server under a new number, and have it drop the deliveries of its old one."""
        before = self.store.incarnation
        self.is_leading = False
        self._lifecycle.emit(ServersSeen(tuple(each.incarnation for each in self.others), False))
        after: int = await self.store.rejoin()
        self.fenced += 1
        dropped = self.taken_away
        self._sights = Sights()
        self._lifecycle.emit(Fenced(before, after))
        log.error(
            "this server was silent for too long, and others have taken over its unfinished deliveries: {count} are"
            " dropped here, and it continues as number {after} (was {before})",
            count=self.taken_away - dropped,
            before=before,
            after=after,
            announce=True,
        )
        await self.store.servers.note(self._note)
        self.look_again()
        await self._record("server_rejoined", self.id, after)

    def _rejoined(self, _: object) -> None:
        self._is_rejoining = False

    def _taken_away(self, event: TakenAway) -> None:
        self.taken_away += event.count

    async def _record(self, kind: str, about: str, number: int) -> None:
        await self._records.note(TOPIC, kind, ServerRecord(id=about, incarnation=number, by=self.id))

    async def record_start(self) -> None:
        """Record that this server serves, where several may use its store."""
        if self.store.is_shared:
            self._is_recorded = True
            await self._record("server_started", self.id, self.store.incarnation)


def _ignored(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:  # else: what this server says is written again after the next look
        log.failure("describing this server to the others failed, and is tried again", failure)


def _looked_in_vain(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("looking at the other servers failed, and is tried again", failure)
