"""The highest numbers ever given to generations and to each trigger's versions. A mirror of the store's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from harn.reload.generation import Candidate, Generation
from harn.store.generations import GenerationRecord, IGenerations, LiveBinding
from harn.triggers.binding import BindingVersion, Definition

WITHDRAWN = ""
"""What stands for the digest of a generation that was reserved and then failed: its number was never used."""


@frozen
class LastGeneration:
    """
    What a store remembers of generations.

    :ivar number: the highest that may have served; 0 for none.
    :ivar digest: the digest of that one, if it is known to have served.
    """

    number: int = 0
    digest: str | None = None

    @classmethod
    async def of(cls, generations: IGenerations) -> LastGeneration:
        """Ask the store."""
        last = await generations.last()
        if last is not None and last.digest == WITHDRAWN:
            adopted = await generations.history(1)
            last = adopted[0] if adopted else None
        if last is None:
            return cls()
        # One that was only reserved may have served unnoted, and one of before there was an archive cannot be gone back
        # to: what comes now gets a number above it.
        keeps = last.adopted_at is not None and last.manifest_digest
        return cls(last.number, last.digest if keeps else None)


class VersionNumbers:
    """Gives out version numbers that never go back, over any number of restarts."""

    def __init__(self, known: Mapping[str, LiveBinding]) -> None:
        self._known = dict(known)

    def kept(self, definition: Definition) -> int | None:
        """At a start: the number that the trigger had before, if its definition is still the same."""
        known = self._known.get(definition.spec.id)
        return known.version if known is not None and known.fingerprint == definition.fingerprint else None

    def keeps(self, definitions: Iterable[Definition]) -> bool:
        """At a start: tell whether every trigger keeps its number."""
        return all(self.kept(definition) is not None for definition in definitions)

    def following(self, trigger_id: str) -> int:
        """The number that a new definition of the trigger gets."""
        known = self._known.get(trigger_id)
        return 1 if known is None else known.version + 1

    def adopted(self, bindings: Iterable[BindingVersion]) -> None:
        """Record the numbers of bindings that are in force now; one that is in force again gives none anew."""
        for binding in bindings:
            known = self._known.get(binding.id)
            if known is not None and known.version >= binding.version:
                continue
            self._known[binding.id] = LiveBinding(
                version=binding.version, fingerprint=binding.definition.fingerprint, bundle_id=binding.bundle_id
            )


class Numbers:
    """
    The numbers of generations and versions that were given so far: what the store remembers, and what was given since.

    :ivar versions: of versions; ``highest``: of a generation, reserved or adopted.
    :ivar are_known: False when another program may have given some since; the next reload reads them again.
    """

    def __init__(self, generations: IGenerations) -> None:
        self._generations = generations
        self.versions, self.highest = VersionNumbers({}), 0
        self.are_known = True

    def adopted(self, candidate: Candidate) -> None:
        """Record the numbers of a generation that is live now, and of its new versions."""
        generation, plan = candidate.generation, candidate.plan
        self.highest = max(self.highest, generation.number)
        self.versions.adopted(generation.bindings[trigger_id] for trigger_id in (*plan.added, *plan.modified))

    async def read(self) -> LastGeneration:
        """
        Read what the store remembers, at a start.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.versions = VersionNumbers(await self._generations.latest_bindings())
        last = await LastGeneration.of(self._generations)
        self.highest = last.number
        return last

    async def read_again(self, live: Generation | None) -> None:
        """
        Read which numbers were given, after another program gave some and did not come to serve; it runs no more.

        What it reserved is withdrawn: it used no number.

        :raises EventLogUnavailable: the store cannot be read or written; it is tried again before the next reload.
        """
        self.are_known = False
        last, number = await self._generations.last(), 0 if live is None else live.number
        if last is not None and last.number > number and last.adopted_at is None and last.digest != WITHDRAWN:
            withdrawn = GenerationRecord(
                number=last.number, digest=WITHDRAWN, bundle_id=last.bundle_id, source=last.source, actor=last.actor
            )
            await self._generations.reserve(withdrawn, None)
        versions = VersionNumbers(await self._generations.latest_bindings())
        if live is not None:
            versions.adopted(live.bindings.values())  # that these serve may not have been noted
        self.versions = versions
        self.highest = max(self.highest, number, (await LastGeneration.of(self._generations)).number)
        self.are_known = True
