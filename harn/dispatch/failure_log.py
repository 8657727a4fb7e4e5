"""
Logs failed attempts and dead letters, as a subscriber to lifecycle events; in every format, at the default level.

Each line says what happened, what follows, and which command shows more. `harn.observability.log_limits` limits the
number of lines; the lines left out are counted, and a line soon after says how many there were.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from harn.clocks import rfc3339
from harn.dispatch.settlements import allowed_attempts
from harn.errors import HandlerRetryAfter
from harn.lifecycle import Accepted, AcceptedDelivery, DeadLettered, Lifecycle, Settled, SettledDelivery
from harn.manifest.model import RetrySpec
from harn.model.delivery import Attempt, DeadLetter
from harn.model.display import visible
from harn.model.event import decode_envelope
from harn.observability.log_limits import LineLimits
from harn.triggers.registry import Registry

LONGEST = 500
"""The most characters of an error that a line shows; the delivery's record has the whole text."""

_IDS = "{binding} {event_id}: "


class Line(Struct, frozen=True, kw_only=True):
    """
    One log record.

    :ivar text: the format string for ``twisted.logger``.
    :ivar fields: the values for ``text``.
    """

    level: Any
    text: str
    fields: Mapping[str, Any]


@define
class LeftOut:
    """
    The counts of lines of one trigger that its limit left out.

    :ivar since: when the first of these lines was left out (seconds of the clock).
    :ivar failed: the number of failed attempts, by class of the error.
    :ivar dead: the number of dead letters, by reason.
    :ivar event_id: the event of the last failed attempt or dead letter.
    """

    since: float
    failed: Counter[str] = field(factory=Counter)
    dead: Counter[str] = field(factory=Counter)
    event_id: str = ""

    def add(self, other: LeftOut) -> None:
        """Add the counts of another trigger."""
        self.since = min(self.since, other.since)
        self.failed.update(other.failed)
        self.dead.update(other.dead)


def attempt_line(event: SettledDelivery, attempt: Attempt, retry: RetrySpec | None, target: str | None) -> Line:
    """
    Return the line of a failed attempt.

    :param retry: the retry settings of the version that made the attempt; None if that version has ended.
    :param target: the version that a retry would run on now, for example ``v3``; None if there is none.
    """
    settlement = event.settlement
    how = "asked for a retry" if attempt.error_class == HandlerRetryAfter.error_class else "failed"
    of = "" if retry is None else f" of {allowed_attempts(retry)}"
    if settlement.dead is not None:
        follows = f"dead letter: {settlement.dead.reason}"
    else:
        wait = 0.0 if settlement.due_at is None else settlement.due_at - attempt.completed_at
        follows = f"again {in_words(wait)}" + ("" if target is None else f" on {target}")
    fields = {
        **_ids(event.event_id, event.trigger_id, event.binding, event.envelope),
        "attempt": attempt.number,
        "max_attempts": None if retry is None else allowed_attempts(retry),
        "outcome": attempt.outcome,
        "error_class": attempt.error_class,
        "error": shown(attempt.error),
        "next": follows,
        "due_at": None if settlement.due_at is None else rfc3339(settlement.due_at),
        "command": look_closer(event.event_id),
    }
    if attempt.traceback:
        fields["user_traceback"] = attempt.traceback
    text = f"{_IDS}attempt {{attempt}}{of} {how} ({{error_class}}): {{error}}; {{next}}; look closer: {{command}}"
    return Line(level=LogLevel.warn, text=text, fields=fields)


def dead_letter_line(event: SettledDelivery, dead: DeadLetter) -> Line:
    """Return the line of a delivery that became a dead letter."""
    ids = _ids(event.event_id, event.trigger_id, event.binding, event.envelope)
    return _dead_letter(ids, dead, event.settlement.attempts)


def refused_by_filter_line(accepted: AcceptedDelivery, dead: DeadLetter) -> Line:
    """Return the line of an event that was a dead letter from the start."""
    new = accepted.delivery
    return _dead_letter(_ids(new.event_id, new.trigger_id, accepted.binding, new.envelope), dead, 0)


