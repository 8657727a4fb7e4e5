"""
Holds: the reasons why nothing of a trigger begins, as lists of deliveries need them, and their records in the store.

A delivery that could run is stored as ready. While a gate holds its trigger, people see it as waiting, for the reason
of the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from harn.model.delivery import CIRCUIT_OPEN

PAUSES = "pauses"
"""The name of the record of pauses: by trigger id, or `ALL`, each `Pause`."""
CIRCUITS = "circuits"
"""The name of the record of circuits: by trigger id, each `OpenRecord` of one that is not closed."""
ALL = "/"
"""Stands for the whole server. No trigger has this id."""
PAUSED = "paused"
"""The reason of a pause."""


class Pause(Struct, frozen=True, kw_only=True):
    """
    One pause, or the rest of one.

    :ivar since: seconds, Unix.
    :ivar until: when it ends by itself; None: when an operator resumes.
    :ivar rate: it has ended, and until then the deliveries that it held begin at so many a second.
    """

    since: float
    until: float | None = None
    actor: str = ""
    rate: float | None = None

    @property
    def ends(self) -> float:
        """The time at which it ends (seconds, Unix); infinite where that is left to an operator."""
        return float("inf") if self.until is None else self.until

    def holds(self, now: float) -> bool:
        """Return whether it holds its trigger at a time (seconds, Unix)."""
        return self.rate is None and now < self.ends


class OpenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    An open circuit in the store: ``retry_at`` is seconds, Unix; ``reset`` seconds.

    ``refuses`` says that deliveries do not wait for it: what would begin becomes a dead letter.
    """

    failures: int
    retry_at: float
    reset: float
    refuses: bool = False


class Hold(Struct, frozen=True):
    """
    A reason why nothing of a trigger begins.

    :ivar until: when that ends (seconds, Unix); None where no time is known.
    """

    reason: str
    until: float | None = None


class Holds(Struct, frozen=True, kw_only=True):
    """
    The triggers that are held at one moment.

    :ivar at: that moment (seconds, Unix).
    :ivar of_all: holds every trigger that ``by_trigger`` does not have.
    """

    at: float = 0.0
    of_all: Hold | None = None
    by_trigger: Mapping[str, Hold] = field(default_factory=dict)

    def of(self, trigger_id: str) -> Hold | None:
        """Return the hold on a trigger, if there is one."""
        return self.by_trigger.get(trigger_id, self.of_all)


class RecordedHolds(Struct, frozen=True, kw_only=True):
    """Pauses and circuits as an earlier server recorded them, for where none runs."""

    pauses: Mapping[str, Pause] = field(default_factory=dict)
    circuits: Mapping[str, OpenRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, pauses: Any, circuits: Any) -> RecordedHolds:
        """Read the values of the records `PAUSES` and `CIRCUITS`; None where there is none."""
        return cls(pauses=read_pauses(pauses), circuits=read_circuits(circuits))

    def holds(self, now: float) -> Holds:
        """Return the holds at a time (seconds, Unix): by a pause, else by a circuit that lets deliveries wait."""
        found = {
            trigger_id: Hold(CIRCUIT_OPEN, each.retry_at)
            for trigger_id, each in self.circuits.items()
            if now < each.retry_at and not each.refuses
        }
        paused = {name: each for name, each in self.pauses.items() if each.holds(now)}
        of_all = paused.pop(ALL, None)
        if of_all is not None:
            found = {}
        for trigger_id, each in paused.items():
            longest = each if of_all is None or each.ends >= of_all.ends else of_all
            found[trigger_id] = Hold(PAUSED, longest.until)
        return Holds(at=now, of_all=None if of_all is None else Hold(PAUSED, of_all.until), by_trigger=found)


def read_pauses(value: Any) -> dict[str, Pause]:
    """Read the value of the record `PAUSES`."""
    return {name: Pause(**each) for name, each in (value or {}).items()}


def held_now(pauses: Mapping[str, Pause], now: float) -> dict[str, Pause]:
    """Return the pauses that hold at a time (seconds, Unix): that of `ALL` first, then those that end first."""
    held = [(name, pause) for name, pause in pauses.items() if pause.holds(now)]
    return dict(sorted(held, key=lambda each: (each[0] != ALL, each[1].ends, each[0])))


def read_circuits(value: Any) -> dict[str, OpenRecord]:
    """Read the value of the record `CIRCUITS`."""
    return msgspec.convert(value or {}, dict[str, OpenRecord])
