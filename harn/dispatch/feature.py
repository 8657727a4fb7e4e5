"""Dispatch as a feature of a server: the registry of versions, the dispatcher, and the intake of events."""

from __future__ import annotations

from harn.connectors.interfaces import IEventSink, IExamples
from harn.dispatch import operations
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.emissions import Emissions
from harn.dispatch.failure_log import FailureLog
from harn.dispatch.intake import Intake
from harn.dispatch.parts import DispatchLimits
from harn.dispatch.pauses import Pauses
from harn.dispatch.places import Places
from harn.dispatch.synthetic import SyntheticEvents
from harn.lifecycle import Fenced, ServersSeen, StoreChanged, VersionEnded
from harn.manifest.settings import OrchestratorSettings
from harn.observability.metrics import Metrics
from harn.server import Server, SettingsChanged
from harn.store.holds import PAUSES
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry, add_version_gauges

LEAST_SHARE = 1024 * 1024
"""Bytes that waiting deliveries, and large running ones, may take at least: a quarter of the bound each."""


def install(server: Server, limits: DispatchLimits = DispatchLimits()) -> None:  # noqa: B008  # frozen
    """Add the registry, the dispatcher and the intake to a server, with their gauges."""
    lifecycle = server.lifecycle
    registry = server.add(Registry(lifecycle))
    dispatcher = Dispatcher(server, registry, limits)
    server.add(dispatcher, Dispatcher, IVersionDeliveries)
    pauses = server.add(Pauses(server.wall, server.store.checkpoints, registry, dispatcher, lifecycle))
    dispatcher.gates.add(pauses)
    server.operations.add(pauses, *operations.PAUSE_OPERATIONS)
    intake = server.add(Intake(server.reactor, server.store.inbox, dispatcher, lifecycle))
    emissions = Emissions(wall=server.wall, registry=registry, intake=intake, lifecycle=lifecycle)
    server.add(emissions, IEventSink)
    lifecycle.subscribe(
        SettingsChanged, lambda event: apply_settings(dispatcher, event.settings, server.options.pump_max_outstanding)
    )
    lifecycle.subscribe(Fenced, lambda event: fenced(dispatcher, pauses))
    lifecycle.subscribe(StoreChanged, lambda event: pauses.follow() if event.concerns(PAUSES) else None)
    if server.store.is_shared:
        install_places(server, dispatcher)
    add_version_gauges(server.metrics, registry)
    add_gauges(server.metrics, dispatcher)
    failures = server.add(FailureLog(server.reactor, registry, lifecycle))
    server.services.add_closing(failures)
    server.services.add(server.interpreters)
    server.services.add_closing(dispatcher)


def install_places(server: Server, dispatcher: Dispatcher) -> None:
    """Add the service that divides each trigger's ``max_outstanding`` among the servers on the store."""
    lifecycle, store = server.lifecycle, server.store
    places = Places(server.reactor, store, dispatcher)
    dispatcher.divide(places)
    lifecycle.subscribe(ServersSeen, lambda event: places.seen(event.others))
    lifecycle.subscribe(StoreChanged, lambda event: places.follow(event.topics))
    lifecycle.subscribe(Fenced, lambda event: places.renumbered())
    lifecycle.subscribe(VersionEnded, lambda event: places.removed(event.trigger_id) if event.is_last else None)
    server.add(places)
    server.services.add_closing(places)


def install_synthetic_events(server: Server) -> None:
    """Add the operations for synthetic events; called after reloads are installed, which have the examples."""
    events = SyntheticEvents(
        server.reactor, server.wall, server[Registry], server[Intake], server[Dispatcher], server[IExamples]
    )
    server.operations.add(events, *operations.OPERATIONS)


def fenced(dispatcher: Dispatcher, pauses: Pauses) -> None:
    """Drop all deliveries, since other servers have taken them over, and read the pauses, which may have changed."""
    dispatcher.drop_all()
    pauses.follow()


def apply_settings(dispatcher: Dispatcher, settings: OrchestratorSettings, most: int | None) -> None:
    """
    Apply the settings to the dispatcher.

    :param most: the most handlers that may run at the same time, instead of the setting; None to use the setting.
    """
    share = max(LEAST_SHARE, settings.admission.max_pending_bytes // 4)
    dispatcher.apply(most or settings.pumps.max_outstanding, share)


def add_gauges(metrics: Metrics, dispatcher: Dispatcher) -> None:
    """Add the gauges of the dispatcher."""
    metrics.gauge(
        "harn_orchestrator_pump_outstanding", "Handlers that run now.", lambda: float(len(dispatcher.in_progress))
    )
    metrics.gauge(
        "harn_orchestrator_pump_backlog", "Ready deliveries held in memory.", lambda: float(dispatcher.queued)
    )
