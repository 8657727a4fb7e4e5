"""
The candidate: its bindings, routes and ramps, and the live versions and connectors that adopting it replaces.

Synchronous.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct, field

from harn.connectors.providers.cron import CRON
from harn.connectors.providers.poll import POLL
from harn.manifest.model import RolloutSpec
from harn.reload.changes import stable_of
from harn.reload.connections import RunningConnector
from harn.reload.generation import Adoption, Candidate, Generation, Pin, Prepared, VersionNumbers
from harn.reload.inputs import Inputs, values_for_alerts, without_secrets
from harn.reload.interfaces import IRouteTable
from harn.reload.report import ReloadRequest
from harn.reload.targets import GenerationTargets
from harn.triggers.binding import BindingVersion, Definition, Stage
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.routing import Ramp, Route, shared_route


class ContinuedRamp(Struct, frozen=True):
    """
    A ramp, under way or aborted, that an earlier server left and that a start continues.

    :ivar stable: the number of the previous version.
    :ivar fresh: the number of the modified version.
    :ivar share: the share (0 to 1) of the trigger's deliveries that ``fresh`` takes; None if the ramp was aborted.
    """

    stable: int
    fresh: int
    share: float | None


class RevivedVersion(Struct, frozen=True):
    """
    An earlier version of a trigger that a start puts in force again.

    :ivar stable: the earlier version.
    :ivar share: the share (0 to 1) of the trigger's deliveries that the manifest's version takes; None if its ramp was
        aborted.
    """

    stable: BindingVersion
    share: float | None

    def release(self) -> None:
        """Release the version's destination, because the start failed."""
        destination, self.stable.destination = self.stable.destination, None
        if destination is not None:
            destination.release()


class Terms(Struct, frozen=True, kw_only=True):
    """
    The terms on which a generation is adopted: the request, the rollouts, the pin.

    :ivar adoption: the source, the actor and the time of the adoption; a start that continues the generation that
        served last keeps the adoption of that one.
    :ivar recalled: the earlier generation whose content is adopted; None for content from files.
    :ivar split_from: see `Generation`.
    :ivar rollouts: the rollouts of the modified triggers that ramp, by trigger id.
    :ivar revived: the earlier versions that a start puts in force again, by trigger id.
    """

    request: ReloadRequest
    adoption: Adoption
    recalled: int | None = None
    pin: Pin | None = None
    split_from: int | None = None
    rollouts: Mapping[str, RolloutSpec] = field(default_factory=dict)
    revived: Mapping[str, RevivedVersion] = field(default_factory=dict)


class CandidateParts(Struct, frozen=True, kw_only=True):
    """
    Everything that a candidate is put together from.

    :ivar connectors: the new connectors, by trigger id.
    :ivar targets: the destinations of the candidate's deliveries.
    :ivar live: the live generation; None at a start.
    :ivar number: the number of the candidate's generation.
    :ivar versions: gives the numbers of new binding versions.
    """

    prepared: Prepared
    connectors: Mapping[str, Shared[RunningConnector]]
    targets: GenerationTargets
    live: Generation | None
    number: int
    versions: VersionNumbers
    terms: Terms

    @property
    def plan(self) -> Plan:
        """The changes of triggers."""
        return self.prepared.plan

    @property
    def changed(self) -> tuple[str, ...]:
        """The triggers that are added or modified."""
        return (*self.plan.added, *self.plan.modified)

    @property
    def live_connectors(self) -> Mapping[str, Shared[RunningConnector]]:
        """The connectors of the live generation."""
        return {} if self.live is None else self.live.connectors


