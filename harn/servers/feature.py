"""The servers on one store as a feature of each of them; see `harn.server.Server`."""

from __future__ import annotations

from twisted.internet.defer import Deferred

import harn
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.places import Places
from harn.lifecycle import ServersSeen, ServerStarted, StoreChanged
from harn.observability.metrics import Metrics
from harn.reload.coordinator import Coordinator
from harn.reload.interfaces import Adopted, ReloadsClosed
from harn.server import Readiness, Server
from harn.servers.agreement import Agreement
from harn.servers.membership import Clocks, Condition, Membership
from harn.servers.operations import OPERATIONS
from harn.store.proposals import PROPOSAL
from harn.store.servers import DRAINING, SERVING
from harn.triggers.registry import Registry

OTHER_GENERATION = "another generation was decided"


def install(server: Server) -> None:
    """Add the membership, its operation and gauges. It begins when the store is open, and ends before it is closed."""
    clocks, lifecycle = Clocks(server.reactor, server.wall), server.lifecycle
    members = server.add(Membership(clocks, server.store, lifecycle, server.records, harn.__version__))
    server.services.add_closing(members)
    server.operations.add(members, *OPERATIONS)
    lifecycle.subscribe(ServerStarted, lambda event: started(members, event))
    lifecycle.subscribe(Adopted, lambda event: members.describe(generation=event.candidate.generation.number))
    lifecycle.subscribe(ReloadsClosed, lambda event: members.describe(status=DRAINING))
    add_gauges(server.metrics, members)


def install_condition(server: Server) -> None:
    """Add to the heartbeats what this server has to do, and whether it is ready; after the feature of dispatch."""
    if server.store.is_shared:
        server.lifecycle.subscribe(ReloadsClosed, lambda event: server[Places].drain())
    server[Membership].conditions = Conditions(server[Dispatcher], server[Registry], server.readiness)


class Conditions:
    """See `IConditions`: what this server has to do, and whether it is ready."""

    def __init__(self, dispatcher: Dispatcher, registry: Registry, readiness: Readiness) -> None:
        self._dispatcher = dispatcher
        self._registry = registry
        self._readiness = readiness

    def now(self) -> Condition:
        """See `IConditions.now`."""
        begun, retries = len(self._dispatcher.in_progress), sum(self._registry.waiting.values())
        return Condition(begun + self._dispatcher.waiting(None) + retries, tuple(self._readiness.reasons()))


def install_agreement(server: Server) -> None:
    """Add the reloads of all servers; after the feature of reloads."""
    coordinator, lifecycle = server[Coordinator], server.lifecycle
    agreement = server.add(
        Agreement(Clocks(server.reactor, server.wall), server.store, server[Membership], coordinator, server[Registry])
    )
    coordinator.others = agreement
    lifecycle.subscribe(StoreChanged, lambda event: agreement.changed() if event.concerns(PROPOSAL) else None)
    lifecycle.subscribe(ServersSeen, lambda event: agreement.look())
    server.readiness.add(OTHER_GENERATION, agreement.is_current)


def started(members: Membership, event: ServerStarted) -> None:
    """Record for the other servers that this one serves, and its URL; then look at what they decided before that."""
    described = members.describe(status=SERVING, url=event.url, generation=event.generation)
    described.addCallback(lambda _: members.look_again())
    Deferred.fromCoroutine(members.record_start())


def add_gauges(metrics: Metrics, members: Membership) -> None:
    """Add the gauges of the servers."""
    metrics.gauge("harn_servers", "Servers on the store that live.", lambda: 1.0 + len(members.others))
    metrics.gauge(
        "harn_servers_ready",
        "Servers on the store that serve and should get requests, as of their last heartbeats.",
        lambda: float(sum(each.status == SERVING and not each.not_ready for each in members.notes())),
    )
    metrics.gauge(
        "harn_servers_outstanding",
        "Unfinished deliveries of all servers on the store, as of their last heartbeats.",
        lambda: float(sum(each.outstanding or 0 for each in members.notes())),
    )
    metrics.gauge(
        "harn_servers_generations",
        "Generations that the servers on the store serve; more than 1 only while one adopts what was decided.",
        lambda: float(len({each.generation for each in members.notes() if each.status == SERVING})),
    )
    metrics.gauge(
        "harn_server_leads",
        "1 if this server does what one of them all does, such as polling.",
        lambda: float(members.is_leading),
    )
    metrics.gauge(
        "harn_server_fenced",
        "Times that others have taken over what this server had, since it was silent for too long.",
        lambda: float(members.fenced),
    )
    metrics.gauge(
        "harn_deliveries_taken_away",
        "Deliveries that were dropped here, since another server has taken them over.",
        lambda: float(members.taken_away),
    )
