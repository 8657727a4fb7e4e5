"""
The effects of a planned reload in detail: the ``plan`` of a dry run's report. Pure, for a thread.

What does not change is not looked at: of ten thousand triggers with one change, the cost is that of the one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import field, frozen

from harn.history.changes import (
    ADDED,
    MODIFIED,
    REMOVED,
    code_comparison,
    digest_changes,
    field_changes,
    secret_changes,
    setting_changes,
)
from harn.manifest.changes import settings_requiring_restart
from harn.manifest.model import TriggerSpec
from harn.manifest.settings import OrchestratorSettings
from harn.model.references import binding_key
from harn.reload.connections import connector_key, needing_connectors
from harn.reload.inputs import Inputs
from harn.reload.plans import ConnectorChange, FileChange, PlannedRamp, ReloadPlan, TriggerChange, VersionChange
from harn.triggers.binding import BindingVersion
from harn.triggers.reconcile import Plan, would_remove_most
from harn.vm.bundle import Bundle, changed_modules, make_bundle

_OF_CONNECTOR = frozenset(("kind", "provider", "path", "match"))
"""Keys, and tables, that a connector is made of, beside the provider's own table and the secrets."""
_NOTHING = make_bundle({})


@frozen(kw_only=True)
class Work:
    """
    The unfinished work of a trigger's versions.

    :ivar in_flight: leases held. ``running``: handlers that run. ``queued``: accepted, not begun. ``waiting``: for the
        time of a retry.
    """

    in_flight: int = 0
    running: int = 0
    queued: int = 0
    waiting: int = 0


@frozen(kw_only=True)
class Planned:
    """
    Everything that a plan is made from.

    :ivar plan: the changes of triggers.
    :ivar live: the live inputs; None before the first generation. ``following``: those that would be adopted.
    :ivar bindings: the versions in force, by trigger id.
    :ivar following_version: returns the number that a new version of a trigger would get.
    :ivar work: by trigger id, where there is any.
    :ivar started_with: the settings that the server was started with.
    :ivar ramps: those that would begin.
    """

    plan: Plan
    live: Inputs | None
    following: Inputs
    bindings: Mapping[str, BindingVersion]
    following_version: Callable[[str], int]
    work: Mapping[str, Work] = field(factory=dict)
    started_with: OrchestratorSettings | None = None
    ramps: Sequence[PlannedRamp] = ()


def describe_plan(planned: Planned) -> ReloadPlan:
    """Return what a reload would change."""
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
    code = code_comparison(bundle, following.bundle)
    changed_files = frozenset(changed_modules(bundle, following.bundle))

    def code_changes(was: TriggerSpec | None, would_be: TriggerSpec | None) -> Iterator[FileChange]:
        whole = was is not None and would_be is not None
        # Files of a trigger that comes or goes are worth a word only when they come, go or change themselves.
        return (each for each in code(was, would_be) if whole or each.path in changed_files)

    for action, trigger_ids in ((ADDED, plan.added), (MODIFIED, plan.modified), (REMOVED, plan.removed)):
        for trigger_id in trigger_ids:
            was = None if live is None or action == ADDED else live.manifest.triggers[trigger_id]
            would_be = None if action == REMOVED else following.manifest.triggers[trigger_id]
            binding = planned.bindings.get(trigger_id)
            work = planned.work.get(trigger_id, Work())
            version = None if would_be is None else planned.following_version(trigger_id)
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
    """Yield which connectors would start, be replaced or stop, and why; by the keys under which they are shared."""
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
    """Yield what differs in what the connector is made of. A secret under another name is the same one."""
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
