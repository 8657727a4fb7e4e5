"""
The archive of earlier generations in the store. Their content is read to be shown, compared or adopted again. After a
restart, their binding versions are revived if they accepted deliveries that are unfinished.

A version is revived from its spec and its bundle in the store, not from files, and drains from the start. If it cannot
be revived, its deliveries go to the trigger's newest version, or become dead letters.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import Struct
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import GenerationUnknown, HarnError, StageFailed
from harn.manifest.model import TriggerSpec
from harn.model.references import FunctionReference
from harn.reload.changes import SourceDigests
from harn.reload.generation import SPLIT
from harn.reload.inputs import Inputs
from harn.reload.report import REVERT
from harn.reload.targets import Resolution, Targets
from harn.store.deliveries import Backlog
from harn.store.generations import BindingRecord, GenerationRecord, IGenerations
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.registry import Registry
from harn.vm.bundle import Bundle, decode_bundle
from harn.waiting import ReactorThreads
from harn.wire import digest_bytes

log = Logger(namespace="harn.reload")


MOST_KEPT = 1000
"""The largest number of generations that the manifest's settings allow to be kept."""
FAST = 1
"""The level of compression: a manifest of ten thousand triggers shrinks to a tenth in some milliseconds."""


@frozen(kw_only=True)
class ArchivedContent:
    """The content of one generation: everything but its secrets, which are never kept."""

    record: GenerationRecord
    manifest: bytes = field(repr=False)
    bundle: Bundle = field(repr=False)


def pack_manifest(text: bytes) -> bytes:
    """Encode a manifest's text for the store."""
    return zlib.compress(text, FAST)


def unpack_manifest(data: bytes) -> bytes:
    """
    Decode the bytes that `pack_manifest` returned.

    :raises ValueError: ``data`` cannot be decompressed.
    """
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"the manifest's text cannot be read: {error}") from error


def read_manifest_text(data: bytes, digest: str) -> bytes:
    """
    Decode a manifest's text from the store.

    :raises ValueError: the text is damaged: it cannot be decompressed, or its digest is not ``digest``.
    """
    text = unpack_manifest(data)
    if digest_bytes(text) != digest:
        raise ValueError("the manifest's text does not match its digest")
    return text


