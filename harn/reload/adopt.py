"""
The live generation; the two synchronous steps that change it; and the draining of replaced versions.

Neither step can fail half-way. Nothing in them awaits, writes, or calls code that may refuse; a connector that raises
in ``quiesce`` is logged. Before a step nothing live has changed; after it no work is left that matters to a request.

Replaced versions drain in the background, within a limit. Each adopt that replaced versions leaves one drain group. At
the deadline of a group, or when more than `MOST_DRAINING` generations drain, the deliveries that its versions have not
begun are moved on to newer versions; deliveries that run continue until their own time-out. No delivery is dropped. An
operator may move a version's deliveries on earlier, or cancel its drain: then its unfinished deliveries become dead
letters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from attrs import define, evolve
from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink, IExamples, NormalizedEvent
from harn.errors import RouteUnknown
from harn.lifecycle import Lifecycle, VersionEnded
from harn.manifest.settings import OrchestratorSettings, ReloadSettings
from harn.reload.candidate import make_route, replace_members
from harn.reload.connections import quiesce
from harn.reload.generation import Candidate, Generation
from harn.reload.interfaces import Adopted, IRouteTable
from harn.reload.targets import GenerationTargets
from harn.triggers.binding import DRAINING, BindingVersion, Stage
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import SLICE, Registry
from harn.triggers.routing import Ramp, Route

log = Logger(namespace="harn.reload")


@implementer(IExamples)
class LiveGeneration:
    """
    The live generation and its routes.

    :param sink: receives, through the gates of connectors, the events that connectors start themselves.
    :ivar current: the live generation; None before the first.
    :ivar started_with: the settings of the server's first generation; None before that.
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
        self._moving: deque[BindingVersion] = deque()
        self._replaced_routes: list[Route] = []  # the only references to them
        self.started_with: OrchestratorSettings | None = None

    @property
    def number(self) -> int:
        """The number of the live generation; 0 before the first."""
        return 0 if self.current is None else self.current.number

    @property
    def etag(self) -> str:
        """The entity tag of the live generation, made from its number and digest."""
        digest = "" if self.current is None else self.current.digest
        return f'"{self.number}-{digest.removeprefix("sha256:")[:16]}"'

    def example(self, trigger_id: str) -> NormalizedEvent | None:
        """See `IExamples.example`."""
        shared = None if self.current is None else self.current.connectors.get(trigger_id)
        return None if shared is None else shared.value.example()

    def adopt(self, candidate: Candidate) -> None:
        """Make the candidate's generation the live one; with thousands of versions, `settle` does a part later."""
        self.settle()  # completes the previous adopt, if necessary
        live, generation = self.current, candidate.generation
        generation.targets.hold_all(candidate.fresh)
        self._moving.extend(candidate.reinterpreted)
        if len(self._moving) <= SLICE:
            self._move(generation.targets, None)
        serving = generation.connectors
        for shared in candidate.replaced_connectors:
            if serving.get(shared.value.trigger_id) is not shared:
                shared.withdraw()  # requests may still hold it; no later generation may take it from the pool
                quiesce(shared.value)
        for shared in candidate.new_connectors:
            shared.value.gate.open(self._sink)
        if live is not None and len(candidate.ended) > SLICE:
            self._replaced_routes = list(live.routes.values())
        now = self._wall.seconds()
        self.registry.adopt(
            generation.bindings, candidate.ended, now, generation.ramps, by_id=candidate.ended_by_id, are_active=True
        )
        self._table.swap(generation.tree, generation.number)
        self.current = generation
        for shared in candidate.replaced_connectors:
            shared.release()
        if live is not None:
            live.targets.release()
            live.interpreter.release()
        self.started_with = self.started_with or generation.inputs.manifest.orchestrator

    @property
    def is_unsettled(self) -> bool:
        """Whether an adopt must still be completed by `settle`."""
        return bool(self._moving or self._replaced_routes) or self.registry.has_replaced

    def settle(self, limit: int | None = None) -> None:
        """
        Complete an adopt: point unchanged versions to the live interpreter, end replaced versions, free their routes.

        :param limit: the largest number of each to deal with now; None for all.
        """
        if self.current is not None:
            self._move(self.current.targets, limit)
        routes = self._replaced_routes
        del routes[-len(routes) if limit is None else -limit :]
        self.registry.check_replaced(limit)

    def _move(self, targets: GenerationTargets, limit: int | None) -> None:
        """Point versions to the destinations of a generation; an interpreter ends once no version points to it."""
        moving = self._moving
        for _ in range(len(moving) if limit is None else min(limit, len(moving))):
            binding = moving.popleft()
            if binding.stage is Stage.TERMINATED:
                continue
            previous, binding.destination = binding.destination, targets.hold(binding)
            if previous is not None:
                previous.release()

    def end_ramps(self, winners: Mapping[Ramp, BindingVersion]) -> frozenset[Ramp]:
        """
        End ramps: one version of each takes all deliveries of its trigger from now on, and the other drains.

        The generation stays the same, with some routes changed.

        :param winners: for each ramp the version that takes all deliveries.
        :return: the ramps that were still in force and are ended; a reload has replaced the others.
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
                replace_members(routes, route.path, (), [route])
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
        """Remove the pin, so that the watcher and a restart adopt the files again; return whether a pin was set."""
        if self.current is None or self.current.pin is None:
            return False
        self.current = evolve(self.current, pin=None)
        return True

    def close(self) -> None:
        """Stop the connectors of the live generation and release it, because the server ends."""
        self.settle()
        live, self.current = self.current, None
        for shared in () if live is None else live.connectors.values():
            quiesce(shared.value)
            shared.release()


MOST_DRAINING = 4
"""The largest number of generations that drain at the same time; beyond it the oldest one's deliveries move on."""
MOST_NAMED = 20
"""The largest number of draining versions that an error names."""