def make_candidate(parts: CandidateParts, table: IRouteTable) -> Candidate:
    """
    Put a candidate together. Nothing outside the candidate changes; with thousands of versions, call it in a thread.

    :raises StageFailed: the table of routes cannot be built (stage ``swap``).
    """
    new = _new_versions(parts)
    generation = _generation(parts, new, table)
    plan, live, ramps = parts.plan, parts.live, generation.ramps
    bindings = generation.bindings
    fresh = [binding for binding in new.values() if bindings[binding.id] is binding]
    revived = [each.stable for each in parts.terms.revived.values() if each.share is None]
    for binding in (*fresh, *revived):
        binding.become(Stage.ACTIVE)
    replaced = (*plan.removed, *parts.connectors)
    ended = tuple(_ended(plan, live, ramps))
    specs = [parts.prepared.definitions[trigger_id].spec for trigger_id in parts.changed]
    return Candidate(
        generation=generation,
        plan=plan,
        numbered=tuple(each for each in parts.changed if _gets_number(parts, each)),
        new_connectors=tuple(parts.connectors.values()),
        replaced_connectors=tuple(parts.live_connectors[each] for each in replaced if each in parts.live_connectors),
        ended=ended,
        ended_by_key={each.key: each for each in ended},
        ended_by_id={each.id: each for each in ended},
        fresh=parts.targets.assign(fresh),
        reinterpreted=tuple(_reinterpreted(generation, live, new)),
        numbers=parts.versions.raised(bindings[trigger_id] for trigger_id in parts.changed),
        rollouts=dict(parts.terms.rollouts),
        alerting=tuple(spec.id for spec in specs if spec.alerts),
        scheduled=tuple(spec.id for spec in specs if spec.kind in (CRON, POLL)),
        allowing=tuple(spec.id for spec in specs if spec.allow_from),
        alert_secrets=values_for_alerts(parts.prepared.inputs.manifest, parts.prepared.inputs.secrets),
    )


def _generation(parts: CandidateParts, new: Mapping[str, BindingVersion], table: IRouteTable) -> Generation:
    prepared, terms = parts.prepared, parts.terms
    bindings, ramps, connectors = _bindings(parts, new), _ramps(parts, new), _connectors(parts)
    routes = _routes(parts, bindings, connectors, ramps)
    return Generation(
        number=parts.number,
        inputs=without_secrets(prepared.inputs),
        interpreter=prepared.interpreter,
        targets=parts.targets,
        definitions=prepared.definitions,
        bindings=bindings,
        connectors=connectors,
        routes=routes,
        tree=table.build(routes),
        source=terms.adoption.source,
        actor=terms.adoption.actor,
        since=terms.adoption.at,
        ramps=ramps,
        recalled=terms.recalled,
        pin=terms.pin,
        reason=terms.request.reason,
        split_from=terms.split_from,
    )


def _gets_number(parts: CandidateParts, trigger_id: str) -> bool:
    """Return whether a changed trigger gets a new version number; at a start, only if the store has another version."""
    return parts.live is not None or parts.versions.kept(parts.prepared.definitions[trigger_id]) is None


def _new_versions(parts: CandidateParts) -> dict[str, BindingVersion]:
    """Make the binding versions that are new; at a start, all versions are."""
    prepared, starting = parts.prepared, parts.live is None
    return {
        trigger_id: _new_binding(prepared.definitions[trigger_id], prepared.inputs, parts.versions, starting=starting)
        for trigger_id in (prepared.definitions if starting else {*parts.changed})
    }


def _bindings(parts: CandidateParts, new: Mapping[str, BindingVersion]) -> dict[str, BindingVersion]:
    """Return the bindings in force. Copying and editing the live ones is faster than making ten thousand."""
    bindings = {} if parts.live is None else parts.live.bindings.copy()
    for trigger_id in parts.plan.removed:
        del bindings[trigger_id]
    bindings.update(new)
    for trigger_id, revived in parts.terms.revived.items():
        if revived.share is None:
            bindings[trigger_id] = revived.stable
    return bindings


def _connectors(parts: CandidateParts) -> dict[str, Shared[RunningConnector]]:
    """Return the connector of each trigger: new connectors, and the live ones of triggers that are not removed."""
    connectors = dict(parts.live_connectors)
    for trigger_id in parts.plan.removed:
        del connectors[trigger_id]
    connectors.update(parts.connectors)
    return connectors


