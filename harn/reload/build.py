"""
The builder: puts the next generation together, stage by stage, beside the live one.

Everything that a stage acquires is put on the candidate's exit stack. A failure at any stage unwinds the stack; nothing
else has to be undone, since no stage changes anything live.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
from twisted.internet.task import deferLater
from zope.interface import implementer

from harn.connectors.catalog import Catalog
from harn.destinations.catalog import DestinationCatalog
from harn.errors import FilesUnsettled, ManifestInvalid, StageFailed
from harn.files import ADVICE, Noted
from harn.manifest.interfaces import PluginRules
from harn.manifest.load import LoadedManifest, load_manifest
from harn.manifest.partial import PartlyInvalid
from harn.manifest.source import ManifestSource, read_manifest
from harn.reload.archive import ArchivedContent, pack_manifest
from harn.reload.changes import compare
from harn.reload.connections import Connections, RunningConnector, needing_connectors
from harn.reload.generation import WITHDRAWN, Candidate, Generation, Prepared
from harn.reload.inputs import ExternalInputs, Inputs, current_digests, read_inputs
from harn.reload.reader import FileReader
from harn.reload.results import ChangeCounts, GenerationSummary
from harn.reload.runs import IWork, Stages
from harn.reload.targets import GenerationTargets, Resolution, Targets
from harn.store.generations import BindingRecord, GenerationRecord, IGenerations
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.registry import SLICE
from harn.vm.bundle import Bundle, encode_bundle
from harn.vm.interfaces import PendingImport
from harn.waiting import ReactorThreads

T = TypeVar("T")

LONGEST_UNSETTLED = 1.0
"""Seconds after which reading gives up on files that change while they are read."""
PAUSE = 0.02
"""Seconds between two readings of files that change."""
STARTING = 5.0
"""The shortest time limit of a stage in seconds while no generation serves: the first interpreter must start."""
MOST_NAMED = 100
"""The largest number of added, of modified and of removed triggers that a generation's record names."""


