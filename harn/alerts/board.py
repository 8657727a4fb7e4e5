"""
The board of all alerts in force, with their states; it passes each event to the alerts that count it. No I/O.

A silent trigger has accepted no event for some time. `Silence` finds those of one alert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush

from attrs import define, field

from harn.alerts import machine
from harn.alerts.model import AlertState, AlertSubject, Happened, Rule, SilenceRecord
from harn.alerts.senders import AlertTarget
from harn.manifest.alerts import SILENT
from harn.model.references import uuid7

LEAST_PAUSE = 0.1
"""The least time between two updates of an alert (seconds)."""


def new_id(now: float) -> str:
    """Return a new id of a message."""
    return f"alert_{uuid7(now)}"


class Silence:
    """
    The time of the last accepted event of each trigger of one alert, in ascending order (seconds, Unix).

    The cost of an event does not depend on the number of triggers.

    :ivar silent: for each trigger that `overdue` has returned, since when it is silent (seconds, Unix).
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self.silent: dict[str, float] = {}

    @property
    def triggers(self) -> Collection[str]:
        """Return the ids of the watched triggers."""
        return self._last.keys() | self.silent.keys()

    def watch(self, trigger_ids: Iterable[str], now: float) -> None:
        """Watch further triggers; their silence counts from ``now``."""
        for trigger_id in trigger_ids:
            if trigger_id not in self._last and trigger_id not in self.silent:
                self._last[trigger_id] = now

    def drop(self, trigger_id: str) -> None:
        """Stop watching a trigger."""
        self._last.pop(trigger_id, None)
        self.silent.pop(trigger_id, None)

    def accepted(self, trigger_id: str, now: float) -> bool:
        """Record that a trigger accepted an event; return whether it was in ``silent`` until now."""
        self._last.pop(trigger_id, None)
        self._last[trigger_id] = now
        return self.silent.pop(trigger_id, None) is not None

    def overdue(self, within: float, now: float) -> dict[str, float]:
        """Return the triggers that have become silent, each with the time since when; each is returned once."""
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
        """Watch the silent triggers again, as the allowed time has changed."""
        kept, self.silent = self.silent, {}
        self._last = dict(sorted({**self._last, **kept}.items(), key=lambda each: each[1]))

    def next_due(self, within: float) -> float | None:
        """Return when the next trigger becomes silent if it accepts nothing (seconds, Unix); None without triggers."""
        return next((at + within for at in self._last.values()), None)

    def record(self) -> SilenceRecord:
        """Return the record to store."""
        return SilenceRecord(last=dict(self._last), silent=dict(self.silent))

    def restore(self, record: SilenceRecord, downtime: float, now: float) -> None:
        """
        Restore the record of an earlier server for the watched triggers.

        :param downtime: seconds in which no server could accept events; they do not count as silence.
        """
        known = {**{each: min(at + downtime, now) for each, at in record.last.items()}, **record.silent}
        watched = {trigger_id: known.get(trigger_id, at) for trigger_id, at in self._last.items()}
        self.silent = {trigger_id: at for trigger_id, at in watched.items() if trigger_id in record.silent}
        kept = {trigger_id: at for trigger_id, at in watched.items() if trigger_id not in record.silent}
        self._last = dict(sorted(kept.items(), key=lambda each: each[1]))


@define(eq=False)
class BoardEntry:
    """
    One alert in force, or a former one with messages that are not sent yet.

    :ivar silence: the times of its triggers, for an alert on ``silent``; else None.
    :ivar look_at: when its state next changes by time alone (seconds, Unix); None for never.
    :ivar is_retired: whether the alert is no longer in force, and only its messages are still to be sent.
    """

    rule: Rule
    target: AlertTarget
    state: AlertState = field(factory=AlertState)
    silence: Silence | None = None
    look_at: float | None = None
    is_retired: bool = False


