"""
After a restart: earlier binding versions that accepted deliveries still need.

Each is put together again from the store, its spec and its bundle, not from disk, and drains from the start. One that
cannot be revived hands what it held to the trigger's newest version, or to the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.errors import HarnError
from harn.manifest.model import TriggerSpec
from harn.reload.inputs import code_digest_of
from harn.reload.resolution import Resolution
from harn.store.interfaces import IGenerations
from harn.store.model import Backlog, BindingRecord
from harn.triggers.binding import DRAINING, BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.registry import Registry
from harn.vm.interfaces import IInterpreter
from harn.vm.sources import decode_bundle
from harn.wire import digest_bytes

log = Logger(namespace="harn.reload")

PATIENCE = 30.0
"""Seconds that an earlier version's code may take to load."""


def needed(backlog: Iterable[Backlog], registry: Registry) -> list[tuple[str, int]]:
    """
    Name the versions that must be revived: not live, with deliveries that were accepted under them and never waited,
    or with retries of a trigger that is gone.
    """
    return [
        (entry.trigger_id, entry.version)
        for entry in backlog
        if registry.get(entry.trigger_id, entry.version) is None
        and (entry.ready or entry.trigger_id not in registry.active)
    ]


class Reviver:
    """Revives earlier versions into the registry, as draining ones."""

    def __init__(
        self, clock: IReactorTime, generations: IGenerations, resolution: Resolution, registry: Registry
    ) -> None:
        self._clock = clock
        self._generations = generations
        self._resolution = resolution
        self._registry = registry

    async def revive(self, backlog: Iterable[Backlog]) -> list[BindingVersion]:
        """
        Bring back what ``backlog`` needs, and take a lease for each of its ready deliveries.

        :return: the versions that drain from now on.
        """
        entries = list(backlog)
        keys = needed(entries, self._registry)
        records: list[BindingRecord] = list(await self._generations.bindings(keys)) if keys else []
        found = {(record.trigger_id, record.version): record for record in records}
        revived: list[BindingVersion] = []
        for key in keys:
            record = found.get(key)
            binding = None if record is None else await self._version(record)
            if binding is not None:
                revived.append(binding)
        by_key = {(binding.id, binding.version): binding for binding in revived}
        for entry in entries:
            self._registry.waiting[entry.trigger_id] += entry.waiting
            own = by_key.get((entry.trigger_id, entry.version))
            if own is not None:
                _take_over(own, entry)
        for binding in revived:
            self._registry.drain(binding, self._clock.seconds())
        for binding in revived:
            self._registry.check(binding)  # of a trigger that is gone, the retries keep the newest only
        for entry in entries:
            if (entry.trigger_id, entry.version) in by_key:
                continue
            holder = self._registry.get(entry.trigger_id, entry.version) or self._registry.newest(entry.trigger_id)
            if holder is not None:
                _take_over(holder, entry)
        return [binding for binding in revived if binding.state == DRAINING]

    async def version(self, trigger_id: str, version: int) -> BindingVersion | None:
        """Bring back one version, which is in no registry yet; None, and a warning in the log, if that cannot be."""
        records: list[BindingRecord] = list(await self._generations.bindings([(trigger_id, version)]))
        if not records:
            log.warn("{trigger}@v{version} is not in the store", trigger=trigger_id, version=version)
            return None
        return await self._version(records[0])

    async def _version(self, record: BindingRecord) -> BindingVersion | None:
        shared: Shared[IInterpreter] | None = None
        try:
            data = await self._generations.bundle(record.bundle_id)
            if data is None:
                raise LookupError(f"bundle {record.bundle_id} is not in the store")
            bundle = decode_bundle(data)
            spec = msgspec.json.decode(record.spec, type=TriggerSpec)
            predicate = spec.predicate_reference()
            references = frozenset((spec.handler_reference(), *(() if predicate is None else (predicate,))))
            reviving = Deferred.fromCoroutine(self._resolution.revive(bundle, references))
            shared = await reviving.addTimeout(PATIENCE, self._clock)
            code = code_digest_of(bundle)
            definition = Definition.of(
                spec, digest_bytes(record.spec), code(spec.handler), None if spec.when is None else code(spec.when)
            )
            binding = BindingVersion(definition, record.version, record.bundle_id)
        except (HarnError, LookupError, ValueError, msgspec.MsgspecError, TimeoutError) as error:
            if shared is not None:
                shared.release()
            log.warn(
                "{trigger}@v{version} cannot be revived; what it accepted goes to the newest version: {error}",
                trigger=record.trigger_id,
                version=record.version,
                error=f"its code did not load in {PATIENCE} s" if isinstance(error, TimeoutError) else str(error),
            )
            return None
        binding.interpreter = shared
        return binding


def _take_over(holder: BindingVersion, entry: Backlog) -> None:
    """Hold a lease for each delivery that is ready in the store."""
    holder.lease(entry.ready)
    holder.stored += entry.ready
