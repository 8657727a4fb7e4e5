"""
Gates: whether a trigger's deliveries may begin now, and when to ask again.

A trigger that a gate holds keeps accepting; what is accepted waits in the store, and takes no memory. The scheduler
reads the answer of a gate once, and again when the gate says that it changed, or when the time that it named has come.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from zope.interface import Interface

from harn.model.delivery import DeadLetter
from harn.store.holds import ALL, Hold, Holds


class Held(Struct, frozen=True):
    """
    A reason why nothing of a trigger may begin.

    :ivar reason: for people, for example ``paused``. ``until``: when to ask again (seconds, Unix); None: the gate says.
    :ivar keeps: it will not be long: what memory has of the trigger stays there.
    :ivar refusal: what a delivery becomes instead, when it would begin; None: deliveries wait.
    :ivar gate: is notified while a delivery of the trigger waits for it; None: nothing is.
    """

    reason: str
    until: float | None = None
    keeps: bool = False
    refusal: DeadLetter | None = None
    gate: IAskedGate | None = None


class IGate(Interface):
    """One rule that a trigger's deliveries pass before they begin."""

    def held(trigger_id: str) -> Held | None:
        """Return why nothing of this trigger may begin now; None when it may. Cheap: it is called often."""

    def rate(trigger_id: str) -> float | None:
        """Return how many deliveries of an earlier server may begin each second; None for no limit."""

    def names() -> Collection[str]:
        """Return the ids of all triggers that it may hold now, and `harn.store.holds.ALL` if it may hold each."""


class IAskedGate(IGate):
    """A gate that acts only while a delivery waits for it."""

    def wanted(trigger_id: str) -> None:
        """Called when a delivery of the trigger waits for this gate, perhaps often."""


class Gates:
    """All gates of a server; a trigger begins deliveries when none of them holds it."""

    def __init__(self) -> None:
        self._gates: list[IGate] = []

    def add(self, gate: IGate) -> None:
        """Add a gate."""
        self._gates.append(gate)

    def held(self, trigger_id: str) -> Held | None:
        """Return the first gate's answer that holds this trigger, or else one that refuses; None if it may begin."""
        refusing = None
        for gate in self._gates:
            held = gate.held(trigger_id)
            if held is not None and held.refusal is None:
                return held
            refusing = refusing or held
        return refusing

    def holds(self, now: float) -> Holds:
        """
        Return the triggers that are held, without those whose deliveries are refused; cost grows with their number.

        :param now: the moment that it is true of (seconds, Unix).
        """
        found: dict[str, Hold] = {}
        for name in {name for gate in self._gates for name in gate.names()}:
            held = self.held(name)
            if held is not None and held.refusal is None:
                found[name] = Hold(held.reason, held.until)
        return Holds(at=now, of_all=found.pop(ALL, None), by_trigger=found)

    def rate(self, trigger_id: str) -> float | None:
        """Return the lowest rate that a gate names for what is taken over; None if none does."""
        rates = [gate.rate(trigger_id) for gate in self._gates]
        return min((rate for rate in rates if rate is not None), default=None)
