"""Putting the candidate together: bindings, routes, ramps, and what adopting it replaces. Synchronous."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from harn.manifest.model import RolloutSpec
from harn.reload.alert_secrets import values_for_alerts
from harn.reload.generation import Candidate, Generation, Prepared, RunningConnector
from harn.reload.inputs import Inputs, without_secrets
from harn.reload.interfaces import IRouteTable
from harn.reload.numbers import VersionNumbers
from harn.reload.pin import Pin
from harn.reload.ramping import stable_of
from harn.reload.report import ReloadRequest
from harn.reload.targets import GenerationTargets
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.ramp import Ramp
from harn.triggers.reconcile import Plan
from harn.triggers.route import Route


@frozen
class ContinuedRamp:
    """
    At a start: a ramp, or an aborted one, that an earlier server left.

    :ivar stable: number of the version before; ``fresh``: of the modified one.
    :ivar share: of the trigger's deliveries, what ``fresh`` takes; None when the ramp was aborted.
    """

    stable: int
    fresh: int
    share: float | None


@frozen
class RevivedVersion:
    """
    At a start: an earlier version of a trigger that is in force again.

    :ivar share: of the trigger's deliveries, what the version of the manifest takes; None when its ramp was aborted.
    """

    stable: BindingVersion
    share: float | None

    def release(self) -> None:
        """Release its destination: the start failed."""
        destination, self.stable.destination = self.stable.destination, None
        if destination is not None:
            destination.release()


@frozen(kw_only=True)
class Terms:
    """
    The terms on which a generation is adopted: the request, the rollouts, the pin.

    :ivar rollouts: of the modified triggers that ramp. ``revived``: at a start, by trigger id.
    :ivar now: seconds, Unix.
    """

    request: ReloadRequest
    now: float
    recalled: int | None = None
    pin: Pin | None = None
    rollouts: Mapping[str, RolloutSpec] = field(factory=dict)
    revived: Mapping[str, RevivedVersion] = field(factory=dict)


def make_candidate(
    prepared: Prepared,
    connectors: Mapping[str, Shared[RunningConnector]],
    targets: GenerationTargets,
    live: Generation | None,
    numbers: tuple[int, VersionNumbers],
    terms: Terms,
    table: IRouteTable,
) -> Candidate:
    """
    Put a candidate together. Shows nothing outside.

    :param connectors: those that are new, by trigger id.
    :param targets: where its deliveries go.
    :param numbers: the number that it gets, and those of versions.
    :raises StageFailed: of stage ``swap``: the table cannot be built.
    """
    number, versions = numbers
    plan = prepared.plan
    fresh = _fresh(prepared, live, versions)
    bindings = _bindings(plan, live, fresh, terms)
    ramps = _ramps(plan, live, fresh, terms)
    serving = {} if live is None else live.connectors.copy()
    for trigger_id in plan.removed:
        del serving[trigger_id]
    serving.update(connectors)
    routes = _routes(plan, live, bindings, serving, connectors, ramps)
    generation = Generation(
        number=number,
        inputs=without_secrets(prepared.inputs),
        interpreter=prepared.interpreter,
        targets=targets,
        definitions=prepared.definitions,
        bindings=bindings,
        connectors=serving,
        routes=routes,
        tree=table.build(routes),
        source=terms.request.source,
        actor=terms.request.actor,
        since=terms.now,
        ramps=ramps,
        recalled=terms.recalled,
        pin=terms.pin,
        reason=terms.request.reason,
    )
    live_connectors = {} if live is None else live.connectors
    changed = (*plan.added, *plan.modified)
    return Candidate(
        generation=generation,
        plan=plan,
        numbered=tuple(
            trigger_id
            for trigger_id in changed
            if live is not None or versions.kept(prepared.definitions[trigger_id]) is None
        ),
        fresh=tuple(connectors.values()),
        replaced=tuple(
            live_connectors[trigger_id] for trigger_id in (*plan.removed, *connectors) if trigger_id in live_connectors
        ),
        ended=tuple(_ended(plan, live, ramps)),
        reinterpreted=tuple(_reinterpreted(generation, live, set(changed))),
        rollouts=dict(terms.rollouts),
        alert_secrets=values_for_alerts(prepared.inputs.manifest, prepared.inputs.secrets),
    )


def _fresh(prepared: Prepared, live: Generation | None, versions: VersionNumbers) -> dict[str, BindingVersion]:
    """Make the binding versions that are new: at a start all of them."""
    plan = prepared.plan
    wanted = prepared.definitions if live is None else {*plan.added, *plan.modified}
    return {
        trigger_id: _new_binding(prepared.definitions[trigger_id], prepared.inputs, versions, starting=live is None)
        for trigger_id in wanted
    }


def _bindings(
    plan: Plan, live: Generation | None, fresh: Mapping[str, BindingVersion], terms: Terms
) -> dict[str, BindingVersion]:
    """Return what is in force: copied whole and then edited, which costs less than a look at each of ten thousand."""
    bindings = {} if live is None else live.bindings.copy()
    for trigger_id in plan.removed:
        del bindings[trigger_id]
    bindings.update(fresh)
    for trigger_id, revived in terms.revived.items():
        if revived.share is None:
            bindings[trigger_id] = revived.stable
    return bindings


def _routes(
    plan: Plan,
    live: Generation | None,
    bindings: Mapping[str, BindingVersion],
    serving: Mapping[str, Shared[RunningConnector]],
    connectors: Mapping[str, Shared[RunningConnector]],
    ramps: Mapping[str, Ramp],
) -> dict[str, Route]:
    """Return the routes by path: the live ones of unchanged triggers, and new ones for what changed."""
    routes = {} if live is None else live.routes.copy()
    for trigger_id in (*plan.removed, *plan.modified):
        path = "" if live is None else live.bindings[trigger_id].spec.path
        if path in routes and routes[path].binding.id == trigger_id:
            del routes[path]
    changed = {*plan.added, *plan.modified}
    for trigger_id in (*changed, *(each for each in connectors if each not in changed)):
        route = make_route(bindings[trigger_id], serving[trigger_id], ramps.get(trigger_id))
        if route is not None:
            routes[route.path] = route
    return routes


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


def _ramps(plan: Plan, live: Generation | None, fresh: Mapping[str, BindingVersion], terms: Terms) -> dict[str, Ramp]:
    """Return the ramps of the next generation: those that go on, and those that begin."""
    ramps: dict[str, Ramp] = {}
    if live is not None:
        over = {*plan.modified, *plan.removed}
        ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if trigger_id not in over}
        for trigger_id, rollout in terms.rollouts.items():
            ramps[trigger_id] = Ramp(stable_of(live, trigger_id), fresh[trigger_id], rollout.percent)
    for trigger_id, revived in terms.revived.items():
        if revived.share is not None:
            ramps[trigger_id] = Ramp(revived.stable, fresh[trigger_id], revived.share)
    return ramps


def _ended(plan: Plan, live: Generation | None, ramps: Mapping[str, Ramp]) -> Iterator[BindingVersion]:
    """Yield the live versions that are not in force any more."""
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
    Yield the bindings that run in the generation's interpreter from now on: those that are new, and, when the code of
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
