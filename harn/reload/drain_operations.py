"""Operations on draining versions: list them, move the deliveries that one has not begun, cancel one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from msgspec import Meta

from harn.clocks import WallTime, rfc3339
from harn.model.delivery import StoredDelivery, Workload
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.reload.drain import Draining, Drains
    from harn.store.deliveries import IDeliveries
    from harn.triggers.interfaces import IVersionDeliveries
    from harn.triggers.registry import Registry


@frozen(kw_only=True)
class DrainService:
    """The parts that the operations on drains use."""

    wall: WallTime
    store: IDeliveries
    registry: Registry
    dispatcher: IVersionDeliveries
    drains: Drains


class ListDrains(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class DrainOf(Parameters, frozen=True, kw_only=True):
    """A version that drains."""

    binding: Annotated[str, Meta(min_length=1, description="The version, for example gh@v1.")]


class OldestEvent(Result, frozen=True, kw_only=True):
    """The unfinished delivery of a version that was accepted first."""

    event_id: str
    received_at: str


class Drain(Result, frozen=True, kw_only=True):
    """One version that drains."""

    binding: str
    trigger_id: str
    version: int
    generation: Annotated[int, Meta(description="The generation that it served last; 0 for an earlier server's.")]
    draining_since: str
    age_seconds: float
    deadline: Annotated[
        str | None, Meta(description="When deliveries that have not begun are moved; null once that was done.")
    ]
    in_flight: Annotated[int, Meta(description="Requests and deliveries that hold it.")]
    running: int
    queued: int
    waiting: Annotated[int, Meta(description="Retries that wait for their time and will run on it.")]
    moved: bool
    oldest_event: OldestEvent | None


class DrainList(Result, frozen=True, kw_only=True):
    """Every version that drains, the longest draining first."""

    drains: tuple[Drain, ...]


class DrainCancelled(Result, frozen=True, kw_only=True):
    """The number of deliveries that became dead letters."""

    binding: str
    cancelled: int


class DrainMoved(Result, frozen=True, kw_only=True):
    """The number of deliveries that were moved, and the version that they went to; null for the dead letters."""

    binding: str
    moved: int
    to: str | None


@operation("drains.list", role=Role.READ, route=Get("/drains"))
async def list_drains(service: DrainService, caller: Caller, wanted: ListDrains) -> DrainList:
    """List the versions that drain."""
    asked = [each.version for each in service.drains.describe()]
    oldest = await service.store.oldest(asked) if asked else {}
    # Described again, at one moment: some may have ended while the store was read.
    now = service.wall.seconds()
    draining = service.drains.describe()
    loads = service.dispatcher.workload([each.binding for each in draining])
    return DrainList(
        drains=tuple(
            describe_draining(each, now, loads[each.binding], _waiting(service, each), oldest.get(each.version))
            for each in draining
        )
    )


@operation(
    "drains.cancel",
    role=Role.OPERATE,
    route=Post("/drains/cancel"),
    audit=lambda done: {"cancelled": done.cancelled},
)
async def cancel_drain(service: DrainService, caller: Caller, wanted: DrainOf) -> DrainCancelled:
    """
    Dead-letter every delivery of a draining version, also those that run.

    :raises RouteUnknown: no such version drains.
    """
    binding = service.drains.find(wanted.binding)
    return DrainCancelled(binding=binding.key, cancelled=await service.dispatcher.cancel(binding))


@operation("drains.move", role=Role.OPERATE, route=Post("/drains/move"), audit=lambda done: {"moved": done.moved})
async def move_drain(service: DrainService, caller: Caller, wanted: DrainOf) -> DrainMoved:
    """
    Move the deliveries that a draining version has not begun to the newest version, as its deadline would.

    :raises RouteUnknown: no such version drains.
    """
    binding = service.drains.find(wanted.binding)
    moving = service.dispatcher.move_on(binding)
    live = service.registry.active.get(binding.id)  # in the step that chose the target; a reload may come between
    return DrainMoved(binding=binding.key, moved=await moving, to=None if live is None else live.key)


OPERATIONS = (list_drains, cancel_drain, move_drain)
"""The operations of a `DrainService`."""


def describe_draining(
    draining: Draining, now: float, load: Workload, waiting: int, oldest: StoredDelivery | None
) -> Drain:
    """Return the result for a draining version; ``oldest`` is its unfinished delivery that was accepted first."""
    binding = draining.binding
    return Drain(
        binding=binding.key,
        trigger_id=binding.id,
        version=binding.version,
        generation=draining.generation,
        draining_since=rfc3339(draining.since),
        age_seconds=round(max(0.0, now - draining.since), 3),
        deadline=None if draining.deadline is None else rfc3339(draining.deadline),
        in_flight=binding.in_flight,
        running=load.running,
        queued=load.queued,
        waiting=waiting,
        moved=binding.is_closed,
        oldest_event=None
        if oldest is None
        else OldestEvent(event_id=oldest.event_id, received_at=rfc3339(oldest.received_at)),
    )


def _waiting(service: DrainService, draining: Draining) -> int:
    """Count the retries that will run on it: those of a removed trigger run on its last version until it is moved."""
    binding, registry = draining.binding, service.registry
    is_last = binding.id not in registry.active and registry.newest(binding.id) is binding
    return registry.waiting[binding.id] if is_last and not binding.is_closed else 0
