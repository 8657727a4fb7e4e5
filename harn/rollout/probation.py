"""
Probation: the time after a generation was adopted in which it is rolled back automatically if it fails.

A probation ends in one of four ways: an operator confirms the generation; the time in which its failures are counted
passes with few enough of them; another generation replaces it; or it is rolled back, so that the content that served
before is adopted again. After a rollback or an aborted ramp, the dead letters of the version that was given up are
redriven on the version that replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field
from msgspec import structs
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import BackSteps, WallTime, sleep_until
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import GenerationUnknown, NothingPending, PreconditionFailed, ShuttingDown
from harn.lifecycle import Lifecycle, Settled
from harn.model.delivery import Attempt, counts_against_code
from harn.reload.coordinator import Coordinator
from harn.reload.interfaces import ReloadsClosed
from harn.reload.report import REVERT, ReloadReport, ReloadRequest
from harn.reload.results import ProbationInfo
from harn.rollout.model import (
    CONFIRMED,
    PASSED,
    REVERTED,
    STUCK,
    SUPERSEDED,
    Probation,
    ProbationEnded,
    ProbationFailed,
    ProbationOutcome,
    ProbationRecord,
    RampLost,
    RolloutRecorded,
)
from harn.rollout.persister import FIRST_PAUSE, LONGEST_PAUSE, IRecorded, PersistedValue, Persister
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.rollout")


NAME = "probation"
"""The name of the checkpoint that holds the probation in the store."""

Tally = tuple[int, int]
"""How many attempts have ended, and how many of those failed."""


@define(eq=False)
class ActiveProbation:
    """
    The current probation, with the attempts counted so far.

    :ivar bindings: the versions that are new in the generation.
    :ivar tallies: the attempts of each of these versions since its probation began, by the key of the version.
    :ivar total: the sum of ``tallies``, kept so that counting an attempt takes the same time for any number of
        versions.
    :ivar is_held: whether an operation is confirming the generation; until that has ended, no rollback begins.
    """

    probation: Probation
    bindings: tuple[BindingVersion, ...]
    tallies: dict[str, Tally] = field(factory=dict)
    total: Tally = field(init=False)
    is_held: bool = False

    def __attrs_post_init__(self) -> None:
        self.tallies = {binding.key: self.tallies.get(binding.key, (0, 0)) for binding in self.bindings}
        self.total = sum(each[0] for each in self.tallies.values()), sum(each[1] for each in self.tallies.values())

    def count(self, binding: str, attempt: Attempt) -> bool:
        """Count an attempt if its version is one of ``bindings``; return whether it is."""
        tally = self.tallies.get(binding)
        if tally is None:
            return False
        failed = counts_against_code(attempt)
        self.tallies[binding] = tally[0] + 1, tally[1] + failed
        self.total = self.total[0] + 1, self.total[1] + failed
        return True


@implementer(IRecorded)
class Probations:
    """
    The probation of the live generation, if there is one: its timer and its counts of attempts.

    :ivar undoing: the failed probation whose generation is being rolled back; None if there is none.
    """

    def __init__(self, clock: IReactorTime, wall: WallTime, lifecycle: Lifecycle, persister: Persister) -> None:
        self._clock = clock
        self._wall = wall
        self._back_steps = BackSteps(clock, wall)
        self._lifecycle = lifecycle
        self.checkpoint = PersistedValue(persister, NAME, self)
        self._active: ActiveProbation | None = None
        self._timer: IDelayedCall | None = None
        self.undoing: Probation | None = None
        lifecycle.subscribe(Settled, self._settled)

    @property
    def current(self) -> Probation | None:
        """The terms of the current probation; None if there is none."""
        return None if self._active is None else self._active.probation

    @property
    def bindings(self) -> tuple[BindingVersion, ...]:
        """The new versions that the current probation watches."""
        return () if self._active is None else self._active.bindings

    def describe(self) -> ProbationInfo | None:
        """Return the current probation with its counts, or the failed one during its rollback; else None."""
        if self._active is None:
            return None if self.undoing is None else self.undoing.info()
        attempts, failures = self._active.total
        return structs.replace(self._active.probation.info(), attempts=attempts, failures=failures)

    def record(self) -> ProbationRecord | None:
        """Return the stored form of the current probation, or of the failed one during its rollback; else None."""
        if self._active is None:
            return None if self.undoing is None else self.undoing.record(())
        if self._active.is_held:
            return None
        return self._active.probation.record(binding.key for binding in self._active.bindings)

    def fallback(self, live: int) -> int:
        """Return the fallback of a new generation: never one that is on probation or has failed its probation."""
        if self._active is not None:
            return self._active.probation.fallback
        if self.undoing is not None and self.undoing.generation == live:
            return self.undoing.fallback  # its rollback has not succeeded yet
        return live

    def adopted(self, probation: Probation | None, bindings: Iterable[BindingVersion], actor: str) -> None:
        """
        End the current probation, because a new generation serves, and begin that of the new one, if it has any.

        :param probation: the terms for the new generation; None for no probation.
        :param bindings: the versions that are new in it.
        :param actor: who adopted it.
        """
        ended, self.undoing = self._stop(), None
        if probation is not None:
            self._begin(ActiveProbation(probation, tuple(bindings)))
        if ended is not None:
            self._lifecycle.emit(ProbationEnded(ended.probation, SUPERSEDED, actor))

    def inherit(
        self, generation: int, bindings: Iterable[BindingVersion], active: Mapping[str, BindingVersion]
    ) -> None:
        """
        Continue the current probation with a new generation that has no terms of its own.

        The probation does not end, since a reload does not confirm the generation that it replaces.

        :param generation: the number of the new generation.
        :param bindings: the versions that are new in it.
        :param active: its binding versions by trigger id; attempts of any other version are no longer counted.
        """
        ended, self.undoing = self._stop(), None
        if ended is not None:
            watched = dict.fromkeys((*(each for each in ended.bindings if active.get(each.id) is each), *bindings))
            probation = replace(ended.probation, generation=generation)
            self._begin(ActiveProbation(probation, tuple(watched), ended.tallies))

    def resume(self, probation: Probation, bindings: Iterable[BindingVersion]) -> None:
        """Continue a probation that an earlier server began; the counts of attempts begin at 0."""
        self._begin(ActiveProbation(probation, tuple(bindings)))

    def hold(self, generation: int | None) -> ActiveProbation:
        """
        Return the current probation; its generation is not rolled back until `confirmed` or `release` is called.

        :param generation: the number that the generation must have; None for any.
        :raises NothingPending: no generation is on probation, or one of another number.
        """
        active = self._active
        if active is None:
            raise NothingPending("no generation waits for confirmation")
        number = active.probation.generation
        if generation is not None and generation != number:
            raise NothingPending(f"generation {number} waits for confirmation, not {generation}")
        active.is_held = True
        return active

    def release(self, active: ActiveProbation) -> None:
        """Continue a probation that `hold` returned, because confirming it failed."""
        active.is_held = False
        if self._active is active:
            self._stop_timer()
            self._set_timer(active.probation)

    def confirmed(self, active: ActiveProbation, actor: str) -> None:
        """End a probation that `hold` returned, because its confirmation is stored."""
        if self._active is active:
            self._stop()
            self._lifecycle.emit(ProbationEnded(active.probation, CONFIRMED, actor))

    def close(self) -> None:
        """Stop the timer and the counting; the next server continues the probation."""
        self._stop()

    def _begin(self, active: ActiveProbation) -> None:
        self._active = active
        self._set_timer(active.probation)

    def _now(self) -> float:
        """Return the time (seconds, Unix); if the wall clock was set back, move the probation's times back as far."""
        back = self._back_steps.look()
        if back and self._active is not None:
            self._active.probation = self._active.probation.earlier(back)
            self.checkpoint.save_soon()
        return self._wall.seconds()

    def _set_timer(self, probation: Probation) -> None:
        now = self._wall.seconds()
        turn = None if probation.lapsed(now) else probation.next_turn(now)  # lapsed while no server ran: check at once
        self._timer = self._clock.callLater(0.0 if turn is None else sleep_until(turn, self._wall), self._look)

    def _settled(self, event: Settled) -> None:
        if self._active is not None:
            for each in event.deliveries:
                self._count(each.binding, each.settlement.attempt)

    def _count(self, binding: str, attempt: Attempt | None) -> None:
        """Count an attempt, whatever its version; roll the generation back if that makes it exceed its limit."""
        active = self._active
        if active is None or attempt is None or not active.count(binding, attempt):
            return
        if active.probation.limit is not None:
            why = active.probation.failed(self._now(), *active.total)
            if why is not None and not active.is_held:
                self._undo(active, why)

    def _look(self) -> None:
        self._timer = None
        active, now = self._active, self._now()
        if active is None or active.is_held:
            return
        why = active.probation.lapsed(now)
        if why is not None:
            self._undo(active, why)
        elif active.probation.is_passed(now):
            self._stop()
            self._lifecycle.emit(ProbationEnded(active.probation, PASSED, "probation"))
        else:
            self._set_timer(active.probation)

    def _undo(self, active: ActiveProbation, why: str) -> None:
        self._stop()
        failed = replace(active.probation, verdict=why)
        self._lifecycle.emit(ProbationFailed(failed, active.bindings, why))

    def _stop(self) -> ActiveProbation | None:
        active, self._active = self._active, None
        self._stop_timer()
        return active

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Reverter:
    """
    Rolls back a generation that failed its probation, and redrives the dead letters of given-up versions.

    :ivar reverting: a Deferred that fires when the current rollback has ended; None if none runs.
    """

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        dispatcher: Dispatcher,
        coordinator: Coordinator,
        probations: Probations,
        lifecycle: Lifecycle,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._dispatcher = dispatcher
        self._coordinator = coordinator
        self._probations = probations
        self._lifecycle = lifecycle
        self.reverting: Deferred[None] | None = None
        self._closed = False
        lifecycle.subscribe(ProbationFailed, self._probation_failed)
        lifecycle.subscribe(RampLost, self._ramp_lost)
        lifecycle.subscribe(ReloadsClosed, self._reloads_closed)

    def _probation_failed(self, event: ProbationFailed) -> None:
        failed = event.probation
        log.warn("generation {number} is undone: {why}", number=failed.generation, why=event.why)
        if self.reverting is not None:
            self.reverting.cancel()  # its generation does not serve any more
        self._probations.undoing = failed
        self._probations.checkpoint.save_soon()  # if this one ends first, the next server rolls back
        reverting = self.reverting = Deferred.fromCoroutine(self._revert(event))
        reverting.addErrback(self._not_reverted, failed).addBoth(self._reverted)

    def _reverted(self, _: object) -> None:
        self.reverting = self._probations.undoing = None

    def _not_reverted(self, failure: Failure, failed: Probation) -> None:
        if not failure.check(CancelledError):
            log.failure("undoing generation {number} failed", failure, number=failed.generation)

    def _ramp_lost(self, event: RampLost) -> None:
        self._redrive([event.fresh], event.since)

    def _reloads_closed(self, event: ReloadsClosed) -> None:
        self._closed = True
        if self.reverting is not None:
            self.reverting.cancel()

    async def _revert(self, event: ProbationFailed) -> None:
        """Adopt the fallback, with retries until that succeeds; give up if another generation is adopted meanwhile."""
        failed, pause = event.probation, FIRST_PAUSE
        request = ReloadRequest(
            source=REVERT,
            actor="probation",
            recall=failed.fallback,
            if_match=self._coordinator.etag,
            reason=event.why,
        )
        while not self._closed:
            try:
                report = await self._coordinator.reload(request)
            except ShuttingDown:
                return
            except PreconditionFailed:
                self._lifecycle.emit(ProbationEnded(failed, SUPERSEDED, "probation"))
                return
            except GenerationUnknown as error:
                self._stuck(failed, error)
                return
            if report.ok:
                self._succeeded(event, report)
                return
            log.error(
                "undoing generation {number} failed, trying again in {pause:g} s: {why}",
                number=failed.generation,
                pause=pause,
                why=report.error,
            )
            await deferLater(self._clock, pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _stuck(self, failed: Probation, error: GenerationUnknown) -> None:
        log.error("generation {number} cannot be undone: {why}", number=failed.generation, why=str(error))
        self._record(failed, STUCK, str(error))
        self._probations.undoing = None
        self._probations.checkpoint.save_soon()

    def _succeeded(self, event: ProbationFailed, report: ReloadReport) -> None:
        failed = event.probation
        self._record(failed, REVERTED, event.why)
        if report.generation == failed.generation:  # a forced reload had the same content: nothing to adopt
            self._probations.undoing = None
            self._probations.checkpoint.save_soon()
        # A version that still serves after the rollback is in the fallback too: the change did not cause its failures.
        active = self._registry.active
        self._redrive((each for each in event.bindings if active.get(each.id) not in (None, each)), failed.began_at)

    def _record(self, failed: Probation, outcome: str, why: str) -> None:
        self._lifecycle.emit(RolloutRecorded("probation_ended", ProbationOutcome.of(failed, outcome, why=why)))

    def _redrive(self, bindings: Iterable[BindingVersion], since: float) -> None:
        for binding in list(bindings):
            self._dispatcher.move_and_redrive(binding, since).addErrback(
                lambda failure, key: log.failure("redriving dead letters of {binding} failed", failure, binding=key),
                binding.key,
            )
