"""
Values of rollouts, and pure functions of them: the terms of a probation, the state of a ramp, their records, which
outlast a restart, and their forms for people; and the lifecycle events of both (see `harn.lifecycle`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from attrs import define
from msgspec import UNSET, Struct, UnsetType, structs
from msgspec.structs import replace

from harn.clocks import rfc3339
from harn.manifest.model import RolloutSpec
from harn.manifest.settings import ReloadSettings
from harn.model.quantities import FailureLimit, format_duration, format_share
from harn.model.references import binding_key
from harn.reload.report import ReloadRequest
from harn.reload.results import ProbationInfo, RampInfo
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Ramp

CONFIRMED, PASSED, SUPERSEDED, REVERTED = "confirmed", "passed", "superseded", "reverted"
"""How a probation ends."""
STUCK = "stuck"
"""How a probation ends whose fallback is not kept any more: its generation stays."""
MINIMUM = 10
"""Attempts of the fresh version below which its failures are not evaluated."""
RUNNING, FINISHED, ABORTED = "running", "finished", "aborted"
SHARE_DIGITS = 9
"""Digits to which a share is rounded, so that ten steps of 10 % make exactly 1."""


class ProbationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A probation as the store keeps it, over restarts.

    :ivar times: of `Probation`: when it began, ``confirm_by`` and ``watch_until``. ``limit``: rate and minimum.
    :ivar bindings: the keys of its new versions.
    """

    generation: int
    fallback: int
    times: tuple[float, float | None, float | None]
    limit: tuple[float, int] | None = None
    verdict: str | None = None
    bindings: tuple[str, ...] = ()


class Probation(Struct, frozen=True, kw_only=True):
    """
    The terms of one probation. Times are seconds, Unix.

    :ivar generation: the one that is on probation; ``fallback``: the one whose content replaces it if it is undone.
    :ivar confirm_by: when it is undone unless it was confirmed; None when it need not be confirmed.
    :ivar limit: failed attempts of its new versions at which it is undone, until ``watch_until``; None for no limit.
    :ivar verdict: why it will be undone, once that is decided and not done yet.
    """

    generation: int
    fallback: int
    began_at: float
    confirm_by: float | None = None
    limit: FailureLimit | None = None
    watch_until: float | None = None
    verdict: str | None = None

    def info(self) -> ProbationInfo:
        """Return the form for people."""
        info = ProbationInfo(
            generation=self.generation,
            fallback=self.fallback,
            began_at=rfc3339(self.began_at),
            confirm_by=UNSET if self.confirm_by is None else rfc3339(self.confirm_by),
            verdict=UNSET if self.verdict is None else self.verdict,
        )
        if self.limit is None or self.watch_until is None:
            return info
        return msgspec.structs.replace(
            info,
            revert_on_failures=format_share(self.limit.rate),
            minimum=self.limit.minimum,
            until=rfc3339(self.watch_until),
        )

    def record(self, bindings: Iterable[str]) -> ProbationRecord:
        """Return the form in which the store keeps it, with the keys of its new versions."""
        return ProbationRecord(
            generation=self.generation,
            fallback=self.fallback,
            times=(self.began_at, self.confirm_by, self.watch_until),
            limit=None if self.limit is None else (self.limit.rate, self.limit.minimum),
            verdict=self.verdict,
            bindings=tuple(bindings),
        )

    @classmethod
    def of(cls, record: ProbationRecord) -> Probation:
        """Return the probation of a record."""
        began_at, confirm_by, watch_until = record.times
        return cls(
            generation=record.generation,
            fallback=record.fallback,
            began_at=began_at,
            confirm_by=confirm_by,
            limit=None if record.limit is None else FailureLimit(rate=record.limit[0], minimum=record.limit[1]),
            watch_until=watch_until,
            verdict=record.verdict,
        )

    def failed(self, now: float, attempts: int, failures: int) -> str | None:
        """Return why these attempts of its new versions undo it; None when they do not."""
        limit = self.limit
        if limit is None or self.watch_until is None or now >= self.watch_until:
            return None
        if not limit.is_exceeded(attempts, failures):
            return None
        return f"{failures} of {attempts} attempts of the new versions failed, more than {format_share(limit.rate)}"

    def lapsed(self, now: float) -> str | None:
        """Return why the time that has passed, or an earlier verdict, undoes it; None when it does not."""
        if self.verdict is not None:
            return self.verdict
        if self.confirm_by is None or now < self.confirm_by:
            return None
        return f"it was not confirmed within {format_duration(round(self.confirm_by - self.began_at, 3))}"

    def is_passed(self, now: float) -> bool:
        """Return whether it can end well now: it need not be confirmed, and its failures are not watched any longer."""
        return self.confirm_by is None and (self.watch_until is None or now >= self.watch_until)

    def earlier(self, seconds: float) -> Probation:
        """Return the same with all times so much earlier."""
        by, until = self.confirm_by, self.watch_until
        return replace(
            self,
            began_at=self.began_at - seconds,
            confirm_by=None if by is None else by - seconds,
            watch_until=None if until is None else until - seconds,
        )

    def next_turn(self, now: float) -> float | None:
        """Return the next time at which it must be checked; None when there is none."""
        return min((at for at in (self.confirm_by, self.watch_until) if at is not None and at > now), default=None)


