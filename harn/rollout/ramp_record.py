"""One ramp: its state, the record of it that outlasts a restart, and the form for people."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define

from harn.clocks import rfc3339
from harn.manifest.model import RolloutSpec
from harn.model.quantities import FailureLimit, format_duration, format_share
from harn.model.references import binding_key
from harn.reload.results import RampInfo
from harn.triggers.routing import Ramp

MINIMUM = 10
"""Attempts of the fresh version below which its failures are not evaluated."""

RUNNING, FINISHED, ABORTED, SUPERSEDED = "running", "finished", "aborted", "superseded"
SHARE_DIGITS = 9
"""Digits to which a share is rounded, so that ten steps of 10 % make exactly 1."""


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
        follow at once; the versions change when no reload runs.
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
