"""
The rollouts of the live generation: its probation and its ramps.

Lifecycle events of reloads begin and end them. Their state is stored, so that the next server continues them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from msgspec import MsgspecError, Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.clocks import WallTime
from harn.errors import EventLogUnavailable
from harn.lifecycle import Lifecycle
from harn.reload.coordinator import Coordinator
from harn.reload.generation import PIN_CHECKPOINT, Generation, Pin
from harn.reload.interfaces import Adopted, FirstServes, IRollouts, PinEnded, ReloadsClosed, RolloutStatus
from harn.reload.report import START, ReloadRequest
from harn.rollout import probation, ramps
from harn.rollout.model import (
    SUPERSEDED,
    Probation,
    ProbationEnded,
    ProbationOutcome,
    ProbationRecord,
    RampRecord,
    RolloutRecorded,
    read_records,
    terms,
)
from harn.rollout.persister import IRecorded, IWrite, PersistedValue, Persister
from harn.rollout.probation import Probations
from harn.rollout.ramps import Ramps
from harn.store.checkpoints import ICheckpoints
from harn.store.generations import IGenerations
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.rollout")

PATIENCE = 2.0
"""Seconds that an upgrade may take to read the old program's rollouts; it accepts no connection meanwhile."""


class Needed(Struct, frozen=True):
    """Earlier generations and versions that retention must keep, whatever their age; see `RetentionPolicy`."""

    generations: tuple[int, ...] = ()
    versions: tuple[tuple[str, int], ...] = ()


@implementer(IRecorded)
class LivePin(Struct, frozen=True):
    """The pin of the live generation, if there is one."""

    coordinator: Coordinator

    def record(self) -> dict[str, str] | None:
        """See `IRecorded.record`."""
        live = self.coordinator.current
        return None if live is None or live.pin is None else live.pin.to_checkpoint()


@implementer(IWrite)
class ServingNote(Struct, frozen=True):
    """The write that records in the store that a generation serves."""

    rollouts: Rollouts
    generation: Generation
    request: ReloadRequest

    async def write(self) -> None:
        """See `IWrite.write`."""
        await self.rollouts.write_note(self.generation, self.request)