class Board:
    """
    All alerts, indexed by key, and by condition and trigger.

    :ivar changed: the alerts whose states have changed since `take_changed`, by key.
    """

    def __init__(self) -> None:
        self._entries: dict[str, BoardEntry] = {}
        self._retired: dict[str, BoardEntry] = {}
        self._scopes: dict[str | None, tuple[str, ...]] = {}
        self._by_kind: dict[str, dict[str | None, tuple[BoardEntry, ...]]] = {}
        self._looks: list[tuple[float, str]] = []
        self.changed: dict[str, BoardEntry] = {}

    def __iter__(self) -> Iterator[BoardEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> BoardEntry | None:
        """Return an alert by its key."""
        return self._entries.get(key)

    @property
    def scopes(self) -> Collection[str | None]:
        """Return the ids of triggers with alerts of their own, and None if there are alerts for all triggers."""
        return self._scopes.keys()

    def take_changed(self) -> Sequence[BoardEntry]:
        """Return the alerts whose states have changed since the last call."""
        changed, self.changed = self.changed, {}
        return tuple(changed.values())

    # Alerts in force

    def adopt(
        self, trigger_id: str | None, alerts: Sequence[tuple[Rule, AlertTarget]], triggers: Iterable[str], now: float
    ) -> None:
        """
        Put the alerts of a trigger in force, in place of its former ones. An alert with the same key keeps its state.

        :param trigger_id: the trigger; None for the alerts for all triggers.
        :param triggers: every live trigger that these alerts cover.
        """
        before = self._scopes.pop(trigger_id, ())
        kept = {rule.key for rule, _ in alerts}
        for key in before:
            if key not in kept:
                self._retire(self._entries.pop(key))
        if alerts:
            self._scopes[trigger_id] = tuple(rule.key for rule, _ in alerts)
        watched = tuple(triggers) if any(rule.spec.on == SILENT for rule, _ in alerts) else ()
        for rule, target in alerts:
            self._enter(rule, target, watched, now)
        self._index(trigger_id)

    def _enter(self, rule: Rule, target: AlertTarget, triggers: Iterable[str], now: float) -> None:
        entry = self._entries.get(rule.key)
        is_new = entry is None
        if entry is None:
            entry = self._retired.pop(rule.key, None) or BoardEntry(rule, target)
            entry.is_retired = False
            self._entries[rule.key] = self.changed[rule.key] = entry
        elif rule.spec.within != entry.rule.spec.within and entry.silence is not None:
            entry.silence.reconsider()
            entry.state = machine.changed(entry.state, {}, tuple(entry.state.subjects))
        entry.rule, entry.target = rule, target
        if rule.spec.on == SILENT and entry.silence is None:
            entry.silence = Silence()
            entry.silence.watch(triggers, now)  # triggers of later generations are added by `watch`
        if not is_new or entry.silence is not None:
            self._decide(entry, now)

    def _retire(self, entry: BoardEntry) -> None:
        entry.is_retired = True
        entry.look_at = entry.silence = None
        entry.state = AlertState(pending=entry.state.pending, sent_at=entry.state.sent_at)
        self.changed[entry.rule.key] = entry
        if entry.state.pending:
            self._retired[entry.rule.key] = entry

    def _index(self, trigger_id: str | None) -> None:
        for kind in self._by_kind.values():
            kind.pop(trigger_id, None)
        for key in self._scopes.get(trigger_id, ()):
            entry = self._entries[key]
            kind = self._by_kind.setdefault(entry.rule.spec.on, {})
            kind[trigger_id] = (*kind.get(trigger_id, ()), entry)

    def watch(self, added: Iterable[str], removed: Collection[str], now: float) -> None:
        """Add new triggers to the alerts for all triggers, and remove the removed ones."""
        for key in self._scopes.get(None, ()):
            entry = self._entries[key]
            if entry.silence is not None:
                entry.silence.watch(added, now)
                for trigger_id in removed:
                    entry.silence.drop(trigger_id)
            if removed and entry.state.subjects:
                gone = [name for name, subject in entry.state.subjects.items() if subject.trigger_id in removed]
                entry.state = machine.changed(entry.state, {}, gone)
            self._decide(entry, now)

    # Events

    def concerned(self, on: str, trigger_id: str | None) -> tuple[BoardEntry, ...]:
        """Return the alerts on a condition that cover a trigger; with None, all alerts on the condition."""
        kind = self._by_kind.get(on)
        if not kind:
            return ()
        if trigger_id is None:
            return tuple(entry for entries in kind.values() for entry in entries)
        return (*kind.get(trigger_id, ()), *kind.get(None, ()))

    def happened(self, on: str, event: Happened, *, everywhere: bool = False) -> None:
        """
        Count an event in the alerts on a condition.

        :param everywhere: whether all alerts on the condition count it, not only those that cover its trigger.
        """
        for entry in self.concerned(on, None if everywhere else event.trigger_id):
            self._update(entry, machine.happened(entry.rule, entry.state, event))
            self._decide(entry, event.at)

    def began(self, on: str, name: str, subject: AlertSubject, *, everywhere: bool = False) -> None:
        """Record that a fault has begun; the caller counts it by `happened` after that."""
        for entry in self.concerned(on, None if everywhere else subject.trigger_id):
            self._update(entry, machine.changed(entry.state, {name: subject}))

    def ended(self, on: str, name: str, trigger_id: str | None, now: float) -> None:
        """Record that a fault has ended."""
        for entry in self.concerned(on, trigger_id):
            self._update(entry, machine.changed(entry.state, {}, (name,)))
            self._decide(entry, now)

    def replace_subjects(self, entry: BoardEntry, subjects: Mapping[str, AlertSubject], now: float) -> None:
        """Record all present faults for one alert, in place of its former subjects."""
        gone = tuple(entry.state.subjects.keys() - subjects.keys())
        self._update(entry, machine.changed(entry.state, subjects, gone))
        self._decide(entry, now)

    def dealt_with(self, on: str, trigger_id: str, count: int, now: float) -> None:
        """Record that dead letters of a trigger were replayed, redriven or discarded."""
        for entry in self.concerned(on, trigger_id):
            self._update(entry, machine.dealt_with(entry.state, count))
            self._decide(entry, now)

    def accepted(self, trigger_id: str, now: float) -> None:
        """Record that a trigger accepted an event."""
        for entry in self.concerned(SILENT, trigger_id):
            assert entry.silence is not None
            if entry.silence.accepted(trigger_id, now):
                self._update(entry, machine.changed(entry.state, {}, (trigger_id,)))
                self._decide(entry, now)

    # The clock

    def look(self, now: float) -> float | None:
        """Update the alerts that are due at ``now``; return when the next one is due (seconds, Unix), or None."""
        while self._looks and self._looks[0][0] <= now:
            at, key = heappop(self._looks)
            entry = self._entries.get(key)
            if entry is not None and entry.look_at == at:
                entry.look_at = None
                self._decide(entry, now)
        return self._looks[0][0] if self._looks else None

    def restore(self, entry: BoardEntry, state: AlertState, now: float) -> None:
        """Restore the state that an earlier server stored."""
        self._update(entry, machine.restored(state, now))
        self._decide(entry, now)

    def put(self, entry: BoardEntry, state: AlertState, now: float) -> None:
        """Record the state after the attempt to send a message."""
        self._update(entry, state)
        if not entry.is_retired:
            self._decide(entry, now)
        elif not state.pending:
            self._retired.pop(entry.rule.key, None)

    def _update(self, entry: BoardEntry, state: AlertState) -> None:
        if state is not entry.state:
            entry.state = state
            self.changed[entry.rule.key] = entry

    def _decide(self, entry: BoardEntry, now: float) -> None:
        rule = entry.rule
        if entry.silence is not None:
            overdue = entry.silence.overdue(rule.spec.within, now)
            began = {each: AlertSubject(trigger_id=each, since=since) for each, since in overdue.items()}
            self._update(entry, machine.changed(entry.state, began))
        self._update(entry, machine.decide(rule, entry.state, now, new_id(now)))
        self._plan(entry, now)

    def _plan(self, entry: BoardEntry, now: float) -> None:
        look_at = machine.next_look(entry.rule, entry.state)
        if entry.silence is not None:
            silent_at = entry.silence.next_due(entry.rule.spec.within)
            look_at = min((each for each in (look_at, silent_at) if each is not None), default=None)
        if look_at is not None and look_at <= now:
            look_at = now + LEAST_PAUSE
        if look_at == entry.look_at:
            return
        entry.look_at = look_at
        if look_at is not None:
            heappush(self._looks, (look_at, entry.rule.key))
