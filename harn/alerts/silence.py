"""Which triggers have accepted nothing for how long: constant work for each event, however many triggers there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


class Silence:
    """
    When each trigger of one alert accepted something last, the longest ago first; times are seconds, Unix.

    :ivar silent: triggers that were reported by `overdue`, since when.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self.silent: dict[str, float] = {}

    @property
    def triggers(self) -> Collection[str]:
        """The triggers that it watches."""
        return self._last.keys() | self.silent.keys()

    def watch(self, trigger_ids: Iterable[str], now: float) -> None:
        """Count the silence of triggers that are new from now on."""
        for trigger_id in trigger_ids:
            if trigger_id not in self._last and trigger_id not in self.silent:
                self._last[trigger_id] = now

    def drop(self, trigger_id: str) -> None:
        """Watch a trigger no longer."""
        self._last.pop(trigger_id, None)
        self.silent.pop(trigger_id, None)

    def accepted(self, trigger_id: str, now: float) -> bool:
        """Record that something was accepted; return whether that ends a silence that was reported."""
        self._last.pop(trigger_id, None)
        self._last[trigger_id] = now
        return self.silent.pop(trigger_id, None) is not None

    def overdue(self, within: float, now: float) -> dict[str, float]:
        """Return the triggers that have become silent, since when; each is returned once."""
        found: dict[str, float] = {}
        for trigger_id, at in self._last.items():
            if now < at + within:
                break
            found[trigger_id] = at
        for trigger_id in found:
            del self._last[trigger_id]
        self.silent.update(found)
        return found

    def reconsider(self) -> None:
        """Report again what was reported, as the time allowed is another one."""
        kept, self.silent = self.silent, {}
        self._last = dict(sorted({**self._last, **kept}.items(), key=lambda each: each[1]))

    def next_due(self, within: float) -> float | None:
        """Return when the next trigger would become silent."""
        return next((at + within for at in self._last.values()), None)

    def record(self) -> dict[str, dict[str, float]]:
        """Return it as a JSON value."""
        return {"last": dict(self._last), "silent": dict(self.silent)}

    def restore(self, last: Mapping[str, float], silent: Mapping[str, float], downtime: float, now: float) -> None:
        """
        Restore the record of an earlier server, for those triggers that are watched.

        :param downtime: seconds in which no server could accept anything: these do not count as silence.
        """
        known = {**{each: min(at + downtime, now) for each, at in last.items()}, **silent}
        watched = {trigger_id: known.get(trigger_id, at) for trigger_id, at in self._last.items()}
        self.silent = {trigger_id: at for trigger_id, at in watched.items() if trigger_id in silent}
        kept = {trigger_id: at for trigger_id, at in watched.items() if trigger_id not in silent}
        self._last = dict(sorted(kept.items(), key=lambda each: each[1]))
