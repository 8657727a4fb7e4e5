"""
A generation: everything that serves one accepted manifest. It is put together as a whole before it is adopted, and
never changed.

It holds no secret values and no reference to its owner, so dropping the last reference to it frees it without the cycle
collector. The highest numbers that were given to generations and to each trigger's versions are kept in memory, too.
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
    The pin that keeps the server on an earlier generation after a rollback or an automatic revert.

    The files differ from that generation on purpose. As long as their content stays the same, neither the watcher nor a
    restart adopts them. A requested reload ends the pin, and so does any change of these files.

    :ivar files: the digests, by path, that manifest and modules had when the earlier generation was adopted again.
    """

    files: Mapping[str, str]

    def holds(self, content: Mapping[str, str]) -> bool:
        """Return whether files with these digests (by path) are unchanged since the pin was set."""
        return all(content.get(path) == digest for path, digest in self.files.items())

    def to_checkpoint(self) -> dict[str, str]:
        """Return the form in which the store keeps the pin."""
        return dict(self.files)

    @classmethod
    def from_checkpoint(cls, kept: Any) -> Pin | None:
        """
        Return the pin from the form that `to_checkpoint` returns; None for an empty form.

        :raises msgspec.ValidationError: ``kept`` has another shape.
        """
        files = msgspec.convert(kept, type=dict[str, str])
        return cls(files) if files else None


@frozen(kw_only=True, eq=False)
class Generation:
    """
    Everything that serves one accepted manifest.

    :ivar number: the number of the generation, from 1; later generations have higher numbers.
    :ivar interpreter: the interpreter, held once for the generation itself; its bindings have holds of their own.
    :ivar targets: the destinations of its deliveries.
    :ivar definitions: the definitions of the manifest, by trigger id.
    :ivar bindings: the versions in force, by trigger id; after an aborted ramp, an earlier version than the manifest's.
    :ivar connectors: the connector of each trigger, by trigger id; the generation holds each once.
    :ivar ramps: the ramps of the triggers whose deliveries two versions share, by trigger id.
    :ivar since: when it was adopted (seconds, Unix).
    :ivar recalled: the earlier generation whose content it has; None if the content was read from files.
    :ivar pin: the pin on the files that a recalled generation replaced; None if the content was read from files.
    :ivar reason: the reason in the request; empty if the request gave none.
    :ivar split_from: if this server alone adopted it, the number of the last generation that it shared with the other
        servers on its store; None if all adopted it.
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
        """The number of the last generation that all servers on the store, this one included, adopted."""
        return self.number if self.split_from is None else self.split_from

    @property
    def digest(self) -> str:
        """The digest of all inputs of the generation."""
        return self.inputs.digest


class Prepared(Struct, frozen=True, kw_only=True):
    """
    The result of the stages up to ``resolve``, from which the changes of a reload can be described.

    :ivar definitions: the definitions of the manifest, by trigger id.
    :ivar plan: the changes of triggers.
    :ivar outside: the first trigger that names each handler which is not a local function, by handler.
    """

    inputs: Inputs
    interpreter: Shared[IInterpreter]
    definitions: Mapping[str, Definition]
    plan: Plan
    outside: Mapping[str, str]


@frozen(kw_only=True, eq=False)
class Candidate:
    """
    The next generation, ready to be adopted, and the live versions and connectors that it replaces.

    ``alerting``, ``scheduled`` and ``allowing`` are found in a thread: searching ten thousand triggers takes
    milliseconds.

    :ivar plan: the changes to the bindings.
    :ivar numbered: the ids of the triggers that get a new version number; at a start, the others keep the number in the
        store.
    :ivar new_connectors: the new connectors, whose gates open.
    :ivar replaced_connectors: the live connectors that are stopped and released.
    :ivar ended: the live binding versions that are not in the next generation.
    :ivar ended_by_key: ``ended`` by key, for `Drains`.
    :ivar ended_by_id: ``ended`` by trigger id, for the registry; of two versions of a trigger, the later in ``ended``.
    :ivar fresh: the new binding versions.
    :ivar reinterpreted: the unchanged binding versions that run in its interpreter from now on.
    :ivar numbers: the version numbers given once it is adopted.
    :ivar rollouts: the rollout of each ramp that begins with it, by trigger id.
    :ivar alerting: the ids of the changed triggers that have alerts of their own.
    :ivar scheduled: the ids of the changed triggers that have a schedule.
    :ivar allowing: the ids of the changed triggers that restrict who may send.
    :ivar alert_secrets: the values of the secrets that sending its alerts needs, by reference.
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
"""The field of a `GenerationSummary` that is set only if one of several servers adopted the generation alone."""
WITHDRAWN = ""
"""The digest of a generation that was reserved and then failed: its number was never used."""


