"""
The values of alerts: an alert in force, what happened, its state, the messages that are due, and the stored record.

Imports nothing of Twisted: a command lists alerts without a server, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from harn.manifest.alerts import COUNTED, AlertSpec

FIRING, RESOLVED, TEST = "firing", "resolved", "test"
QUIET = "quiet"
MOST_NAMED = 10
"""The largest number of triggers that one message names."""
PREFIX = "alert:"
"""The prefix of the names of checkpoints; an alert's key follows."""


class Rule(Struct, frozen=True, kw_only=True):
    """
    An alert in force.

    :ivar key: the name of its state in the store. Reloads, restarts and changes of its limits do not change it.
    :ivar name: its name for operators: ``gh/dead_letter/slack``; without a trigger, ``dead_letter/slack``.
    :ivar trigger_id: the trigger that it covers; None for all triggers.
    :ivar spec: the entry of the manifest, checked.
    """

    key: str
    name: str
    trigger_id: str | None
    spec: AlertSpec

    @property
    def is_counted(self) -> bool:
        """Return whether the alert begins after a number of events (its threshold)."""
        return self.spec.on in COUNTED

    def covers(self, trigger_id: str) -> bool:
        """Return whether the alert covers a trigger."""
        return self.trigger_id is None or self.trigger_id == trigger_id


def rules_of(alerts: Iterable[AlertSpec], trigger_id: str | None) -> Iterator[Rule]:
    """
    Yield the alerts of one trigger; with None, those for all triggers.

    If several alerts have the same condition and target, all but the first have a number in name and key.
    """
    names: dict[str, int] = {}
    keys: dict[str, int] = {}
    for spec in alerts:
        name = "/".join(part for part in (trigger_id, spec.on, spec.to) if part is not None)
        key = f"{name}:{spec.target}"
        yield Rule(key=_numbered(key, keys), name=_numbered(name, names), trigger_id=trigger_id, spec=spec)


def _numbered(text: str, seen: dict[str, int]) -> str:
    seen[text] = seen.get(text, 0) + 1
    return text if seen[text] == 1 else f"{text}#{seen[text]}"


class Happened(Struct, frozen=True, kw_only=True):
    """
    An event that alerts with a threshold count.

    :ivar at: when it occurred (seconds, Unix).
    :ivar trigger_id: the trigger; empty if the event is not that of a single trigger.
    :ivar count: how many times it occurred.
    :ivar reason: the reason, for people.
    :ivar event_id: the id of the event whose delivery failed; None without one.
    """

    at: float
    trigger_id: str = ""
    count: int = 1
    reason: str = ""
    event_id: str | None = None


class AlertSubject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A fault that lasts: an open circuit, a silent trigger, a failed reload.

    :ivar trigger_id: the trigger; empty if the fault is not that of a single trigger.
    :ivar since: when it began (seconds, Unix).
    :ivar reason: the reason, for people.
    :ivar event_id: the id of the event whose delivery failed; None without one.
    """

    trigger_id: str
    since: float
    reason: str = ""
    event_id: str | None = None


class Named(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A trigger in a message.

    :ivar trigger_id: its id.
    :ivar count: the number of its events, for counted events.
    :ivar since: when its fault began (seconds, Unix), for a fault that lasts; else None.
    """

    trigger_id: str
    count: int = 0
    since: float | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The content of one message, without its text. Times are seconds, Unix.

    :ivar id: the id of the message; a retry has the same one.
    :ivar status: whether the alert is firing or resolved.
    :ivar made_at: when the message was made.
    :ivar began_at: when the alert began.
    :ivar since: the beginning of the time in which ``count`` was counted: the previous message; for a resolved alert,
        when the alert began.
    :ivar count: the number of events since then.
    :ivar ended_at: when the alert ended; None while it is firing.
    :ivar reason: the reason of the latest event.
    :ivar event_id: the id of that event; None without one.
    :ivar named: the triggers that the message names.
    :ivar others: the number of further triggers.
    """

    id: str
    status: str
    made_at: float
    began_at: float
    since: float
    count: int = 0
    ended_at: float | None = None
    reason: str = ""
    event_id: str | None = None
    named: tuple[Named, ...] = ()
    others: int = 0


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A message that is to be sent. Times are seconds, Unix.

    :ivar notice: its content.
    :ivar due_at: the time before which it is not sent.
    :ivar attempts: the number of failed attempts.
    :ivar failing_since: when the first attempt failed; None before.
    :ivar error: why the last attempt failed.
    :ivar is_being_sent: whether an attempt is running.
    """

    notice: Notice
    due_at: float
    attempts: int = 0
    failing_since: float | None = None
    error: str = ""
    is_being_sent: bool = False


class AlertState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The state of an alert. Times are seconds, Unix.

    :ivar times: the times of the newest events, at most as many as the threshold.
    :ivar count: the number of events since the last message.
    :ivar counted_from: when the first of these events occurred; None without any.
    :ivar by_trigger: the number of these events by trigger id.
    :ivar total: the number of events since the alert began.
    :ivar left: the number of counted dead letters that are still dead letters.
    :ivar reason: the reason of the latest event.
    :ivar event_id: the id of that event; None without one.
    :ivar subjects: the present faults, by name.
    :ivar firing_since: when the alert began; None while it is quiet.
    :ivar is_announced: whether a message has been made that the alert is firing.
    :ivar sent_at: when the last such message was sent, or made.
    :ivar pending: the messages that are to be sent.
    :ivar last_error: why the last message could not be sent.
    """

    times: tuple[float, ...] = ()
    count: int = 0
    counted_from: float | None = None
    by_trigger: dict[str, int] = {}
    total: int = 0
    left: int = 0
    reason: str = ""
    event_id: str | None = None
    subjects: dict[str, AlertSubject] = {}
    firing_since: float | None = None
    is_announced: bool = False
    sent_at: float | None = None
    pending: tuple[Pending, ...] = ()
    last_error: str = ""

    @property
    def is_firing(self) -> bool:
        """Return whether the alert has begun and not ended."""
        return self.firing_since is not None

    @property
    def last_at(self) -> float | None:
        """Return the time of the latest event (seconds, Unix); None without any."""
        return self.times[-1] if self.times else None


class SilenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The stored form of `harn.alerts.board.Silence`. Times are seconds, Unix.

    :ivar last: the time of the last accepted event, by trigger id.
    :ivar silent: since when each reported trigger is silent, by trigger id.
    """

    last: dict[str, float] = {}
    silent: dict[str, float] = {}


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The stored form of an alert: its definition, so that alerts can be listed without a server, and its state.

    :ivar name: see `Rule.name`.
    :ivar trigger_id: see `Rule.trigger_id`.
    :ivar on: the condition.
    :ivar to: the way in which messages are sent: ``slack``, ``webhook`` or ``email``.
    :ivar target: the receiver, without secrets.
    :ivar threshold: the number of events after which it begins.
    :ivar within: the time in which they must occur, or that a fault may last (seconds).
    :ivar every: the least time between two messages (seconds).
    :ivar saved_at: when the record was written (seconds, Unix).
    :ivar state: the state of the alert.
    :ivar silence: the times of its triggers, for an alert on ``silent``; else None.
    """

    name: str
    trigger_id: str | None
    on: str
    to: str
    target: str
    threshold: int
    within: float
    every: float
    saved_at: float
    state: AlertState = AlertState()
    silence: SilenceRecord | None = None
