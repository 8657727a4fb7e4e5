"""
The changes of a reload: definitions compared with the live ones, rollouts of modified triggers, changes that a start
finds.

Pure. Comparing ten thousand triggers takes long, so it runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import tomli
from attrs import field, frozen
from msgspec.structs import replace

from harn.manifest.model import Manifest, RolloutSpec, TriggerSpec
from harn.model.references import LOCAL, scheme_of
from harn.reload.generation import Generation, Prepared, VersionNumbers
from harn.reload.inputs import Inputs
from harn.reload.report import ReloadRequest
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.reconcile import Plan, reconcile
from harn.vm.bundle import Bundle, source_digest
from harn.wire import digest_value


@frozen
class SourceDigests:
    """The source digests of functions in a bundle; each module is digested once, with the modules that it imports."""

    bundle: Bundle
    _of_module: dict[str, str] = field(factory=dict, init=False)

    def of(self, handler: str) -> str:
        """Return the source digest of a handler or predicate; empty if it is not a local function."""
        if scheme_of(handler) != LOCAL:
            return ""
        module = handler.partition(":")[0]
        digest = self._of_module.get(module)
        if digest is None:
            digest = self._of_module[module] = source_digest(self.bundle, module)
        return digest


def define(manifest: Manifest, bundle: Bundle, live: Mapping[str, Definition]) -> dict[str, Definition]:
    """
    Return the definition of every trigger of the manifest, by trigger id; its functions are in the bundle.

    For an unchanged trigger this is the live definition, the same object, so that comparing it takes no time.
    """
    code = SourceDigests(bundle)
    fingerprints = manifest.fingerprints
    definitions: dict[str, Definition] = {}
    handlers: dict[str, str] = {}
    for trigger_id, spec in manifest.triggers.items():
        handler_code = handlers.get(spec.handler)
        if handler_code is None:
            handler_code = handlers[spec.handler] = code.of(spec.handler)
        if spec.poll is not None:
            handler_code = digest_value([handler_code, code.of(spec.poll)])
        predicate_code = None if spec.when is None else code.of(spec.when)
        known = live.get(trigger_id)
        if (
            known is not None
            and (known.spec is spec or known.spec_fingerprint == fingerprints[trigger_id])
            and known.handler_code == handler_code
            and known.predicate_code == predicate_code
        ):
            definitions[trigger_id] = known
        else:
            definitions[trigger_id] = Definition.of(spec, fingerprints[trigger_id], handler_code, predicate_code)
    return definitions


def compare(inputs: Inputs, live: Mapping[str, Definition]) -> tuple[dict[str, Definition], Plan, dict[str, str]]:
    """Define every trigger, reconcile the definitions with the live ones, and find the `outside_targets`."""
    definitions = define(inputs.manifest, inputs.bundle, live)
    return definitions, reconcile(live, definitions), outside_targets(inputs.manifest)


def renumbered(prepared: Prepared, live: Generation, versions: VersionNumbers) -> Prepared:
    """
    Return ``prepared`` with unchanged triggers whose version has a new number counted as modified.

    Other servers have replaced such a version, perhaps more than once, while this server did not take part.
    """
    plan, definitions = prepared.plan, live.definitions
    replaced = {
        trigger_id
        for trigger_id in plan.unchanged
        if versions.newest(trigger_id) > live.bindings[trigger_id].version
        # After an aborted ramp, the earlier version is in force on all servers, so its number is right.
        and live.bindings[trigger_id].definition.fingerprint == definitions[trigger_id].fingerprint
    }
    if not replaced:
        return prepared
    plan = replace(
        plan,
        modified=tuple(sorted({*plan.modified, *replaced})),
        unchanged=tuple(each for each in plan.unchanged if each not in replaced),
        changes={**plan.changes, **dict.fromkeys(replaced, ("version",))},
    )
    return replace(prepared, plan=plan)


def outside_targets(manifest: Manifest) -> dict[str, str]:
    """Return each handler that is not a local function, with the first trigger that names it."""
    users: dict[str, str] = {}
    for spec in manifest.triggers.values():
        if "://" in spec.handler:
            users.setdefault(spec.handler, spec.id)
    return users


def policy_of(spec: TriggerSpec, request: ReloadRequest) -> RolloutSpec | None:
    """
    Return the rollout of a modified trigger; None if its new version takes all deliveries at once.

    A rollback always takes effect at once.
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
    Return the reason why two versions of a trigger cannot share its deliveries; None if they can.

    One receiver takes and verifies the requests for both versions, so its configuration must be the same.
    """
    for name in ("provider", "kind", "path", "settings", "secrets"):
        if getattr(old, name) != getattr(new, name):
            return f"its {name} changed"
    return None


def stable_of(live: Generation, trigger_id: str) -> BindingVersion:
    """Return the stable version for a new ramp of a trigger: that of the current ramp, else the version in force."""
    running = live.ramps.get(trigger_id)
    return live.bindings[trigger_id] if running is None else running.stable


def plan_rollouts(
    plan: Plan, live: Generation, following: Mapping[str, TriggerSpec], request: ReloadRequest
) -> tuple[dict[str, RolloutSpec], tuple[str, ...]]:
    """
    Return the rollout of each modified trigger that has one, by trigger id, and warnings.

    There is a warning for each trigger that should ramp but cannot, and for each trigger whose ramp the reload ends.

    :param following: the specs of the next generation, by trigger id.
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


def changes_of_restart(manifest: bytes, definitions: Mapping[str, Definition], versions: VersionNumbers) -> Plan:
    """
    Return the differences from the manifest that served last; ``changes`` is left empty.

    :param manifest: the bytes of the manifest that served last. If they cannot be read, every trigger counts as added.
    :param definitions: the definitions of the new generation, by trigger id.
    :param versions: the version numbers that triggers had before the start.
    """
    before = trigger_ids(manifest)
    same = {trigger_id for trigger_id, each in definitions.items() if versions.kept(each) is not None}
    return Plan(
        added=tuple(sorted(definitions.keys() - before)),
        modified=tuple(sorted((definitions.keys() & before) - same)),
        removed=tuple(sorted(before - definitions.keys())),
        unchanged=tuple(sorted(before & same)),
    )


def trigger_ids(manifest: bytes) -> frozenset[str]:
    """Return the ids of the triggers of a manifest that was valid once; an empty set if it cannot be read."""
    try:
        tables = tomli.loads(manifest.decode("utf-8")).get("triggers", [])
        return frozenset(str(table["id"]) for table in tables)
    except (ValueError, TypeError, KeyError, AttributeError):
        return frozenset()
