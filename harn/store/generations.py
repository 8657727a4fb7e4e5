"""
Generations and binding versions, from which a restart continues: their numbers, manifests and bundles; and checkpoints,
which are small JSON values by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import field, frozen
from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_encoder = msgspec.json.Encoder()


class ICheckpoints(Interface):
    """JSON values by name, each replaced whole; `IGenerations.adopted` puts some together with its own note."""

    def put(name: str, value: Any) -> Deferred[None]:
        """
        Keep a JSON value under a name, over restarts, in place of the previous one; None removes it.

        :raises TypeError: at once: the value has no form in JSON.
        """

    def get(name: str) -> Deferred[Any]:
        """Return the value under a name, or None."""

    def beginning(prefix: str) -> Deferred[Mapping[str, Any]]:
        """Return the values whose names begin with ``prefix``, by name."""


def encode_checkpoints(values: Mapping[str, Any]) -> dict[str, bytes | None]:
    """
    Encode values at once, so that later changes to them do not count; None stays None, and removes what is kept.

    :raises TypeError: a value holds something that JSON has no form for.
    """
    return {name: None if value is None else _encoder.encode(value) for name, value in values.items()}


@frozen(kw_only=True)
class BindingRecord:
    """One definition of one trigger, as it was given a number. ``spec`` is the encoded trigger spec."""

    trigger_id: str
    version: int
    fingerprint: str
    generation: int
    bundle_id: str
    spec: bytes


@frozen(kw_only=True)
class GenerationRecord:
    """
    One generation as it was given its number.

    :ivar adopted_at: seconds, Unix; None while it is only reserved.
    :ivar bindings: the definitions that are new in it (unchanged ones keep the record they have).
    :ivar removed: ids of triggers that it no longer has.
    :ivar manifest_digest: names the manifest's text in the store; empty in records from before there were any.
    :ivar recalled: the earlier generation whose content this is, for one that was rolled back to.
    :ivar reason: why it was made, if the caller said so.
    :ivar summary: what it changed, as a JSON value.
    """

    number: int
    digest: str
    bundle_id: str
    source: str
    actor: str
    adopted_at: float | None = None
    bindings: tuple[BindingRecord, ...] = ()
    removed: tuple[str, ...] = ()
    manifest_digest: str = ""
    recalled: int | None = None
    reason: str = ""
    summary: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class LiveBinding:
    """The newest number ever given to a trigger, and its fingerprint then."""

    version: int
    fingerprint: str
    bundle_id: str


class IGenerations(Interface):
    """Numbers of generations and binding versions; they never go back, over any number of restarts."""

    def last() -> Deferred[GenerationRecord | None]:
        """Return the generation with the highest number, adopted or only reserved (without its bindings)."""

    def latest_bindings() -> Deferred[Mapping[str, LiveBinding]]:
        """
        Return the highest version number of every trigger id ever seen.

        Those of a generation that was only reserved count: it may have served, and the note of that have failed.
        """

    def bindings(keys: Collection[tuple[str, int]]) -> Deferred[Sequence[BindingRecord]]:
        """Return the record of each (trigger id, version) that exists."""

    def reserve(generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None) -> Deferred[None]:
        """
        Write numbers, fingerprints, the bundle and the manifest's text (each unless it is None: known already) in one
        durable unit. A generation of the same number that was only reserved is replaced, with the bindings it brought.

        :param manifest: the text, encoded as the caller likes; kept under the generation's ``manifest_digest``.
        :raises StoreError: the generation's number, or a binding version's, was adopted before; or the bundle, or the
            manifest that it names, is None and not known.
        """

    def adopted(number: int, at: float, checkpoints: Mapping[str, Any] = {}) -> Deferred[None]:
        """
        Record that a reserved generation serves, and put each of ``checkpoints``, in one durable unit.

        :param at: seconds, Unix. If it was adopted before, that time stays: a restart goes on with a generation.
        :raises TypeError: at once: a value has no form in JSON.
        :raises StoreError: there is no such generation; nothing was put.
        """

    def generation(number: int) -> Deferred[GenerationRecord | None]:
        """Return one adopted generation (without bindings), or None."""

    def manifest(digest: str) -> Deferred[bytes | None]:
        """Return the manifest's text as it was stored, or None."""

    def history(limit: int) -> Deferred[Sequence[GenerationRecord]]:
        """Return the newest adopted generations, newest first (without bindings)."""

    def bundle(bundle_id: str) -> Deferred[bytes | None]:
        """Return the encoded bundle, or None."""
