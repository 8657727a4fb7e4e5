"""
The plan of a reload, for a dry run: its changes, unfinished deliveries, and which recorded events it would treat
differently.

Unchanged triggers are not examined: if one of ten thousand triggers changes, the plan costs as much as for that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import UNSET, Struct, field, structs
from zope.interface import implementer

from harn.history.differences import (
    ADDED,
    MODIFIED,
    REMOVED,
    CodeComparison,
    digest_changes,
    field_changes,
    secret_changes,
    setting_changes,
)
from harn.history.replay import RuleReplayer
from harn.manifest.changes import settings_requiring_restart
from harn.manifest.model import RolloutSpec, TriggerSpec
from harn.manifest.settings import OrchestratorSettings, ReloadSettings
from harn.model.quantities import format_duration, format_share
from harn.model.references import binding_key
from harn.reload.changes import stable_of
from harn.reload.connections import connector_key, needing_connectors
from harn.reload.generation import VersionNumbers
from harn.reload.inputs import Inputs
from harn.reload.interfaces import DryRun, IPlanner
from harn.reload.report import ReloadRequest
from harn.reload.results import (
    ConnectorChange,
    FileChange,
    PlannedRamp,
    ProbationTerms,
    ReloadPlan,
    TriggerChange,
    VersionChange,
)
from harn.rollout.model import terms
from harn.triggers.binding import BindingVersion
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.reconcile import Plan, would_remove_most
from harn.triggers.registry import Registry
from harn.vm.bundle import Bundle, changed_modules, make_bundle
from harn.waiting import ReactorThreads

_OF_CONNECTOR = frozenset(("kind", "provider", "path", "match"))
"""The keys and tables that configure a connector, in addition to the provider's own table and the secrets."""
_NOTHING = make_bundle({})


class Work(Struct, frozen=True, kw_only=True):
    """
    The unfinished work of all versions of a trigger.

    :ivar in_flight: the number of leases that are held.
    :ivar running: the number of handlers that run.
    :ivar queued: the number of deliveries that were accepted and have not begun.
    :ivar waiting: the number of deliveries that wait for the time of a retry.
    """

    in_flight: int = 0
    running: int = 0
    queued: int = 0
    waiting: int = 0


class Planned(Struct, frozen=True, kw_only=True):
    """
    Everything that a plan is made from.

    :ivar plan: the changes of triggers.
    :ivar live: the inputs of the live generation; None before the first generation.
    :ivar following: the inputs of the generation that would be adopted.
    :ivar bindings: the binding versions in force, by trigger id.
    :ivar versions: gives the numbers of new binding versions.
    :ivar work: the unfinished work by trigger id; triggers without any may be left out.
    :ivar started_with: the settings of the server's first generation; None before that.
    :ivar ramps: the ramps that would begin.
    """

    plan: Plan
    live: Inputs | None
    following: Inputs
    bindings: Mapping[str, BindingVersion]
    versions: VersionNumbers
    work: Mapping[str, Work] = field(default_factory=dict)
    started_with: OrchestratorSettings | None = None
    ramps: Sequence[PlannedRamp] = ()


def describe_plan(planned: Planned) -> ReloadPlan:
    """Return the changes that a reload would make."""
    plan, live, following = planned.plan, planned.live, planned.following
    settings = following.manifest.orchestrator
    before = settings if live is None else live.manifest.orchestrator
    restart = () if planned.started_with is None else settings_requiring_restart(planned.started_with, settings)
    secrets = secret_changes({} if live is None else live.secret_hashes, following.secret_hashes)
    files = digest_changes({} if live is None else live.files, following.files)
    return ReloadPlan(
        triggers=dict(_triggers(planned)),
        connectors=tuple(_connectors(plan, live, following)),
        secrets=secrets,
        files=files,
        settings=setting_changes(before, settings),
        requires_restart=tuple(restart),
        would_hold=would_remove_most(len(plan.removed), len(planned.bindings)),
        ramps=tuple(planned.ramps),
    )


def _triggers(planned: Planned) -> Iterator[tuple[str, TriggerChange]]:
    plan, live, following = planned.plan, planned.live, planned.following
    bundle: Bundle = _NOTHING if live is None else live.bundle
    code = CodeComparison(bundle, following.bundle)
    changed_files = frozenset(changed_modules(bundle, following.bundle))

    def code_changes(was: TriggerSpec | None, would_be: TriggerSpec | None) -> Iterator[FileChange]:
        whole = was is not None and would_be is not None
        # A file of an added or removed trigger is listed only if the file itself is added, removed or modified.
        return (each for each in code.changes(was, would_be) if whole or each.path in changed_files)

    for action, trigger_ids in ((ADDED, plan.added), (MODIFIED, plan.modified), (REMOVED, plan.removed)):
        for trigger_id in trigger_ids:
            was = None if live is None or action == ADDED else live.manifest.triggers[trigger_id]
            would_be = None if action == REMOVED else following.manifest.triggers[trigger_id]
            binding = planned.bindings.get(trigger_id)
            work = planned.work.get(trigger_id, Work())
            version = None if would_be is None else planned.versions.following(trigger_id)
            yield (
                trigger_id,
                TriggerChange(
                    action=action,
                    fields=field_changes(was, would_be),
                    code=tuple(code_changes(was, would_be)),
                    versions=VersionChange(
                        live=None if binding is None else binding.key,
                        next=None if version is None else binding_key(trigger_id, version),
                    ),
                    in_flight=work.in_flight,
                    running=work.running,
                    queued=work.queued,
                    waiting=work.waiting,
                ),
            )


