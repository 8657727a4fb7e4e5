"""
Differences between two recorded generations, for ``diff`` and ``GET /admin/diff``. Pure, for a thread.

Triggers are compared as a reload compares them, so that the summary is that of the reload from one to the other.
"""

from __future__ import annotations

from attrs import field, frozen
from msgspec import structs

from harn.history.changes import code_comparison, field_changes, file_changes, setting_changes
from harn.history.model import DiffSummary, GenerationDiff, TriggerDiff
from harn.history.text_diff import text_diff
from harn.manifest.model import Manifest
from harn.reload.inputs import define
from harn.triggers.reconcile import reconcile
from harn.vm.bundle import Bundle


@frozen(kw_only=True)
class Recorded:
    """
    The content of a generation.

    :ivar text: the manifest's bytes.
    :ivar manifest: checked; None when what is installed now does not accept it any more.
    """

    number: int
    text: bytes = field(repr=False)
    bundle: Bundle
    manifest: Manifest | None = field(repr=False)


def generation_diff(old: Recorded, new: Recorded) -> GenerationDiff:
    """
    Compare two generations.

    When one of the manifests is no longer accepted, the texts and files alone are compared: ``note`` says so, and how
    many triggers are unchanged is None.
    """
    names = f"generation {old.number}/manifest", f"generation {new.number}/manifest"
    found = GenerationDiff(
        old=old.number,
        new=new.number,
        summary=DiffSummary(),
        changes={},
        settings=(),
        files=file_changes(old.bundle, new.bundle, diffs=True),
        manifest=text_diff(old.text, new.text, *names),
    )
    if old.manifest is None or new.manifest is None:
        refused = [str(each.number) for each in (old, new) if each.manifest is None]
        which = f"generation {refused[0]}" if len(refused) == 1 else f"generations {' and '.join(refused)}"
        note = f"the manifest of {which} is not accepted any more: only texts and files are compared"
        return structs.replace(found, note=note)
    before = define(old.manifest, old.bundle, {})
    plan = reconcile(before, define(new.manifest, new.bundle, before))
    code = code_comparison(old.bundle, new.bundle)
    triggers = [(each, old.manifest.triggers[each], new.manifest.triggers[each]) for each in plan.modified]
    return structs.replace(
        found,
        summary=DiffSummary(
            added=plan.added, modified=plan.modified, removed=plan.removed, unchanged=len(plan.unchanged)
        ),
        changes={
            trigger_id: TriggerDiff(
                fields=field_changes(was, is_now), code=tuple(change.path for change in code(was, is_now))
            )
            for trigger_id, was, is_now in triggers
        },
        settings=setting_changes(old.manifest.orchestrator, new.manifest.orchestrator),
    )
