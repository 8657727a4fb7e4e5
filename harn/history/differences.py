"""
What differs between two recorded generations, as ``diff`` and ``GET /admin/diff`` show it. Pure, for a thread.

Triggers are compared as a reload compares them, so that the summary is that of the reload from one to the other.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from harn.history.changes import code_comparison, field_changes, file_changes, setting_changes
from harn.history.text_diff import text_diff
from harn.manifest.model import Manifest
from harn.reload.definitions import define
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


def generation_diff(old: Recorded, new: Recorded) -> dict[str, Any]:
    """
    Give the JSON value of ``GET /admin/diff``::

        {"from": 3, "to": 5,
         "summary": {"added": [], "modified": ["gh"], "removed": [], "unchanged": 7},
         "changes": {"gh": {"fields": [{"key", "old", "new"}], "code": ["/srv/handlers.py"]}},
         "settings": [{"key", "old", "new", "applies"}],
         "files": [{"path", "change", "old", "new", "diff"}],
         "manifest": "--- ..."}

    When one of the manifests is no longer accepted, the texts and files alone are compared: ``note`` says so, and how
    many triggers are unchanged is None.
    """
    summary: dict[str, Any] = {"added": [], "modified": [], "removed": [], "unchanged": None}
    found: dict[str, Any] = {"from": old.number, "to": new.number, "summary": summary, "changes": {}, "settings": []}
    refused = [str(each.number) for each in (old, new) if each.manifest is None]
    if old.manifest is None or new.manifest is None:
        which = f"generation {refused[0]}" if len(refused) == 1 else f"generations {' and '.join(refused)}"
        found["note"] = f"the manifest of {which} is not accepted any more: only texts and files are compared"
    else:
        before = define(old.manifest, old.bundle, {})
        plan = reconcile(before, define(new.manifest, new.bundle, before))
        summary.update(
            added=list(plan.added),
            modified=list(plan.modified),
            removed=list(plan.removed),
            unchanged=len(plan.unchanged),
        )
        code = code_comparison(old.bundle, new.bundle)
        triggers = [(each, old.manifest.triggers[each], new.manifest.triggers[each]) for each in plan.modified]
        found["changes"] = {
            trigger_id: {
                "fields": [change.to_dict() for change in field_changes(was, is_now)],
                "code": [change.path for change in code(was, is_now)],
            }
            for trigger_id, was, is_now in triggers
        }
        settings = setting_changes(old.manifest.orchestrator, new.manifest.orchestrator)
        found["settings"] = [change.to_dict() for change in settings]
    found["files"] = [change.to_dict() for change in file_changes(old.bundle, new.bundle, diffs=True)]
    names = f"generation {old.number}/manifest", f"generation {new.number}/manifest"
    found["manifest"] = text_diff(old.text, new.text, *names)
    return found
