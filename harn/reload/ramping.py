"""The choice of modified triggers that ramp, and how, from the manifest and the request. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from harn.manifest.model import RolloutSpec, TriggerSpec
from harn.reload.generation import Generation
from harn.reload.report import ReloadRequest
from harn.triggers.binding import BindingVersion
from harn.triggers.reconcile import Plan


def policy_of(spec: TriggerSpec, request: ReloadRequest) -> RolloutSpec | None:
    """
    Return how a modified trigger is rolled out; None for all at once.

    A rollback takes effect at once.
    """
    if request.recall is not None:
        return None
    if request.ramp is None:
        return spec.rollout
    if spec.rollout is None:
        return RolloutSpec(percent=request.ramp)
    return msgspec.structs.replace(spec.rollout, percent=request.ramp)


def why_not_shared(old: TriggerSpec, new: TriggerSpec) -> str | None:
    """
    Return why two versions of a trigger cannot share its deliveries; None when they can.

    One receiver takes and verifies the requests for both, so its configuration must be the same.
    """
    for name in ("provider", "kind", "path", "settings", "secrets"):
        if getattr(old, name) != getattr(new, name):
            return f"its {name} changed"
    return None


def stable_of(live: Generation, trigger_id: str) -> BindingVersion:
    """Return the version that a new ramp of this trigger would begin from; the present ramp's, where one runs."""
    running = live.ramps.get(trigger_id)
    return live.bindings[trigger_id] if running is None else running.stable


def plan_rollouts(
    plan: Plan, live: Generation, following: Mapping[str, TriggerSpec], request: ReloadRequest
) -> tuple[dict[str, RolloutSpec], tuple[str, ...]]:
    """
    Return the rollout of each modified trigger that has one, and warnings.

    There is a warning for each trigger that cannot ramp though it should, and for each whose ramp this ends.

    :param following: the specs of the next generation.
    """
    rollouts: dict[str, RolloutSpec] = {}
    warnings: list[str] = []
    for trigger_id in plan.modified:
        policy = policy_of(following[trigger_id], request)
        if policy is None:
            if request.recall is None and trigger_id in live.ramps:
                warnings.append(
                    f"{trigger_id}: its ramp has ended, the new version takes all deliveries; to begin small again, "
                    "reload with --ramp, or give the trigger a rollout"
                )
            continue
        why = why_not_shared(stable_of(live, trigger_id).spec, following[trigger_id])
        if why is None:
            rollouts[trigger_id] = policy
        else:
            warnings.append(f"{trigger_id} is not ramped, its new version takes all deliveries: {why}")
    return rollouts, tuple(warnings)
