"""
Cancelling deliveries of other servers on the same store: by a request in the store, which is announced to all servers.

A request names deliveries, not servers: each server cancels those that it has. The requesting server polls the store
until other servers have none of them, or until `PATIENCE` has passed.
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
"""The name of the record of requests: each `CancelRequest`, by the number of the requesting server and a count."""
LOOK = 0.25
"""Seconds between two polls of the requested deliveries."""
PATIENCE = 10.0
"""The longest time that a server waits for the others (seconds)."""
KEPT = 60.0
"""Seconds after which the request of a server that has died is removed."""


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request: the deliveries, as event ids by delivery id, and the time when it was made (seconds, Unix)."""

    at: float
    deliveries: dict[str, str]


class Elsewhere:
    """Requests other servers to cancel deliveries, and cancels those of this server that others request."""

    def __init__(self, clock: IReactorTime, wall: WallTime, store: IStore, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._wall = wall
        self._store = store
        self._dispatcher = dispatcher
        self._count = 0
        self._seen: frozenset[str] = frozenset()

    async def of_others(self, delivery_ids: Collection[int]) -> Mapping[int, int]:
        """
        Return the number of the server by delivery id, for those of these deliveries that other servers have.

        :raises EventLogUnavailable: the store cannot be read.
        """
        if not self._store.is_shared:
            return {}
        owners = await self._store.deliveries.owners(delivery_ids)
        return {delivery_id: owner for delivery_id, owner in owners.items() if owner != self._store.incarnation}

    async def cancel(self, deliveries: Mapping[int, str]) -> Mapping[int, str]:
        """
        Request the servers that have these deliveries to cancel them; wait until they have ended, up to `PATIENCE`.

        :param deliveries: the event ids by delivery id.
        :return: for each delivery that another server still has, by id, a text that names this server. The others have
            ended, or belong to this server.
        :raises EventLogUnavailable: the request could not be stored.
        """
        keys: list[str] = []
        try:
            left = await self._wait(deliveries, keys)
        finally:
            removing = self._store.checkpoints.amend(CANCELS, dict.fromkeys(keys))
            removing.addErrback(_ignored)  # if it fails, another server removes the requests after `KEPT`
        if not left:
            return {}
        names = {each.incarnation: each.name for each in (await self._store.servers.look()).rows}
        return {each: why_left(names.get(owner, f"number {owner}")) for each, owner in left.items()}

    async def _wait(self, deliveries: Mapping[int, str], keys: list[str]) -> Mapping[int, int]:
        """
        Store the request, and again when another server has taken over a delivery; return the deliveries left.

        :param keys: receives the keys of the requests.
        """
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
        """Called when another server may have stored a request."""
        Deferred.fromCoroutine(self._answer()).addErrback(_not_answered)

    async def _answer(self) -> None:
        """Cancel the requested deliveries of this server; each request is processed once."""
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
    """Return why a delivery of another server was not cancelled."""
    return f"server {name} has it and has not ended it within {PATIENCE:.0f} s; it may still do so"


def _ignored(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("a request to cancel could not be removed", failure)


def _not_answered(failure: Failure) -> None:
    while isinstance(failure.value, FirstError):
        failure = failure.value.subFailure
    if failure.check(EventLogUnavailable) is None:
        log.failure("what another server asked to be cancelled could not be", failure)
