"""
What becomes of a generation after it was adopted: its probation and its ramps, kept over restarts, and the undoing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen
from msgspec import ValidationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from harn.errors import EventLogUnavailable, GenerationUnknown, HarnError, PreconditionFailed, ShuttingDown
from harn.reload import probation as terms_of_probation
from harn.reload import ramping
from harn.reload.generation import Candidate, Generation
from harn.reload.probation import REVERTED, SUPERSEDED, Endings, Probation, Probations, shown
from harn.reload.ramping import Ramps, RampSteps
from harn.reload.report import ReloadReport, ReloadRequest
from harn.store.interfaces import IGenerations
from harn.triggers.binding import BindingVersion
from harn.triggers.ramp import Ramp
from harn.triggers.registry import Registry

log = Logger(namespace="harn.reload")

REPLACED = "replaced"
"""What the store keeps the digests under of files that a rollback took the place of."""
START = "start"
"""The source of a server's first generation."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds before a reload that should undo a generation, and failed, is tried again."""


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

    :ivar host: what carries out their decisions; given once it is made.
    :ivar replaced: what an earlier server kept of a rollback: digests of the files that it took the place of.
    """

    host: Host

    def __init__(self, clock: IReactorTime, generations: IGenerations, registry: Registry, deeds: Deeds) -> None:
        self._clock = clock
        self._generations = generations
        self._registry = registry
        self._deeds = deeds
        self.probations = Probations(clock, Endings(undo=self._undo, over=self._over))
        self.ramps = Ramps(
            clock,
            RampSteps(
                reroute=lambda winners: self.host.reroute(winners),
                aborted=lambda fresh, since: self._take_back([fresh], since),
                note=deeds.note,
                keep=self._keep_ramps,
            ),
        )
        self.replaced: Mapping[str, str] = {}
        self._kept: Probation | None = None
        self._kept_bindings: frozenset[str] = frozenset()
        self._undoing: Probation | None = None
        self._reverting: Deferred[None] | None = None
        self._closed = False
        self._keeping = self._unkept = False
        self._pause: Deferred[None] | None = None

    # Over restarts

    async def load(self) -> dict[str, ramping.RampRecord]:
        """
        Read what an earlier server left under way; give its ramps, by trigger id.

        :raises EventLogUnavailable: the store cannot be read.
        """
        self.replaced = await self._generations.kept(REPLACED) or {}
        kept = await self._generations.kept(terms_of_probation.NAME)
        records = await self._generations.kept(ramping.NAME)
        try:
            if kept is not None:
                self._kept = Probation.from_dict(kept)
                self._kept_bindings = frozenset(kept.get("bindings", ()))
            return ramping.read_records(records)
        except (LookupError, TypeError, ValueError, ValidationError) as error:
            log.warn("what was under way with the last generation cannot be read: {why}", why=str(error))
            return {}

    def standing(self, generation: Generation, request: ReloadRequest) -> dict[str, Any]:
        """Give what is to be kept of now, by name, when a generation has been adopted."""
        current = self.probations.current
        kept = None
        if current is not None:
            kept = {**current.to_dict(), "bindings": [binding.key for binding in self.probations.bindings]}
        standing = {terms_of_probation.NAME: kept, ramping.NAME: self.ramps.records()}
        if request.source != START or request.recall is None:  # else it goes on as it was
            standing[REPLACED] = dict(generation.replaced) or None
        return standing

    def needed(self) -> Needed:
        """Name what may yet be gone back to."""
        trials = (self.probations.current, self._undoing)
        return Needed(tuple(each.fallback for each in trials if each is not None), self.ramps.needed())

    # What the coordinator tells

    def adopted(self, candidate: Candidate, request: ReloadRequest, live: int) -> None:
        """
        Take notice of a new generation, in the step that adopts it.

        :param live: the number of the one before; 0 for none.
        """
        generation, plan = candidate.generation, candidate.plan
        self.ramps.adopted(candidate)
        if request.source == START:
            self._resume(generation.number)
            return
        settings = generation.inputs.manifest.orchestrator.reload
        undoing, fallback = self._undoing, self.probations.fallback(live)
        if undoing is not None and undoing.generation == live:
            fallback = undoing.fallback  # what served until now was judged bad, and could not be undone yet
        probation = terms_of_probation.terms(request, settings, generation.number, fallback, self._clock.seconds())
        fresh = [generation.bindings[trigger_id] for trigger_id in (*plan.added, *plan.modified)]
        self.probations.adopted(probation, fresh, request.actor)

    def close(self) -> None:
        """Decide nothing more; the next server goes on."""
        self._closed = True
        self.probations.close()
        self.ramps.close()
        for waiting in (self._reverting, self._pause):
            if waiting is not None:
                waiting.cancel()

    def _resume(self, number: int) -> None:
        kept, self._kept = self._kept, None
        if kept is not None and kept.generation == number:
            self.probations.resume(kept, [each for each in self._registry if each.key in self._kept_bindings])

    # Endings

    def _over(self, probation: Probation, how: str, actor: str) -> None:
        log.info("generation {number}: probation {how}", number=probation.generation, how=how)
        self._deeds.note("probation_ended", {**shown(probation), "outcome": how, "actor": actor})
        if how != SUPERSEDED:
            self._keep(terms_of_probation.NAME, None)

    def _undo(self, probation: Probation, bindings: tuple[BindingVersion, ...], why: str) -> None:
        log.warn("generation {number} is undone: {why}", number=probation.generation, why=why)
        self._deeds.note("probation_ended", {**shown(probation), "outcome": REVERTED, "why": why})
        if self._reverting is not None:
            self._reverting.cancel()  # what that is to undo serves no more
        self._undoing = probation
        reverting = self._reverting = Deferred.fromCoroutine(self._revert(probation, bindings, why))
        reverting.addErrback(self._not_reverted, probation).addBoth(self._reverted)

    def _reverted(self, _: object) -> None:
        self._reverting = self._undoing = None

    def _not_reverted(self, failure: Any, probation: Probation) -> None:
        if not failure.check(CancelledError):
            log.failure("undoing generation {number} failed", failure, number=probation.generation)

    async def _revert(self, probation: Probation, bindings: tuple[BindingVersion, ...], why: str) -> None:
        """Adopt what served before, as long as nothing else has taken its place; try again until that works."""
        etag, pause = self.host.etag, FIRST_PAUSE
        request = ReloadRequest(
            source="revert", actor="probation", recall=probation.fallback, if_match=etag, reason=why
        )
        while not self._closed:
            try:
                report = await self.host.reload(request)
            except (PreconditionFailed, ShuttingDown):
                return
            except GenerationUnknown as error:
                log.error("generation {number} cannot be undone: {why}", number=probation.generation, why=str(error))
                return
            if report.ok:
                if report.generation == probation.generation:
                    self._keep(terms_of_probation.NAME, None)  # a forced one of the same content: there is no other
                # What the undoing left in force was good before: a change that had been taken back already.
                replaced = [each for each in bindings if self._registry.active.get(each.id) not in (None, each)]
                self._take_back(replaced, probation.began_at)
                return
            log.error(
                "undoing generation {number} failed, trying again in {pause:g} s: {why}",
                number=probation.generation,
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

    def _keep_ramps(self) -> None:
        """Keep the ramps as they are now; what changes while that is being written is kept once more after it."""
        self._unkept = True
        if self._keeping:
            return
        self._keeping = True
        Deferred.fromCoroutine(self._keep_until_kept()).addErrback(self._not_kept, ramping.NAME)

    async def _keep_until_kept(self) -> None:
        try:
            while self._unkept and not self._closed:
                self._unkept = False
                try:
                    await self._generations.keep(ramping.NAME, self.ramps.records())
                except EventLogUnavailable as error:
                    log.warn("how the ramps are cannot be kept, trying again: {why}", why=str(error))
                    self._unkept = True
                    self._pause = deferLater(self._clock, FIRST_PAUSE)
                    await self._pause
        finally:
            self._keeping = False

    def _keep(self, name: str, value: Any) -> None:
        """Keep something over restarts; if that fails, the next server goes on from what was kept before."""
        self._generations.keep(name, value).addErrback(self._not_kept, name)

    def _not_kept(self, failure: Any, name: str) -> None:
        if failure.trap(HarnError, CancelledError) is CancelledError:
            return
        log.warn("what is under way ({name}) cannot be kept: {why}", name=name, why=failure.getErrorMessage())