@implementer(IWork)
class Builder:
    """
    Builds candidates.

    :param files: reads files; its reactor is used for threads and processes, too.
    :param manifest_path: the absolute path of the manifest.
    :param manifest_name: the path of the manifest as the operator typed it.
    :ivar threads: runs functions that read no file.
    """

    def __init__(
        self,
        files: FileReader,
        manifest_path: str,
        manifest_name: str,
        external: ExternalInputs,
        resolution: Resolution,
        connections: Connections,
        targets: Targets,
    ) -> None:
        self.files = files
        self._reactor = files.reactor
        self.threads = ReactorThreads(files.reactor)
        self._manifest_path = manifest_path
        self._manifest_name = manifest_name
        self.external = external
        self.resolution = resolution
        self.connections = connections
        self.targets = targets

    async def close(self) -> None:
        """Wait until the connectors are closed, then close the destinations and the file reader."""
        await self.connections.pool.idle()
        await self.targets.close()
        self.files.close()

    async def beside(self, count: int, function: Callable[..., T], /, *arguments: Any) -> T:
        """
        Call a function that reads no file; in a thread if it would block the reactor for long.

        :param count: the number of triggers that the function iterates over.
        """
        return function(*arguments) if count <= SLICE else await self.threads.call(function, *arguments)

    async def files_now(self, inputs: Inputs) -> Mapping[str, str]:
        """Return the digests of the current content of the files of ``inputs``, by path."""
        return await self._digests(inputs.files, inputs.plain_files)

    async def plain_files_now(self, paths: Collection[str]) -> Mapping[str, str]:
        """Return the digests of the current content of manifests and sources, which hold no secrets, by path."""
        return await self._digests(paths, paths)

    async def _digests(self, paths: Collection[str], plain: Collection[str]) -> Mapping[str, str]:
        files: Mapping[str, str] = await self.files.read(current_digests, tuple(paths), plain, self.external.hash_key)
        return files

    def doing(self) -> str:
        """Return the file or module that a stage waits for; empty if it waits for neither."""
        return self.files.doing() or self.resolution.doing()

    def importing(self) -> PendingImport | None:
        """Return the import that a stage waits for; None if it waits for no import."""
        return None if self.files.doing() else self.resolution.importing()

    async def read_settled(
        self, stages: Stages, previous: Inputs | None, content: ArchivedContent | None = None
    ) -> tuple[ManifestSource, Inputs]:
        """
        Read, parse and check the manifest, and read all files that it names, with their content at one moment.

        :param previous: the live inputs; their unchanged parts are not analysed again.
        :param content: the content of an earlier generation, used instead of the manifest's and the sources' files.
        :raises ManifestInvalid: stage ``parse``, ``validate`` or ``resolve`` found problems.
        :raises FilesUnsettled: the files changed during each reading for `LONGEST_UNSETTLED` seconds.
        :raises StageFailed: a stage failed otherwise.
        """
        clock = self._reactor
        ends_at, listings = clock.seconds() + LONGEST_UNSETTLED, True
        while True:
            noted = Noted(settle=self.external.settle, clock=clock)
            read: tuple[ManifestSource, Inputs] | None = None
            wrong: ManifestInvalid | None = None
            try:
                read = await self._read(stages, previous, content, noted)
            except ManifestInvalid as error:
                wrong = error
            changed = await stages.run(stages.current, self._changed(noted, listings=listings and wrong is not None))
            if not changed and wrong is not None:
                raise wrong
            if not changed and read is not None:
                return read
            listings = False  # a directory may keep changing for other reasons
            if clock.seconds() >= ends_at:
                raise FilesUnsettled(stages.current, keeps_changing(changed))
            await deferLater(clock, PAUSE)

    async def _read(
        self, stages: Stages, previous: Inputs | None, content: ArchivedContent | None, noted: Noted
    ) -> tuple[ManifestSource, Inputs]:
        source = await stages.run("parse", self._source(content, noted))
        known = None if previous is None else previous.loaded
        bundle = None if content is None else content.bundle
        try:
            loaded = await stages.run("parse", load_manifest(source, known, self.rules(), self._reactor))
        except PartlyInvalid as error:
            raise await self._with_what_they_name(stages, error, bundle, noted) from None
        timeout = loaded.manifest.orchestrator.reload.timeout
        stages.timeout = timeout if previous is not None else max(STARTING, timeout)
        return source, await stages.run("resolve", self._inputs(loaded, previous, bundle, noted))

    async def _with_what_they_name(
        self, stages: Stages, error: PartlyInvalid, bundle: Bundle | None, noted: Noted
    ) -> ManifestInvalid:
        """Return the error, with the problems of the secrets and modules that the usable triggers name added."""
        try:
            await stages.run("parse", self._inputs(error.usable, None, bundle, noted))
        except ManifestInvalid as others:
            return error.with_problems(others.problems)
        except StageFailed:  # the error's own problems are reported without the others
            pass
        return error

    async def _changed(self, noted: Noted, *, listings: bool) -> Sequence[str]:
        wait = noted.wait()
        if wait > 0:
            await deferLater(self._reactor, wait)
        changed: Sequence[str] = await self.files.read(lambda: noted.changed(listings=listings), noted=noted)
        return changed

    async def _source(self, content: ArchivedContent | None, noted: Noted) -> ManifestSource:
        """Read the manifest's text from its file, or take it from ``content`` of an earlier generation."""
        if content is not None:
            shown = f"{self._manifest_name} of generation {content.record.number}"
            return ManifestSource.of(self._manifest_path, content.manifest, shown)
        source: ManifestSource = await self.files.read(
            read_manifest, self._manifest_path, self._manifest_name, noted=noted
        )
        return source

    def rules(self) -> PluginRules:
        """Return the rules of the installed plugins for a manifest."""
        return PluginRules(self.connections.catalog.providers, self.targets.catalog.schemes)

    async def _inputs(
        self, loaded: LoadedManifest, previous: Inputs | None, bundle: Bundle | None, noted: Noted
    ) -> Inputs:
        """Read everything else that the generation is made of; its code only if ``bundle`` is None."""
        inputs: Inputs = await self.files.read(
            read_inputs, loaded, self.external, previous, bundle, what="sources and secrets", noted=noted
        )
        return inputs

    async def resolve(
        self, inputs: Inputs, live: Generation | None, stack: AsyncExitStack, *, afresh: bool, spare: bool = True
    ) -> Prepared:
        """
        Resolve every function, and reconcile the definitions with the live ones.

        :param afresh: if True, an interpreter that serves already is not used.
        :param spare: whether the warm spare may be used for a fresh interpreter.
        :raises ManifestInvalid: stage ``resolve`` found problems.
        """
        interpreter = await self.resolution.resolve(inputs, stack, afresh=afresh, spare=spare)
        known = {} if live is None else live.definitions
        definitions, plan, outside = await self.threads.call(compare, inputs, known)
        return Prepared(inputs=inputs, interpreter=interpreter, definitions=definitions, plan=plan, outside=outside)

    async def connect(
        self, prepared: Prepared, live: Generation | None, stack: AsyncExitStack
    ) -> dict[str, Shared[RunningConnector]]:
        """
        Prepare the connectors that are new.

        :raises StageFailed: stage ``prepare`` failed.
        """
        inputs = prepared.inputs
        known = None if live is None else live.inputs
        needing = await self.beside(len(inputs.manifest.triggers), needing_connectors, inputs, prepared.plan, known)
        if not self.external.with_secrets:
            needing = [trigger_id for trigger_id in needing if not inputs.manifest.triggers[trigger_id].secrets]
        return await self.connections.prepare(inputs, needing, stack)

    async def aim(self, prepared: Prepared, stack: AsyncExitStack) -> GenerationTargets:
        """
        Prepare the destinations that are new.

        :raises StageFailed: stage ``prepare`` failed.
        """
        return await self.targets.prepare(prepared.outside, prepared.inputs, prepared.interpreter, stack)

    async def reserve(
        self, generations: IGenerations, candidate: Candidate, text: bytes, live: Generation | None, changed: Plan
    ) -> None:
        """
        Store the candidate's numbers and content durably. If the disk is full, the reload fails here.

        :param text: the bytes of the manifest.
        :param changed: the changes that the history records for the candidate.
        :raises EventLogUnavailable: the store cannot be written, and is unchanged.
        """
        known = None if live is None else live.inputs
        await generations.reserve(*await self.threads.call(_reservation, candidate, text, known, changed))

    async def withdraw(self, generations: IGenerations, candidate: Candidate) -> None:
        """
        Mark the numbers that `reserve` stored as not used, for a candidate that failed afterwards.

        :raises EventLogUnavailable: the numbers stay reserved.
        """
        generation = candidate.generation
        record = GenerationRecord(
            number=generation.number,
            digest=WITHDRAWN,
            bundle_id=generation.inputs.bundle.bundle_id,
            source=generation.source,
            actor=generation.actor,
        )
        await generations.reserve(record, None)


