"""Dead letters that the store makes itself, in whichever database."""

from __future__ import annotations

from harn.model.delivery import BINDING_REMOVED, RECOVERY_LIMIT, DeadLetter

REMOVED = DeadLetter(
    reason=BINDING_REMOVED,
    error_class=BINDING_REMOVED,
    error="its trigger was removed from the manifest before it was done",
)


def given_up(limit: int) -> DeadLetter:
    """Say that a delivery was unfinished at ``limit`` restarts."""
    error = f"it was unfinished at {limit} restarts"
    return DeadLetter(reason=RECOVERY_LIMIT, error_class=RECOVERY_LIMIT, error=error)
