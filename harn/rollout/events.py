"""The lifecycle events of rollouts; see `harn.lifecycle`."""

from __future__ import annotations

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType, structs

from harn.reload.results import ProbationInfo, RampInfo
from harn.rollout.model import Probation
from harn.triggers.binding import BindingVersion


@frozen(eq=False)
class ProbationFailed:
    """
    A generation on probation failed it, and must be undone.

    :ivar bindings: its new versions.
    """

    probation: Probation
    bindings: tuple[BindingVersion, ...]
    why: str


@frozen(eq=False)
class ProbationEnded:
    """A probation ended otherwise: ``how`` is `CONFIRMED`, `PASSED` or `SUPERSEDED` of `harn.rollout.model`."""

    probation: Probation
    how: str
    actor: str


@frozen(eq=False)
class RampLost:
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


@frozen(eq=False)
class RolloutRecorded:
    """
    A step of a rollout that is recorded on the topic ``orchestrator.manifest``.

    :ivar kind: ``probation_ended``, ``ramp_stepped``, ``ramp_finished`` or ``ramp_aborted``.
    """

    kind: str
    payload: ProbationOutcome | RampsRecorded
