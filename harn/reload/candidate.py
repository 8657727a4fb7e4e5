"""Putting the candidate together: bindings, routes, ramps, and what adopting it replaces. Waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from harn.manifest.model import RolloutSpec
from harn.reload.generation import Candidate, Generation, RunningConnector
from harn.reload.inputs import Inputs, without_secrets
from harn.reload.interfaces import IRouteTable
from harn.reload.numbers import VersionNumbers
from harn.reload.report import ReloadRequest
from harn.reload.rollout import stable_of
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.ramp import Ramp
from harn.triggers.reconcile import Plan
from harn.triggers.route import Route
from harn.vm.interfaces import IInterpreter


@frozen(kw_only=True)
class Prepared:
    """What the stages up to resolve gave: enough to say what a reload would do."""

    inputs: Inputs
    interpreter: Shared[IInterpreter]
    definitions: Mapping[str, Definition]
    plan: Plan


@frozen
class Held:
    """
    At a start: an earlier version of a trigger that is in force again.

    :ivar share: of the trigger's deliveries, what the version of the manifest takes; None when its ramp was aborted.
    """

    stable: BindingVersion
    share: float | None


@frozen(kw_only=True)
class Making:
    """
    Everything that a candidate is made of.

    :ivar connectors: those that are new, by trigger id.
    :ivar rollouts: of the modified triggers that ramp.
    :ivar held: at a start, by trigger id.
    :ivar replaced: see `Generation`.
    :ivar now: seconds, Unix.
    """

    prepared: Prepared
    connectors: Mapping[str, Shared[RunningConnector]]
    live: Generation | None
    numbers: VersionNumbers
    number: int
    request: ReloadRequest
    now: float
    recalled: int | None = None
    rollouts: Mapping[str, RolloutSpec] = field(factory=dict)
    held: Mapping[str, Held] = field(factory=dict)
    replaced: Mapping[str, str] = field(factory=dict)


def make_candidate(making: Making, table: IRouteTable) -> Candidate:
    """
    Put a candidate together. Shows nothing outside.

    :raises StageFailed: of stage ``swap``: the table cannot be built.
    """
    prepared, live, numbers = making.prepared, making.live, making.numbers
    plan, inputs, connectors = prepared.plan, prepared.inputs, making.connectors
    changed = {*plan.added, *plan.modified}
    live_bindings = {} if live is None else live.bindings
    live_connectors = {} if live is None else live.connectors
    # Copied whole and then edited: a copy of ten thousand entries costs less than a look at each.
    bindings, serving = live_bindings.copy(), live_connectors.copy()
    for trigger_id in plan.removed:
        del bindings[trigger_id], serving[trigger_id]
    fresh: dict[str, BindingVersion] = {}
    for trigger_id in prepared.definitions if live is None else changed:
        definition = prepared.definitions[trigger_id]
        fresh[trigger_id] = _new_binding(definition, inputs, numbers, starting=live is None)
    bindings.update(fresh)
    ramps = _ramps(making, fresh)
    for trigger_id, held in making.held.items():
        if held.share is None:
            bindings[trigger_id] = held.stable
    serving.update(connectors)
    routes = {} if live is None else live.routes.copy()
    for trigger_id in (*plan.removed, *plan.modified):
        path = live_bindings[trigger_id].spec.path
        if path in routes and routes[path].binding.id == trigger_id:
            del routes[path]  # who takes requests is put in again below
    for trigger_id in (*changed, *(each for each in connectors if each not in changed)):
        route = make_route(bindings[trigger_id], serving[trigger_id], ramps.get(trigger_id))
        if route is not None:
            routes[route.path] = route
    generation = Generation(
        number=making.number,
        inputs=without_secrets(inputs),
        interpreter=prepared.interpreter,
        definitions=prepared.definitions,
        bindings=bindings,
        connectors=serving,
        routes=routes,
        tree=table.build(routes),
        source=making.request.source,
        actor=making.request.actor,
        since=making.now,
        ramps=ramps,
        recalled=making.recalled,
        replaced=making.replaced,
        reason=making.request.reason,
    )
    return Candidate(
        generation=generation,
        plan=plan,
        numbered=tuple(
            trigger_id
            for trigger_id in (*plan.added, *plan.modified)
            if live is not None or numbers.kept(prepared.definitions[trigger_id]) is None
        ),
        fresh=tuple(connectors.values()),
        replaced=tuple(
            live_connectors[trigger_id] for trigger_id in (*plan.removed, *connectors) if trigger_id in live_connectors
        ),
        ended=tuple(_ended(plan, live, ramps)),
        reinterpreted=tuple(_reinterpreted(generation, live, changed)),
        rollouts=dict(making.rollouts),
    )


def make_route(binding: BindingVersion, shared: Shared[RunningConnector], ramp: Ramp | None) -> Route | None:
    """Make the route of a trigger, if its connector takes requests."""
    if not shared.value.takes_requests:
        return None
    return Route(
        path=binding.spec.path,
        binding=binding,
        receiver=shared,
        authentication=shared.value.authentication,
        ramp=ramp,
    )


def _new_binding(definition: Definition, inputs: Inputs, numbers: VersionNumbers, *, starting: bool) -> BindingVersion:
    kept = numbers.kept(definition) if starting else None
    version = numbers.following(definition.spec.id) if kept is None else kept
    return BindingVersion(definition, version, inputs.bundle.bundle_id)


def _ramps(making: Making, fresh: Mapping[str, BindingVersion]) -> dict[str, Ramp]:
    """Give the ramps of the next generation: those that go on, and those that begin."""
    live, plan = making.live, making.prepared.plan
    ramps: dict[str, Ramp] = {}
    if live is not None:
        over = {*plan.modified, *plan.removed}
        ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if trigger_id not in over}
        for trigger_id, rollout in making.rollouts.items():
            ramps[trigger_id] = Ramp(stable_of(live, trigger_id), fresh[trigger_id], rollout.percent)
    for trigger_id, held in making.held.items():
        if held.share is not None:
            ramps[trigger_id] = Ramp(held.stable, fresh[trigger_id], held.share)
    return ramps


def _ended(plan: Plan, live: Generation | None, ramps: Mapping[str, Ramp]) -> Iterator[BindingVersion]:
    """Give the versions that are in force no more."""
    if live is None:
        return
    for trigger_id in (*plan.removed, *plan.modified):
        before = [live.bindings[trigger_id]]
        if trigger_id in live.ramps:
            before.append(live.ramps[trigger_id].stable)
        following = ramps.get(trigger_id)
        yield from (binding for binding in before if following is None or binding is not following.stable)


def _reinterpreted(generation: Generation, live: Generation | None, changed: set[str]) -> Iterator[BindingVersion]:
    """
    Give the bindings that run in the generation's interpreter from now on: those that are new, and, when the code of
    others changed, the unchanged ones. A version that stands for another definition than the manifest's keeps its own.
    """
    bindings, definitions = generation.bindings, generation.definitions
    if live is not None and live.interpreter is generation.interpreter:
        wanted = [bindings[trigger_id] for trigger_id in changed]
    else:
        wanted = list(bindings.values())
    for binding in wanted:
        definition = definitions[binding.id]
        if binding.definition is definition or _same_code(binding.definition, definition):
            yield binding


def _same_code(one: Definition, other: Definition) -> bool:
    mine = (one.spec.handler, one.spec.when, one.handler_code, one.predicate_code)
    return mine == (other.spec.handler, other.spec.when, other.handler_code, other.predicate_code)
