"""
Ramps over time: how the share of a new version rises step by step, and falls to none when too much of it fails.

What a ramp is to a single delivery is `harn.triggers.ramp`; this is who changes its share, and when it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import rfc3339
from harn.errors import NothingPending, ShuttingDown
from harn.manifest.model import RolloutSpec
from harn.model.durations import format_duration
from harn.model.shares import FailureLimit, format_share
from harn.reload.generation import Candidate
from harn.reload.judges import add_judge, remove_judge
from harn.triggers.binding import BindingVersion
from harn.triggers.ramp import Ramp

log = Logger(namespace="harn.reload")

NAME = "ramps"
"""What the store keeps them under."""
MINIMUM = 10
"""Attempts of the fresh version below which its failures are not judged."""

MOST_NAMED = 10
"""Versions that one line of the log names."""

RUNNING, FINISHED, ABORTED = "running", "finished", "aborted"


class RampRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A ramp as the store keeps it, over restarts; one that was aborted as long as the manifest says what it tried.

    ``share`` of the fresh version is 0 to 1; times are seconds, Unix.
    """

    trigger_id: str
    state: str
    stable: int
    fresh: int
    share: float
    policy: RolloutSpec
    began_at: float
    next_at: float | None = None
    why: str = ""


def read_records(kept: Any) -> dict[str, RampRecord]:
    """
    Read what the store kept, by trigger id.

    :raises msgspec.ValidationError: it is something else.
    """
    records = msgspec.convert(kept or [], type=list[RampRecord])
    return {record.trigger_id: record for record in records}


@frozen(kw_only=True)
class RampSteps:
    """
    What the holder of ramps does at their turns.

    :ivar reroute: let one version of each of these ramps take all deliveries, and the other drain; fires with those
        that were still in force.
    :ivar aborted: called with the fresh version and when its ramp began: its failures go back to the stable one.
    :ivar note: record what happened: a kind and a payload.
    :ivar keep: keep over restarts how they are now.
    """

    reroute: Callable[[Mapping[Ramp, BindingVersion]], Awaitable[frozenset[Ramp]]]
    aborted: Callable[[BindingVersion, float], None]
    note: Callable[[str, Mapping[str, Any]], None]
    keep: Callable[[], None]


@define(eq=False)
class Running:
    """
    One ramp under way.

    :ivar before: attempts of the fresh version when it began, and those that failed.
    :ivar is_ending: somebody has decided its end; that takes effect when the reload that runs is over.
    """

    ramp: Ramp
    policy: RolloutSpec
    began_at: float
    next_at: float | None
    before: tuple[int, int]
    is_ending: bool = False

    @property
    def trigger_id(self) -> str:
        """Whose it is."""
        return self.ramp.fresh.id

    def counts(self) -> tuple[int, int]:
        """How many attempts of the fresh version there were, and how many failed."""
        fresh, (attempts, failures) = self.ramp.fresh, self.before
        return fresh.attempted - attempts, fresh.attempts_failed - failures

    def record(self) -> RampRecord:
        """Give what is kept of it."""
        return RampRecord(
            trigger_id=self.trigger_id,
            state=RUNNING,
            stable=self.ramp.stable.version,
            fresh=self.ramp.fresh.version,
            share=self.ramp.share,
            policy=self.policy,
            began_at=self.began_at,
            next_at=self.next_at,
        )


def why_failed(policy: RolloutSpec, attempts: int, failures: int) -> str | None:
    """Say why these attempts of the fresh version end its ramp; None when they do not."""
    if policy.max_failures is None:
        return None
    if not FailureLimit(rate=policy.max_failures, minimum=MINIMUM).is_exceeded(attempts, failures):
        return None
    return f"{failures} of {attempts} attempts failed, more than {format_share(policy.max_failures)}"


