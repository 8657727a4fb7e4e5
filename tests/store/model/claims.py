"""Claims that a store in memory holds: until when, and whose they are."""

from __future__ import annotations

from attrs import frozen

from harn.model.delivery import Claim


@frozen
class Held:
    """A claim that is taken: until when (seconds, Unix), and by which delivery, if that may release it."""

    expires_at: float
    delivery_id: int | None


class Claims:
    """What was taken, by scope and key."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Held] = {}

    def take(self, claim: Claim, now: float, delivery_id: int | None = None) -> bool:
        """See `IInbox.claim`; ``delivery_id`` is whose it is."""
        held = self._held.get((claim.scope, claim.key))
        if held is not None and held.expires_at > now:
            return False
        self._held[claim.scope, claim.key] = Held(claim.expires_at, None if claim.lasting else delivery_id)
        return True

    def release(self, delivery_id: int) -> None:
        """Release what a delivery holds, as it is dead."""
        for key in [key for key, held in self._held.items() if held.delivery_id == delivery_id]:
            del self._held[key]

    def trim(self, now: float, limit: int) -> int:
        """Remove expired ones, up to ``limit``; count them."""
        expired = sorted((held.expires_at, key) for key, held in self._held.items() if held.expires_at <= now)[:limit]
        for _, key in expired:
            del self._held[key]
        return len(expired)
