"""
What becomes of a generation after it was adopted: its probation and its ramps, kept over restarts, and the undoing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from attrs import evolve, frozen
from msgspec import MsgspecError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import EventLogUnavailable, GenerationUnknown, PreconditionFailed, ShuttingDown
from harn.lifecycle import Lifecycle
from harn.reload.generation import Candidate, Generation
from harn.reload.report import REVERT, ReloadReport, ReloadRequest
from harn.rollout import probation, ramp_record, ramping
from harn.rollout.persister import FIRST_PAUSE, LONGEST_PAUSE, Keeper
from harn.rollout.probation import REVERTED, SUPERSEDED, Endings, Probation, Probations, shown, terms
from harn.rollout.ramping import Ramps, RampSteps
from harn.store.checkpoints import ICheckpoints
from harn.store.generations import IGenerations
from harn.triggers.binding import BindingVersion
from harn.triggers.ramp import Ramp
from harn.triggers.registry import Registry

log = Logger(namespace="harn.reload")

Kept = TypeVar("Kept")

REPLACED = "replaced"
"""What the store keeps the digests under of files that a rollback took the place of."""
START = "start"
"""The source of a server's first generation."""
PATIENCE = 2.0
"""Seconds that taking over waits for what another program kept: meanwhile nobody takes connections."""
NOTING = 5.0
"""Seconds that a caller waits until the store has what was decided."""
STUCK = "stuck"
"""How a probation ends whose fallback is not kept any more: its generation stays."""


class Host(Protocol):
    """What carries out a trial's decisions: the coordinator."""

    @property
    def etag(self) -> str:
        """Of the live generation."""

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """Reload."""

    async def reroute(self, winners: Mapping[Ramp, BindingVersion]) -> frozenset[Ramp]:
        """End ramps; give those that were still in force."""


@frozen(kw_only=True)
class Deeds:
    """
    What trials do beside.

    :ivar take_back: give what a version that was judged bad has not begun, or failed at since then (seconds, Unix), to
        the version in force: `harn.dispatch.dispatcher.Dispatcher.take_back`.
    :ivar note: append a record: a kind and a payload.
    """

    take_back: Callable[[BindingVersion, float], Deferred[int]]
    note: Callable[[str, Mapping[str, Any]], None]


@frozen
class Needed:
    """What must be kept of earlier generations, however many have served since; see `RetentionPolicy`."""

    generations: tuple[int, ...] = ()
    versions: tuple[tuple[str, int], ...] = ()