def describe_record(record: RampRecord) -> dict[str, Any]:
    """Show a ramp."""
    policy = record.policy
    return {
        "trigger_id": record.trigger_id,
        "state": record.state,
        "stable": f"{record.trigger_id}@v{record.stable}",
        "fresh": f"{record.trigger_id}@v{record.fresh}",
        "percent": round(record.share * 100, 4),
        "step": round(policy.step * 100, 4),
        "every": format_duration(policy.every) if policy.step else None,
        "max_failures": None if policy.max_failures is None else format_share(policy.max_failures),
        "began_at": rfc3339(record.began_at),
        "next_step_at": None if record.next_at is None else rfc3339(record.next_at),
        **({"why": record.why} if record.why else {}),
    }


class Ramps:
    """
    The ramps of the live generation, and those that were aborted and not yet replaced by another change.

    One timer serves them all, and what becomes of many at once is one step: thousands of triggers may ramp together.
    """

    def __init__(self, clock: IReactorTime, steps: RampSteps) -> None:
        self._clock = clock
        self._steps = steps
        self._running: dict[str, Running] = {}
        self._aborted: dict[str, RampRecord] = {}
        self._remembered: Mapping[str, RampRecord] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False

    # What others ask

    def records(self) -> list[dict[str, Any]] | None:
        """Give what is to be kept over restarts."""
        records = [*(running.record() for running in self._running.values()), *self._aborted.values()]
        return [msgspec.to_builtins(record) for record in records] or None

    def describe(self) -> list[dict[str, Any]]:
        """Show all of them, by trigger id."""
        shown = {trigger_id: describe_record(record) for trigger_id, record in self._aborted.items()}
        for trigger_id, running in self._running.items():
            attempts, failures = running.counts()
            shown[trigger_id] = {**describe_record(running.record()), "attempts": attempts, "failures": failures}
        return [shown[trigger_id] for trigger_id in sorted(shown)]

    def needed(self) -> tuple[tuple[str, int], ...]:
        """Name the stable versions, by trigger id and number: the next server may have to bring them back."""
        stable = [running.ramp.stable for running in self._running.values()]
        aborted = ((record.trigger_id, record.stable) for record in self._aborted.values())
        return (*((binding.id, binding.version) for binding in stable), *aborted)

    def remember(self, records: Mapping[str, RampRecord]) -> None:
        """At a start: take over what an earlier server kept, for those that the first generation goes on with."""
        self._remembered = records

    def adopted(self, candidate: Candidate) -> None:
        """Take notice of a new generation: begin its new ramps, forget those that are over with it."""
        generation, now = candidate.generation, self._clock.seconds()
        replaced = {*candidate.plan.added, *candidate.plan.modified, *candidate.plan.removed}
        for trigger_id in replaced & self._aborted.keys():
            del self._aborted[trigger_id]
        for trigger_id, running in tuple(self._running.items()):
            if generation.ramps.get(trigger_id) is not running.ramp:
                remove_judge(running.ramp.fresh, self._attempted)
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

    async def finish(self, trigger_id: str | None, actor: str) -> list[dict[str, Any]]:
        """
        Give all deliveries of the trigger, or of every one that ramps, to the fresh version.

        :raises NothingPending: there is no such ramp.
        """
        return await self._end(self._chosen(trigger_id), f"finished by {actor}", won=True)

    async def abort(self, trigger_id: str | None, actor: str) -> list[dict[str, Any]]:
        """
        Give all deliveries of the trigger, or of every one that ramps, to the stable version.

        :raises NothingPending: there is no such ramp.
        """
        return await self._end(self._chosen(trigger_id), f"aborted by {actor}", won=False)

    def close(self) -> None:
        """Step no more; the next server goes on with them, as they are."""
        self._closed = True
        for running in self._running.values():
            remove_judge(running.ramp.fresh, self._attempted)
        self._set_timer()

    # Their course

    def _chosen(self, trigger_id: str | None) -> list[Running]:
        running = [each for each in self._running.values() if not each.is_ending]
        chosen = [each for each in running if trigger_id in (None, each.trigger_id)]
        if not chosen:
            known = ", ".join(sorted(each.trigger_id for each in running)) or "none"
            what = "no trigger ramps" if trigger_id is None else f"trigger {trigger_id!r} does not ramp"
            raise NothingPending(f"{what}; ramping are: {known}")
        return chosen

    def _begin(self, ramp: Ramp, policy: RolloutSpec | None, now: float) -> None:
        fresh = ramp.fresh
        record = self._remembered.get(fresh.id)
        if record is not None and policy is None:
            policy, began_at, next_at = record.policy, record.began_at, record.next_at
        else:
            policy = policy or RolloutSpec(percent=ramp.share)
            began_at, next_at = now, now + policy.every if policy.step else None
        self._running[fresh.id] = Running(ramp, policy, began_at, next_at, (fresh.attempted, fresh.attempts_failed))
        if policy.max_failures is not None:
            add_judge(fresh, self._attempted)

    def _set_timer(self) -> None:
        """Wake up for the next step of any of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        turn = min((each.next_at for each in self._running.values() if each.next_at is not None), default=None)
        if turn is not None:
            self._timer = self._clock.callLater(max(0.0, turn - self._clock.seconds()), self._step)

    def _step(self) -> None:
        """Take the steps that are due; those that have all of them are finished."""
        self._timer = None
        now = self._clock.seconds()
        due = [each for each in self._running.values() if each.next_at is not None and each.next_at <= now]
        over = [each for each in due if each.ramp.share + each.policy.step >= 1.0]
        stepped = [each for each in due if each.ramp.share + each.policy.step < 1.0]
        for running in stepped:
            running.ramp.share += running.policy.step
            running.next_at = now + running.policy.every
        if stepped:
            self._steps.note("ramp_stepped", {"ramps": [describe_record(each.record()) for each in stepped]})
            self._steps.keep()
        if over:
            self._decide(over, "every step went well", won=True)
        self._set_timer()

    def _attempted(self, binding: BindingVersion) -> None:
        running = self._running.get(binding.id)
        if running is None or running.ramp.fresh is not binding or running.is_ending:
            return
        why = why_failed(running.policy, *running.counts())
        if why is not None:
            self._decide([running], why, won=False)

    def _decide(self, ending: list[Running], why: str, *, won: bool) -> None:
        """End ramps from within: nobody waits for that."""
        Deferred.fromCoroutine(self._end(ending, why, won=won)).addErrback(self._not_ended)

    def _not_ended(self, failure: Failure) -> None:
        if not failure.check(ShuttingDown):  # the next server decides that again
            log.failure("ending ramps failed", failure)

    async def _end(self, ending: list[Running], why: str, *, won: bool) -> list[dict[str, Any]]:
        """
        End ramps, for the fresh versions or against them; show what became of each.

        Shares change at once; the rest must wait until a reload that runs is over.
        """
        for running in ending:
            remove_judge(running.ramp.fresh, self._attempted)
            running.is_ending, running.next_at = True, None
            running.ramp.share = 1.0 if won else 0.0
        self._set_timer()
        winners = {each.ramp: each.ramp.fresh if won else each.ramp.stable for each in ending}
        ended = await self._steps.reroute(winners)
        shown: list[dict[str, Any]] = []
        for running in ending:
            if running.ramp not in ended:
                shown.append({**describe_record(running.record()), "state": "superseded"})
                continue
            del self._running[running.trigger_id]
            record = msgspec.structs.replace(running.record(), state=FINISHED if won else ABORTED, why=why)
            attempts, failures = running.counts()
            shown.append({**describe_record(record), "attempts": attempts, "failures": failures})
            if not won:
                self._aborted[running.trigger_id] = record
                self._steps.aborted(running.ramp.fresh, running.began_at)
        if ended:
            self._tell(shown, why, won=won)
        return shown

    def _tell(self, shown: list[dict[str, Any]], why: str, *, won: bool) -> None:
        """Log and record how ramps ended, and keep that."""
        told = [each for each in shown if each["state"] != "superseded"]
        keys = [each["fresh" if won else "stable"] for each in told]
        log.info(
            "{what}: {bindings} take all deliveries: {why}",
            what="ramp finished" if won else "ramp aborted",
            bindings=", ".join(keys[:MOST_NAMED]) + (", ..." if len(keys) > MOST_NAMED else ""),
            why=why,
        )
        self._steps.note("ramp_finished" if won else "ramp_aborted", {"ramps": told})
        self._steps.keep()
