"""Circuits as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.circuits.circuit import CircuitState
from harn.circuits.operations import OPERATIONS
from harn.circuits.records import CircuitRecords
from harn.circuits.service import Circuits
from harn.dispatch.dispatcher import Dispatcher
from harn.lifecycle import StoreChanged, VersionEnded
from harn.observability.metrics import Metrics
from harn.reload.interfaces import Adopted, ReloadsClosed
from harn.server import Server
from harn.store.holds import CIRCUITS
from harn.triggers.registry import Registry

LEVELS = {CircuitState.CLOSED: 0.0, CircuitState.HALF_OPEN: 1.0, CircuitState.OPEN: 2.0}
"""The value of the gauge for each state."""


def install(server: Server) -> None:
    """Add the circuits to a server: a gate of the dispatcher, the operations and the gauge."""
    dispatcher = server[Dispatcher]
    records = CircuitRecords(server.store.checkpoints, is_shared=server.store.is_shared)
    circuits = server.add(Circuits(server.wall, records, server[Registry], dispatcher, server.lifecycle))
    dispatcher.gates.add(circuits)
    server.operations.add(circuits, *OPERATIONS)
    server.lifecycle.subscribe(Adopted, lambda event: circuits.settings_changed())
    server.lifecycle.subscribe(StoreChanged, lambda event: circuits.follow() if is_about_circuits(event) else None)
    server.lifecycle.subscribe(ReloadsClosed, lambda event: circuits.hand_over())
    server.lifecycle.subscribe(VersionEnded, circuits.version_ended)
    add_circuit_gauge(server.metrics, circuits)


def is_about_circuits(event: StoreChanged) -> bool:
    """Return whether another server may have changed the circuits in the store."""
    return not event.topics or any(each.startswith(CIRCUITS) for each in event.topics)


def add_circuit_gauge(metrics: Metrics, circuits: Circuits) -> None:
    """Add the gauge that shows the state of each trigger's circuit."""
    metrics.gauge(
        "harn_circuit_state",
        "State of a trigger's circuit: 0 closed, 1 half-open, 2 open.",
        lambda: {(trigger_id,): LEVELS[circuits.of(trigger_id).state] for trigger_id in circuits},
        ("trigger_id",),
    )
