"""
The live generation, and the two synchronous steps that change what serves. Neither can fail half-way.

Nothing in them awaits, writes, or calls code that may refuse; a connector that raises in ``quiesce`` is logged. Before
a step nothing live has changed; after it there is nothing left to do that matters to a request.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink, IExamples, NormalizedEvent
from harn.manifest.settings import OrchestratorSettings
from harn.reload.candidate import make_route
from harn.reload.connections import quiesce
from harn.reload.drain import Drains
from harn.reload.generation import Candidate, Generation
from harn.reload.interfaces import IRouteTable
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from harn.triggers.routing import Ramp


@implementer(IExamples)
class LiveGeneration:
    """
    The live generation and routes.

    :param sink: where the events that connectors start themselves go, through their gates.
    :ivar current: the live generation; None before the first.
    :ivar started_with: the settings of the server's first generation, once there was one.
    """

    def __init__(
        self, registry: Registry, table: IRouteTable, drains: Drains, sink: IEventSink, wall: WallTime
    ) -> None:
        self.registry = registry
        self._table = table
        self._drains = drains
        self._sink = sink
        self._wall = wall
        self.current: Generation | None = None
        self.started_with: OrchestratorSettings | None = None

    @property
    def number(self) -> int:
        """The number of the live generation; 0 before the first."""
        return 0 if self.current is None else self.current.number

    @property
    def etag(self) -> str:
        """Made of the live generation's number and digest."""
        digest = "" if self.current is None else self.current.digest
        return f'"{self.number}-{digest.removeprefix("sha256:")[:16]}"'

    def example(self, trigger_id: str) -> NormalizedEvent | None:
        """See `IExamples.example`."""
        shared = None if self.current is None else self.current.connectors.get(trigger_id)
        return None if shared is None else shared.value.example()

    def adopt(self, candidate: Candidate) -> None:
        """Make the candidate's generation the live one."""
        live, generation = self.current, candidate.generation
        for binding in candidate.reinterpreted:
            previous, binding.destination = binding.destination, generation.targets.hold(binding)
            if previous is not None:
                previous.release()
        serving = generation.connectors
        for shared in candidate.replaced_connectors:
            if serving.get(shared.value.trigger_id) is not shared:
                shared.withdraw()  # requests may hold it still, but what has stopped serves no later generation
                quiesce(shared.value)
        for shared in candidate.new_connectors:
            shared.value.gate.open(self._sink)
        self.registry.adopt(generation.bindings, candidate.ended, self._wall.seconds(), generation.ramps)
        self._table.swap(generation.tree, generation.number)
        self.current = generation
        for shared in candidate.replaced_connectors:
            shared.release()
        if live is not None:
            live.targets.release()
            live.interpreter.release()
        self.started_with = self.started_with or generation.inputs.manifest.orchestrator

    def end_ramps(self, winners: Mapping[Ramp, BindingVersion]) -> frozenset[Ramp]:
        """
        End ramps: one version of each takes all deliveries of its trigger from now on, and the other drains.

        The generation stays the same, with some routes changed.

        :param winners: for each ramp the version that wins.
        :return: the ramps that were still in force; a reload has replaced the others.
        :raises StageFailed: the tree cannot be built; nothing has changed.
        """
        live = self.current
        ending = {
            ramp: winner for ramp, winner in winners.items() if live is not None and live.ramps.get(winner.id) is ramp
        }
        if live is None or not ending:
            return frozenset()
        bindings, routes = live.bindings.copy(), live.routes.copy()
        for winner in ending.values():
            bindings[winner.id] = winner
            route = make_route(winner, live.connectors[winner.id], None)
            if route is not None:
                routes[route.path] = route
        tree = self._table.build(routes)
        ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if ramp not in ending}
        # From here on nothing fails, as in `adopt`.
        for winner in ending.values():
            self.registry.end_ramp(winner.id, winner, bindings, self._wall.seconds())
        self._table.swap(tree, live.number)
        losers = [ramp.stable if winner is ramp.fresh else ramp.fresh for ramp, winner in ending.items()]
        self._drains.begin(live.number, losers)
        self.current = evolve(live, bindings=bindings, routes=routes, tree=tree, ramps=ramps)
        return frozenset(ending)

    def end_pin(self) -> bool:
        """Remove the pin, so that the watcher and a restart adopt the files again; return whether there was one."""
        if self.current is None or self.current.pin is None:
            return False
        self.current = evolve(self.current, pin=None)
        return True

    def release(self) -> None:
        """Stop the connectors of the live generation, and release it: the server ends."""
        live, self.current = self.current, None
        for shared in () if live is None else live.connectors.values():
            quiesce(shared.value)
            shared.release()