class Trials:
    """
    The trials of the live generation.

    :param wall: their ends are times of its, as they outlive the process; ``clock`` if None.
    :ivar host: what carries out their decisions; given once it is made.
    :ivar replaced: what an earlier server kept of a rollback: digests of the files that it took the place of.
    """

    host: Host

    def __init__(
        self,
        clock: IReactorTime,
        generations: IGenerations,
        checkpoints: ICheckpoints,
        registry: Registry,
        lifecycle: Lifecycle,
        deeds: Deeds,
        wall: WallTime | None = None,
    ) -> None:
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._generations = generations
        self._checkpoints = checkpoints
        self._registry = registry
        self._deeds = deeds
        endings = Endings(undo=self._undo, over=self._over, keep_soon=lambda: self._keep_soon(probation.NAME))
        self.probations = Probations(clock, self._wall, lifecycle, endings)
        self.ramps = Ramps(
            clock,
            self._wall,
            lifecycle,
            RampSteps(
                reroute=lambda winners: self.host.reroute(winners),
                aborted=lambda fresh, since: self._take_back([fresh], since),
                note=deeds.note,
                keep=lambda: self._keep(ramping.NAME),
                keep_soon=lambda: self._keep_soon(ramping.NAME),
            ),
        )
        self.replaced: Mapping[str, str] = {}
        self._kept: Probation | None = None
        self._kept_bindings: frozenset[str] = frozenset()
        self._expected: tuple[Candidate, ReloadRequest] | None = None
        self._caught_up: Mapping[str, ramp_record.RampRecord] | None = None
        self._reverting: Deferred[None] | None = None
        self._closed = False
        self._live = 0
        self.keeper = Keeper(clock)

    # Over restarts

    async def load(self) -> dict[str, ramp_record.RampRecord]:
        """
        Read what an earlier server left under way; give its ramps, by trigger id.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.replaced = await self._read(REPLACED, _files) or {}
        found = await self._read(probation.NAME, _probation)
        self._kept, self._kept_bindings = (None, frozenset()) if found is None else found
        return await self._read(ramping.NAME, ramp_record.read_records) or {}

    async def _read(self, name: str, convert: Callable[[Any], Kept]) -> Kept | None:
        """Read one thing that was kept; what is damaged counts as not kept, so that the server starts all the same."""
        try:
            kept = await self._checkpoints.get(name)
            return None if kept is None else convert(kept)
        except (LookupError, TypeError, ValueError, AttributeError, MsgspecError) as error:
            log.error("what was under way ({name}) cannot be read, and is forgotten: {why}", name=name, why=str(error))
            return None

    def note(self, generation: Generation, request: ReloadRequest) -> Deferred[None]:
        """
        Note durably that a generation serves, and what is under way with it.

        :return: fires when that is in the store; it fails if the first try fails. It is tried again all the same.
        """

        async def write() -> None:
            standing = self._standing(generation, request) if generation.number == self._live else {}
            await self._generations.adopted(generation.number, generation.since, standing)

        return self.keeper.keep(f"generation {generation.number}", write)

    def _standing(self, generation: Generation, request: ReloadRequest) -> dict[str, Any]:
        """Give what is to be kept of now, by name."""
        standing = {name: self._record(name) for name in (probation.NAME, ramping.NAME)}
        if request.source != START or request.recall is None:  # else it goes on as it was
            standing[REPLACED] = dict(generation.replaced) or None
        return standing

    def needed(self) -> Needed:
        """Name what may yet be gone back to, or take what has been asked of it: a request under way."""
        trials = (self.probations.current, self.probations.undoing)
        fallbacks = tuple(each.fallback for each in trials if each is not None)
        draining = ((binding.id, binding.version) for binding in self._registry.draining())
        return Needed(fallbacks, (*self.ramps.needed(), *draining))

    # What the coordinator tells

    def adopted(self, candidate: Candidate, request: ReloadRequest, live: int) -> None:
        """
        Take notice of a new generation, in the step that adopts it.

        :param live: the number of the one before; 0 for none.
        """
        generation, plan = candidate.generation, candidate.plan
        self._live = generation.number
        self.ramps.adopted(candidate)
        if request.source == START:
            self._resume(candidate, request)
            return
        settings = generation.inputs.manifest.orchestrator.reload
        fresh = [generation.bindings[trigger_id] for trigger_id in (*plan.added, *plan.modified)]
        fallback = self.probations.fallback(live)
        begun = terms(request, settings, generation.number, fallback, self._wall.seconds())
        if begun is None and request.recall is None:
            self.probations.inherit(generation.number, fresh, frozenset(self._registry.active.values()))
        else:
            self.probations.adopted(begun, fresh, request.actor)

    def expect(self, candidate: Candidate, request: ReloadRequest, live: int = 0) -> None:
        """Take notice of a first generation that is to serve in another program's place; `begin` its trials then."""
        self._expected = candidate, request

    async def catch_up(self) -> None:
        """Read what the other program kept since `load`; if that cannot be read, what it kept before counts."""
        try:
            records = await Deferred.fromCoroutine(self.load()).addTimeout(PATIENCE, self._clock)
        except (EventLogUnavailable, TimeoutError) as error:
            why = str(error) or f"it took longer than {PATIENCE:g} s"
            log.warn("what is under way cannot be read again, and goes on as it was some time ago: {why}", why=why)
            return
        for ramp in () if self._expected is None else self._expected[0].generation.ramps.values():
            record = records.get(ramp.fresh.id)
            if record is not None and record.fresh == ramp.fresh.version:
                ramp.share = record.share
        self.ramps.remember(records)
        self._caught_up = records

    def begin(self) -> None:
        """Begin the trials of the generation that was expected."""
        expected, self._expected = self._expected, None
        if expected is not None and not self._closed:
            candidate, request = expected
            self._live = candidate.generation.number
            self.ramps.adopted(candidate)
            self._resume(candidate, request)
            if self._caught_up is not None:
                self.ramps.settle(self._caught_up)

    def close(self) -> None:
        """Decide nothing more; the next server goes on."""
        self._closed = True
        self.probations.close()
        self.ramps.close()
        self.keeper.close()
        if self._reverting is not None:
            self._reverting.cancel()

    def _resume(self, candidate: Candidate, request: ReloadRequest) -> None:
        """Go on with the probation that an earlier server left, also if its files have changed since."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        number, bindings = candidate.generation.number, candidate.generation.bindings
        if number != kept.generation and (request.recall is not None or kept.verdict is not None):
            self._over(kept, SUPERSEDED, request.actor)
            return
        versions = {binding.key: binding for binding in self._registry}
        triggers = {key: key.rpartition("@")[0] for key in self._kept_bindings}
        watched = {versions.get(key) or bindings.get(trigger_id) for key, trigger_id in triggers.items()}
        self.probations.resume(evolve(kept, generation=number), [binding for binding in watched if binding is not None])

    async def confirm(self, generation: int | None, actor: str) -> int:
        """
        End the probation well, for good; give the number of the generation that stays.

        :param generation: only if it is this one.
        :raises NothingPending: none is under way, or that of another generation.
        :raises EventLogUnavailable: the store cannot be written; the probation goes on.
        """
        trial = self.probations.hold(generation)
        try:
            await self._keep(probation.NAME)
        except BaseException:
            self.probations.let_go(trial)
            self._keep_soon(probation.NAME)
            raise
        self.probations.confirmed(trial, actor)
        return trial.probation.generation

    # Endings

    def _over(self, ended: Probation, how: str, actor: str) -> None:
        log.info("generation {number}: probation {how}", number=ended.generation, how=how)
        self._deeds.note("probation_ended", {**shown(ended), "outcome": how, "actor": actor})
        if how != SUPERSEDED:
            self._keep_soon(probation.NAME)

    def _undo(self, ended: Probation, bindings: tuple[BindingVersion, ...], why: str) -> None:
        log.warn("generation {number} is undone: {why}", number=ended.generation, why=why)
        if self._reverting is not None:
            self._reverting.cancel()  # what that is to undo serves no more
        self.probations.undoing = ended
        self._keep_soon(probation.NAME)  # the verdict: if this server does not come to carry it out, the next does
        reverting = self._reverting = Deferred.fromCoroutine(self._revert(ended, bindings, why))
        reverting.addErrback(self._not_reverted, ended).addBoth(self._reverted)

    def _reverted(self, _: object) -> None:
        self._reverting = self.probations.undoing = None

    def _not_reverted(self, failure: Any, ended: Probation) -> None:
        if not failure.check(CancelledError):
            log.failure("undoing generation {number} failed", failure, number=ended.generation)

    async def _revert(self, ended: Probation, bindings: tuple[BindingVersion, ...], why: str) -> None:
        """Adopt what served before, as long as nothing else has taken its place; try again until that works."""
        etag, pause = self.host.etag, FIRST_PAUSE
        request = ReloadRequest(source=REVERT, actor="probation", recall=ended.fallback, if_match=etag, reason=why)
        while not self._closed:
            try:
                report = await self.host.reload(request)
            except ShuttingDown:
                return
            except PreconditionFailed:
                self._over(ended, SUPERSEDED, "probation")
                return
            except GenerationUnknown as error:
                log.error("generation {number} cannot be undone: {why}", number=ended.generation, why=str(error))
                self._deeds.note("probation_ended", {**shown(ended), "outcome": STUCK, "why": str(error)})
                self.probations.undoing = None
                self._keep_soon(probation.NAME)
                return
            if report.ok:
                self._deeds.note("probation_ended", {**shown(ended), "outcome": REVERTED, "why": why})
                if report.generation == ended.generation:  # a forced one of the same content: there is no other
                    self.probations.undoing = None
                    self._keep_soon(probation.NAME)
                # What the undoing left in force was good before: a change that had been taken back already.
                replaced = [each for each in bindings if self._registry.active.get(each.id) not in (None, each)]
                self._take_back(replaced, ended.began_at)
                return
            log.error(
                "undoing generation {number} failed, trying again in {pause:g} s: {why}",
                number=ended.generation,
                pause=pause,
                why=report.error,
            )
            await deferLater(self._clock, pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _take_back(self, bindings: Iterable[BindingVersion], since: float) -> None:
        for binding in bindings:
            self._deeds.take_back(binding, since).addErrback(
                lambda failure, key: log.failure("taking back what {binding} failed at failed", failure, binding=key),
                binding.key,
            )

    # The store

    def _record(self, name: str) -> Any:
        return self.probations.record() if name == probation.NAME else self.ramps.records()

    def _keep_soon(self, name: str) -> None:
        self.keeper.keep_soon(name, lambda: self._write(name))

    async def _keep(self, name: str) -> None:
        """
        Keep how something is now, over restarts.

        :raises EventLogUnavailable: the store cannot be written, or takes too long.
        """
        try:
            await self.keeper.keep(name, lambda: self._write(name)).addTimeout(NOTING, self._clock)
        except TimeoutError:
            raise EventLogUnavailable(f"the store did not answer within {NOTING:g} s; try again") from None

    async def _write(self, name: str) -> None:
        await self._checkpoints.put(name, self._record(name))


def _files(kept: Any) -> dict[str, str]:
    return msgspec.convert(kept, type=dict[str, str])


def _probation(kept: Any) -> tuple[Probation, frozenset[str]]:
    return Probation.from_dict(kept), frozenset(msgspec.convert(kept.get("bindings", []), type=list[str]))