def keeps_changing(paths: Collection[str]) -> str:
    """Return the message that names the files that keep changing, and says what to do."""
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    what = f"{min(paths)}{more}" if paths else "what the manifest needs"
    return f"{what} keeps changing: no two readings were equal; {ADVICE}"


def _reservation(
    candidate: Candidate, text: bytes, known: Inputs | None, changed: Plan
) -> tuple[GenerationRecord, bytes | None, bytes | None]:
    """
    Return a candidate's record, its encoded bundle and its encoded manifest.

    The bundle or manifest is None if it is the one of ``known``, which is stored already.
    """
    inputs = candidate.generation.inputs
    encoded = packed = None
    if known is None or known.bundle.bundle_id != inputs.bundle.bundle_id:
        encoded = encode_bundle(inputs.bundle)
    if known is None or known.manifest.digest != inputs.manifest.digest:
        packed = pack_manifest(text)
    return _generation_record(candidate, changed), encoded, packed


def _generation_record(candidate: Candidate, changed: Plan) -> GenerationRecord:
    """Return the record of a candidate's generation, with its new definitions encoded for the store."""
    generation = candidate.generation
    encode = msgspec.json.Encoder().encode
    return GenerationRecord(
        number=generation.number,
        digest=generation.digest,
        bundle_id=generation.inputs.bundle.bundle_id,
        source=generation.source,
        actor=generation.actor,
        bindings=tuple(
            BindingRecord(
                trigger_id=trigger_id,
                version=generation.bindings[trigger_id].version,
                fingerprint=generation.definitions[trigger_id].fingerprint,
                generation=generation.number,
                bundle_id=generation.inputs.bundle.bundle_id,
                spec=encode(generation.bindings[trigger_id].spec),
            )
            for trigger_id in candidate.numbered
        ),
        removed=changed.removed,
        manifest_digest=generation.inputs.manifest.digest,
        recalled=generation.recalled,
        reason=generation.reason,
        summary=msgspec.to_builtins(_with_split(summarize(changed), generation)),
    )


def _with_split(summary: GenerationSummary, generation: Generation) -> GenerationSummary:
    if generation.split_from is None:
        return summary
    return msgspec.structs.replace(summary, split_from=generation.split_from)


def summarize(plan: Plan) -> GenerationSummary:
    """Return for the history the numbers of triggers that a generation changed, and the first of these triggers."""
    return GenerationSummary(
        added=plan.added[:MOST_NAMED],
        modified=plan.modified[:MOST_NAMED],
        removed=plan.removed[:MOST_NAMED],
        counts=ChangeCounts(
            added=len(plan.added),
            modified=len(plan.modified),
            removed=len(plan.removed),
            unchanged=len(plan.unchanged),
        ),
        changes={trigger_id: tuple(plan.changes.get(trigger_id, ())) for trigger_id in plan.modified[:MOST_NAMED]},
    )


def installed_rules() -> PluginRules:
    """Find every plugin, and return the rules of the usable ones."""
    return PluginRules(Catalog.discover().providers, DestinationCatalog.discover().schemes)
