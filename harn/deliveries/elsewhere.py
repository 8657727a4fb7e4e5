"""
Cancelling what another server on the store has: by a request in the store, which is announced to all of them.

A request names deliveries, not servers: the server that has one of them cancels it. The one that asks looks at them
until none is another's any more, or until it waits no longer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.store.interfaces import IStore

log = Logger(namespace="harn.deliveries")

CANCELS = "cancels"
"""The name of the record of requests: by number of the server that asks and a count, each `CancelRequest`."""
LOOK = 0.25
"""Seconds between two looks at what was asked for."""
PATIENCE = 10.0
"""Seconds after which a server waits no longer for the others."""
KEPT = 60.0
"""Seconds after which a request is removed whose server has died."""


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: the deliveries, by id the event of each; and when it was made (seconds, Unix)."""

    at: float
    deliveries: dict[str, str]


class Elsewhere:
    """Cancels deliveries that other servers have, and here those that others ask for."""

    def __init__(self, clock: IReactorTime, wall: WallTime, store: IStore, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._wall = wall
        self._store = store
        self._dispatcher = dispatcher
        self._count = 0
        self._seen: frozenset[str] = frozenset()

    async def of_others(self, delivery_ids: Collection[int]) -> Mapping[int, int]:
        """
        Return by id which of these deliveries other servers have, with the number of each.

        :raises EventLogUnavailable: that cannot be read.
        """
        if not self._store.is_shared:
            return {}
        owners = await self._store.deliveries.owners(delivery_ids)
        return {delivery_id: owner for delivery_id, owner in owners.items() if owner != self._store.incarnation}

    async def cancel(self, deliveries: Mapping[int, str]) -> Mapping[int, str]:
        """
        Request the servers that have these deliveries to cancel them; wait until they have ended, up to `PATIENCE`.

        :param deliveries: by id the event of each.
        :return: by id why that cannot be said of one: which server still has it. Others have ended, or are this one's.
        :raises EventLogUnavailable: that could not be asked.
        """
        keys: list[str] = []
        try:
            left = await self._wait(deliveries, keys)
        finally:
            removing = self._store.checkpoints.amend(CANCELS, dict.fromkeys(keys))
            removing.addErrback(_ignored)  # else another server does, in its time
        if not left:
            return {}
        names = {each.incarnation: each.name for each in (await self._store.servers.look()).rows}
        return {each: why_left(names.get(owner, f"number {owner}")) for each, owner in left.items()}

    async def _wait(self, deliveries: Mapping[int, str], keys: list[str]) -> Mapping[int, int]:
        """Request it, once more when another server has taken one over; ``keys`` are those of the requests."""
        ends_at, asked = self._clock.seconds() + PATIENCE, dict[int, int]()
        while left := await self.of_others(deliveries):
            if self._clock.seconds() >= ends_at:
                return left
            if left.items() - asked.items():
                asked.update(left)
                await self._request({each: deliveries[each] for each in left}, keys)
            await deferLater(self._clock, LOOK)
        return {}

    async def _request(self, deliveries: Mapping[int, str], keys: list[str]) -> None:
        self._count += 1
        keys.append(f"{self._store.incarnation}/{self._count}")
        request = CancelRequest(at=self._wall.seconds(), deliveries={str(each): of for each, of in deliveries.items()})
        await self._store.checkpoints.amend(CANCELS, {keys[-1]: msgspec.to_builtins(request)})

    def changed(self) -> None:
        """Called when another server may have asked for something."""
        Deferred.fromCoroutine(self._answer()).addErrback(_not_answered)

    async def _answer(self) -> None:
        """Cancel the requested deliveries of this server; a request is looked at once."""
        checkpoints, now = self._store.checkpoints, self._wall.seconds()
        requests = msgspec.convert(await checkpoints.get(CANCELS) or {}, dict[str, CancelRequest])
        fresh, self._seen = [each for each in requests if each not in self._seen], frozenset(requests)
        old = [key for key, each in requests.items() if abs(now - each.at) > KEPT]
        if old:
            await checkpoints.amend(CANCELS, dict.fromkeys(old))
        work = [Deferred.fromCoroutine(self._cancel_ours(requests[each])) for each in fresh]
        await gatherResults(work, consumeErrors=True)

    async def _cancel_ours(self, request: CancelRequest) -> None:
        wanted = {int(delivery_id): event_id for delivery_id, event_id in request.deliveries.items()}
        owners = await self._store.deliveries.owners(wanted)
        ours: Sequence[int] = [each for each, owner in owners.items() if owner == self._store.incarnation]
        cancel = self._dispatcher.cancel_delivery
        await gatherResults([cancel(wanted[each], each) for each in ours], consumeErrors=True)


def why_left(name: str) -> str:
    """Return why a delivery was not cancelled that another server has."""
    return f"server {name} has it and has not ended it within {PATIENCE:.0f} s; it may still do so"


def _ignored(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("a request to cancel could not be removed", failure)


def _not_answered(failure: Failure) -> None:
    while isinstance(failure.value, FirstError):
        failure = failure.value.subFailure
    if failure.check(EventLogUnavailable) is None:
        log.failure("what another server asked to be cancelled could not be", failure)