def bulk_line(event: DeadLettered) -> Line:
    """Return the line of deliveries that were only in the store and became dead letters together."""
    fields = {
        "component": "dispatcher",
        "trigger_id": event.trigger_id,
        "binding": event.binding or event.trigger_id,
        "reason": event.reason,
        "count": event.count,
        "command": "harn orchestrator dlq",
    }
    noun = "delivery is a dead letter" if event.count == 1 else "deliveries are dead letters"
    text = f"{{binding}}: {{count}} {noun} now: {{reason}}; look closer: {{command}}"
    return Line(level=LogLevel.error, text=text, fields=fields)


def left_out_line(who: str, trigger_id: str | None, left: LeftOut, now: float) -> Line:
    """
    Return the line that says how many lines were left out.

    :param who: the trigger, or the number of triggers, as the line names them.
    :param trigger_id: the trigger; None for several.
    """
    parts = [
        f"{counted(sum(counts.values()), noun)} ({', '.join(f'{name} {n}' for name, n in counts.most_common(5))})"
        for counts, noun in ((left.failed, "failed attempt"), (left.dead, "dead letter"))
        if counts
    ]
    command = "harn orchestrator dlq"
    if not left.dead:
        only = "" if trigger_id is None else f" --trigger {shlex.quote(trigger_id)}"
        command = f"harn orchestrator deliveries --state waiting{only}"
    fields = {
        "component": "dispatcher",
        "who": who,
        "trigger_id": trigger_id,
        "seconds": round(now - left.since, 1),
        "failed": dict(left.failed),
        "dead": dict(left.dead),
        "left_out": " and ".join(parts),
        "event_id": left.event_id,
        "command": command,
    }
    last = ", the last one {event_id}" if left.event_id else ""
    text = f"{{who}}: {{left_out}} more in {{seconds}} s, without a line of their own{last}; look closer: {{command}}"
    return Line(level=LogLevel.error if left.dead else LogLevel.warn, text=text, fields=fields)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example ``2 dead letters``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shown(error: str | None) -> str:
    """Return an error shortened and on one line, since handlers and senders can put any text into it."""
    text = error or ""
    return visible(text if len(text) <= LONGEST else text[:LONGEST] + "...")


