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
"""Triggers that one message names."""
PREFIX = "alert:"
"""The beginning of the names of checkpoints; an alert's key follows."""


class Rule(Struct, frozen=True, kw_only=True):
    """
    An alert in force.

    :ivar key: names its state in the store: the same over reloads and restarts, whatever its limits are.
    :ivar name: for operators: ``gh/dead_letter/slack``; without a trigger, ``dead_letter/slack``.
    :ivar trigger_id: None where it is about all triggers.
    """

    key: str
    name: str
    trigger_id: str | None
    spec: AlertSpec

    @property
    def is_counted(self) -> bool:
        """Return whether it begins when something has happened so many times."""
        return self.spec.on in COUNTED

    def covers(self, trigger_id: str) -> bool:
        """Return whether it is about this trigger."""
        return self.trigger_id is None or self.trigger_id == trigger_id


def rules_of(alerts: Iterable[AlertSpec], trigger_id: str | None) -> Iterator[Rule]:
    """
    Yield the alerts of one trigger, or, with None, of all triggers.

    Of several that are alike in kind and target, the first has the plain name and key.
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
    Something that counted alerts count.

    :ivar at: seconds, Unix.
    :ivar trigger_id: empty where it is about no single trigger.
    :ivar reason: for people.
    """

    at: float
    trigger_id: str = ""
    count: int = 1
    reason: str = ""
    event_id: str | None = None


class AlertSubject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Something that is wrong for as long as it is listed: an open circuit, a silent trigger, a failed reload.

    ``since`` is seconds, Unix.
    """

    trigger_id: str
    since: float
    reason: str = ""
    event_id: str | None = None


class Named(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A trigger in a message: how often it happened there, or, for what lasts, since when (seconds, Unix)."""

    trigger_id: str
    count: int = 0
    since: float | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One message, before it is worded. Times are seconds, Unix.

    ``id`` is the same each time that it is sent. ``count`` is how often it happened from ``since`` on: since the last
    message, or, of an all-clear, since it began. ``named`` are triggers, and ``others`` how many more there are.
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
    """A message that is to be sent, from ``due_at`` on; how often that failed, since when, and why it did last."""

    notice: Notice
    due_at: float
    attempts: int = 0
    failing_since: float | None = None
    error: str = ""
    is_being_sent: bool = False


class AlertState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Where an alert stands. Times are seconds, Unix.

    ``times`` are those of the newest happenings, as many as the threshold; ``count`` and ``by_trigger`` count since
    the last message, from ``counted_from`` on, and ``total`` since it began. ``left`` are those dead letters that are
    still dead letters. ``subjects`` are wrong now.
    ``is_announced``: a message that it began was made. ``sent_at``: when the last such message was sent, or made.
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
        """Return whether it has begun and not ended."""
        return self.firing_since is not None

    @property
    def last_at(self) -> float | None:
        """Return when it happened last."""
        return self.times[-1] if self.times else None


class SilenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    When each trigger accepted something last, and since when those are silent that were reported; see `Silence`.

    Times are seconds, Unix.
    """

    last: dict[str, float] = {}
    silent: dict[str, float] = {}


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    An alert as it is stored: its definition, for those who list alerts without a server, and its state.

    ``target`` shows no secret. ``saved_at`` is seconds, Unix.
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
