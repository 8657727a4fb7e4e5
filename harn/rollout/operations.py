"""Operations on rollouts: confirm the live generation, list ramps, finish or abort them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.reload.results import RampInfo

if TYPE_CHECKING:
    from harn.reload.coordinator import Coordinator
    from harn.rollout.rollouts import Rollouts


class RolloutService(Struct, frozen=True, kw_only=True):
    """The parts that the operations on rollouts use."""

    rollouts: Rollouts
    coordinator: Coordinator


class Confirm(Parameters, frozen=True, kw_only=True):
    """Which generation to keep."""

    generation: Annotated[int, Meta(ge=1, description="Only if it is this one.")] | None = None


class Confirmed(Result, frozen=True, kw_only=True):
    """The generation that stays."""

    generation: int
    status: str = "confirmed"


class RampOf(Parameters, frozen=True, kw_only=True):
    """Which ramp."""

    trigger: Annotated[str, Meta(min_length=1, description="Only that of this trigger.")] | None = None


class RampList(Result, frozen=True, kw_only=True):
    """Ramps, by trigger id."""

    ramps: tuple[RampInfo, ...]


@operation(
    "confirm", role=Role.OPERATE, route=Post("/confirm"), example={"generation": 2}, audit=lambda done: {"confirmed": 1}
)
async def confirm_generation(service: RolloutService, caller: Caller, wanted: Confirm) -> Confirmed:
    """
    Confirm the live generation, which ends its probation: it is not rolled back automatically any more.

    :raises NothingPending: it is not on probation, or another is live.
    """
    rollouts = service.rollouts
    active = rollouts.probations.hold(wanted.generation)  # its time does not run out while this waits for its turn
    try:
        # While no reload runs, so that no other program takes over in between.
        async with service.coordinator.queue.exclusive():
            return Confirmed(generation=await rollouts.confirm(wanted.generation, caller.actor))
    finally:
        rollouts.probations.release(active)


@operation("ramps.list", role=Role.READ, route=Get("/ramps"), example={"trigger": "gh"})
async def list_ramps(service: RolloutService, caller: Caller, wanted: RampOf) -> RampList:
    """List the triggers whose versions share their deliveries, and the ramps that were aborted."""
    return RampList(ramps=tuple(service.rollouts.ramps.describe(wanted.trigger)))


@operation(
    "ramps.finish",
    role=Role.OPERATE,
    route=Post("/ramps/finish"),
    example={"trigger": "gh"},
    audit=lambda done: {"finished": len(done.ramps)},
)
async def finish_ramps(service: RolloutService, caller: Caller, wanted: RampOf) -> RampList:
    """
    Send all deliveries of a trigger, or of every ramping one, to its new version.

    :raises NothingPending: there is no such ramp.
    """
    ended = await service.rollouts.ramps.finish(wanted.trigger, caller.actor)
    return RampList(ramps=tuple(ended))


@operation(
    "ramps.abort",
    role=Role.OPERATE,
    route=Post("/ramps/abort"),
    example={"trigger": "gh"},
    audit=lambda done: {"aborted": len(done.ramps)},
)
async def abort_ramps(service: RolloutService, caller: Caller, wanted: RampOf) -> RampList:
    """
    Send all deliveries of a trigger, or of every ramping one, back to the previous version.

    :raises NothingPending: there is no such ramp.
    """
    ended = await service.rollouts.ramps.abort(wanted.trigger, caller.actor)
    return RampList(ramps=tuple(ended))


OPERATIONS = (confirm_generation, list_ramps, finish_ramps, abort_ramps)
"""The operations of a `RolloutService`."""
