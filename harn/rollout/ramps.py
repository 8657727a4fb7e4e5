"""
Ramps: the share of deliveries of a new version rises step by step, and falls to 0 if too many of its attempts fail.

`harn.triggers.routing` chooses the version of each delivery by the share. This module changes the share and ends the
ramp.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import BackSteps, WallTime, sleep_until
from harn.errors import NothingPending, ShuttingDown
from harn.lifecycle import Lifecycle, Settled, SettledDelivery
from harn.manifest.model import RolloutSpec
from harn.model.delivery import counts_against_code
from harn.model.display import list_some
from harn.reload.coordinator import Coordinator
from harn.reload.generation import Candidate
from harn.reload.results import RampInfo
from harn.rollout.model import (
    ABORTED,
    FINISHED,
    SHARE_DIGITS,
    SUPERSEDED,
    ActiveRamp,
    RampLost,
    RampRecord,
    RampsRecorded,
    RolloutRecorded,
    why_failed,
)
from harn.rollout.persister import IRecorded, PersistedValue, Persister
from harn.triggers.routing import Ramp

log = Logger(namespace="harn.reload")

NAME = "ramps"
"""The name of the checkpoint that holds the ramps in the store."""
MOST_RECORDED = 100
"""The most ramps that one record describes; its count is of all."""
SPACING = 1.0
"""Seconds between two rounds that end failed ramps, so that thousands of failures take few rounds."""


@implementer(IRecorded)
class Ramps:
    """
    The ramps of the live generation, and the aborted ramps whose trigger has not changed since.

    Thousands of triggers may ramp together: all ramps share one timer, and those that end at the same time end in one
    step.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        lifecycle: Lifecycle,
        persister: Persister,
        coordinator: Coordinator,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._back_steps = BackSteps(clock, wall)
        self._lifecycle = lifecycle
        self._coordinator = coordinator
        self.checkpoint = PersistedValue(persister, NAME, self)
        self._running: dict[str, ActiveRamp] = {}
        self._aborted: dict[str, RampRecord] = {}
        self._remembered: Mapping[str, RampRecord] = {}
        self._timer: IDelayedCall | None = None
        self._failed: list[ActiveRamp] = []
        self._next_verdict = 0.0
        self._closed = False
        lifecycle.subscribe(Settled, self._settled)

    # Queries and requests

    def record(self) -> tuple[RampRecord, ...] | None:
        """Return the stored form of all ramps but finished ones; None if there is none."""
        running = (each.record() for each in self._running.values())
        return (*(record for record in running if record.state != FINISHED), *self._aborted.values()) or None

    def describe(self, trigger_id: str | None = None) -> list[RampInfo]:
        """Return all ramps, or the ramp of one trigger, in the form of operations, ordered by trigger id."""
        known: dict[str, RampRecord | ActiveRamp] = {**self._aborted, **self._running}
        names = sorted(known) if trigger_id is None else [trigger_id] if trigger_id in known else []
        return [known[name].info() for name in names]

    def needed(self) -> tuple[tuple[str, int], ...]:
        """Return the trigger id and number of each stable version: the next server may need to serve it again."""
        stable = [running.ramp.stable for running in self._running.values()]
        aborted = ((record.trigger_id, record.stable) for record in self._aborted.values())
        return (*((binding.id, binding.version) for binding in stable), *aborted)

    def remember(self, records: Mapping[str, RampRecord]) -> None:
        """Keep the records of an earlier server until the first generation is adopted, which continues these ramps."""
        self._remembered = records

    def adopted(self, candidate: Candidate) -> None:
        """Begin the ramps that a new generation brings, and drop the ramps that it no longer has."""
        generation, now = candidate.generation, self._wall.seconds()
        if self._aborted:
            replaced = {*candidate.plan.added, *candidate.plan.modified, *candidate.plan.removed}
            for trigger_id in replaced & self._aborted.keys():
                del self._aborted[trigger_id]
        for trigger_id, running in tuple(self._running.items()):
            if generation.ramps.get(trigger_id) is not running.ramp:
                del self._running[trigger_id]
        for trigger_id, ramp in generation.ramps.items():
            if trigger_id not in self._running:
                self._begin(ramp, candidate.rollouts.get(trigger_id), now)
        for trigger_id, record in self._remembered.items():
            held = generation.bindings.get(trigger_id)
            if record.state == ABORTED and held is not None and held.version == record.stable:
                self._aborted[trigger_id] = record
        self._remembered = {}
        self._set_timer()

    def settle(self, records: Mapping[str, RampRecord]) -> None:
        """End the ramps that the old program has ended, by these records, since this upgrade read them first."""
        lost: list[ActiveRamp] = []
        won: list[ActiveRamp] = []
        for running in self._running.values():
            record = records.get(running.trigger_id)
            if record is None or record.fresh != running.ramp.fresh.version:
                won.append(running)
            elif record.state == ABORTED:
                lost.append(running)
        if lost:
            self._decide(lost, records[lost[0].trigger_id].why, won=False)
        if won:
            self._decide(won, "it was finished", won=True)

    async def finish(self, trigger_id: str | None, actor: str) -> list[RampInfo]:
        """
        Send all new deliveries of a trigger, or of all ramping triggers, to the fresh version; end the ramps.

        :raises NothingPending: there is no such ramp.
        :raises EventLogUnavailable: the store cannot be written; the ramp continues.
        :raises ShuttingDown: the server's end came first.
        """
        return await self._ask(trigger_id, f"finished by {actor}", won=True)

    async def abort(self, trigger_id: str | None, actor: str) -> list[RampInfo]:
        """
        Send all new deliveries of a trigger, or of all ramping triggers, to the stable version; end the ramps.

        :raises NothingPending: there is no such ramp.
        :raises EventLogUnavailable: the store cannot be written; the ramp continues.
        :raises ShuttingDown: the server's end came first.
        """
        return await self._ask(trigger_id, f"aborted by {actor}", won=False)

    def close(self) -> None:
        """Stop all steps; the next server continues the ramps from their stored state."""
        self._closed = True
        self._set_timer()

    # Steps and ends

    def _chosen(self, trigger_id: str | None) -> list[ActiveRamp]:
        running = [each for each in self._running.values() if not each.is_ending]
        chosen = [each for each in running if trigger_id in (None, each.trigger_id)]
        if not chosen:
            known = ", ".join(sorted(each.trigger_id for each in running)) or "none"
            what = "no trigger ramps" if trigger_id is None else f"trigger {trigger_id!r} does not ramp"
            raise NothingPending(f"{what}; ramping triggers: {known}")
        return chosen

    def _begin(self, ramp: Ramp, policy: RolloutSpec | None, now: float) -> None:
        fresh = ramp.fresh
        record = self._remembered.get(fresh.id)
        if record is not None and policy is None and record.fresh == fresh.version:
            policy, began_at, next_at = record.policy, record.began_at, record.next_at
        else:
            policy = policy or RolloutSpec(percent=ramp.share)
            began_at, next_at = now, now + policy.every if policy.step else None
        self._running[fresh.id] = ActiveRamp(ramp, policy, began_at, next_at)

    def _set_timer(self) -> None:
        """Set the timer for the earliest step of any ramp, or for the next round that ends failed ramps."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        turns = [each.next_at for each in self._running.values() if each.next_at is not None and not each.is_ending]
        pauses = [sleep_until(min(turns), self._wall)] if turns else []
        if self._failed:
            pauses.append(max(0.0, self._next_verdict - self._clock.seconds()))
        if pauses:
            self._timer = self._clock.callLater(min(pauses), self._look)

    def _look(self) -> None:
        self._timer = None
        back = self._back_steps.look()
        if back:  # the wall clock was set back: move the times of the ramps as far
            for running in self._running.values():
                running.earlier(back)
            self.checkpoint.save_soon()
        self._step(self._wall.seconds())
        now = self._clock.seconds()
        if self._failed and self._next_verdict <= now:
            self._end_failed(now)
        self._set_timer()

    def _step(self, now: float) -> None:
        """Raise the shares whose steps are due at ``now``; finish the ramps whose share reaches 1."""
        over: list[ActiveRamp] = []
        stepped: list[ActiveRamp] = []
        for running in self._running.values():
            if running.next_at is None or running.next_at > now or running.is_ending:
                continue
            share = round(running.ramp.share + running.policy.step, SHARE_DIGITS)
            if share >= 1.0:
                over.append(running)
            else:
                running.ramp.share, running.next_at = share, now + running.policy.every
                stepped.append(running)
        if stepped:
            self._lifecycle.emit(RolloutRecorded("ramp_stepped", _recorded([each.record().info() for each in stepped])))
            self.checkpoint.save_soon()
        if over:
            self._decide(over, "every step went well", won=True)

    def _settled(self, event: Settled) -> None:
        if self._running:
            for each in event.deliveries:
                self._settled_one(each)

    def _settled_one(self, event: SettledDelivery) -> None:
        running, attempt = self._running.get(event.trigger_id), event.settlement.attempt
        if running is None or attempt is None or running.ramp.fresh.key != event.binding:
            return
        running.attempts += 1
        running.failures += counts_against_code(attempt)
        if self._closed or running.is_ending:
            return
        why = why_failed(running.policy, running.attempts, running.failures)
        if why is None:
            return
        self._close_for(running, why, won=False)
        self._failed.append(running)
        now = self._clock.seconds()
        if self._next_verdict <= now:
            self._end_failed(now)
        self._set_timer()

    def _end_failed(self, now: float) -> None:
        """End the ramps that failed since the last round."""
        failed, self._failed = self._failed, []
        self._next_verdict = now + SPACING
        self._decide(failed, "", won=False)

    def _decide(self, ending: list[ActiveRamp], why: str, *, won: bool) -> None:
        """Decide how ramps end, and end them in the background."""
        for running in ending:
            self._close_for(running, running.verdict or why, won=won)
        self.checkpoint.save_soon()
        Deferred.fromCoroutine(self._end(ending)).addErrback(self._not_ended)

    def _not_ended(self, failure: Failure) -> None:
        if not failure.check(ShuttingDown):  # the next server continues from what was kept
            log.failure("ending ramps failed", failure)

    async def _ask(self, trigger_id: str | None, why: str, *, won: bool) -> list[RampInfo]:
        """End ramps as an operator asked; store the decision first, so that a restart does not lose it."""
        ending = self._chosen(trigger_id)
        for running in ending:
            self._close_for(running, why, won=won)
        self._set_timer()
        try:
            await self.checkpoint.save()
        except BaseException:
            self._open_again(ending)
            raise
        return await self._end(ending)

    def _close_for(self, running: ActiveRamp, why: str, *, won: bool) -> None:
        """Decide how a ramp ends: from now on, all new deliveries go to the winning version."""
        if not running.is_ending:
            running.share_before = running.ramp.share
        running.verdict, running.has_won = why, won
        running.ramp.share = float(won)

    def _open_again(self, ending: list[ActiveRamp]) -> None:
        """Undo `_close_for`: the ramps continue with the shares that they had before."""
        for running in ending:
            running.verdict, running.ramp.share = None, running.share_before
        self._set_timer()
        self.checkpoint.save_soon()

    async def _end(self, ending: list[ActiveRamp]) -> list[RampInfo]:
        """End ramps whose end is decided, as soon as no reload runs; return them in the form of operations."""
        winners = {each.ramp: each.ramp.fresh if each.has_won else each.ramp.stable for each in ending}
        try:
            ended = await self._coordinator.end_ramps(winners)
        except ShuttingDown:
            raise  # the decision is stored; the next server ends the ramps
        except BaseException:
            self._open_again([each for each in ending if self._running.get(each.trigger_id) is each])
            raise
        shown: list[RampInfo] = []
        for running in ending:
            if running.ramp not in ended:
                shown.append(structs.replace(running.info(), state=SUPERSEDED))
                continue
            del self._running[running.trigger_id]
            shown.append(running.info())
            if not running.has_won:
                self._aborted[running.trigger_id] = running.record()
                self._lifecycle.emit(RampLost(running.ramp.fresh, running.began_at))
        self._announce([each for each in shown if each.state != SUPERSEDED])
        self.checkpoint.save_soon()
        self._set_timer()
        return shown

    def _announce(self, ended: list[RampInfo]) -> None:
        """Log and record how ramps ended."""
        for state in (FINISHED, ABORTED):
            some = [each for each in ended if each.state == state]
            if not some:
                continue
            log.info(
                "ramp {state}: {bindings} take all deliveries: {why}",
                state=state,
                bindings=list_some([each.fresh if state == FINISHED else each.stable for each in some]),
                why=some[0].why,
            )
            self._lifecycle.emit(RolloutRecorded(f"ramp_{state}", _recorded(some)))


def _recorded(ramps: list[RampInfo]) -> RampsRecorded:
    return RampsRecorded(count=len(ramps), ramps=tuple(ramps[:MOST_RECORDED]))
