"""Dead letters that the store makes itself, in whichever database."""

from __future__ import annotations

from harn.model.delivery import BINDING_REMOVED, RECOVERY_LIMIT, DeadLetter

REMOVED = DeadLetter(
    reason=BINDING_REMOVED,
    error_class=BINDING_REMOVED,
    error="its trigger was removed from the manifest before it was done",
)


def given_up(limit: int) -> DeadLetter:
    """Say that a delivery was running at ``limit`` crashes of its server."""
    error = f"it was running at {limit} crashes of its server"
    return DeadLetter(reason=RECOVERY_LIMIT, error_class=RECOVERY_LIMIT, error=error)
