"""
Loading: from a file's bytes to a checked manifest, off the reactor thread, repeating only what changed.

A trigger whose text did not change keeps its very `TriggerSpec`, and so does one whose spec is equal (a comment was
edited): a reload compares specs by identity. Texts so big that parsing them in this process would stall the reactor are
parsed in a child process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import Struct
from twisted.internet.threads import deferToThreadPool

from harn.errors import ManifestInvalid
from harn.manifest.diagnostics import Diagnostic, Diagnostics, FileLines, KeyPath, Locator, parse_key, place
from harn.manifest.document import (
    Malformed,
    Pieces,
    cut,
    decode_parsed,
    decode_value,
    parse_head,
    parse_part,
    parse_whole,
    uncut,
)
from harn.manifest.interfaces import PluginRules
from harn.manifest.model import Manifest, TriggerSpec
from harn.manifest.parsing_process import parse_in_child
from harn.manifest.partial import PartlyInvalid, usable_triggers
from harn.manifest.source import ManifestSource, malformed
from harn.manifest.trigger import check_defaults, check_trigger, with_defaults
from harn.manifest.validate import Head, check_head, check_together
from harn.model.problem import Problem
from harn.wire import digest_bytes

THRESHOLD = 256 * 1024
"""Characters: more than these are parsed in a child process (a thread would hold the lock for over 10 ms)."""


@frozen(kw_only=True, eq=False)
class LoadedManifest:
    """
    A checked manifest, and the parts of it that the next load can reuse.

    :ivar shown: the file's name as the user typed it.
    :ivar files: digest of each file by path.
    :ivar lines: which of them each line of the text is from.
    :ivar specs: the spec of each part of the text, with these ``defaults``.
    :ivar names: of one without the triggers that have problems (`harn.manifest.partial`): the ids of all, by index.
    """

    manifest: Manifest
    shown: str
    files: Mapping[str, str]
    lines: FileLines
    pieces: Pieces = field(repr=False)
    rules: PluginRules = field(repr=False)
    specs: Mapping[str, TriggerSpec] = field(repr=False)
    defaults: Mapping[str, Any] = field(factory=dict, repr=False)
    names: tuple[str | None, ...] = ()

    def problem(self, trigger_id: str | None, key: str, message: str, hint: str = "") -> Problem:
        """
        Return a problem that was found after loading, with the line of ``key`` in the manifest.

        :param trigger_id: None for a key of ``[orchestrator]``.
        :param key: dotted, for example ``handler`` or ``secrets.signing_secret[1]``.
        """
        around: KeyPath = ("orchestrator",) if trigger_id is None else ("triggers", self._places[trigger_id])
        path = (*around, *parse_key(key))
        if trigger_id is not None and not self._locator.has(path[:3]) and path[2] in self.defaults:
            path = ("defaults", *path[2:])
        return place(self._locator, Diagnostic(path, message, hint), self.names or tuple(self.manifest.triggers))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        if not self.names:
            return {trigger_id: index for index, trigger_id in enumerate(self.manifest.triggers)}
        # Of two with one id the first counts.
        return {name: index for index, name in reversed(tuple(enumerate(self.names))) if name is not None}

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self.pieces, self.lines)


class _Draft(Struct, frozen=True, kw_only=True):
    """
    A manifest before it is parsed.

    :ivar specs: for each part of the text the spec of an equal earlier part, or None.
    :ivar new: the indices of parts without one.
    :ivar pending: number of characters still to be parsed.
    """

    source: ManifestSource
    previous: LoadedManifest | None
    rules: PluginRules
    digest: str
    text: str
    lines: FileLines
    pieces: Pieces
    specs: list[TriggerSpec | None]
    new: list[int]
    pending: int


class _Values(Struct, frozen=True, kw_only=True):
    """
    The result of parsing a draft.

    :ivar pieces: how the text was cut.
    :ivar count: of all triggers.
    :ivar triggers: by index, those that were parsed, from a child process still encoded.
    """

    head: Mapping[str, Any]
    pieces: Pieces
    count: int
    triggers: Mapping[int, Any] | Sequence[Any]

    def trigger(self, index: int) -> Any:
        """Return one trigger as the parser made it."""
        found = self.triggers[index]
        return decode_value(found) if isinstance(found, msgspec.Raw) else found


def check_document(source: ManifestSource, previous: LoadedManifest | None, rules: PluginRules) -> LoadedManifest:
    """
    Parse and check, in this thread.

    :param previous: an earlier load of the same manifest, or of another.
    :param rules: of the plugins that are installed.
    :raises ManifestInvalid: of stage ``parse`` or ``validate``, with every problem.
    """
    draft = _begin(source, previous, rules)
    if isinstance(draft, LoadedManifest):
        return draft
    return _check(draft, _parse_parts(draft) or _parse_whole(draft))


async def load_manifest(
    source: ManifestSource, previous: LoadedManifest | None, rules: PluginRules, reactor: Any
) -> LoadedManifest:
    """
    Parse and check, off the reactor thread: in its thread pool, big texts in a child process.

    :param reactor: an `IReactorThreads`, `IReactorProcess`.
    :raises ManifestInvalid: of stage ``parse`` or ``validate``, with every problem.
    :raises StageFailed: the child process failed.
    """
    pool = reactor.getThreadPool()
    draft = await deferToThreadPool(reactor, pool, _load_small, source, previous, rules)
    if isinstance(draft, LoadedManifest):
        return draft
    answer = await parse_in_child(draft.text, reactor)
    return await deferToThreadPool(reactor, pool, lambda: _check(draft, _values_of_child(draft, answer)))


def _load_small(source: ManifestSource, previous: LoadedManifest | None, rules: PluginRules) -> _Draft | LoadedManifest:
    """Return the manifest, or the draft whose text is too big to be parsed while other threads wait."""
    draft = _begin(source, previous, rules)
    if isinstance(draft, LoadedManifest):
        return draft
    values = _parse_parts(draft) if draft.pending <= THRESHOLD else None
    if values is None:
        if len(draft.text) > THRESHOLD:
            return draft
        values = _parse_whole(draft)
    return _check(draft, values)


def _begin(source: ManifestSource, previous: LoadedManifest | None, rules: PluginRules) -> _Draft | LoadedManifest:
    digest = digest_bytes(source.data)
    known: Mapping[str, TriggerSpec] = {}
    if previous is not None and previous.rules == rules:
        manifest = previous.manifest
        if (manifest.digest, manifest.path, previous.shown) == (digest, source.path, source.shown):
            return previous
        known = previous.specs
    text, lines = source.decode()
    pieces = cut(text)
    if known and not _has_defaults(pieces, previous):
        known = {}  # each spec was made with others
    specs = list(map(known.get, pieces.parts))
    new = [index for index, spec in enumerate(specs) if spec is None]
    return _Draft(
        source=source,
        previous=previous,
        rules=rules,
        digest=digest,
        text=text,
        lines=lines,
        pieces=pieces,
        specs=specs,
        new=new,
        pending=len(pieces.lead) + sum([len(pieces.parts[index]) for index in new]),
    )


def _has_defaults(pieces: Pieces, previous: LoadedManifest | None) -> bool:
    """Return whether a text has the defaults of an earlier one; a head for the child process counts as another."""
    head = parse_head(pieces.head) if len(pieces.lead) <= THRESHOLD else None
    return head is not None and previous is not None and head.get("defaults", {}) == previous.defaults


def _parse_parts(draft: _Draft) -> _Values | None:
    """Parse the head and the parts that are new; None when the text must be parsed whole."""
    head = parse_head(draft.pieces.head)
    if head is None:
        return None
    triggers: dict[int, dict[str, Any]] = {}
    for index in draft.new:
        trigger = parse_part(draft.pieces.parts[index])
        if trigger is None:
            return None
        triggers[index] = trigger
    return _Values(head=head, pieces=draft.pieces, count=len(draft.specs), triggers=triggers)


def _parse_whole(draft: _Draft) -> _Values:
    draft.source.check_each()
    parsed = parse_whole(draft.text)
    if isinstance(parsed, Malformed):
        raise malformed(draft.source.shown, parsed)
    triggers = parsed.triggers
    return _Values(head=parsed.head, pieces=uncut(draft.text), count=len(triggers), triggers=triggers)


def _values_of_child(draft: _Draft, data: bytes) -> _Values:
    answer = decode_parsed(data)
    if not answer.by_parts:
        draft.source.check_each()
    if answer.malformed is not None:
        raise malformed(draft.source.shown, answer.malformed)
    return _Values(
        head=decode_value(answer.head),
        pieces=draft.pieces if answer.by_parts else uncut(draft.text),
        count=len(answer.triggers),
        triggers=answer.triggers,
    )


class _Checked(Struct, frozen=True, kw_only=True):
    """
    The triggers of a draft after each was checked alone.

    :ivar specs: by index; None for a trigger with problems.
    :ivar names: by index, the raw ids of the triggers that were parsed.
    :ivar fingerprints: by id, of the triggers that were parsed.
    """

    specs: list[TriggerSpec | None]
    names: Mapping[int, Any]
    fingerprints: Mapping[str, str]


def _check(draft: _Draft, values: _Values) -> LoadedManifest:
    """Check the new parts, and all triggers together."""
    diagnostics = Diagnostics()
    head = check_head(values.head, draft.source.path, diagnostics)
    checked = _check_each(draft, values, check_defaults(values.head, draft.rules, diagnostics), diagnostics)
    specs = checked.specs
    if "triggers" not in values.head:
        check_together(specs, head.orchestrator, Locator(values.pieces, draft.lines), diagnostics)
    if diagnostics.found:
        names = [checked.names.get(index, None if spec is None else spec.id) for index, spec in enumerate(specs)]
        problems = diagnostics.problems(draft.lines, values.pieces, names)
        usable = usable_triggers(specs, diagnostics.found)
        if not usable:
            raise ManifestInvalid(problems)
        raise PartlyInvalid(problems, _loaded(draft, values, head, usable, checked, names))
    return _loaded(draft, values, head, [spec for spec in specs if spec is not None], checked)


def _loaded(
    draft: _Draft,
    values: _Values,
    head: Head,
    complete: Sequence[TriggerSpec],
    checked: _Checked,
    names: Sequence[Any] = (),
) -> LoadedManifest:
    """Return the manifest of these triggers; ``names``: of all triggers, where these are not all."""
    triggers = {spec.id: spec for spec in complete}
    earlier = {} if draft.previous is None else draft.previous.manifest.fingerprints
    fingerprints = {**earlier, **checked.fingerprints}
    if len(fingerprints) != len(triggers):  # some of the earlier triggers are gone
        fingerprints = {key: fingerprints[key] for key in triggers}
    manifest = Manifest(
        path=draft.source.path,
        digest=draft.digest,
        package=head.package,
        exports=head.exports,
        orchestrator=head.orchestrator,
        include=head.include,
        triggers=triggers,
        fingerprints=fingerprints,
    )
    return LoadedManifest(
        manifest=manifest,
        shown=draft.source.shown,
        files=_file_digests(draft),
        lines=draft.lines,
        pieces=values.pieces,
        rules=draft.rules,
        specs={} if names else dict(zip(values.pieces.parts, complete, strict=False)),
        defaults=values.head.get("defaults", {}),
        names=tuple(name if isinstance(name, str) else None for name in names),
    )


def _file_digests(draft: _Draft) -> Mapping[str, str]:
    source = draft.source
    return {each.path: draft.digest if source.is_one_file else digest_bytes(each.data) for each in source.files}


def _check_each(draft: _Draft, values: _Values, defaults: Mapping[str, Any], diagnostics: Diagnostics) -> _Checked:
    """Check each trigger that was parsed, alone, with these defaults."""
    by_parts = values.pieces is draft.pieces
    specs: list[TriggerSpec | None] = list(draft.specs) if by_parts else list(repeat(None, values.count))
    names: dict[int, Any] = {}
    fingerprints: dict[str, str] = {}
    old = None if draft.previous is None else draft.previous.manifest
    for index in draft.new if by_parts else range(values.count):
        raw = with_defaults(values.trigger(index), defaults)
        names[index] = raw.get("id") if isinstance(raw, dict) else None
        before = len(diagnostics.found)
        spec = check_trigger(raw, index, draft.rules, diagnostics)
        if spec is not None and len(diagnostics.found) == before:
            fingerprint = fingerprints[spec.id] = spec.fingerprint()
            spec = _same_as_before(spec, fingerprint, old)
        specs[index] = spec
    return _Checked(specs=specs, names=names, fingerprints=fingerprints)


def _same_as_before(spec: TriggerSpec, fingerprint: str, old: Manifest | None) -> TriggerSpec:
    """Return the spec of the earlier manifest if it is equal, so that a reload can compare by identity."""
    if old is None or old.fingerprints.get(spec.id) != fingerprint:
        return spec
    known = old.triggers[spec.id]
    return known if known.rollout == spec.rollout else spec