def _connectors(plan: Plan, live: Inputs | None, following: Inputs) -> Iterator[ConnectorChange]:
    """Yield the connectors that would start, be replaced or stop, with the reasons, by comparing their pool keys."""
    for trigger_id in needing_connectors(following, plan, live):
        spec = following.manifest.triggers[trigger_id]
        was = None if live is None else live.manifest.triggers.get(trigger_id)
        if live is None or was is None:
            yield ConnectorChange(trigger_id=trigger_id, action="start", why=("the trigger is new",))
        elif connector_key(was, live.secret_hashes) != connector_key(spec, following.secret_hashes):
            why = tuple(_why(was, live.secret_hashes, spec, following.secret_hashes))
            yield ConnectorChange(trigger_id=trigger_id, action="replace", why=why)
    for trigger_id in plan.removed:
        yield ConnectorChange(trigger_id=trigger_id, action="stop", why=("the trigger is removed",))


def _why(
    was: TriggerSpec, old_hashes: Mapping[str, str], would_be: TriggerSpec, new_hashes: Mapping[str, str]
) -> Iterator[str]:
    """Yield the differences in a connector's configuration. A secret that only has a new reference does not count."""
    own = would_be.provider.replace("-", "_")
    for change in field_changes(was, would_be):
        table, _, name = change.key.partition(".")
        if table == "secrets":
            before = [old_hashes[text] for text in was.secrets.get(name, ())]
            if before != [new_hashes[text] for text in would_be.secrets.get(name, ())]:
                yield change.key
        elif table in _OF_CONNECTOR or table == own:
            yield change.key
    kept = {text for texts in was.secrets.values() for text in texts}
    for text in sorted({text for texts in would_be.secrets.values() for text in texts} & kept):
        if old_hashes[text] != new_hashes[text]:
            yield f"value of {text}"


@implementer(IPlanner)
class Planner:
    """Makes the plans of dry runs."""

    def __init__(
        self, registry: Registry, deliveries: IVersionDeliveries, replayer: RuleReplayer, threads: ReactorThreads
    ) -> None:
        self._registry = registry
        self._deliveries = deliveries
        self._replayer = replayer
        self._threads = threads

    async def describe(self, dry_run: DryRun) -> ReloadPlan:
        """Return the plan for the report of a dry run."""
        prepared, live, plan = dry_run.prepared, dry_run.live, dry_run.prepared.plan
        planned = Planned(
            plan=plan,
            live=None if live is None else live.inputs,
            following=prepared.inputs,
            bindings={} if live is None else live.bindings,
            versions=dry_run.versions,
            work=self._work((*plan.modified, *plan.removed)),
            started_with=dry_run.started_with,
            ramps=tuple(self._ramps(dry_run)),
        )
        found: ReloadPlan = await self._threads.call(describe_plan, planned)
        if live is None or prepared.inputs.digest != live.digest or dry_run.request.force:
            probation = describe_terms(dry_run.request, prepared.inputs.manifest.orchestrator.reload)
            found = structs.replace(found, probation=probation or UNSET)
        if dry_run.request.replay:
            triggers = (*plan.modified, *plan.added)
            replayed = await self._replayer.replay(
                prepared.interpreter.value, prepared.definitions, triggers, dry_run.request.replay
            )
            found = structs.replace(found, replay=tuple(replayed))
        return found

    def _work(self, trigger_ids: Iterable[str]) -> dict[str, Work]:
        """Count the unfinished deliveries of each trigger's versions."""
        versions = {trigger_id: self._registry.versions(trigger_id) for trigger_id in trigger_ids}
        loads = self._deliveries.workload([binding for bindings in versions.values() for binding in bindings])
        return {
            trigger_id: Work(
                in_flight=sum(binding.in_flight for binding in bindings),
                running=sum(loads[binding].running for binding in bindings),
                queued=sum(loads[binding].queued for binding in bindings),
                waiting=self._registry.waiting[trigger_id],
            )
            for trigger_id, bindings in versions.items()
        }

    def _ramps(self, dry_run: DryRun) -> Iterable[PlannedRamp]:
        if dry_run.live is None:
            return
        for trigger_id, rollout in dry_run.rollouts.items():
            fresh = binding_key(trigger_id, dry_run.versions.following(trigger_id))
            yield planned_ramp(trigger_id, stable_of(dry_run.live, trigger_id).key, fresh, rollout)


def planned_ramp(trigger_id: str, stable: str, fresh: str, rollout: RolloutSpec) -> PlannedRamp:
    """Return the ramp with which a modified trigger would be rolled out."""
    return PlannedRamp(
        trigger_id=trigger_id,
        stable=stable,
        fresh=fresh,
        percent=round(rollout.percent * 100, 4),
        step=round(rollout.step * 100, 4),
        every=format_duration(rollout.every) if rollout.step else None,
        max_failures=None if rollout.max_failures is None else format_share(rollout.max_failures),
    )


def describe_terms(request: ReloadRequest, settings: ReloadSettings) -> ProbationTerms | None:
    """Return the conditions that would roll back a generation if it were adopted now; None if there are none."""
    probation = terms(request, settings, generation=0, fallback=0, now=0.0)
    if probation is None:
        return None
    described = ProbationTerms()
    if probation.confirm_by is not None:
        described = structs.replace(described, confirm_within=format_duration(probation.confirm_by))
    if probation.limit is not None and probation.watch_until is not None:
        described = structs.replace(
            described,
            revert_on_failures=format_share(probation.limit.rate),
            minimum=probation.limit.minimum,
            watch_for=format_duration(probation.watch_until),
        )
    return described
