"""The generations of a store in memory, and their content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from harn.errors import StoreError
from harn.store.generations import BindingRecord, GenerationRecord, LiveBinding
from harn.store.retention import RetentionPolicy

K = TypeVar("K")


class DefinitionTables:
    """Generations, binding versions, bundles, manifests, standing values; each method is one unit, or one look."""

    def __init__(self) -> None:
        self._generations: dict[int, GenerationRecord] = {}
        self._bindings: dict[tuple[str, int], BindingRecord] = {}
        self._bundles: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}
        self._standing: dict[str, bytes] = {}

    def last(self) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        return self._generations[max(self._generations)] if self._generations else None

    def latest_bindings(self) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        return _latest(self._bindings.values())

    def bindings_at(self, number: int) -> Mapping[str, LiveBinding]:
        """See `IGenerations.bindings_at`."""
        return _latest(
            record
            for record in self._bindings.values()
            if record.generation == number or (record.generation < number and not self._is_reserved(record.generation))
        )

    def _is_reserved(self, number: int) -> bool:
        return number in self._generations and not self._was_adopted(number)

    def bindings(self, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
        """See `IGenerations.bindings`."""
        return [self._bindings[key] for key in keys if key in self._bindings]

    def reserve(self, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None) -> None:
        """See `IGenerations.reserve`."""
        number, digest = generation.number, generation.manifest_digest
        if self._was_adopted(number):
            raise StoreError(f"generation {number} was adopted before; its number is not given again")
        if bundle is None and generation.bundle_id not in self._bundles:
            raise StoreError(f"bundle {generation.bundle_id} is not in the store, and was not handed over")
        if manifest is not None and not digest:
            raise StoreError(f"generation {number} has a manifest, but no digest to keep it under")
        if manifest is None and digest and digest not in self._manifests:
            raise StoreError(f"manifest {digest} is not in the store, and was not handed over")
        summary = msgspec.json.decode(msgspec.json.encode(generation.summary), type=dict[str, Any])
        kept = {key: record for key, record in self._bindings.items() if record.generation != number}
        for record in generation.bindings:
            before = kept.get((record.trigger_id, record.version))
            if before is not None and self._was_adopted(before.generation):
                raise StoreError(f"generation {number} brings a binding version whose number was given before")
            kept[record.trigger_id, record.version] = record
        self._bindings = kept
        self._generations[number] = replace(generation, bindings=(), summary=summary)
        if bundle is not None:
            self._bundles.setdefault(generation.bundle_id, bundle)
        if manifest is not None:
            self._manifests.setdefault(digest, manifest)

    def adopted(self, number: int, at: float, standing: Mapping[str, bytes | None]) -> None:
        """See `IGenerations.adopted`; the values are encoded already."""
        if number not in self._generations:
            raise StoreError(f"generation {number} was never reserved")
        if not self._was_adopted(number):
            self._generations[number] = replace(self._generations[number], adopted_at=at)
        self.keep(standing)

    def keep(self, standing: Mapping[str, bytes | None]) -> None:
        """See `IGenerations.keep`; the values are encoded already."""
        for name, value in standing.items():
            if value is None:
                self._standing.pop(name, None)
            else:
                self._standing[name] = value

    def get(self, name: str) -> Any:
        """See `IGenerations.kept`."""
        value = self._standing.get(name)
        return None if value is None else msgspec.json.decode(value)

    def generation(self, number: int) -> GenerationRecord | None:
        """See `IGenerations.generation`."""
        return self._generations[number] if self._was_adopted(number) else None

    def manifest(self, digest: str) -> bytes | None:
        """See `IGenerations.manifest`."""
        return self._manifests.get(digest)

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        adopted = [record for record in self._generations.values() if record.adopted_at is not None]
        return sorted(adopted, key=lambda record: record.number, reverse=True)[:limit]

    def bundle(self, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        return self._bundles.get(bundle_id)

    def trim(self, policy: RetentionPolicy, limit: int, is_needed: Callable[[str, int], bool]) -> int:
        """
        Remove definitions older than the kept generations, up to ``limit`` rows; count them.

        :param is_needed: returns whether an unfinished delivery belongs to a version.
        """
        adopted = self.history(max(1, policy.generations))
        if not adopted:
            return 0
        floor = adopted[-1].number

        def is_old(generation: int) -> bool:
            return generation < floor and generation not in policy.kept

        by_version = sorted(self._bindings.values(), key=_version)
        unadopted = {number for number, record in self._generations.items() if record.adopted_at is None}
        newest = {record.trigger_id: record.version for record in by_version if record.generation not in unadopted}
        versions = frozenset(policy.versions)
        removed = _remove(
            self._bindings,
            (
                (record.trigger_id, record.version)
                for record in sorted(self._bindings.values(), key=_age)
                if is_old(record.generation)
                and record.version < newest.get(record.trigger_id, 0)
                and (record.trigger_id, record.version) not in versions
                and not is_needed(record.trigger_id, record.version)
            ),
            limit,
        )
        removed += _remove(self._generations, filter(is_old, sorted(self._generations)), limit - removed)
        kept = [record for record in self._generations.values() if not is_old(record.number)]
        bundles = {record.bundle_id for record in kept}.union(record.bundle_id for record in self._bindings.values())
        removed += _remove(self._bundles, sorted(self._bundles.keys() - bundles), limit - removed)
        manifests = {record.manifest_digest for record in kept}
        return removed + _remove(self._manifests, sorted(self._manifests.keys() - manifests), limit - removed)

    def _was_adopted(self, number: int) -> bool:
        record = self._generations.get(number)
        return record is not None and record.adopted_at is not None


def _latest(records: Iterable[BindingRecord]) -> dict[str, LiveBinding]:
    return {
        record.trigger_id: LiveBinding(
            version=record.version, fingerprint=record.fingerprint, bundle_id=record.bundle_id
        )
        for record in sorted(records, key=_version)
    }


def _version(record: BindingRecord) -> int:
    return record.version


def _age(record: BindingRecord) -> tuple[int, str, int]:
    return record.generation, record.trigger_id, record.version


def _remove(table: dict[K, Any], keys: Iterable[K], limit: int) -> int:
    """Remove the first ``limit`` of ``keys``; count them."""
    chosen = list(keys)[: max(0, limit)]
    for key in chosen:
        del table[key]
    return len(chosen)
