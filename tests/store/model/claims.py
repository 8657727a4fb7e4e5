"""Claims that a store in memory holds: until when, and whose they are."""

from __future__ import annotations

from attrs import evolve, frozen

from harn.model.delivery import Claim


@frozen
class Held:
    """
    A claim that is taken: until when (seconds, Unix), and by which delivery, if any.

    :ivar is_released: its delivery is a dead letter.
    """

    expires_at: float
    delivery_id: int | None
    is_released: bool = False


class Claims:
    """What was taken, by scope and key."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Held] = {}

    def take(self, claim: Claim, now: float, delivery_id: int | None = None) -> bool:
        """See `IInbox.claim`; ``delivery_id`` is whose it is."""
        held = self._held.get((claim.scope, claim.key))
        if held is not None and held.expires_at > now and not held.is_released:
            return False
        self._held[claim.scope, claim.key] = Held(claim.expires_at, delivery_id)
        return True

    def released_by(self, claim: Claim) -> int | None:
        """Return the dead letter that has released a claim which is still free."""
        held = self._held.get((claim.scope, claim.key))
        return held.delivery_id if held is not None and held.is_released else None

    def release(self, delivery_id: int) -> None:
        """Release the claim of a delivery, as it is dead."""
        self._change(delivery_id, is_released=True)

    def retake(self, delivery_id: int) -> None:
        """Undo the release by a dead letter, unless another has taken the claim."""
        self._change(delivery_id, is_released=False)

    def hand_on(self, dead_id: int, delivery_id: int) -> None:
        """Pass the claim that a dead letter has released to its replay."""
        for key, held in self._held.items():
            if held.delivery_id == dead_id and held.is_released:
                self._held[key] = Held(held.expires_at, delivery_id)

    def _change(self, delivery_id: int, *, is_released: bool) -> None:
        for key, held in self._held.items():
            if held.delivery_id == delivery_id:
                self._held[key] = evolve(held, is_released=is_released)

    def trim(self, now: float, limit: int) -> int:
        """Remove expired ones, up to ``limit``; count them."""
        expired = sorted(
            (-held.expires_at if held.is_released else held.expires_at, key)
            for key, held in self._held.items()
            if held.expires_at <= now
        )[:limit]
        for _, key in expired:
            del self._held[key]
        return len(expired)
