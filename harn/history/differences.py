"""
Differences between two generations: fields, settings, files, code, secrets, and all of them for ``GET /admin/diff``.

Pure; meant for a thread. Triggers are compared as a reload compares them, so that the summary equals that of a reload
from one generation to the other. A secret appears only as the beginning of its keyed digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen
from msgspec import structs

from harn.errors import ManifestInvalid
from harn.history.operations import DiffSummary, GenerationDiff, TriggerDiff
from harn.history.text_diff import LONGEST, text_diff
from harn.manifest.changes import (
    field_differences,
    format_field,
    format_setting,
    setting_differences,
    settings_requiring_restart,
)
from harn.manifest.interfaces import PluginRules
from harn.manifest.load import LoadedManifest, check_document
from harn.manifest.model import Manifest, TriggerSpec
from harn.manifest.settings import OrchestratorSettings
from harn.manifest.source import ManifestSource
from harn.reload.changes import define
from harn.reload.results import FieldChange, FileChange, SecretChange, SettingChange
from harn.triggers.reconcile import reconcile
from harn.vm.bundle import Bundle, bundle_files, closure

ADDED, MODIFIED, REMOVED = "added", "modified", "removed"
KEYED = "keyed:"
"""The prefix of the keyed digest of a secret, or of a file that holds one."""
_SHOWN = 12
"""The number of hexadecimal digits of a keyed digest that are shown."""
_LONGEST_OF_ALL = 5 * LONGEST
"""The largest number of characters in the diffs of all files together."""


def field_changes(old: TriggerSpec | None, new: TriggerSpec | None) -> tuple[FieldChange, ...]:
    """
    Return the keys in which two specs of one trigger differ, sorted.

    If one of the specs is None, the result has every key of the other spec whose value is not the default.
    """
    known = new if old is None else old
    if known is None:
        return ()
    blank = TriggerSpec(id=known.id, kind="", provider="", path="", handler="")
    table = (known if new is None else new).provider.replace("-", "_")
    found = field_differences(blank if old is None else old, blank if new is None else new, table)
    return tuple(
        FieldChange(
            key=key,
            old=None if old is None else format_field(key, before),
            new=None if new is None else format_field(key, after),
        )
        for key, before, after in sorted(found, key=lambda each: each[0])
    )


def setting_changes(old: OrchestratorSettings, new: OrchestratorSettings) -> tuple[SettingChange, ...]:
    """Return the settings that differ, sorted by key."""
    restart = frozenset(settings_requiring_restart(old, new))
    return tuple(
        SettingChange(
            key=f"orchestrator.{key}",
            old=format_setting(key, before),
            new=format_setting(key, after),
            applies="restart" if f"orchestrator.{key}" in restart else "reload",
        )
        for key, before, after in sorted(setting_differences(old, new), key=lambda each: each[0])
    )


def secret_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[SecretChange, ...]:
    """
    Return the secrets that were added or removed, or have another value, sorted by reference.

    :param old: the keyed digests of the old secrets, by reference.
    :param new: the keyed digests of the new secrets, by reference.
    """
    return tuple(
        SecretChange(reference=reference, old=shown_digest(old.get(reference)), new=shown_digest(new.get(reference)))
        for reference in _differing(old, new)
    )


def digest_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[FileChange, ...]:
    """
    Return the files that differ, sorted by path.

    :param old: the digests of the old files, by path.
    :param new: the digests of the new files, by path.
    """
    return tuple(
        FileChange(
            path=path,
            change=_change(old.get(path), new.get(path)),
            old=shown_digest(old.get(path)),
            new=shown_digest(new.get(path)),
        )
        for path in _differing(old, new)
    )


def file_changes(old: Bundle, new: Bundle, *, diffs: bool = False) -> tuple[FileChange, ...]:
    """
    Return the files of two bundles that differ, sorted by path.

    :param diffs: if True, each change has its unified diff; the diffs are cut where they are too long together.
    """
    changes = digest_changes(bundle_files(old), bundle_files(new))
    return tuple(_with_diffs(changes, _sources(old), _sources(new))) if diffs and changes else changes


def _sources(bundle: Bundle) -> dict[str, bytes]:
    return {module.path: module.source for module in bundle.modules.values()}


def _with_diffs(
    changes: Iterable[FileChange], old: Mapping[str, bytes], new: Mapping[str, bytes]
) -> Iterable[FileChange]:
    left = _LONGEST_OF_ALL
    for each in changes:
        before, after = old.get(each.path), new.get(each.path)
        diff = text_diff(before, after, each.path, each.path, min(left, LONGEST))
        left = max(0, left - len(diff))
        yield structs.replace(each, diff=diff)


@frozen
class CodeComparison:
    """
    The differences between two bundles in the code of triggers.

    The code of a trigger is the files of its handler and predicate and of every local module that they import. So a
    file whose content is the same in both bundles may still be added to the code of a trigger or removed from it.
    Triggers with the same modules are compared once.
    """

    old: Bundle
    new: Bundle
    _known: dict[tuple[frozenset[str], frozenset[str]], tuple[FileChange, ...]] = field(factory=dict, init=False)

    def changes(self, before: TriggerSpec | None, after: TriggerSpec | None) -> tuple[FileChange, ...]:
        """
        Return the differences in the code of a trigger.

        :param before: the spec of the trigger in the old bundle; None if it had none.
        :param after: the spec of the trigger in the new bundle; None if it has none.
        """
        key = _modules(before), _modules(after)
        if key not in self._known:
            self._known[key] = digest_changes(_code(self.old, key[0]), _code(self.new, key[1]))
        return self._known[key]


def _code(bundle: Bundle, modules: frozenset[str]) -> dict[str, str]:
    """Return the digests of the files of these modules and of the local modules that they import, by path."""
    found = [bundle.modules[name] for module in modules for name in closure(bundle, module)]
    return {each.path: each.digest for each in found}


def _modules(spec: TriggerSpec | None) -> frozenset[str]:
    """Return the modules that hold a trigger's handler and predicate."""
    texts = () if spec is None else (spec.handler, *(() if spec.when is None else (spec.when,)))
    return frozenset(text.partition(":")[0] for text in texts)


