"""The feature that builds, adopts and drains the generations of a server."""

from __future__ import annotations

from twisted.logger import Logger

from harn.connectors.catalog import Catalog
from harn.connectors.interfaces import IEventSink, IExamples
from harn.destinations.catalog import DestinationCatalog
from harn.observability.metrics import Metrics
from harn.reload import operations
from harn.reload.adopt import Drains, LiveGeneration
from harn.reload.archive import Reviver
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import Coordinator
from harn.reload.inputs import ExternalInputs
from harn.reload.interfaces import Adopted, IPlanner, IReloadPublisher, IRouteTable
from harn.reload.operations import DrainService
from harn.reload.pipeline import ReloadPipeline
from harn.reload.reader import FileReader
from harn.reload.targets import Resolution, Targets
from harn.server import Server
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry

log = Logger(namespace="harn")

INTERPRETER_DOWN = "interpreter down"


def install(server: Server) -> None:
    """Add the coordinator and its parts."""
    install_inputs(server)
    install_builder(server)
    install_drains(server)
    install_coordinator(server)
    apply_settings(server)
    server.lifecycle.subscribe(Adopted, lambda event: count_triggers(server, event))


def apply_settings(server: Server) -> None:
    """Apply the settings of each adopted generation."""
    server.lifecycle.subscribe(
        Adopted, lambda event: server.apply(event.candidate.generation.inputs.manifest.orchestrator)
    )


def install_inputs(server: Server) -> None:
    """Add the catalogs of connectors and destinations, and the file reader."""
    catalog, destinations = server.add(Catalog.discover()), server.add(DestinationCatalog.discover())
    for problem in (*catalog.problems, *destinations.problems):
        log.error("{problem}", problem=str(problem))
    server.add(FileReader(server.reactor, server.wall))


def install_builder(server: Server) -> None:
    """Add the parts that read, check and build a generation."""
    options, catalog = server.options, server[Catalog]
    resolution = server.add(Resolution(server.interpreters))
    server.readiness.add(INTERPRETER_DOWN, resolution.all_up)
    connections = server.add(Connections(server.reactor, catalog, server.wall))
    targets = server.add(Targets(server.reactor, server[DestinationCatalog]))
    server.add(
        Builder(
            server[FileReader],
            options.manifest,
            options.manifest_name,
            server[ExternalInputs],
            resolution,
            connections,
            targets,
        )
    )


def install_drains(server: Server) -> None:
    """Add the drains of replaced versions, and the reviver of an earlier server's versions."""
    registry, deliveries = server[Registry], server[IVersionDeliveries]
    drains = server.add(Drains(server.reactor, deliveries, server.lifecycle, server.wall))
    server.services.add_closing(drains)
    add_drain_gauge(server.metrics, drains)
    service = DrainService(
        wall=server.wall, store=server.store.deliveries, registry=registry, dispatcher=deliveries, drains=drains
    )
    server.operations.add(service, *operations.DRAIN_OPERATIONS)
    server.add(
        Reviver(server.reactor, server.store.generations, server[Resolution], server[Targets], registry, server.wall)
    )


def add_drain_gauge(metrics: Metrics, drains: Drains) -> None:
    """Add the gauge of draining generations."""
    metrics.gauge(
        "harn_generations_draining", "Generations of which something drains.", lambda: float(len(drains.generations))
    )


def install_coordinator(server: Server) -> None:
    """Add the coordinator."""
    builder, table, registry = server[Builder], server[IRouteTable], server[Registry]
    pipeline = ReloadPipeline(server.wall, builder, server.store.generations, server[Reviver], table, server[IPlanner])
    live = LiveGeneration(registry, table, server[Drains], server[IEventSink], server.wall)
    server.add(live, LiveGeneration, IExamples)
    coordinator = server.add(
        Coordinator(server.reactor, server.wall, pipeline, live, server[IReloadPublisher], server.lifecycle)
    )
    server.operations.add(coordinator, *operations.OPERATIONS)
    server.services.add_closing(builder)
    server.services.add_closing(live)
    server.services.add_closing(coordinator)


def count_triggers(server: Server, event: Adopted) -> None:
    """Begin the metric series of new triggers at 0."""
    candidate, counted = event.candidate, server.metrics.triggers
    bindings = candidate.generation.bindings
    for trigger_id in [each for each in candidate.plan.added if each not in counted]:
        server.metrics.trigger(trigger_id, bindings[trigger_id].spec.provider)
