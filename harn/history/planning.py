"""The details of a dry run: what a reload would do, what is in hand meanwhile, and how recorded events would fare."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, structs
from zope.interface import implementer

from harn.history.plan import Planned, Work, describe_plan
from harn.history.replay import Replayer
from harn.manifest.model import RolloutSpec
from harn.manifest.settings import ReloadSettings
from harn.model.quantities import format_duration, format_share
from harn.model.references import binding_key
from harn.reload.interfaces import DryRun, IPlanner
from harn.reload.plans import PlannedRamp, ProbationTerms, ReloadPlan
from harn.reload.ramping import stable_of
from harn.reload.report import ReloadRequest
from harn.rollout.model import terms
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry
from harn.waiting import InThread


@implementer(IPlanner)
class Planner:
    """Makes the details of dry runs."""

    def __init__(
        self, registry: Registry, deliveries: IVersionDeliveries, replayer: Replayer, in_thread: InThread
    ) -> None:
        self._registry = registry
        self._deliveries = deliveries
        self._replayer = replayer
        self._in_thread = in_thread

    async def describe(self, dry_run: DryRun) -> ReloadPlan:
        """Return the plan of a dry run's report."""
        prepared, live, plan = dry_run.prepared, dry_run.live, dry_run.prepared.plan
        planned = Planned(
            plan=plan,
            live=None if live is None else live.inputs,
            following=prepared.inputs,
            bindings={} if live is None else live.bindings,
            following_version=dry_run.versions.following,
            work=self._work((*plan.modified, *plan.removed)),
            started_with=dry_run.started_with,
            ramps=tuple(self._ramps(dry_run)),
        )
        found: ReloadPlan = await self._in_thread(describe_plan, planned)
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
        """Count what the versions of each trigger have in hand."""
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
    """Return how a change would be rolled out."""
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
    """Return the conditions that would roll back a generation adopted now; None when there are none."""
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
