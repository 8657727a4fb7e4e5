"""The lifecycle events of rollouts; see `harn.lifecycle`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

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


@frozen(eq=False)
class RolloutRecorded:
    """
    A step of a rollout that is recorded on the topic ``orchestrator.manifest``.

    :ivar kind: ``probation_ended``, ``ramp_stepped``, ``ramp_finished`` or ``ramp_aborted``.
    """

    kind: str
    payload: Mapping[str, Any]
