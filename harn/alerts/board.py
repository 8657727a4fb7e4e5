"""
All alerts in force with their states; each event is passed to the alerts that it concerns. No I/O.

A silent trigger is one that has accepted nothing for some time; `Silence` finds those of one alert.
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
"""Seconds from one look at an alert to the next."""


def new_id(now: float) -> str:
    """Make the id of a message."""
    return f"alert_{uuid7(now)}"


class Silence:
    """
    When each trigger of one alert accepted something last, the longest ago first; times are seconds, Unix.

    It costs constant work for each event, however many triggers there are.

    :ivar silent: triggers that were reported by `overdue`, since when.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self.silent: dict[str, float] = {}

    @property
    def triggers(self) -> Collection[str]:
        """Return the triggers that it watches."""
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
        """Watch the silent triggers again, since the allowed time has changed."""
        kept, self.silent = self.silent, {}
        self._last = dict(sorted({**self._last, **kept}.items(), key=lambda each: each[1]))

    def next_due(self, within: float) -> float | None:
        """Return when the next trigger would become silent."""
        return next((at + within for at in self._last.values()), None)

    def record(self) -> SilenceRecord:
        """Return its stored form."""
        return SilenceRecord(last=dict(self._last), silent=dict(self.silent))

    def restore(self, record: SilenceRecord, downtime: float, now: float) -> None:
        """
        Restore the record of an earlier server, for those triggers that are watched.

        :param downtime: seconds in which no server could accept anything: these do not count as silence.
        """
        known = {**{each: min(at + downtime, now) for each, at in record.last.items()}, **record.silent}
        watched = {trigger_id: known.get(trigger_id, at) for trigger_id, at in self._last.items()}
        self.silent = {trigger_id: at for trigger_id, at in watched.items() if trigger_id in record.silent}
        kept = {trigger_id: at for trigger_id, at in watched.items() if trigger_id not in record.silent}
        self._last = dict(sorted(kept.items(), key=lambda each: each[1]))


@define(eq=False)
class BoardEntry:
    """
    One alert in force, or one that is not any more and has messages left.

    :ivar silence: of a ``silent`` one.
    :ivar look_at: when the clock changes something next (seconds, Unix); None for never.
    :ivar is_retired: it is not in force any more, and only its messages are left.
    """

    rule: Rule
    target: AlertTarget
    state: AlertState = field(factory=AlertState)
    silence: Silence | None = None
    look_at: float | None = None
    is_retired: bool = False


class Board:
    """
    Every alert, by its key, and by its condition and trigger.

    :ivar changed: those whose state changed since `take_changed`, by key.
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
        """The triggers that have alerts of their own; and None, if there are any of all triggers."""
        return self._scopes.keys()

    def take_changed(self) -> Sequence[BoardEntry]:
        """Return those that changed since the last time."""
        changed, self.changed = self.changed, {}
        return tuple(changed.values())

    # What is in force

    def adopt(
        self, trigger_id: str | None, alerts: Sequence[tuple[Rule, AlertTarget]], triggers: Iterable[str], now: float
    ) -> None:
        """
        Put the alerts of a trigger in force, or, with None, those of all; an alert with the same key keeps its state.

        :param triggers: every live trigger that they cover.
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
            entry.silence.watch(triggers, now)  # what is new later is added by `watch`
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
        """Add new triggers to the alerts of all triggers, and remove those that are gone."""
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

    # What happens

    def concerned(self, on: str, trigger_id: str | None) -> tuple[BoardEntry, ...]:
        """Return the alerts of a kind that are about a trigger; with None, every one of the kind."""
        kind = self._by_kind.get(on)
        if not kind:
            return ()
        if trigger_id is None:
            return tuple(entry for entries in kind.values() for entry in entries)
        return (*kind.get(trigger_id, ()), *kind.get(None, ()))

    def happened(self, on: str, event: Happened, *, everywhere: bool = False) -> None:
        """
        Count something.

        :param everywhere: it concerns every alert of the kind.
        """
        for entry in self.concerned(on, None if everywhere else event.trigger_id):
            self._update(entry, machine.happened(entry.rule, entry.state, event))
            self._decide(entry, event.at)

    def began(self, on: str, name: str, subject: AlertSubject, *, everywhere: bool = False) -> None:
        """Record that something is wrong from now on; `happened` counts it after that."""
        for entry in self.concerned(on, None if everywhere else subject.trigger_id):
            self._update(entry, machine.changed(entry.state, {name: subject}))

    def ended(self, on: str, name: str, trigger_id: str | None, now: float) -> None:
        """Record that something is right again."""
        for entry in self.concerned(on, trigger_id):
            self._update(entry, machine.changed(entry.state, {}, (name,)))
            self._decide(entry, now)

    def replace_subjects(self, entry: BoardEntry, subjects: Mapping[str, AlertSubject], now: float) -> None:
        """Record all that is wrong now for one alert: other subjects that it had are removed."""
        gone = tuple(entry.state.subjects.keys() - subjects.keys())
        self._update(entry, machine.changed(entry.state, subjects, gone))
        self._decide(entry, now)

    def dealt_with(self, on: str, trigger_id: str, count: int, now: float) -> None:
        """Record that dead letters of a trigger were replayed, redriven or discarded."""
        for entry in self.concerned(on, trigger_id):
            self._update(entry, machine.dealt_with(entry.state, count))
            self._decide(entry, now)

    def accepted(self, trigger_id: str, now: float) -> None:
        """Record that a trigger accepted something."""
        for entry in self.concerned(SILENT, trigger_id):
            assert entry.silence is not None
            if entry.silence.accepted(trigger_id, now):
                self._update(entry, machine.changed(entry.state, {}, (trigger_id,)))
                self._decide(entry, now)

    # The clock

    def look(self, now: float) -> float | None:
        """Update the alerts whose time has come; return when the next one is due."""
        while self._looks and self._looks[0][0] <= now:
            at, key = heappop(self._looks)
            entry = self._entries.get(key)
            if entry is not None and entry.look_at == at:
                entry.look_at = None
                self._decide(entry, now)
        return self._looks[0][0] if self._looks else None

    def restore(self, entry: BoardEntry, state: AlertState, now: float) -> None:
        """Restore the state that an earlier server left."""
        self._update(entry, machine.restored(state, now))
        self._decide(entry, now)

    def put(self, entry: BoardEntry, state: AlertState, now: float) -> None:
        """Record the state after a message was sent, or was not."""
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