def read_kept_bundle(data: bytes, bundle_id: str) -> Bundle:
    """
    Decode a bundle from the store.

    :raises ValueError: the bundle is damaged: it cannot be decoded, or its id is not ``bundle_id``.
    """
    try:
        bundle = decode_bundle(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the sources cannot be read: {error}") from error
    if bundle.bundle_id != bundle_id:
        raise ValueError("the sources do not match their digest")
    return bundle


class Archive:
    """Reads earlier generations."""

    def __init__(self, generations: IGenerations, threads: ReactorThreads) -> None:
        self._generations = generations
        self._threads = threads

    async def content(self, number: int) -> ArchivedContent:
        """
        Return the content of a generation that served.

        :raises GenerationUnknown: no generation has that number, or its content is not kept or is damaged.
        :raises EventLogUnavailable: the store cannot be read.
        """
        record = await self._generations.generation(number)
        if record is None:
            raise GenerationUnknown(f"there is no generation {number}; {await self._kept()}")
        return await self._content_of(record)

    async def proposed(self, number: int) -> ArchivedContent:
        """Return the content of a generation that another server has reserved or adopted; see `content`."""
        last = await self._generations.last()
        if last is not None and last.number == number:
            return await self._content_of(last)
        return await self.content(number)

    async def _content_of(self, record: GenerationRecord) -> ArchivedContent:
        number = record.number
        packed = await self._generations.manifest(record.manifest_digest) if record.manifest_digest else None
        encoded = await self._generations.bundle(record.bundle_id)
        if packed is None or encoded is None:
            raise GenerationUnknown(f"the content of generation {number} is not kept; {await self._kept()}")
        try:
            manifest = await self._threads.call(read_manifest_text, packed, record.manifest_digest)
            bundle = await self._threads.call(read_kept_bundle, encoded, record.bundle_id)
        except ValueError as error:
            raise GenerationUnknown(f"the content of generation {number} is damaged: {error}") from error
        return ArchivedContent(record=record, manifest=manifest, bundle=bundle)

    async def before(self, number: int, inputs: Inputs) -> int:
        """
        Return the newest generation before ``number`` whose manifest or code differs from that of ``inputs``.

        Secrets are not compared, since they are never kept. If the live generation was adopted by an automatic revert,
        only generations before the restored one count. A generation that one server adopted alone never counts.

        :raises GenerationUnknown: no such generation is kept.
        """
        content = inputs.manifest.digest, inputs.bundle.bundle_id
        for record in await self._generations.history(MOST_KEPT):  # newest first
            kept = record.manifest_digest, record.bundle_id
            if kept == content:
                if record.source == REVERT and record.recalled is not None:
                    number = min(number, record.recalled)
            elif record.number < number and record.manifest_digest and SPLIT not in record.summary:
                return record.number
        raise GenerationUnknown(f"no generation before {number} with another content is kept; {await self._kept()}")

    async def newest_adopted(self) -> Sequence[GenerationRecord]:
        """
        Return a sequence of one record: the generation that all servers on the store adopted last.

        :raises GenerationUnknown: no generation was adopted so far.
        """
        for limit in (1, MOST_KEPT):
            found = [each for each in await self._generations.history(limit) if SPLIT not in each.summary]
            if found:
                return found[:1]
        raise GenerationUnknown("no generation was adopted so far")

    async def newest(self) -> int:
        """
        Return the number of the newest generation whose content is kept.

        :raises GenerationUnknown: the content of no generation is kept.
        """
        for record in await self._generations.history(MOST_KEPT):
            if record.manifest_digest and SPLIT not in record.summary:
                return record.number
        raise GenerationUnknown("no generation is kept that could serve")

    async def _kept(self) -> str:
        numbers = sorted(
            record.number for record in await self._generations.history(MOST_KEPT) if record.manifest_digest
        )
        return f"kept are: {', '.join(map(str, numbers[-20:]))}" if numbers else "none is kept"


PATIENCE = 30.0
"""Seconds that the code of an earlier version may take to load."""
_TOO_SLOW = f"its code did not load in {PATIENCE} s"


def needed(backlog: Iterable[Backlog], registry: Registry) -> list[tuple[str, int]]:
    """
    Return the versions (trigger id, number) that must be revived.

    They are not in the registry, and have deliveries that are ready, or retries of a trigger that was removed.
    """
    return [
        (entry.trigger_id, entry.version)
        for entry in backlog
        if registry.get(entry.trigger_id, entry.version) is None
        and (entry.ready or entry.trigger_id not in registry.active)
    ]


class Readable(Struct, frozen=True):
    """
    A version that was read from the store and has no interpreter so far.

    :ivar references: the functions that its interpreter must have resolved.
    """

    binding: BindingVersion
    references: frozenset[FunctionReference]


class Reviver:
    """
    Revives earlier binding versions and adds them to the registry as draining versions.

    :param reactor: an `IReactorTime` and `IReactorThreads`.
    :param wall: the source of time stamps; ``reactor`` if None.
    """

    def __init__(
        self,
        reactor: Any,
        generations: IGenerations,
        resolution: Resolution,
        targets: Targets,
        registry: Registry,
        wall: WallTime | None = None,
    ) -> None:
        self._reactor = reactor
        self._wall: WallTime = wall or reactor
        self._generations = generations
        self._resolution = resolution
        self._targets = targets
        self._registry = registry

    async def revive(
        self, backlog: Iterable[Backlog], closed: Collection[tuple[str, int]] = ()
    ) -> list[BindingVersion]:
        """
        Revive the versions that ``backlog`` needs, and add them to the registry.

        :param closed: versions (trigger id, number) that may begin no further delivery, and are not revived.
        :return: the versions that drain from now on, each leased once; the caller releases these leases after the
            deliveries have their own.
        """
        entries = list(backlog)
        by_key = await self.versions([each for each in needed(entries, self._registry) if each not in closed])
        for binding in by_key.values():
            binding.lease()
            self._registry.drain(binding, self._wall.seconds())
        return list(by_key.values())

    async def versions(self, keys: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], BindingVersion]:
        """
        Revive versions (trigger id, number) that are not in the registry; each bundle is loaded once.

        Versions that cannot be revived are left out, with a warning in the log.

        :raises EventLogUnavailable: the store cannot be read; no interpreter or destination stays held.
        """
        records: list[BindingRecord] = list(await self._generations.bindings(keys)) if keys else []
        by_bundle: dict[str, list[BindingRecord]] = {}
        for record in records:
            by_bundle.setdefault(record.bundle_id, []).append(record)
        for trigger_id, version in set(keys).difference((record.trigger_id, record.version) for record in records):
            _not_revived(trigger_id, version, "it is not in the store")
        made: dict[tuple[str, int], BindingVersion] = {}
        try:
            for bundle_id, group in by_bundle.items():
                await self._of_bundle(bundle_id, group, made)
        except BaseException:
            for binding in made.values():
                if binding.destination is not None:
                    binding.destination.release()
            raise
        return {key: made[key] for key in keys if key in made}

    async def _of_bundle(
        self, bundle_id: str, records: Collection[BindingRecord], made: dict[tuple[str, int], BindingVersion]
    ) -> None:
        """Revive the versions of one bundle and add them to ``made``."""
        try:
            bundle, readable, unreadable = await self._read(bundle_id, records)
        except (HarnError, LookupError, ValueError) as error:
            for record in records:
                _not_revived(record.trigger_id, record.version, str(error))
            return
        for record, why in unreadable:
            _not_revived(record.trigger_id, record.version, why)
        # Grouped by modules: a module that does not load is tried once, and fails only the versions that need it.
        by_modules: dict[frozenset[str], list[Readable]] = {}
        for each in readable:
            by_modules.setdefault(frozenset(name.module for name in each.references), []).append(each)
        hangs = False
        for group in by_modules.values():
            if not hangs:
                hangs = await self._load(bundle, group, made)
            else:
                _none_revived(group, _TOO_SLOW)

    async def _read(
        self, bundle_id: str, records: Collection[BindingRecord]
    ) -> tuple[Bundle, list[Readable], list[tuple[BindingRecord, str]]]:
        """
        Read the bundle and its versions from the store, in a thread; see `_read_versions`.

        :raises LookupError: the bundle is not in the store.
        :raises HarnError, ValueError: the bundle cannot be read.
        """
        data = await self._generations.bundle(bundle_id)
        if data is None:
            raise LookupError(f"bundle {bundle_id} is not in the store")
        pool = self._reactor.getThreadPool()
        reading: Deferred[Any] = deferToThreadPool(self._reactor, pool, _read_versions, data, bundle_id, records)
        return await reading  # type: ignore[no-any-return]  # of `_read_versions`

    async def _load(
        self, bundle: Bundle, group: Sequence[Readable], made: dict[tuple[str, int], BindingVersion]
    ) -> bool:
        """Load the code of versions that need the same modules; return whether that took too long."""
        wanted = frozenset[FunctionReference]().union(*(each.references for each in group))
        reviving = Deferred.fromCoroutine(self._resolution.revive(bundle, wanted))
        try:
            shared = await reviving.addTimeout(PATIENCE, self._reactor)
        except TimeoutError:
            _none_revived(group, _TOO_SLOW)
            return True
        except (HarnError, LookupError, ValueError) as error:
            _none_revived(group, str(error))
            return False
        for each in group:
            binding = each.binding
            try:
                binding.destination = await self._targets.hold(binding, shared)
            except StageFailed as error:
                _not_revived(binding.id, binding.version, str(error))
                continue
            made[binding.id, binding.version] = binding
        shared.release()  # each version holds the interpreter itself now
        return False


