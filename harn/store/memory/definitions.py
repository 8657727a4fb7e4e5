"""What a store in memory holds of generations, binding versions and bundles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import evolve

from harn.errors import StoreError
from harn.store.model import BindingRecord, GenerationRecord, LiveBinding

KEPT_GENERATIONS = 20
"""Adopted generations whose binding versions and bundles are kept."""


class DefinitionTables:
    """Generations, binding versions and bundles; each method is one unit, or one look."""

    def __init__(self) -> None:
        self._generations: dict[int, GenerationRecord] = {}
        self._bindings: dict[tuple[str, int], BindingRecord] = {}
        self._bundles: dict[str, bytes] = {}

    def last(self) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        return self._generations[max(self._generations)] if self._generations else None

    def latest_bindings(self) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        last = self.last()
        never_served = None if last is None or last.adopted_at is not None else last.number
        return {
            record.trigger_id: LiveBinding(
                version=record.version, fingerprint=record.fingerprint, bundle_id=record.bundle_id
            )
            for record in sorted(self._bindings.values(), key=lambda record: record.version)
            if record.generation != never_served
        }

    def bindings(self, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
        """See `IGenerations.bindings`."""
        return [self._bindings[key] for key in keys if key in self._bindings]

    def reserve(self, generation: GenerationRecord, bundle: bytes | None) -> None:
        """See `IGenerations.reserve`."""
        number = generation.number
        if self._was_adopted(number):
            raise StoreError(f"generation {number} was adopted before; its number is not given again")
        if bundle is None and generation.bundle_id not in self._bundles:
            raise StoreError(f"bundle {generation.bundle_id} is not in the store, and was not handed over")
        kept = {key: record for key, record in self._bindings.items() if record.generation != number}
        for record in generation.bindings:
            before = kept.get((record.trigger_id, record.version))
            if before is not None and self._was_adopted(before.generation):
                raise StoreError(f"generation {number} brings a binding version whose number was given before")
            kept[record.trigger_id, record.version] = record
        self._bindings = kept
        self._generations[number] = evolve(generation, bindings=())
        if bundle is not None:
            self._bundles.setdefault(generation.bundle_id, bundle)

    def adopted(self, number: int, at: float) -> None:
        """See `IGenerations.adopted`."""
        if number not in self._generations:
            raise StoreError(f"generation {number} was never reserved")
        self._generations[number] = evolve(self._generations[number], adopted_at=at)

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        adopted = [record for record in self._generations.values() if record.adopted_at is not None]
        return sorted(adopted, key=lambda record: record.number, reverse=True)[:limit]

    def bundle(self, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        return self._bundles.get(bundle_id)

    def trim(self, limit: int, is_needed: Callable[[str, int], bool]) -> int:
        """
        Remove what is older than the kept generations, up to ``limit`` rows; count them.

        :param is_needed: tells whether an unfinished delivery belongs to a version.
        """
        kept = self.history(KEPT_GENERATIONS)
        if not kept:
            return 0
        floor = kept[-1].number
        newest = {record.trigger_id: record.version for record in sorted(self._bindings.values(), key=_version)}
        old = [
            key
            for key, record in self._bindings.items()
            if record.generation < floor and record.version < newest[key[0]] and not is_needed(*key)
        ][:limit]
        for key in old:
            del self._bindings[key]
        generations = [number for number in self._generations if number < floor][: limit - len(old)]
        for number in generations:
            del self._generations[number]
        named = {record.bundle_id for record in self._generations.values()}
        named.update(record.bundle_id for record in self._bindings.values())
        unnamed = [bundle_id for bundle_id in self._bundles if bundle_id not in named]
        unnamed = unnamed[: limit - len(old) - len(generations)]
        for bundle_id in unnamed:
            del self._bundles[bundle_id]
        return len(old) + len(generations) + len(unnamed)

    def _was_adopted(self, number: int) -> bool:
        record = self._generations.get(number)
        return record is not None and record.adopted_at is not None


def _version(record: BindingRecord) -> int:
    return record.version
