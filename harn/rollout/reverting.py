"""
Reverting: carries out the decisions of probations and ramps. A generation that failed its probation is undone by
adopting the content that served before it, and failed deliveries of a version that was given up are tried again on the
version that replaced it.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.dispatcher import Dispatcher
from harn.errors import GenerationUnknown, PreconditionFailed, ShuttingDown
from harn.lifecycle import Lifecycle
from harn.reload.coordinator import Coordinator
from harn.reload.events import ReloadsClosed
from harn.reload.report import REVERT, ReloadReport, ReloadRequest
from harn.rollout.events import ProbationEnded, ProbationFailed, ProbationOutcome, RampLost, RolloutRecorded
from harn.rollout.model import REVERTED, STUCK, SUPERSEDED, Probation
from harn.rollout.persister import FIRST_PAUSE, LONGEST_PAUSE
from harn.rollout.probation import Probations
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.rollout")


class Reverter:
    """
    Reverts.

    :ivar reverting: fires when the revert under way has ended; None when none is.
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
            self.reverting.cancel()  # the generation that it would undo does not serve any more
        self._probations.undoing = failed
        self._probations.checkpoint.save_soon()  # if this server ends before it is undone, the next carries it out
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
        """Adopt the content that served before, unless something else was adopted meanwhile; retry until it works."""
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
        if report.generation == failed.generation:  # a forced reload of the same content: nothing was adopted
            self._probations.undoing = None
            self._probations.checkpoint.save_soon()
        # A version that the revert left in force was in the fallback too: its failures are not the change's.
        active = self._registry.active
        self._redrive((each for each in event.bindings if active.get(each.id) not in (None, each)), failed.began_at)

    def _record(self, failed: Probation, outcome: str, why: str) -> None:
        self._lifecycle.emit(RolloutRecorded("probation_ended", ProbationOutcome.of(failed, outcome, why=why)))

    def _redrive(self, bindings: Iterable[BindingVersion], since: float) -> None:
        for binding in list(bindings):
            self._dispatcher.take_back(binding, since).addErrback(
                lambda failure, key: log.failure("redriving dead letters of {binding} failed", failure, binding=key),
                binding.key,
            )
