"""
The values of rollouts, pure functions that decide from them, and the lifecycle events of rollouts (see
`harn.lifecycle`).

The values are the terms of a probation, the state of a ramp, the records of both that are read after a restart, and
the forms that operations return.
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
"""How a probation ends if the store has no longer the fallback generation: the generation on probation stays."""
MINIMUM = 10
"""The least number of attempts of the fresh version before its failures can abort the ramp."""
RUNNING, FINISHED, ABORTED = "running", "finished", "aborted"
"""The states of a ramp."""
SHARE_DIGITS = 9
"""Digits to which a share is rounded, so that ten steps of 10 % make exactly 1."""


class ProbationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The stored form of a probation, which the next server reads after a restart.

    :ivar generation: see `Probation`.
    :ivar fallback: see `Probation`.
    :ivar times: ``began_at``, ``confirm_by`` and ``watch_until`` of the `Probation` (seconds, Unix).
    :ivar limit: the rate (0 to 1) and the minimum of the `FailureLimit`; None for no limit.
    :ivar verdict: see `Probation`.
    :ivar bindings: the keys of the binding versions that are new in the generation.
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

    :ivar generation: the number of the generation on probation.
    :ivar fallback: the number of the generation that is adopted again if the one on probation fails.
    :ivar began_at: when the probation began.
    :ivar confirm_by: an operator must confirm the generation by this time, or it is rolled back; None if no
        confirmation is needed.
    :ivar limit: the failures of attempts of its new versions above which it is rolled back; None for no limit.
    :ivar watch_until: failures are counted against ``limit`` until this time; None for no limit.
    :ivar verdict: why it is to be rolled back, from the decision until the rollback has succeeded; None before.
    """

    generation: int
    fallback: int
    began_at: float
    confirm_by: float | None = None
    limit: FailureLimit | None = None
    watch_until: float | None = None
    verdict: str | None = None

    def info(self) -> ProbationInfo:
        """Return the form that operations return."""
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
        """Return the stored form; ``bindings`` are the keys of the generation's new versions."""
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
        """Return the probation that a record describes."""
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
        """Return why the generation fails with so many attempts of its new versions; None if it does not."""
        limit = self.limit
        if limit is None or self.watch_until is None or now >= self.watch_until:
            return None
        if not limit.is_exceeded(attempts, failures):
            return None
        return f"{failures} of {attempts} attempts of the new versions failed, more than {format_share(limit.rate)}"

    def lapsed(self, now: float) -> str | None:
        """Return why to roll back at ``now``: the verdict, or that ``confirm_by`` has passed; None if neither."""
        if self.verdict is not None:
            return self.verdict
        if self.confirm_by is None or now < self.confirm_by:
            return None
        return f"it was not confirmed within {format_duration(round(self.confirm_by - self.began_at, 3))}"

    def is_passed(self, now: float) -> bool:
        """Return whether the generation has passed: no confirmation is needed, and ``watch_until`` has come."""
        return self.confirm_by is None and (self.watch_until is None or now >= self.watch_until)

    def earlier(self, seconds: float) -> Probation:
        """Return this probation with all its times moved back by ``seconds``."""
        by, until = self.confirm_by, self.watch_until
        return replace(
            self,
            began_at=self.began_at - seconds,
            confirm_by=None if by is None else by - seconds,
            watch_until=None if until is None else until - seconds,
        )

    def next_turn(self, now: float) -> float | None:
        """Return the first time after ``now`` at which the probation must be checked; None if there is none."""
        return min((at for at in (self.confirm_by, self.watch_until) if at is not None and at > now), default=None)


def terms(
    request: ReloadRequest, settings: ReloadSettings, generation: int, fallback: int, now: float
) -> Probation | None:
    """
    Return the probation that a generation begins when it is adopted at ``now``; None if it gets none.

    What the request sets takes precedence over ``[orchestrator.reload]``. A rollback begins no probation; it ends the
    current one.
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
    The stored form of a ramp, which the next server reads after a restart.

    The record of an aborted ramp is kept while the manifest still defines the fresh version. Times are seconds, Unix.

    :ivar state: `RUNNING`, `FINISHED` or `ABORTED`.
    :ivar stable: the number of the version that served before the ramp.
    :ivar fresh: the number of the version that the ramp introduces.
    :ivar share: the share of new deliveries that the fresh version gets, 0 to 1.
    :ivar next_at: when the next step is due; None if there is none.
    :ivar why: why the ramp ended; empty while it runs.
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
        """Return the form that operations return."""
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
    Return the records of ramps in a checkpoint, by trigger id.

    :param kept: the checkpoint as the store returned it; None if there is none.
    :raises msgspec.ValidationError: ``kept`` does not have the shape of a list of `RampRecord`.
    """
    records = msgspec.convert(kept or [], type=list[RampRecord])
    return {record.trigger_id: record for record in records}


