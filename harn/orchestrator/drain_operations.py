"""What an operator sees of draining versions, and may do to one; each answer is a JSON value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.clocks import WallTime, rfc3339
from harn.dispatch.counting import Workload
from harn.dispatch.dispatcher import Dispatcher
from harn.model.delivery import StoredDelivery
from harn.reload.drain import Draining, Drains
from harn.store.interfaces import IDeliveries
from harn.triggers.registry import Registry

log = Logger(namespace="harn.reload")


def describe_draining(
    draining: Draining, now: float, load: Workload, waiting: int, oldest: StoredDelivery | None
) -> dict[str, Any]:
    """
    Make one entry of ``GET /admin/drains``.

    :param waiting: retries that wait for a time and will run on it.
    :param oldest: its unfinished delivery that was accepted first.
    """
    binding = draining.binding
    return {
        "binding": binding.key,
        "trigger_id": binding.id,
        "version": binding.version,
        "generation": draining.generation,
        "draining_since": rfc3339(draining.since),
        "age_seconds": round(max(0.0, now - draining.since), 3),
        "deadline": None if draining.deadline is None else rfc3339(draining.deadline),
        "in_flight": binding.in_flight,
        "running": load.running,
        "queued": load.queued,
        "waiting": waiting,
        "moved": binding.moved,
        "oldest_event": None
        if oldest is None
        else {"event_id": oldest.event_id, "received_at": rfc3339(oldest.received_at)},
    }


class DrainOperations:
    """The drains of one server; see `harn.listener.interfaces.IReloadOperations`."""

    def __init__(
        self, wall: WallTime, store: IDeliveries, registry: Registry, dispatcher: Dispatcher, drains: Drains
    ) -> None:
        self._wall = wall
        self._store = store
        self._registry = registry
        self._dispatcher = dispatcher
        self._drains = drains

    def drains(self) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `harn.listener.interfaces.IReloadOperations.drains`."""
        return Deferred.fromCoroutine(self._describe())

    async def _describe(self) -> Sequence[Mapping[str, Any]]:
        asked = [each.binding for each in self._drains.describe()]
        oldest = await self._store.oldest([(binding.id, binding.version) for binding in asked]) if asked else {}
        # As of one moment: the store took its time, and what ended meanwhile drains no more.
        now = self._wall.seconds()
        draining = self._drains.describe()
        loads = self._dispatcher.workload([each.binding for each in draining])
        return [
            describe_draining(each, now, loads[each.binding], self._waiting(each), oldest.get(each.version))
            for each in draining
        ]

    def _waiting(self, draining: Draining) -> int:
        """Count the retries that will run on it: those of a trigger that is gone, on its last version until moved."""
        binding = draining.binding
        is_last = binding.id not in self._registry.active and self._registry.newest(binding.id) is binding
        return self._registry.waiting[binding.id] if is_last and not binding.moved else 0

    def cancel(self, binding: str, actor: str) -> Deferred[Mapping[str, Any]]:
        """See `harn.listener.interfaces.IReloadOperations.cancel_drain`."""
        return Deferred.fromCoroutine(self._cancel(binding, actor))

    async def _cancel(self, key: str, actor: str) -> Mapping[str, Any]:
        cancelled = await self._drains.cancel(key)
        log.info(
            "{actor} cancelled the drain of {binding}: {count} to the dead letters",
            actor=actor,
            binding=key,
            count=cancelled,
        )
        return {"binding": key, "cancelled": cancelled}

    def move(self, binding: str, actor: str) -> Deferred[Mapping[str, Any]]:
        """See `harn.listener.interfaces.IReloadOperations.move_drain`."""
        return Deferred.fromCoroutine(self._move(binding, actor))

    async def _move(self, key: str, actor: str) -> Mapping[str, Any]:
        binding = self._drains.find(key)
        moving = self._drains.move(key)
        live = self._registry.active.get(binding.id)  # in the step that decided where to; a reload may come between
        moved = await moving
        target = None if live is None else live.key
        log.info(
            "{actor} moved {binding} on: {count} to {target}",
            actor=actor,
            binding=key,
            count=moved,
            target=target or "the dead letters",
        )
        return {"binding": key, "moved": moved, "to": target}
