"""Recovery of the unfinished deliveries of an earlier server, automatically or on an operator's request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, structs
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime, rfc3339
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.lifecycle import ServersSeen
from harn.model.delivery import DEAD, DISCARDED, DONE, READY, REPLAYED, SKIPPED, WAITING, StoredDelivery
from harn.orchestrator.operations import Recovered, UnfinishedDelivery
from harn.reload.adopt import Drains
from harn.reload.archive import Reviver
from harn.server import Server
from harn.store.deliveries import Backlog
from harn.store.interfaces import IStore
from harn.store.recovery import Recovery
from harn.triggers.registry import Registry

log = Logger(namespace="harn")

RECOVERY_LIMIT = 10
"""A delivery is given up if it was running at this many crashes of a server."""
NO_LIMIT = 1_000_000
"""The limit of crashes for a recovery that an operator asks for: none in effect."""
MOST_LISTED = 1000
"""The most unfinished deliveries that one answer lists."""
STATUSES = {
    READY: "dispatched",
    WAITING: "waiting",
    DONE: "dispatched",
    SKIPPED: "dispatched",
    DEAD: "dlq",
    DISCARDED: "dlq",
    REPLAYED: "dlq",
    None: "left",
}
"""The status of a listed delivery after a recovery, by its state; ``left`` if another server has it."""


def describe_unfinished(row: StoredDelivery, now: float) -> UnfinishedDelivery:
    """Return the description of a delivery that an earlier server left."""
    return UnfinishedDelivery(
        event_id=row.event_id,
        trigger_id=row.trigger_id,
        binding_version=row.version,
        provider=row.provider,
        kind=row.kind,
        state=row.state,
        age_seconds=round(now - row.received_at, 3),
        received_at=rfc3339(row.received_at),
        inbox_offset=row.delivery_id,
    )


class Predecessor(Struct, frozen=True):
    """
    The server that this one replaces in an upgrade in place; without an upgrade there is none.

    :ivar leaving: its incarnation while it finishes its deliveries, which it keeps; None otherwise.
    :ivar gone: its incarnation after its process has ended, even if its heartbeat is recent; None otherwise.
    """

    leaving: int | None = None
    gone: int | None = None


class RecoveryService:
    """Takes over the unfinished deliveries of earlier servers."""

    def __init__(
        self,
        wall: WallTime,
        store: IStore,
        reviver: Reviver,
        dispatcher: Dispatcher,
        drains: Drains,
        registry: Registry,
    ) -> None:
        self._wall = wall
        self._registry = registry
        self._store = store
        self._reviver = reviver
        self._dispatcher = dispatcher
        self._drains = drains
        self._lock = DeferredLock()
        self._before = Predecessor()
        self._taking: Deferred[Any] | None = None

    async def start(self, before: Predecessor, limit: int | None) -> int:
        """
        Take over the deliveries of earlier servers, or, without a ``limit``, only count them; return their number.

        :param before: the server that this one replaces; later recoveries on request use it too.
        :param limit: see `automatic`.
        """
        self._before = before
        return await self.count() if limit is None else await self.automatic(limit)

    async def count(self) -> int:
        """Count the deliveries that earlier servers left unfinished."""
        return await self._store.recovery.count_unfinished(
            self._wall.seconds(), self._before.leaving, self._before.gone
        )

    async def automatic(self, limit: int) -> int:
        """
        Take over every unfinished delivery of earlier servers; return their number.

        :param limit: a delivery is given up if it was running at this many crashes of a server.
        """
        return await self._take_over(limit, None)

    def take_over_soon(self, limit: int) -> None:
        """Begin to take over the deliveries of dead servers, unless that is in progress."""
        if self._taking is not None:
            return
        self._taking = Deferred.fromCoroutine(self.automatic(limit))
        self._taking.addErrback(_not_taken_over).addBoth(self._taken_over)

    def _taken_over(self, _: object) -> None:
        self._taking = None

    async def _take_over(self, limit: int, received_before: float | None) -> int:
        """Take over deliveries in slices, so that other work continues between two slices."""
        recovered = 0
        while True:
            recovery = await self._take_over_slice(limit, received_before)
            recovered += recovery.recovered
            if not recovery.is_more:
                break
        if recovered:
            log.info("{count} unfinished deliveries continue", count=recovered)
        return recovered

    async def _take_over_slice(self, limit: int, received_before: float | None) -> Recovery:
        # One after the other: two must not bring back the same version. And no row may run before its lease is taken.
        await self._lock.acquire()
        self._dispatcher.hold()
        try:
            return await self._take_over_now(limit, received_before)
        finally:
            # It looks for retries that are due by now, and sees from these when the next ones are.
            self._dispatcher.resume(self._wall.seconds())
            self._lock.release()

    async def _take_over_now(self, limit: int, received_before: float | None) -> Recovery:
        recovery = await self._store.recovery.recover(
            self._wall.seconds(), limit, received_before, self._before.leaving, self._before.gone
        )
        ours = self._store.incarnation  # the number under which they are taken over
        if recovery.crashed:
            log.warn("{count} deliveries were running when their server crashed", count=recovery.crashed)
        if recovery.dead:
            log.error(
                "{count} deliveries were running at {limit} crashes of their server and are dead letters now"
                " (recovery_limit); look closer: harn orchestrator dlq",
                count=recovery.dead,
                limit=limit,
            )
        if recovery.backlog:
            unfinished = [(entry.trigger_id, entry.version) for entry in recovery.backlog]
            closed = set(await self._dispatcher.closed.load(unfinished))
            backlog = await self._keep_begun(recovery.backlog, closed) if recovery.crashed else recovery.backlog
            revived = await self._reviver.revive(backlog, closed)
            if self._store.incarnation == ours:  # else this server was fenced, and another one owns them
                self._dispatcher.take_over(backlog)
            for binding in revived:
                binding.release()  # of a trigger that is gone, the retries keep the newest only
            self._drains.begin(0, revived)
        return recovery

    async def _keep_begun(self, backlog: Iterable[Backlog], closed: set[tuple[str, int]]) -> Sequence[Backlog]:
        """
        Keep each delivery that ran when the server crashed on its version, even if that is closed; move the others of
        closed versions to the newest version.

        :param closed: closed versions (trigger id, number); those that must run deliveries again are removed.
        :return: the backlog afterwards.
        """
        entries = {(each.trigger_id, each.version): each for each in backlog}
        for trigger_id, version in sorted(closed & entries.keys()):
            newest = self._registry.active.get(trigger_id)
            if newest is None:
                continue
            stay, given = await self._store.recovery.keep_begun(trigger_id, version, newest.version)
            if not stay:
                continue
            await self._dispatcher.closed.remove(trigger_id, version)
            closed.discard((trigger_id, version))
            entries[trigger_id, version] = replace(entries[trigger_id, version], ready=stay)
            key = trigger_id, newest.version
            later = entries.get(key, Backlog(trigger_id=trigger_id, version=newest.version, ready=0, waiting=0))
            entries[key] = replace(later, ready=later.ready + given)
        return list(entries.values())

    async def on_request(self, older_than: float, *, dry_run: bool) -> Recovered:
        """
        Take over the deliveries that an earlier server left unfinished, or only list them.

        All of them are counted and taken over; the oldest `MOST_LISTED` are listed, each with its status.

        :param older_than: take over only deliveries that were received at least this many seconds ago.
        :param dry_run: whether to list and count only.
        """
        now = self._wall.seconds()
        rows = await self._store.recovery.unfinished(
            now - older_than, MOST_LISTED, self._before.leaving, self._before.gone
        )
        count = await self._store.recovery.count_unfinished(now - older_than, self._before.leaving, self._before.gone)
        candidates, recovered = [describe_unfinished(row, now) for row in rows], 0
        if not dry_run and rows:
            # The limit applies to automatic recoveries only, not to an operator's request.
            recovered = await self._take_over(NO_LIMIT, now - older_than)
            states = await self._store.deliveries.states([row.delivery_id for row in rows])
            candidates = [structs.replace(each, status=STATUSES[states.get(each.inbox_offset)]) for each in candidates]
        return Recovered(
            dry_run=dry_run,
            min_envelope_age_seconds=float(older_than),
            stranded_envelopes=count,
            candidates=tuple(candidates),
            recovered=recovered,
        )


def _not_taken_over(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("taking over deliveries failed, and is tried again", failure)


def servers_seen(server: Server, recovery: RecoveryService, event: ServersSeen) -> None:
    """Take over the deliveries of dead servers once this one serves, unless the manifest leaves that to an operator."""
    if event.has_left and server.readiness.phase is None and server.settings.recover == "auto":
        recovery.take_over_soon(RECOVERY_LIMIT)


def install(server: Server) -> None:
    """Add the recovery of deliveries that other servers have left."""
    recovery = server.add(
        RecoveryService(
            server.wall,
            server.store,
            server[Reviver],
            server[Dispatcher],
            server[Drains],
            server[Registry],
        )
    )
    server.lifecycle.subscribe(ServersSeen, lambda event: servers_seen(server, recovery, event))
