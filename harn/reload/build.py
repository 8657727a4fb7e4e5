"""
The builder: puts the next generation together, stage by stage, beside the live one.

Whatever a stage acquires goes onto the candidate's exit stack; a failure at any stage unwinds it, and nothing live was
ever touched. Undo is not doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from attrs import frozen
from twisted.internet.threads import deferToThreadPool

from harn.connectors.catalog import Catalog
from harn.manifest.load import LoadedManifest, load_manifest
from harn.manifest.source import read_manifest
from harn.reload.connections import Connections, needing_connectors
from harn.reload.definitions import compare
from harn.reload.generation import Candidate, Generation, RunningConnector
from harn.reload.inputs import Inputs, Surroundings, read_inputs, without_secrets
from harn.reload.interfaces import IRouteTable
from harn.reload.numbers import WITHDRAWN, VersionNumbers
from harn.reload.report import ReloadRequest
from harn.reload.resolution import Resolution
from harn.store.interfaces import IGenerations
from harn.store.model import BindingRecord, GenerationRecord
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.route import Route
from harn.vm.interfaces import IInterpreter
from harn.vm.sources import encode_bundle


@frozen(kw_only=True)
class Prepared:
    """What the stages up to resolve gave: enough to say what a reload would do."""

    inputs: Inputs
    interpreter: Shared[IInterpreter]
    definitions: Mapping[str, Definition]
    plan: Plan


class Builder:
    """
    Builds candidates.

    :param reactor: for threads and processes.
    :param manifest_path: absolute; ``manifest_name``: as the operator typed it.
    """

    def __init__(
        self,
        reactor: Any,
        manifest_path: str,
        manifest_name: str,
        surroundings: Surroundings,
        catalog: Catalog,
        resolution: Resolution,
        connections: Connections,
    ) -> None:
        self._reactor = reactor
        self._manifest_path = manifest_path
        self._manifest_name = manifest_name
        self.surroundings = surroundings
        self._catalog = catalog
        self.resolution = resolution
        self.connections = connections

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    async def files_now(self, inputs: Inputs) -> Mapping[str, str]:
        """Digest the files of ``inputs`` as they read now."""
        files: Mapping[str, str] = await self._in_thread(inputs.files_now, self.surroundings.hash_key)
        return files

    async def load(self, previous: LoadedManifest | None) -> LoadedManifest:
        """
        Read, parse and validate the manifest.

        :raises ManifestInvalid: of stage ``parse`` or ``validate``.
        """
        source = await self._in_thread(read_manifest, self._manifest_path, self._manifest_name)
        return await load_manifest(source, previous, self._catalog.providers, self._reactor)

    async def read(self, loaded: LoadedManifest, live: Generation | None) -> Inputs:
        """
        Read everything else that the generation is made of.

        :raises ManifestInvalid: of stage ``resolve``.
        """
        previous = None if live is None else live.inputs
        inputs: Inputs = await self._in_thread(read_inputs, loaded, self.surroundings, previous)
        return inputs

    async def resolve(
        self, inputs: Inputs, live: Generation | None, stack: AsyncExitStack, *, afresh: bool
    ) -> Prepared:
        """
        Resolve every function, and reconcile with the live definitions.

        :raises ManifestInvalid: of stage ``resolve``.
        """
        interpreter = await self.resolution.resolve(inputs, stack, afresh=afresh)
        definitions, plan = await self._in_thread(compare, inputs, {} if live is None else live.definitions)
        return Prepared(inputs=inputs, interpreter=interpreter, definitions=definitions, plan=plan)

    async def connect(
        self, prepared: Prepared, live: Generation | None, stack: AsyncExitStack
    ) -> dict[str, Shared[RunningConnector]]:
        """
        Prepare the connectors that are new.

        :raises StageFailed: of stage ``prepare``.
        """
        inputs = prepared.inputs
        needing = needing_connectors(inputs, prepared.plan, None if live is None else live.inputs)
        return await self.connections.prepare(inputs, needing, stack)

    async def reserve(self, generations: IGenerations, candidate: Candidate, live: Generation | None) -> None:
        """
        Make the candidate's numbers durable. If the disk is full, the reload fails here.

        :raises EventLogUnavailable: nothing was written.
        """
        generation = candidate.generation
        bundle = generation.inputs.bundle
        known = live is not None and live.inputs.bundle.bundle_id == bundle.bundle_id
        record = await self._in_thread(_generation_record, candidate)
        encoded = None if known else await self._in_thread(encode_bundle, bundle)
        await generations.reserve(record, encoded)

    async def withdraw(self, generations: IGenerations, candidate: Candidate) -> None:
        """
        Take back what `reserve` made durable, for a candidate that failed after it.

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

    async def candidate(
        self,
        prepared: Prepared,
        connectors: Mapping[str, Shared[RunningConnector]],
        live: Generation | None,
        numbers: VersionNumbers,
        number: int,
        request: ReloadRequest,
        table: IRouteTable,
        now: float,
    ) -> Candidate:
        """
        Put the candidate together: bindings, routes, what it replaces. Waits for nothing; shows nothing outside.

        :param now: seconds, Unix.
        :raises StageFailed: of stage ``swap``: the table cannot be built.
        """
        plan, inputs = prepared.plan, prepared.inputs
        changed = {*plan.added, *plan.modified}
        live_bindings = {} if live is None else live.bindings
        live_connectors = {} if live is None else live.connectors
        # Copied whole and then edited: a copy of ten thousand entries costs less than a look at each.
        bindings, serving = live_bindings.copy(), live_connectors.copy()
        for trigger_id in plan.removed:
            del bindings[trigger_id], serving[trigger_id]
        for trigger_id in prepared.definitions if live is None else changed:
            definition = prepared.definitions[trigger_id]
            bindings[trigger_id] = _new_binding(definition, inputs, numbers, starting=live is None)
        serving.update(connectors)
        interpreter = prepared.interpreter
        keeps_interpreter = live is not None and live.interpreter is interpreter
        routes = {} if live is None else live.routes.copy()
        for trigger_id in (*plan.removed, *plan.modified):
            path = live_bindings[trigger_id].spec.path
            if path in routes and routes[path].binding.id == trigger_id:
                del routes[path]  # who takes requests is put in again below
        for trigger_id in (*changed, *(each for each in connectors if each not in changed)):
            binding, shared = bindings[trigger_id], serving[trigger_id]
            if shared.value.takes_requests:
                routes[binding.spec.path] = Route(
                    path=binding.spec.path,
                    binding=binding,
                    receiver=shared,
                    authentication=shared.value.authentication,
                )
        generation = Generation(
            number=number,
            inputs=without_secrets(inputs),
            interpreter=interpreter,
            definitions=prepared.definitions,
            bindings=bindings,
            connectors=serving,
            routes=routes,
            tree=table.build(routes, None if live is None else live.tree),
            source=request.source,
            actor=request.actor,
            since=now,
        )
        return Candidate(
            generation=generation,
            plan=plan,
            numbered=tuple(
                trigger_id
                for trigger_id in (*plan.added, *plan.modified)
                if live is not None or numbers.kept(prepared.definitions[trigger_id]) is None
            ),
            fresh=tuple(connectors.values()),
            replaced=tuple(
                live_connectors[trigger_id]
                for trigger_id in (*plan.removed, *connectors)
                if trigger_id in live_connectors
            ),
            ended=tuple(live_bindings[trigger_id] for trigger_id in (*plan.removed, *plan.modified)),
            reinterpreted=(
                tuple(bindings[trigger_id] for trigger_id in changed) if keeps_interpreter else tuple(bindings.values())
            ),
        )


def _new_binding(definition: Definition, inputs: Inputs, numbers: VersionNumbers, *, starting: bool) -> BindingVersion:
    kept = numbers.kept(definition) if starting else None
    version = numbers.following(definition.spec.id) if kept is None else kept
    return BindingVersion(definition, version, inputs.bundle.bundle_id)


def _generation_record(candidate: Candidate) -> GenerationRecord:
    """Encode the definitions that are new, for the store."""
    generation, plan = candidate.generation, candidate.plan
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
        removed=plan.removed,
    )