@define(eq=False)
class ActiveRamp:
    """
    A ramp that runs, or whose end is decided and not carried out yet.

    Once the end is decided, all new deliveries go to the winning version. The other version is removed later, when no
    reload runs.

    :ivar began_at: when the ramp began (seconds, Unix).
    :ivar next_at: when the next step is due (seconds, Unix); None if there is none.
    :ivar attempts: how many attempts the fresh version has made since the ramp began.
    :ivar failures: how many of ``attempts`` failed.
    :ivar verdict: why the ramp ends; None until its end is decided.
    :ivar has_won: whether the fresh version stays; valid once ``verdict`` is set.
    :ivar share_before: the share (0 to 1) that the fresh version had when the end was decided.
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
        """The id of the trigger that ramps."""
        return self.ramp.fresh.id

    @property
    def is_ending(self) -> bool:
        """Whether the end of the ramp is decided."""
        return self.verdict is not None

    def earlier(self, seconds: float) -> None:
        """Move the times of the ramp back by ``seconds``."""
        self.began_at -= seconds
        if self.next_at is not None:
            self.next_at -= seconds

    def record(self) -> RampRecord:
        """Return the stored form; a ramp whose end is decided is recorded as ended."""
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
        """Return the form that operations return, with the attempts of the fresh version so far."""
        return msgspec.structs.replace(self.record().info(), attempts=self.attempts, failures=self.failures)


def why_failed(policy: RolloutSpec, attempts: int, failures: int) -> str | None:
    """Return why a ramp aborts with this many attempts of its fresh version; None if it does not abort."""
    if policy.max_failures is None:
        return None
    if not FailureLimit(rate=policy.max_failures, minimum=MINIMUM).is_exceeded(attempts, failures):
        return None
    return f"{failures} of {attempts} attempts failed, more than {format_share(policy.max_failures)}"


class ProbationFailed(Struct, frozen=True, eq=False):
    """
    A generation failed its probation and must be rolled back.

    :ivar bindings: the versions that are new in the generation.
    :ivar why: the reason, as a clause for logs and records.
    """

    probation: Probation
    bindings: tuple[BindingVersion, ...]
    why: str


class ProbationEnded(Struct, frozen=True, eq=False):
    """
    A probation ended without a rollback.

    :ivar how: `CONFIRMED`, `PASSED` or `SUPERSEDED`.
    :ivar actor: who confirmed the generation or adopted another one; ``probation`` if it ended by itself.
    """

    probation: Probation
    how: str
    actor: str


class RampLost(Struct, frozen=True, eq=False):
    """A ramp was aborted: dead letters of its fresh version from after ``since`` (seconds, Unix) are to be redriven."""

    fresh: BindingVersion
    since: float


class ProbationOutcome(ProbationInfo, frozen=True, kw_only=True):
    """
    The record of how a probation ended.

    :ivar outcome: `CONFIRMED`, `PASSED`, `SUPERSEDED`, `REVERTED` or `STUCK`.
    :ivar actor: who ended it; unset if the generation failed.
    :ivar why: why the generation failed; unset otherwise.
    """

    outcome: str
    actor: str | UnsetType = UNSET
    why: str | UnsetType = UNSET

    @classmethod
    def of(
        cls, probation: Probation, outcome: str, *, actor: str | UnsetType = UNSET, why: str | UnsetType = UNSET
    ) -> ProbationOutcome:
        """Return the record of a probation that ended with this outcome."""
        return cls(**structs.asdict(probation.info()), outcome=outcome, actor=actor, why=why)


class RampsRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """
    The record of ramps that took a step or ended together.

    :ivar count: how many they are.
    :ivar ramps: the first of them; see `harn.rollout.ramps.MOST_RECORDED`.
    """

    count: int
    ramps: tuple[RampInfo, ...]


class RolloutRecorded(Struct, frozen=True, eq=False):
    """
    A step or an end of a rollout, to be recorded on the topic ``orchestrator.manifest``.

    :ivar kind: ``probation_ended``, ``ramp_stepped``, ``ramp_finished`` or ``ramp_aborted``.
    """

    kind: str
    payload: ProbationOutcome | RampsRecorded
