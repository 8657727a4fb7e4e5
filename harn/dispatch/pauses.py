"""
Pauses of single triggers or of the whole server: events are accepted, and no delivery begins.

A pause outlives reloads and restarts. It ends at its time, if it has one, or when an operator resumes; then the
deliveries that it held may begin at a limited rate.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.gates import Held, IGate
from harn.errors import EventLogUnavailable, RouteUnknown
from harn.lifecycle import Lifecycle, PauseChanged
from harn.model.display import describe_unknown
from harn.store.checkpoints import ICheckpoints
from harn.store.holds import ALL, PAUSED, PAUSES, Pause, held_now, read_pauses
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")


@implementer(IGate)
class Pauses:
    """The pauses of a server, as a gate of the dispatcher."""

    def __init__(
        self,
        wall: WallTime,
        checkpoints: ICheckpoints,
        registry: Registry,
        dispatcher: Dispatcher,
        lifecycle: Lifecycle,
    ) -> None:
        self._wall = wall
        self._checkpoints = checkpoints
        self._registry = registry
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._pauses: Mapping[str, Pause] = {}
        self._lock = DeferredLock()
        self._is_following = False

    def held(self, trigger_id: str) -> Held | None:
        """See `IGate.held`."""
        found = self.of(trigger_id)
        return None if found is None else Held(PAUSED, found.until)

    def rate(self, trigger_id: str) -> float | None:
        """See `IGate.rate`."""
        now = self._wall.seconds()
        found = [self._pauses.get(name) for name in (trigger_id, ALL)]
        return min((each.rate for each in found if each is not None and each.rate and now < each.ends), default=None)

    def of(self, trigger_id: str) -> Pause | None:
        """Return the pause that holds a trigger, its own or the server's: if both do, the one that ends later."""
        if not self._pauses:
            return None
        now = self._wall.seconds()
        found = [self._pauses.get(name) for name in (trigger_id, ALL)]
        holding = [each for each in found if each is not None and each.holds(now)]
        return max(holding, key=lambda each: each.ends, default=None)

    def names(self) -> frozenset[str]:
        """See `IGate.names`: the triggers that have a pause of their own, and `ALL` if the whole server is paused."""
        now = self._wall.seconds()
        return frozenset(name for name, pause in self._pauses.items() if pause.holds(now))

    def all(self) -> dict[str, Pause]:
        """Return the pauses in force now, by trigger id or `ALL`; see `held_now`."""
        return held_now(self._pauses, self._wall.seconds())

    @property
    def of_server(self) -> Pause | None:
        """The pause of the whole server; None if it is not paused."""
        found = self._pauses.get(ALL)
        return found if found is not None and found.holds(self._wall.seconds()) else None

    async def load(self) -> None:
        """
        Read the pauses of an earlier server before any delivery begins; an upgrade reads them a second time.

        :raises EventLogUnavailable: the store cannot be read; the pauses in memory stay as they are.
        """
        await self._lock.acquire()  # so that an older state is not applied after a newer change
        self._is_following = False
        try:
            before, self._pauses = self._pauses, read_pauses(await self._checkpoints.get(PAUSES))
            is_changed = self._pauses != before
        finally:
            self._lock.release()
        if is_changed:
            self._dispatcher.gate_changed()

    def follow(self) -> None:
        """Read the pauses again, since other servers on the store may have changed them."""
        if not self._is_following:  # a read that still waits for the lock sees this change too
            self._is_following = True
            Deferred.fromCoroutine(self.load()).addErrback(_not_followed)

    async def pause(self, trigger_id: str | None, seconds: float | None, actor: str) -> Pause:
        """
        Pause a trigger, or with None the whole server: no delivery begins, and running ones continue.

        :param seconds: the pause ends by itself after this time; None if only a resume ends it.
        :raises RouteUnknown: there is no such trigger.
        :raises EventLogUnavailable: the pause could not be recorded and is not in force.
        """
        self._check(trigger_id)
        now = self._wall.seconds()
        made = Pause(since=now, until=None if seconds is None else now + seconds, actor=actor)
        await self._put(trigger_id, made)
        return made

    async def resume(self, trigger_id: str | None, rate: float | None) -> bool:
        """
        End the pause of a trigger, or with None that of the whole server.

        :param rate: the deliveries that the pause held begin at most this often (a second); None for no limit.
        :return: whether there was a pause.
        :raises RouteUnknown: there is no such trigger.
        :raises EventLogUnavailable: the resume could not be recorded; the pause stays in force.
        """
        name = ALL if trigger_id is None else trigger_id
        was = self._pauses.get(name)
        now = self._wall.seconds()
        if was is None:
            self._check(trigger_id)
            return False
        paced = None
        if rate is not None:
            paced = Pause(since=now, rate=rate, until=now + self._dispatcher.waiting(trigger_id) / rate)
        await self._put(trigger_id, paced, rate)
        return was.holds(now)

    async def _put(self, trigger_id: str | None, pause: Pause | None, rate: float | None = None) -> None:
        """Record a pause, or with None its end, and put it in force."""
        name, now = ALL if trigger_id is None else trigger_id, self._wall.seconds()
        await self._lock.acquire()
        try:
            changes = {each: None for each, of in self._pauses.items() if now >= of.ends}
            changed = {**changes, name: None if pause is None else asdict(pause)}
            self._pauses = read_pauses(await self._checkpoints.amend(PAUSES, changed))
        finally:
            self._lock.release()
        if pause is None or rate is not None:
            self._dispatcher.pace(trigger_id, rate)
        self._dispatcher.gate_changed(trigger_id)
        is_paused = pause is not None and pause.rate is None
        until = pause.until if pause is not None and is_paused else None
        self._lifecycle.emit(PauseChanged(trigger_id, is_paused, until))

    def _check(self, trigger_id: str | None) -> None:
        if trigger_id is None or trigger_id in self._registry.active or self._registry.versions(trigger_id):
            return
        raise RouteUnknown(describe_unknown(trigger_id, self._registry.active))


def _not_followed(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("pauses cannot be read again", failure)