@implementer(IRollouts)
class Rollouts:
    """
    Begins and ends the rollouts of a server, and reads those that an earlier server left.

    :param wall: the clock for the times of rollouts, which outlive the process.
    :ivar pin: the pin that an earlier server stored; see `Pin`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        generations: IGenerations,
        checkpoints: ICheckpoints,
        registry: Registry,
        coordinator: Coordinator,
        lifecycle: Lifecycle,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._generations = generations
        self._saved = checkpoints
        self._registry = registry
        self._coordinator = coordinator
        self._lifecycle = lifecycle
        self.persister = Persister(clock, checkpoints)
        self.probations = Probations(clock, wall, lifecycle, self.persister)
        self.ramps = Ramps(clock, wall, lifecycle, self.persister, coordinator)
        self.pin: Pin | None = None
        self._pin_checkpoint = PersistedValue(self.persister, PIN_CHECKPOINT, LivePin(coordinator))
        self._left: tuple[Probation, frozenset[str]] | None = None
        self._expected: Adopted | None = None
        self._caught_up: Mapping[str, RampRecord] | None = None
        self._closed = False
        self._live = 0
        coordinator.rollouts = self
        lifecycle.subscribe(Adopted, self._adopted)
        lifecycle.subscribe(FirstServes, self._first_serves)
        lifecycle.subscribe(PinEnded, self._pin_ended)
        lifecycle.subscribe(ReloadsClosed, self._reloads_closed)
        lifecycle.subscribe(ProbationEnded, self._probation_ended)

    # Queries and requests

    def status(self) -> RolloutStatus:
        """See `IRollouts.status`."""
        return RolloutStatus(self.probations.describe(), tuple(self.ramps.describe()))

    @property
    def is_undecided(self) -> bool:
        """Whether `load` found a probation of another server that has not ended."""
        return self._left is not None

    def needed(self) -> Needed:
        """Return the generations and versions that retention must keep."""
        trials = (self.probations.current, self.probations.undoing)
        fallbacks = tuple(each.fallback for each in trials if each is not None)
        draining = ((binding.id, binding.version) for binding in self._registry.draining())
        live = self._coordinator.current
        # Other servers on the store may each have adopted newer generations of their own.
        shared = () if live is None else (live.shared_number,)
        return Needed((*fallbacks, *shared), (*self.ramps.needed(), *draining))

    async def confirm(self, generation: int | None, actor: str) -> int:
        """
        Confirm the live generation, which cancels its automatic rollback; return its number.

        :param generation: the number that the live generation must have; None for any.
        :raises NothingPending: no generation is on probation, or one of another number.
        :raises EventLogUnavailable: the store cannot be written; the probation continues.
        """
        active = self.probations.hold(generation)
        try:
            await self.probations.checkpoint.save()
        except BaseException:
            self.probations.release(active)
            self.probations.checkpoint.save_soon()
            raise
        self.probations.confirmed(active, actor)
        return active.probation.generation

    # Across restarts

    async def load(self) -> dict[str, RampRecord]:
        """
        Read the rollouts that an earlier server left unfinished; return the records of its ramps by trigger id.

        :raises EventLogUnavailable: the store cannot be read.
        """
        pin = left = None
        records: dict[str, RampRecord] = {}
        with _discarding_damaged(PIN_CHECKPOINT):
            if (kept := await self._saved.get(PIN_CHECKPOINT)) is not None:
                pin = Pin.from_checkpoint(kept)
        with _discarding_damaged(probation.NAME):
            if (kept := await self._saved.get(probation.NAME)) is not None:
                record = msgspec.convert(kept, ProbationRecord)
                left = Probation.of(record), frozenset(record.bindings)
        with _discarding_damaged(ramps.NAME):
            records = read_records(await self._saved.get(ramps.NAME))
        self.pin, self._left = pin, left
        self.ramps.remember(records)
        return records

    def note(self, generation: Generation, request: ReloadRequest) -> Deferred[None]:
        """See `IRollouts.note`."""
        return self.persister.keep(f"generation {generation.number}", ServingNote(self, generation, request))

    async def write_note(self, generation: Generation, request: ReloadRequest) -> None:
        """
        Record that a generation serves, in one durable unit with the current rollouts.

        :raises EventLogUnavailable: the store cannot be written.
        """
        checkpoints: dict[str, object] = {}
        if generation.number == self._live and generation.split_from is None:  # else they belong to all servers
            checkpoints = {probation.NAME: self.probations.record(), ramps.NAME: self.ramps.record()}
            if request.source != START or request.recall is None:  # else the stored pin stays as it is
                checkpoints[PIN_CHECKPOINT] = None if generation.pin is None else generation.pin.to_checkpoint()
        await self._generations.adopted(generation.number, generation.since, checkpoints)

    async def catch_up(self) -> None:
        """See `IRollouts.catch_up`."""
        try:
            records = await Deferred.fromCoroutine(self.load()).addTimeout(PATIENCE, self._clock)
        except (EventLogUnavailable, TimeoutError) as error:
            why = str(error) or f"it took longer than {PATIENCE:g} s"
            log.warn("rollouts cannot be read again, and continue as at the start: {why}", why=why)
            return
        expected = self._expected
        for ramp in () if expected is None else expected.candidate.generation.ramps.values():
            record = records.get(ramp.fresh.id)
            if record is not None and record.fresh == ramp.fresh.version:
                ramp.share = record.share
        self._caught_up = records

    # Subscriptions

    def _adopted(self, event: Adopted) -> None:
        """Begin the rollouts of a new generation, or continue those of the one that it replaces."""
        if event.waits:
            self._expected = event
            return
        candidate, request = event.candidate, event.request
        generation, plan = candidate.generation, candidate.plan
        self._live = generation.number
        self.ramps.adopted(candidate)
        if request.source == START:
            self._resume(event)
            return
        settings = generation.inputs.manifest.orchestrator.reload
        fresh = (generation.bindings[trigger_id] for trigger_id in (*plan.added, *plan.modified))
        fallback = self.probations.fallback(event.previous)
        begun = terms(request, settings, generation.number, fallback, self._wall.seconds())
        if begun is None and request.recall is None:
            self.probations.inherit(generation.number, fresh, generation.bindings)
        else:
            self.probations.adopted(begun, fresh, request.actor)

    def _first_serves(self, event: FirstServes) -> None:
        expected, self._expected = self._expected, None
        if expected is None or self._closed:
            return
        self._adopted(replace(expected, waits=False))
        if self._caught_up is not None:
            self.ramps.settle(self._caught_up)

    def _resume(self, event: Adopted) -> None:
        """Continue the probation that an earlier server left unfinished, even if the files have changed since."""
        left, self._left = self._left, None
        if left is None:
            return
        kept, keys = left
        generation, request = event.candidate.generation, event.request
        number, bindings = generation.number, generation.bindings
        if number != kept.generation and (request.recall is not None or kept.verdict is not None):
            self._lifecycle.emit(ProbationEnded(kept, SUPERSEDED, request.actor))
            return
        versions = {binding.key: binding for binding in self._registry}
        watched: set[BindingVersion | None] = {
            versions.get(key) or bindings.get(key.rpartition("@")[0]) for key in keys
        }
        self.probations.resume(replace(kept, generation=number), [each for each in watched if each is not None])

    def _pin_ended(self, event: PinEnded) -> None:
        self._pin_checkpoint.save_soon()

    def _probation_ended(self, event: ProbationEnded) -> None:
        ended, how = event.probation, event.how
        log.info("generation {number}: probation {how}", number=ended.generation, how=how)
        outcome = ProbationOutcome.of(ended, how, actor=event.actor)
        self._lifecycle.emit(RolloutRecorded("probation_ended", outcome))
        if how != SUPERSEDED:
            self.probations.checkpoint.save_soon()

    def _reloads_closed(self, event: ReloadsClosed) -> None:
        """Stop all rollouts; the next server continues them from the store."""
        self._closed = True
        self.probations.close()
        self.ramps.close()
        self.persister.close()


@contextmanager
def _discarding_damaged(name: str) -> Iterator[None]:
    """Treat a damaged checkpoint as absent, so that the server can start; log the error."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, MsgspecError) as error:
        log.error("discarding unreadable saved state {name!r}: {why}", name=name, why=str(error))