def _read_versions(
    data: bytes, bundle_id: str, records: Collection[BindingRecord]
) -> tuple[Bundle, list[Readable], list[tuple[BindingRecord, str]]]:
    """
    Read the versions of one bundle. Takes long, so it runs in a thread.

    :return: the bundle, the versions, and the records of versions that cannot be read, each with the reason.
    :raises ValueError: the bundle is damaged.
    """
    bundle = read_kept_bundle(data, bundle_id)
    code = SourceDigests(bundle)
    readable: list[Readable] = []
    unreadable: list[tuple[BindingRecord, str]] = []
    for record in records:
        try:
            spec = msgspec.json.decode(record.spec, type=TriggerSpec)
            definition = Definition.of(
                spec,
                digest_bytes(record.spec),
                code.of(spec.handler),
                None if spec.when is None else code.of(spec.when),
            )
            binding = BindingVersion(definition, record.version, bundle_id)
        except (HarnError, LookupError, ValueError, msgspec.MsgspecError) as error:
            unreadable.append((record, str(error)))
            continue
        references = frozenset(name for name in (spec.handler_reference(), binding.predicate) if name is not None)
        readable.append(Readable(binding, references))
    return bundle, readable, unreadable


def _not_revived(trigger_id: str, version: int, why: str) -> None:
    log.warn(
        "{trigger}@v{version} cannot be revived; its deliveries go to the newest version: {error}",
        trigger=trigger_id,
        version=version,
        error=why,
    )


def _none_revived(group: Iterable[Readable], why: str) -> None:
    for each in group:
        _not_revived(each.binding.id, each.binding.version, why)