def terms(
    request: ReloadRequest, settings: ReloadSettings, generation: int, fallback: int, now: float
) -> Probation | None:
    """
    Return the probation of a generation that is adopted now; None for none.

    The request takes precedence over ``[orchestrator.reload]``. A rollback is never on probation: it ends one.
    """
    if request.recall is not None:
        return None
    confirm_within = settings.confirm_within if request.confirm_within is None else request.confirm_within
    limit = request.revert_limit
    if limit is None and settings.revert_on_failures is not None:
        limit = FailureLimit(rate=settings.revert_on_failures, minimum=settings.revert_min)
    if confirm_within is None and limit is None:
        return None
    watched = settings.revert_for if request.revert_for is None else request.revert_for
    return Probation(
        generation=generation,
        fallback=fallback,
        began_at=now,
        confirm_by=None if confirm_within is None else now + confirm_within,
        limit=limit,
        watch_until=None if limit is None else now + watched,
    )


class RampRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A ramp as the store keeps it over restarts; an aborted one for as long as the manifest defines the version it tried.

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

    def info(self) -> RampInfo:
        """Return the form for people."""
        policy = self.policy
        return RampInfo(
            trigger_id=self.trigger_id,
            state=self.state,
            stable=binding_key(self.trigger_id, self.stable),
            fresh=binding_key(self.trigger_id, self.fresh),
            percent=round(self.share * 100, 4),
            step=round(policy.step * 100, 4),
            every=format_duration(policy.every) if policy.step else None,
            max_failures=None if policy.max_failures is None else format_share(policy.max_failures),
            began_at=rfc3339(self.began_at),
            next_step_at=None if self.next_at is None else rfc3339(self.next_at),
            why=self.why,
        )


def read_records(kept: Any) -> dict[str, RampRecord]:
    """
    Read the records that the store kept; return them by trigger id.

    :raises msgspec.ValidationError: they have another shape.
    """
    records = msgspec.convert(kept or [], type=list[RampRecord])
    return {record.trigger_id: record for record in records}


@define(eq=False)
class ActiveRamp:
    """
    One ramp under way.

    :ivar attempts: of the fresh version since it began; ``failures``: those of them that failed.
    :ivar share_before: the share when its end was decided.
    :ivar verdict: why it ends, once that is decided; ``has_won``: whether the fresh version stays. New deliveries
        follow immediately; the versions change when no reload runs.
    """

    ramp: Ramp
    policy: RolloutSpec
    began_at: float
    next_at: float | None
    attempts: int = 0
    failures: int = 0
    verdict: str | None = None
    has_won: bool = False
    share_before: float = 0.0

    @property
    def trigger_id(self) -> str:
        """The id of its trigger."""
        return self.ramp.fresh.id

    @property
    def is_ending(self) -> bool:
        """Whether its end is decided."""
        return self.verdict is not None

    def earlier(self, seconds: float) -> None:
        """Make its times so much earlier."""
        self.began_at -= seconds
        if self.next_at is not None:
            self.next_at -= seconds

    def record(self) -> RampRecord:
        """Return the record that outlasts a restart; one whose end is decided is recorded as ended."""
        state = RUNNING if self.verdict is None else FINISHED if self.has_won else ABORTED
        return RampRecord(
            trigger_id=self.trigger_id,
            state=state,
            stable=self.ramp.stable.version,
            fresh=self.ramp.fresh.version,
            share=self.ramp.share if state == RUNNING else float(self.has_won),
            policy=self.policy,
            began_at=self.began_at,
            next_at=self.next_at if state == RUNNING else None,
            why=self.verdict or "",
        )

    def info(self) -> RampInfo:
        """Return the form for people, with the attempts of its fresh version so far."""
        return msgspec.structs.replace(self.record().info(), attempts=self.attempts, failures=self.failures)


def why_failed(policy: RolloutSpec, attempts: int, failures: int) -> str | None:
    """Return why these attempts of the fresh version end its ramp; None when they do not."""
    if policy.max_failures is None:
        return None
    if not FailureLimit(rate=policy.max_failures, minimum=MINIMUM).is_exceeded(attempts, failures):
        return None
    return f"{failures} of {attempts} attempts failed, more than {format_share(policy.max_failures)}"


class ProbationFailed(Struct, frozen=True, eq=False):
    """
    A generation on probation failed it, and must be undone.

    :ivar bindings: its new versions.
    """

    probation: Probation
    bindings: tuple[BindingVersion, ...]
    why: str


class ProbationEnded(Struct, frozen=True, eq=False):
    """A probation ended otherwise: ``how`` is `CONFIRMED`, `PASSED` or `SUPERSEDED` of `harn.rollout.model`."""

    probation: Probation
    how: str
    actor: str


class RampLost(Struct, frozen=True, eq=False):
    """A ramp was aborted: deliveries that failed on its fresh version after ``since`` (seconds, Unix) are redriven."""

    fresh: BindingVersion
    since: float


class ProbationOutcome(ProbationInfo, frozen=True, kw_only=True):
    """The record of the end of a probation; ``why`` of one that was rolled back, ``actor`` of any other."""

    outcome: str
    actor: str | UnsetType = UNSET
    why: str | UnsetType = UNSET

    @classmethod
    def of(
        cls, probation: Probation, outcome: str, *, actor: str | UnsetType = UNSET, why: str | UnsetType = UNSET
    ) -> ProbationOutcome:
        """Return the record of a probation that ended so."""
        return cls(**structs.asdict(probation.info()), outcome=outcome, actor=actor, why=why)


class RampsRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """The record of ramps that took a step, or ended: their number, and the first of them."""

    count: int
    ramps: tuple[RampInfo, ...]


class RolloutRecorded(Struct, frozen=True, eq=False):
    """
    A step of a rollout that is recorded on the topic ``orchestrator.manifest``.

    :ivar kind: ``probation_ended``, ``ramp_stepped``, ``ramp_finished`` or ``ramp_aborted``.
    """

    kind: str
    payload: ProbationOutcome | RampsRecorded
