"""The interface of a gate."""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen
from zope.interface import Interface

from harn.model.delivery import DeadLetter


@frozen
class Held:
    """
    A reason why nothing of a trigger may begin.

    :ivar reason: for people, for example ``paused``. ``until``: when to ask again (seconds, Unix); None: the gate says.
    :ivar keeps: it will not be long: what memory has of the trigger stays there.
    :ivar refusal: what a delivery becomes instead, when it would begin; None: deliveries wait.
    """

    reason: str
    until: float | None = None
    keeps: bool = False
    refusal: DeadLetter | None = None


class IGate(Interface):
    """One rule that a trigger's deliveries pass before they begin."""

    def held(trigger_id: str) -> Held | None:
        """Return why nothing of this trigger may begin now; None when it may. Cheap: it is called often."""

    def rate(trigger_id: str) -> float | None:
        """Return how many deliveries of an earlier server may begin each second; None for no limit."""

    def names() -> Collection[str]:
        """Return the ids of all triggers that it may hold now, and `harn.store.holds.ALL` if it may hold each."""