def shown_digest(digest: str | None) -> str | None:
    """Return a digest as it may be shown: only the beginning of a keyed digest, the whole of any other."""
    return digest[: len(KEYED) + _SHOWN] if digest is not None and digest.startswith(KEYED) else digest


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _change(old: str | None, new: str | None) -> str:
    return ADDED if old is None else REMOVED if new is None else MODIFIED


@frozen(kw_only=True)
class Recorded:
    """
    The content of a generation.

    :ivar number: the number of the generation.
    :ivar text: the bytes of the manifest and of the files that it includes.
    :ivar manifest: the checked manifest; None if the installed plugins no longer accept it.
    """

    number: int
    text: bytes = field(repr=False)
    bundle: Bundle
    manifest: Manifest | None = field(repr=False)

    def texts(self) -> dict[str, bytes]:
        """Return the bytes of each file by its path relative to the manifest, whose own key is ``manifest``."""
        manifest, *included = ManifestSource.of("/manifest", self.text).files
        return {"manifest": manifest.data, **{each.path[1:]: each.data for each in included}}


def generation_diff(old: Recorded, new: Recorded) -> GenerationDiff:
    """
    Compare two generations.

    If one of the manifests is no longer accepted, only texts and files are compared: ``note`` says so, and the number
    of unchanged triggers is None.
    """
    found = GenerationDiff(
        old=old.number,
        new=new.number,
        summary=DiffSummary(),
        changes={},
        settings=(),
        files=file_changes(old.bundle, new.bundle, diffs=True),
        manifest=_manifest_diff(old, new),
    )
    if old.manifest is None or new.manifest is None:
        refused = [str(each.number) for each in (old, new) if each.manifest is None]
        which = f"generation {refused[0]}" if len(refused) == 1 else f"generations {' and '.join(refused)}"
        note = f"the manifest of {which} is not accepted any more: only texts and files are compared"
        return structs.replace(found, note=note)
    before = define(old.manifest, old.bundle, {})
    plan = reconcile(before, define(new.manifest, new.bundle, before))
    code = CodeComparison(old.bundle, new.bundle)
    triggers = [(each, old.manifest.triggers[each], new.manifest.triggers[each]) for each in plan.modified]
    return structs.replace(
        found,
        summary=DiffSummary(
            added=plan.added, modified=plan.modified, removed=plan.removed, unchanged=len(plan.unchanged)
        ),
        changes={
            trigger_id: TriggerDiff(
                fields=field_changes(was, is_now), code=tuple(change.path for change in code.changes(was, is_now))
            )
            for trigger_id, was, is_now in triggers
        },
        settings=setting_changes(old.manifest.orchestrator, new.manifest.orchestrator),
    )


def _manifest_diff(old: Recorded, new: Recorded) -> str:
    """Return the unified diffs of the files of two manifests; the manifest itself is named ``manifest`` in them."""
    before, after = old.texts(), new.texts()
    names = dict.fromkeys((*before, *after))
    found, left = "", _LONGEST_OF_ALL
    for name in names:
        shown = f"generation {old.number}/{name}", f"generation {new.number}/{name}"
        diff = text_diff(before.get(name), after.get(name), *shown, min(left, LONGEST))
        found, left = found + diff, max(0, left - len(diff))
    return found


def make_recorded(
    number: int,
    text: bytes,
    bundle: Bundle,
    path: str,
    rules: PluginRules,
    previous: LoadedManifest | None = None,
) -> Recorded:
    """
    Return the content of a generation with its manifest checked, ready to be compared.

    :param text: the bytes of the manifest and of the files that it includes.
    :param path: the path of the manifest.
    :param rules: the rules of the plugins that are installed now, which may no longer accept the manifest.
    :param previous: a manifest that was loaded earlier; parts that the text shares with it are not checked again.
    """
    try:
        loaded = check_document(ManifestSource.of(path, text), previous, rules)
    except ManifestInvalid:
        return Recorded(number=number, text=text, bundle=bundle, manifest=None)
    return Recorded(number=number, text=text, bundle=bundle, manifest=loaded.manifest)
