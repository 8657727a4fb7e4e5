"""Operations on circuits: the state of each, and closing one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from harn.clocks import rfc3339
from harn.errors import RouteUnknown
from harn.manifest.model import CircuitSpec
from harn.model.quantities import format_duration
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.circuits.circuit import Circuit
    from harn.circuits.service import Circuits


class ListCircuits(Parameters, frozen=True, kw_only=True):
    """Which circuits."""

    open: Annotated[bool, Meta(description="Only those that are open or half-open.")] = False


class CircuitInfo(Result, frozen=True, kw_only=True):
    """One circuit."""

    trigger_id: str
    state: Annotated[str, Meta(description="closed, open or half_open.")]
    failures: Annotated[int, Meta(description="Deliveries in a row that have failed an attempt.")]
    limit: Annotated[int, Meta(description="So many open it.")]
    reset: Annotated[str, Meta(description="How long it stays open.")]
    open: Annotated[str, Meta(description="What deliveries do meanwhile: wait or dead_letter.")]
    retry_at: Annotated[str | None, Meta(description="When the next delivery is tried; null unless it is open.")]


class CircuitList(Result, frozen=True, kw_only=True):
    """The circuits of all triggers that have one."""

    circuits: tuple[CircuitInfo, ...]


class CloseCircuit(Parameters, frozen=True, kw_only=True):
    """Which circuit."""

    trigger: Annotated[str, Meta(description="The trigger's id.")]


class CircuitClosed(Result, frozen=True, kw_only=True):
    """The circuit is closed; ``was_open``: it was not before."""

    trigger_id: str
    was_open: bool


@operation("circuits.list", role=Role.READ, route=Get("/circuits"), example={"open": True})
async def list_circuits(circuits: Circuits, caller: Caller, wanted: ListCircuits) -> CircuitList:
    """List the circuits of all triggers that have one, with their states."""
    names = [each for each in circuits.names() if circuits.spec(each) is not None] if wanted.open else circuits
    return CircuitList(
        circuits=tuple(
            describe(each, circuits.of(each), circuits.spec(each) or CircuitSpec()) for each in sorted(names)
        )
    )


@operation(
    "circuits.close",
    role=Role.OPERATE,
    route=Post("/circuits/{trigger}/close"),
    example={"trigger": "gh"},
    audit=lambda done: {"closed": int(done.was_open)},
)
async def close_circuit(circuits: Circuits, caller: Caller, wanted: CloseCircuit) -> CircuitClosed:
    """
    Close the circuit of a trigger, so that what has waited begins immediately.

    :raises RouteUnknown: there is no such trigger, or it has no circuit.
    """
    if circuits.spec(wanted.trigger) is None:
        known = ", ".join(sorted(circuits)[:10]) or "none"
        raise RouteUnknown(f"there is no circuit of a trigger {wanted.trigger!r}; triggers with a circuit: {known}")
    return CircuitClosed(trigger_id=wanted.trigger, was_open=circuits.close(wanted.trigger))


def describe(trigger_id: str, circuit: Circuit, spec: CircuitSpec) -> CircuitInfo:
    """Return the circuit of a trigger as users see it."""
    return CircuitInfo(
        trigger_id=trigger_id,
        state=circuit.state,
        failures=max(circuit.failures, len(circuit.failed)),
        limit=spec.failures,
        reset=format_duration(spec.reset),
        open=spec.open,
        retry_at=None if circuit.retry_at is None else rfc3339(circuit.retry_at),
    )


OPERATIONS = (list_circuits, close_circuit)
"""Those of `Circuits`."""