class Adoption(Struct, frozen=True):
    """
    The first adoption of a generation.

    :ivar source: the source of the request, for example ``cli``.
    :ivar actor: the name of the credential, ``signal`` or ``watch``.
    :ivar at: seconds, Unix.
    """

    source: str
    actor: str
    at: float


class LastGeneration(Struct, frozen=True):
    """
    The last generation of the store that may have served.

    :ivar number: the highest number of a generation that may have served; 0 for none.
    :ivar digest: the digest of that generation; None unless it is known to have served.
    :ivar adoption: the adoption of that generation; None unless it is known to have served.
    """

    number: int = 0
    digest: str | None = None
    adoption: Adoption | None = None

    @classmethod
    async def of(cls, generations: IGenerations) -> LastGeneration:
        """Read the last generation from the store."""
        last = await generations.last()
        if last is not None and last.digest == WITHDRAWN:
            adopted = await generations.history(1)
            last = adopted[0] if adopted else None
        if last is None:
            return cls()
        # A generation that was only reserved may have served without a record, and one that is older than the archive
        # has no content to roll back to: in both cases the next generation gets a higher number.
        # A generation that one server adopted alone is not continued: others begin with the one that all adopted.
        if last.adopted_at is None or not last.manifest_digest or SPLIT in last.summary:
            return cls(last.number)
        return cls(last.number, last.digest, Adoption(last.source, last.actor, last.adopted_at))


class VersionNumbers:
    """Gives version numbers that never go back, over any number of restarts."""

    def __init__(self, known: Mapping[str, LiveBinding]) -> None:
        self._known = dict(known)

    def kept(self, definition: Definition) -> int | None:
        """Return the version number that the trigger had before the start; None if its definition has changed."""
        known = self._known.get(definition.spec.id)
        return known.version if known is not None and known.fingerprint == definition.fingerprint else None

    def keeps(self, definitions: Iterable[Definition]) -> bool:
        """Return whether every trigger keeps the version number that it had before the start."""
        return all(self.kept(definition) is not None for definition in definitions)

    def newest(self, trigger_id: str) -> int:
        """Return the highest version number of the trigger; 0 if it has no version."""
        known = self._known.get(trigger_id)
        return 0 if known is None else known.version

    def following(self, trigger_id: str) -> int:
        """Return the version number for a new definition of the trigger."""
        return self.newest(trigger_id) + 1

    def raised(self, bindings: Iterable[BindingVersion]) -> VersionNumbers:
        """Return the numbers after these bindings are in force; the higher number of each trigger counts."""
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
    """The version numbers as of a generation that another server proposes, which has set those of its triggers."""

    def following(self, trigger_id: str) -> int:
        """Return the version number that the proposing server has given to the trigger."""
        return self.newest(trigger_id)


class GivenNumbers:
    """
    The numbers of generations and versions that were given so far, in the store or by this program since.

    :ivar versions: the highest version number of each trigger.
    :ivar highest: the highest number of a generation, reserved or adopted.
    :ivar are_known: False if another program may have given numbers since; the next reload reads them again.
    """

    def __init__(self, generations: IGenerations) -> None:
        self._generations = generations
        self.versions, self.highest = VersionNumbers({}), 0
        self.are_known = True

    def adopted(self, candidate: Candidate) -> None:
        """Record the numbers of a generation that was just adopted, and of its new versions."""
        self.highest = max(self.highest, candidate.generation.number)
        self.versions = candidate.numbers

    async def read(self) -> LastGeneration:
        """
        Read the numbers from the store at a start, and return the last generation.

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
        Read the numbers again at a start that continues a generation which other servers serve.

        A generation that was reserved after it may never be adopted, and so is not counted.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.versions = VersionNumbers(await self._generations.bindings_at(number))
        self.highest = number

    async def read_again(self, live: Generation | None) -> None:
        """
        Read the numbers again after another program gave numbers and ended without serving.

        The generation that it reserved is withdrawn, since its number was not used.

        :raises EventLogUnavailable: the store cannot be read or written; the next reload tries again.
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
            versions = versions.raised(live.bindings.values())  # the store may not have recorded that these serve
        self.versions = versions
        self.highest = max(self.highest, number, (await LastGeneration.of(self._generations)).number)
        self.are_known = True