@define(eq=False)
class DrainGroup:
    """
    The versions that one adopt replaced, as long as they drain.

    :ivar generation: the number of the generation that they served last; 0 for versions that an earlier server left.
    :ivar deadline: the call that moves their deliveries on; None after that.
    """

    generation: int
    bindings: dict[str, BindingVersion]  # by key
    began_at: float  # seconds, Unix
    deadline: IDelayedCall | None = None


class Draining(Struct, frozen=True, kw_only=True):
    """
    One draining version.

    :ivar binding: the version.
    :ivar generation: the number of the generation that it served last; see `DrainGroup`.
    :ivar since: when it began to drain (seconds, Unix).
    :ivar deadline: when the deliveries that it has not begun are moved on (seconds, Unix); None after that.
    """

    binding: BindingVersion
    generation: int
    since: float
    deadline: float | None

    @property
    def version(self) -> tuple[str, int]:
        """The trigger's id and the version's number."""
        return self.binding.id, self.binding.version


def _not_moved(failure: Failure, key: str) -> None:
    log.failure("moving the deliveries of {binding} failed", failure, binding=key)


class Drains:
    """
    All draining groups, the oldest first.

    :param wall: the source of time stamps; ``clock`` if None.
    :ivar timeout: seconds until the deliveries that a version has not begun are moved on, from the live generation's
        settings.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliveries: IVersionDeliveries,
        lifecycle: Lifecycle,
        wall: WallTime | None = None,
    ) -> None:
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._deliveries = deliveries
        self.timeout = ReloadSettings().drain_timeout
        self._groups: list[DrainGroup] = []
        lifecycle.subscribe(Adopted, self._adopted)
        lifecycle.subscribe(VersionEnded, self._version_ended)

    @property
    def generations(self) -> tuple[int, ...]:
        """The numbers of the generations that have draining versions, the oldest first."""
        return tuple(dict.fromkeys(group.generation for group in self._groups))

    def begin(self, generation: int, bindings: Sequence[BindingVersion]) -> None:
        """
        Watch versions that have just begun to drain.

        :param generation: the number of the generation that they served last.
        """
        self._watch(generation, {binding.key: binding for binding in bindings if binding.state == DRAINING})

    def _watch(self, generation: int, still: dict[str, BindingVersion]) -> None:
        if not still:
            return
        group = DrainGroup(generation, still, self._wall.seconds())
        group.deadline = self._clock.callLater(self.timeout, self._move_on, group)
        self._groups.append(group)
        # A generation whose ramps end one after the other leaves several groups, but counts once.
        served = list(dict.fromkeys(each.generation for each in self._groups))
        for each in list(self._groups):
            if each.generation in served[:-MOST_DRAINING]:
                self._move_on(each)

    def _move_on(self, group: DrainGroup, rest: Sequence[BindingVersion] | None = None) -> None:
        """
        Move on, once, the deliveries that the versions of a group have not begun; one slice of versions in each turn.

        :param rest: the versions whose deliveries were not moved on so far; None for all versions of the group.
        """
        if group.deadline is not None and group.deadline.active():
            group.deadline.cancel()
        found = group.bindings.values() if rest is None else rest
        moving = [binding for binding in found if not binding.is_closed]
        now, rest = moving[:SLICE], moving[SLICE:]
        group.deadline = self._clock.callLater(0, self._move_on, group, rest) if rest else None
        for binding in now:
            self._deliveries.move_on(binding).addErrback(_not_moved, binding.key)

    def _adopted(self, event: Adopted) -> None:
        candidate = event.candidate
        self.timeout = candidate.generation.inputs.manifest.orchestrator.reload.drain_timeout
        if len(candidate.ended) > SLICE:
            self._watch(event.previous, candidate.ended_by_key)  # none has ended so far
        else:
            self.begin(event.previous, candidate.ended)

    def describe(self) -> list[Draining]:
        """Describe every draining version, the longest draining first."""
        found = [
            Draining(
                binding=binding,
                generation=group.generation,
                since=group.began_at if binding.draining_since is None else binding.draining_since,
                deadline=None if binding.is_closed else self._deadline_of(group),
            )
            for group in self._groups
            for binding in group.bindings.values()
        ]
        return sorted(found, key=lambda each: (each.since, each.binding.id, each.binding.version))

    def _deadline_of(self, group: DrainGroup) -> float | None:
        """Return the time of a group's deadline (seconds, Unix) by the wall clock; None once it has passed."""
        deadline = group.deadline
        if deadline is None or not deadline.active():
            return None
        return self._wall.seconds() + deadline.getTime() - self._clock.seconds()

    def find(self, key: str) -> BindingVersion:
        """
        Find a draining version by its key.

        :raises RouteUnknown: no version with this key drains; the message names those that do.
        """
        for group in self._groups:
            if key in group.bindings:
                return group.bindings[key]
        names = [each.binding.key for each in self.describe()]
        more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        known = f"draining now: {', '.join(names[:MOST_NAMED])}{more}" if names else "nothing drains now"
        raise RouteUnknown(f"no version {key!r} drains; {known}")

    def _version_ended(self, event: VersionEnded) -> None:
        for group in list(self._groups):
            if group.bindings.pop(event.binding, None) is not None and not group.bindings:
                if group.deadline is not None and group.deadline.active():
                    group.deadline.cancel()
                self._groups.remove(group)

    def close(self) -> None:
        """Cancel every deadline. The next server continues the unfinished deliveries of draining versions."""
        for group in self._groups:
            if group.deadline is not None and group.deadline.active():
                group.deadline.cancel()
        self._groups.clear()
