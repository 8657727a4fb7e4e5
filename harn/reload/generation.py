"""
A generation: everything that serves one accepted manifest. Put together whole, off to the side, and never changed.

It holds no secret values and no parent: dropping the last reference to it frees it without the cycle collector. The
highest numbers ever given to generations, and to each trigger's versions, are kept in memory as the store holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.manifest.model import RolloutSpec
from harn.reload.connections import RunningConnector
from harn.reload.inputs import Inputs
from harn.reload.targets import FreshVersions, GenerationTargets
from harn.store.generations import GenerationRecord, IGenerations, LiveBinding
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.routing import Ramp, Route
from harn.vm.interfaces import IInterpreter

PIN_CHECKPOINT = "replaced"
"""The name under which the store keeps a pin."""


class Pin(Struct, frozen=True):
    """
    The pin: after a rollback or an automatic revert the server stays on the generation that it went back to.

    The files differ from that generation then, on purpose. As long as they read as they did at that moment, neither the
    watcher nor a restart adopts them. A reload that is asked for ends the pin, and so does any change of these files.

    :ivar files: digests, by path, of manifest and modules as they read when the earlier content replaced them.
    """

    files: Mapping[str, str]

    def holds(self, content: Mapping[str, str]) -> bool:
        """Return whether files with these digests (by path) still read as they did when the pin was set."""
        return all(content.get(path) == digest for path, digest in self.files.items())

    def to_checkpoint(self) -> dict[str, str]:
        """Return the form in which the store keeps it."""
        return dict(self.files)

    @classmethod
    def from_checkpoint(cls, kept: Any) -> Pin | None:
        """
        Read the form that `to_checkpoint` returns; None for an empty one.

        :raises msgspec.ValidationError: it has another shape.
        """
        files = msgspec.convert(kept, type=dict[str, str])
        return cls(files) if files else None


@frozen(kw_only=True, eq=False)
class Generation:
    """
    Everything that serves one accepted manifest.

    :ivar number: from 1; never goes back.
    :ivar interpreter: held for the generation itself, beside what its bindings hold.
    :ivar targets: where its deliveries go.
    :ivar definitions: those of the manifest.
    :ivar bindings: those in force, an earlier version where a ramp was aborted.
    :ivar connectors: one for each trigger; each held once.
    :ivar ramps: of the triggers whose deliveries two versions share.
    :ivar since: when it was adopted (seconds, Unix).
    :ivar recalled: the earlier generation whose content it is; None when it was read from files.
    :ivar pin: of a recalled one: the files that it replaced.
    :ivar reason: why it was adopted; empty where the request gave no reason.
    :ivar split_from: of one that this server alone adopted: the number of the last one that it shared with the others
        on its store; None of one that all adopted.
    """

    number: int
    inputs: Inputs
    interpreter: Shared[IInterpreter]
    targets: GenerationTargets
    definitions: Mapping[str, Definition]
    bindings: dict[str, BindingVersion]
    connectors: dict[str, Shared[RunningConnector]]
    routes: dict[str, Route]
    tree: Any
    source: str
    actor: str
    since: float
    ramps: Mapping[str, Ramp] = field(factory=dict)
    recalled: int | None = None
    pin: Pin | None = None
    reason: str = ""
    split_from: int | None = None

    @property
    def shared_number(self) -> int:
        """The number of the last generation that all servers on the store adopted, as far as this one took part."""
        return self.number if self.split_from is None else self.split_from

    @property
    def digest(self) -> str:
        """The digest of all its inputs."""
        return self.inputs.digest


class Prepared(Struct, frozen=True, kw_only=True):
    """
    The result of the stages up to ``resolve``: enough to describe what a reload would do.

    :ivar outside: the handlers that are not local functions, each with the first trigger that names it.
    """

    inputs: Inputs
    interpreter: Shared[IInterpreter]
    definitions: Mapping[str, Definition]
    plan: Plan
    outside: Mapping[str, str]


@frozen(kw_only=True, eq=False)
class Candidate:
    """
    The next generation, ready to be adopted, and what adopting it replaces.

    :ivar plan: the changes to the bindings.
    :ivar numbered: ids of those that get a new version number; at a start the others keep the number that is in the
        store.
    :ivar new_connectors: those whose gates open.
    :ivar replaced_connectors: those that it releases.
    :ivar ended: live binding versions that are not in it.
    :ivar ended_by_key: ``ended`` by key, for the one that watches their drain.
    :ivar ended_by_id: ``ended`` by trigger id, for the registry: of two of one trigger the later.
    :ivar alerting: those of the changed triggers that have alerts of their own.
    :ivar scheduled: those of them that have a schedule.
    :ivar allowing: those of them that name who may send. Found in a thread: looking at ten thousand takes milliseconds.
    :ivar fresh: its new versions.
    :ivar reinterpreted: unchanged ones that run in its interpreter from now on.
    :ivar numbers: the numbers of versions that were given once it is adopted.
    :ivar rollouts: the rollout of each ramp that begins with it, by trigger id.
    :ivar alert_secrets: values that sending its alerts needs, by reference.
    """

    generation: Generation
    plan: Plan
    numbered: tuple[str, ...]
    new_connectors: tuple[Shared[RunningConnector], ...]
    replaced_connectors: tuple[Shared[RunningConnector], ...]
    ended: tuple[BindingVersion, ...]
    ended_by_key: dict[str, BindingVersion]
    ended_by_id: dict[str, BindingVersion]
    fresh: FreshVersions
    reinterpreted: tuple[BindingVersion, ...]
    numbers: VersionNumbers
    rollouts: Mapping[str, RolloutSpec] = field(factory=dict)
    alerting: tuple[str, ...] = ()
    scheduled: tuple[str, ...] = ()
    allowing: tuple[str, ...] = ()
    alert_secrets: Mapping[str, bytes] = field(factory=dict, repr=False)


SPLIT = "split_from"
"""The field of a `GenerationSummary` that only a generation has which one server of several adopted alone."""
WITHDRAWN = ""
"""The digest of a generation that was reserved and then failed: its number was never used."""


class Adoption(Struct, frozen=True):
    """When a generation was adopted first (seconds, Unix), by which credential, and what asked for it."""

    source: str
    actor: str
    at: float


class LastGeneration(Struct, frozen=True):
    """
    The last generation of the store that may have served.

    :ivar number: the highest that may have served; 0 for none.
    :ivar digest: the digest of that one, if it is known to have served.
    :ivar adoption: when and how that one was adopted, if it is known to have served.
    """

    number: int = 0
    digest: str | None = None
    adoption: Adoption | None = None

    @classmethod
    async def of(cls, generations: IGenerations) -> LastGeneration:
        """Read it from the store."""
        last = await generations.last()
        if last is not None and last.digest == WITHDRAWN:
            adopted = await generations.history(1)
            last = adopted[0] if adopted else None
        if last is None:
            return cls()
        # One that was only reserved may have served without a record of it, and one from before there was an archive
        # cannot be rolled back to: in both cases the next generation gets a number above it.
        # One that a server adopted alone is not continued either: others begin with what all adopted.
        if last.adopted_at is None or not last.manifest_digest or SPLIT in last.summary:
            return cls(last.number)
        return cls(last.number, last.digest, Adoption(last.source, last.actor, last.adopted_at))


class VersionNumbers:
    """Gives version numbers that never go back, over any number of restarts."""

    def __init__(self, known: Mapping[str, LiveBinding]) -> None:
        self._known = dict(known)

    def kept(self, definition: Definition) -> int | None:
        """Return the number that the trigger had before the start, if its definition is still the same."""
        known = self._known.get(definition.spec.id)
        return known.version if known is not None and known.fingerprint == definition.fingerprint else None

    def keeps(self, definitions: Iterable[Definition]) -> bool:
        """Return whether every trigger keeps the number that it had before the start."""
        return all(self.kept(definition) is not None for definition in definitions)

    def newest(self, trigger_id: str) -> int:
        """Return the highest number that the trigger was given; 0 for none."""
        known = self._known.get(trigger_id)
        return 0 if known is None else known.version

    def following(self, trigger_id: str) -> int:
        """Return the number for a new definition of the trigger."""
        return self.newest(trigger_id) + 1

    def raised(self, bindings: Iterable[BindingVersion]) -> VersionNumbers:
        """Return the numbers once these bindings are in force: of each the greater one counts."""
        raised = VersionNumbers(self._known)
        for binding in bindings:
            known = self._known.get(binding.id)
            if known is not None and known.version >= binding.version:
                continue
            raised._known[binding.id] = LiveBinding(
                version=binding.version, fingerprint=binding.definition.fingerprint, bundle_id=binding.bundle_id
            )
        return raised


class DecidedVersions(VersionNumbers):
    """The version numbers as of a generation that another server proposes: those of its triggers are given."""

    def following(self, trigger_id: str) -> int:
        """Return the number that the proposing server has given to the trigger."""
        return self.newest(trigger_id)


class GivenNumbers:
    """
    The numbers of generations and versions that were given so far: those in the store, and those given since.

    :ivar versions: the highest number of a version, by trigger id.
    :ivar highest: the highest number of a generation, reserved or adopted.
    :ivar are_known: False when another program may have given some since; the next reload reads them again.
    """

    def __init__(self, generations: IGenerations) -> None:
        self._generations = generations
        self.versions, self.highest = VersionNumbers({}), 0
        self.are_known = True

    def adopted(self, candidate: Candidate) -> None:
        """Record the numbers of a generation that is live now, and of its new versions."""
        self.highest = max(self.highest, candidate.generation.number)
        self.versions = candidate.numbers

    async def read(self) -> LastGeneration:
        """
        Read the numbers from the store, at a start.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.versions = VersionNumbers(await self._generations.latest_bindings())
        last = await LastGeneration.of(self._generations)
        self.highest = last.number
        return last

    async def as_of(self, number: int) -> DecidedVersions:
        """
        Read the numbers of versions as of a generation that another server has reserved or adopted.

        :raises EventLogUnavailable: the store cannot be read.
        """
        return DecidedVersions(await self._generations.bindings_at(number))

    async def join(self, number: int) -> None:
        """
        Read the numbers again, at a start that continues a generation which other servers serve.

        What was reserved after that may not be adopted.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.versions = VersionNumbers(await self._generations.bindings_at(number))
        self.highest = number

    async def read_again(self, live: Generation | None) -> None:
        """
        Read the numbers again, after another program gave some and ended without serving.

        The generation that it reserved is withdrawn: its number was not used.

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
            versions = versions.raised(live.bindings.values())  # the store may have no record yet that these serve
        self.versions = versions
        self.highest = max(self.highest, number, (await LastGeneration.of(self._generations)).number)
        self.are_known = True