def _routes(
    parts: CandidateParts,
    bindings: Mapping[str, BindingVersion],
    connectors: Mapping[str, Shared[RunningConnector]],
    ramps: Mapping[str, Ramp],
) -> dict[str, Route]:
    """Return the routes by path: the live routes of unchanged triggers, and new routes for changed ones."""
    live = parts.live
    routes = {} if live is None else live.routes.copy()
    gone: dict[str, set[str]] = {}
    for trigger_id in (*parts.plan.removed, *parts.plan.modified):
        path = "" if live is None else live.bindings[trigger_id].spec.path
        if path in routes:
            gone.setdefault(path, set()).add(trigger_id)
    new: dict[str, list[Route]] = {}
    for trigger_id in {*parts.changed, *parts.connectors}:
        route = make_route(bindings[trigger_id], connectors[trigger_id], ramps.get(trigger_id))
        if route is not None:
            new.setdefault(route.path, []).append(route)
    for path in {**gone, **new}:
        replace_members(routes, path, gone.get(path, set()), new.get(path, []))
    return routes


def replace_members(routes: dict[str, Route], path: str, gone: Collection[str], new: Collection[Route]) -> None:
    """
    Change which triggers share a path.

    :param routes: the routes by path, which are changed.
    :param gone: the ids of the triggers to remove from the path.
    :param new: the routes to add to the path; each replaces an earlier route of its trigger there.
    """
    if len(new) == 1 and path not in routes:  # the usual case
        (routes[path],) = new
        return
    leaving = {*gone, *(route.binding.id for route in new)}
    before = routes.pop(path).members if path in routes else ()
    route = shared_route([*(route for route in before if route.binding.id not in leaving), *new])
    if route is not None:
        routes[path] = route


def make_route(binding: BindingVersion, shared: Shared[RunningConnector], ramp: Ramp | None) -> Route | None:
    """Make the route of a trigger; return None if its connector takes no requests."""
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


def _ramps(parts: CandidateParts, new: Mapping[str, BindingVersion]) -> dict[str, Ramp]:
    """Return the ramps of the next generation, those that continue and those that begin, by trigger id."""
    ramps: dict[str, Ramp] = {}
    live, terms = parts.live, parts.terms
    if live is not None:
        ended = {*parts.plan.modified, *parts.plan.removed}
        ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if trigger_id not in ended}
        for trigger_id, rollout in terms.rollouts.items():
            ramps[trigger_id] = Ramp(stable_of(live, trigger_id), new[trigger_id], rollout.percent)
    for trigger_id, revived in terms.revived.items():
        if revived.share is not None:
            ramps[trigger_id] = Ramp(revived.stable, new[trigger_id], revived.share)
    return ramps


def _ended(plan: Plan, live: Generation | None, ramps: Mapping[str, Ramp]) -> Iterator[BindingVersion]:
    """Yield the live versions that the next generation replaces or removes."""
    if live is None:
        return
    for trigger_id in (*plan.removed, *plan.modified):
        before = [live.bindings[trigger_id]]
        if trigger_id in live.ramps:
            before.append(live.ramps[trigger_id].stable)
        following = ramps.get(trigger_id)
        yield from (binding for binding in before if following is None or binding is not following.stable)


def _reinterpreted(
    generation: Generation, live: Generation | None, new: Mapping[str, BindingVersion]
) -> Iterator[BindingVersion]:
    """
    Yield the earlier binding versions that run in the generation's interpreter from now on.

    These are the unchanged versions, if the code of others changed. A version whose functions or code differ from the
    manifest's definition keeps its own interpreter.
    """
    definitions = generation.definitions
    if live is not None and live.interpreter is generation.interpreter:
        return
    for binding in generation.bindings.values():
        if new.get(binding.id) is binding:
            continue
        definition = definitions[binding.id]
        if binding.definition is definition or _same_code(binding.definition, definition):
            yield binding


def _same_code(one: Definition, other: Definition) -> bool:
    mine = (one.spec.handler, one.spec.when, one.handler_code, one.predicate_code)
    return mine == (other.spec.handler, other.spec.when, other.handler_code, other.predicate_code)