def in_words(seconds: float) -> str:
    """Return a number of seconds from now in words, for example ``in 12 s`` or ``in 2 h 5 min``."""
    if seconds <= 0:
        return "now"
    if seconds < 10:
        return f"in {seconds:.1f} s"
    if seconds < 120:
        return f"in {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"in {minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"in {hours} h" + (f" {minutes} min" if minutes else "")
    return f"in {round(seconds / 86400)} days"


def look_closer(event_id: str) -> str:
    """Return the command that shows all of a delivery."""
    return f"harn orchestrator delivery {event_id}"


def _ids(event_id: str, trigger_id: str, binding: str, envelope: bytes) -> dict[str, Any]:
    return {
        "component": "dispatcher",
        "trace_id": decode_envelope(envelope).trace_id,
        "event_id": event_id,
        "trigger_id": trigger_id,
        "binding": binding,
    }


def _dead_letter(ids: Mapping[str, Any], dead: DeadLetter, attempts: int) -> Line:
    after = f" after {counted(attempts, 'attempt')}" if attempts else ""
    said = "" if dead.error_class == dead.reason else " ({error_class})"
    fields = {
        **ids,
        "attempts": attempts,
        "reason": dead.reason,
        "error_class": dead.error_class,
        "error": shown(dead.error),
        "command": look_closer(ids["event_id"]),
    }
    text = f"{_IDS}dead letter{after}: {{reason}}{said}: {{error}}; look closer: {{command}}"
    return Line(level=LogLevel.error, text=text, fields=fields)


FIRST = 1.0
"""Seconds from the first line left out to the line with the count; doubled while lines continue to be left out."""
LAST = 16.0
MOST = 20
"""The most triggers that get a line of their own with their count; all others share one line."""

log = Logger(namespace="harn.deliveries")


class FailureLog:
    """Logs the lines, and counts by trigger those that are left out."""

    def __init__(self, clock: IReactorTime, registry: Registry, lifecycle: Lifecycle) -> None:
        self._clock = clock
        self._registry = registry
        self._limits = LineLimits(clock.seconds())
        self._left_out: dict[str, LeftOut] = {}
        self._timer: IDelayedCall | None = None
        self._pause = FIRST
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)

    def close(self) -> None:
        """Log the last counts of lines that were left out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_left_out()

    def _settled(self, event: Settled) -> None:
        for each in event.others:
            self._settled_one(each)

    def _settled_one(self, event: SettledDelivery) -> None:
        settlement = event.settlement
        attempt, dead = settlement.attempt, settlement.dead
        if attempt is not None and attempt.error_class is not None:
            if self._takes(event.trigger_id):
                write(self._attempt_line(event, attempt))
            else:
                left = self._left_out_of(event.trigger_id, event.event_id)
                left.failed[attempt.error_class] += 1
        if dead is not None:
            if self._takes_dead(event.trigger_id):
                write(dead_letter_line(event, dead))
            else:
                self._left_out_of(event.trigger_id, event.event_id).dead[dead.reason] += 1

    def _attempt_line(self, event: SettledDelivery, attempt: Attempt) -> Line:
        own = next((each for each in self._registry.versions(event.trigger_id) if each.key == event.binding), None)
        target = self._registry.for_retry(event.trigger_id, own)
        retry = None if own is None else own.spec.retry
        return attempt_line(event, attempt, retry, None if target is None else f"v{target.version}")

    def _accepted(self, event: Accepted) -> None:
        for each in event.dead:
            new = each.delivery
            assert new.dead is not None
            if self._takes_dead(new.trigger_id):
                write(refused_by_filter_line(each, new.dead))
            else:
                self._left_out_of(new.trigger_id, new.event_id).dead[new.dead.reason] += 1

    def _dead_lettered(self, event: DeadLettered) -> None:
        if not event.count:
            return
        if self._takes_dead(event.trigger_id):
            write(bulk_line(event))
        else:
            self._left_out_of(event.trigger_id, "").dead[event.reason] += event.count

    def _takes(self, trigger_id: str) -> bool:
        return self._limits.take(trigger_id, self._clock.seconds())

    def _takes_dead(self, trigger_id: str) -> bool:
        """Return whether a dead letter may be logged; failed attempts, which are more frequent, have another limit."""
        # No trigger id has a slash.
        return self._takes(f"{trigger_id}/dead")

    def _left_out_of(self, trigger_id: str, event_id: str) -> LeftOut:
        left = self._left_out.get(trigger_id)
        if left is None:
            left = self._left_out[trigger_id] = LeftOut(self._clock.seconds())
        left.event_id = event_id or left.event_id
        if self._timer is None:
            self._timer = self._clock.callLater(self._pause, self._due)
        return left

    def _due(self) -> None:
        self._timer = None
        if not self._left_out:  # no line was left out during the whole pause
            self._pause = FIRST
            return
        self._write_left_out()
        self._pause = min(2 * self._pause, LAST)
        self._timer = self._clock.callLater(self._pause, self._due)

    def _write_left_out(self) -> None:
        left_out, self._left_out = self._left_out, {}
        now = self._clock.seconds()
        # Dead letters come first, since they are not retried.
        worst = sorted(left_out.items(), key=lambda each: (-each[1].dead.total(), -each[1].failed.total()))
        for trigger_id, left in worst[:MOST]:
            write(left_out_line(trigger_id, trigger_id, left, now))
        if rest := worst[MOST:]:
            together = LeftOut(now)
            for _, left in rest:
                together.add(left)
            write(left_out_line(counted(len(rest), "further trigger"), None, together, now))


def write(line: Line) -> None:
    """Log one line."""
    log.emit(line.level, line.text, **line.fields)
