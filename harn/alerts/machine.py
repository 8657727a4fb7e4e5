"""
The state machine of one alert. Pure functions return the next state, with the messages to send, for an event or a time.

An alert is quiet or firing. `harn.manifest.alerts` says when it begins and ends. A message is made when it begins;
while it continues, at most one in ``every``; and when it ends, if a message has said that it began. While a message
that the alert begins or continues waits to be sent, no further one is made, and events are added to the waiting one. So
at most three messages of an alert wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from harn.alerts.model import (
    FIRING,
    MOST_NAMED,
    RESOLVED,
    AlertState,
    AlertSubject,
    Happened,
    Named,
    Notice,
    Pending,
    Rule,
)
from harn.manifest.alerts import DEAD_LETTER

MOST_KEPT = 100
"""Triggers that an alert for all triggers counts separately; the total includes the others."""
LONGEST_PENDING = 86400.0
"""Seconds after which a message that cannot be sent is discarded."""


def happened(rule: Rule, state: AlertState, event: Happened) -> AlertState:
    """Return the state with one more event counted; `decide` then says whether the alert begins."""
    at, last = event.at, state.last_at
    if not state.is_firing and last is not None and at - last > rule.spec.within:
        state = replace(state, times=(), count=0, counted_from=None, by_trigger={}, left=0)
    threshold = rule.spec.threshold
    state = replace(
        state,
        times=(*state.times, *[at] * min(event.count, threshold))[-threshold:],
        total=state.total + event.count if state.is_firing else 0,
        left=state.left + event.count,
        reason=event.reason,
        event_id=event.event_id,
    )
    waiting = _waiting(state)
    if waiting is not None:
        return _merged(state, waiting, event)
    by_trigger = state.by_trigger
    if event.trigger_id in by_trigger or len(by_trigger) < MOST_KEPT:
        by_trigger = {**by_trigger, event.trigger_id: by_trigger.get(event.trigger_id, 0) + event.count}
    counted_from = at if state.counted_from is None else state.counted_from
    return replace(state, count=state.count + event.count, counted_from=counted_from, by_trigger=by_trigger)


def changed(state: AlertState, began: Mapping[str, AlertSubject], ended: Collection[str] = ()) -> AlertState:
    """Return the state with the faults that began added, and those that ended removed, by name."""
    gone = state.subjects.keys() & set(ended)
    new = {name: subject for name, subject in began.items() if name not in state.subjects}
    if not gone and not new:
        return state
    kept = {name: subject for name, subject in state.subjects.items() if name not in gone}
    return replace(state, subjects={**kept, **new})


def dealt_with(state: AlertState, count: int) -> AlertState:
    """Return the state after ``count`` dead letters were replayed, redriven or discarded; after all, the alert ends."""
    return replace(state, left=max(0, state.left - count)) if state.left else state


def decide(rule: Rule, state: AlertState, now: float, message_id: str) -> AlertState:
    """
    Return the state at ``now`` (seconds, Unix): the alert may begin or end, and at most one message is made.

    :param message_id: the id of that message.
    """
    state = _not_ahead(state, now)
    if not state.is_firing and _begins(rule, state, now):
        since = min((subject.since for subject in state.subjects.values()), default=now)
        began = min(since, state.times[0] if state.times else since)
        state = replace(state, firing_since=began, is_announced=False, total=state.count)
    if state.is_firing and _ends(rule, state, now):
        return _ended(state, now, message_id)
    if state.is_firing and _is_message_due(rule, state, now):
        return _announced(state, now, message_id)
    return state


def next_look(rule: Rule, state: AlertState) -> float | None:
    """Return when `decide` next changes the state if no event occurs before (seconds, Unix); None for never."""
    if not state.is_firing:
        return None
    times = []
    if rule.spec.on == DEAD_LETTER and state.last_at is not None:
        times.append(state.last_at + rule.spec.within)
    if not _has_pending(state) and (not state.is_announced or _goes_on(rule, state)):
        times.append(0.0 if state.sent_at is None else state.sent_at + rule.spec.every)
    return min(times, default=None)


def begin_sending(state: AlertState) -> AlertState:
    """Return the state with the first message marked as being sent; no further event is added to it."""
    first, *others = state.pending
    return replace(state, pending=(replace(first, is_being_sent=True), *others))


def sent(state: AlertState, now: float) -> AlertState:
    """Return the state without the first message, which was sent."""
    first, *others = state.pending
    sent_at = now if first.notice.status == FIRING else state.sent_at
    return replace(state, pending=tuple(others), sent_at=sent_at, last_error="")


def not_sent(state: AlertState, error: str, now: float, due_at: float) -> AlertState:
    """Return the state after the first message could not be sent; it is retried at ``due_at`` (seconds, Unix)."""
    first, *others = state.pending
    tried = replace(
        first,
        is_being_sent=False,
        attempts=first.attempts + 1,
        due_at=due_at,
        failing_since=now if first.failing_since is None else first.failing_since,
        error=error,
    )
    return replace(state, pending=(tried, *others), last_error=error)


def given_up(state: AlertState, now: float) -> tuple[AlertState, tuple[Pending, ...]]:
    """Return the state without the messages that have waited for `LONGEST_PENDING`, and these messages."""
    old = tuple(
        each for each in state.pending if not each.is_being_sent and now - each.notice.made_at >= LONGEST_PENDING
    )
    kept = tuple(each for each in state.pending if each not in old)
    return (replace(state, pending=kept), old) if old else (state, ())


def restored(state: AlertState, now: float) -> AlertState:
    """Return the state that an earlier server stored; a message that it was sending may be lost, and is due now."""
    pending = tuple(replace(each, is_being_sent=False, due_at=now) for each in state.pending)
    return _not_ahead(replace(state, pending=pending), now)


def _begins(rule: Rule, state: AlertState, now: float) -> bool:
    if not rule.is_counted:
        return bool(state.subjects)
    threshold, within = rule.spec.threshold, rule.spec.within
    is_reached = len(state.times) >= threshold and now <= state.times[-threshold] + within
    return is_reached and (rule.spec.on == DEAD_LETTER or bool(state.subjects))


def _ends(rule: Rule, state: AlertState, now: float) -> bool:
    if rule.spec.on != DEAD_LETTER:
        return not state.subjects
    # Compute the same sum as `next_look`: a difference of floats may have another last bit.
    return not state.left or state.last_at is None or now >= state.last_at + rule.spec.within


def _goes_on(rule: Rule, state: AlertState) -> bool:
    """Return whether a message can be made while the alert continues."""
    return rule.spec.on != DEAD_LETTER or state.count > 0


def _is_message_due(rule: Rule, state: AlertState, now: float) -> bool:
    if _has_pending(state) or (state.is_announced and not _goes_on(rule, state)):
        return False
    return state.sent_at is None or now >= state.sent_at + rule.spec.every


def _has_pending(state: AlertState) -> bool:
    return any(each.notice.status == FIRING for each in state.pending)


def _waiting(state: AlertState) -> Pending | None:
    """Return the waiting message that the alert begins or continues, if events may still be added to it."""
    last = state.pending[-1] if state.pending else None
    return last if last is not None and last.notice.status == FIRING and not last.is_being_sent else None


def _merged(state: AlertState, waiting: Pending, event: Happened) -> AlertState:
    """Return the state with an event added to the waiting message."""
    notice = waiting.notice
    counts = {each.trigger_id: each.count for each in notice.named}
    others = notice.others
    if event.trigger_id in counts or len(counts) < MOST_NAMED:
        counts[event.trigger_id] = counts.get(event.trigger_id, 0) + event.count
    elif not others:
        others = 1  # at least one more; their number is not counted while the message waits
    notice = replace(
        notice,
        count=notice.count + event.count,
        reason=event.reason,
        event_id=event.event_id or notice.event_id,
        named=tuple(Named(trigger_id=each, count=count) for each, count in counts.items() if each),
        others=others,
    )
    return replace(state, pending=(*state.pending[:-1], replace(waiting, notice=notice)))


def _announced(state: AlertState, now: float, message_id: str) -> AlertState:
    assert state.firing_since is not None
    named, others = _named(state)
    subject = next(iter(state.subjects.values()), None)
    notice = Notice(
        id=message_id,
        status=FIRING,
        made_at=now,
        began_at=state.firing_since,
        since=state.firing_since if state.counted_from is None else state.counted_from,
        count=state.count or len(state.subjects),
        reason=state.reason or ("" if subject is None else subject.reason),
        event_id=state.event_id or (None if subject is None else subject.event_id),
        named=named,
        others=others,
    )
    pending = (*state.pending, Pending(notice=notice, due_at=now))
    return replace(state, pending=pending, is_announced=True, sent_at=now, count=0, counted_from=None, by_trigger={})


def _ended(state: AlertState, now: float, message_id: str) -> AlertState:
    assert state.firing_since is not None
    if not state.is_announced:  # the events without a message are counted in the next message
        return replace(state, times=(), subjects={}, firing_since=None, total=0, left=0)
    notice = Notice(
        id=message_id,
        status=RESOLVED,
        made_at=now,
        began_at=state.firing_since,
        since=state.firing_since,
        count=state.total,
        ended_at=now,
        reason=state.reason,
    )
    pending = (*state.pending, Pending(notice=notice, due_at=now))
    return AlertState(pending=pending, sent_at=state.sent_at, last_error=state.last_error)


def _named(state: AlertState) -> tuple[tuple[Named, ...], int]:
    """Return the triggers to name, those with the most events or the longest fault first, and the number of others."""
    if state.by_trigger:
        counts = sorted(state.by_trigger.items(), key=lambda each: (-each[1], each[0]))
        named = [Named(trigger_id=trigger_id, count=count) for trigger_id, count in counts if trigger_id]
    else:
        subjects = sorted(state.subjects.values(), key=lambda each: (each.since, each.trigger_id))
        named = [Named(trigger_id=each.trigger_id, since=each.since) for each in subjects if each.trigger_id]
    return tuple(named[:MOST_NAMED]), max(0, len(named) - MOST_NAMED)


def _not_ahead(state: AlertState, now: float) -> AlertState:
    """Return the state with no time after ``now``, as the wall clock may have been set back."""
    newest = max((state.sent_at or 0.0, state.last_at or 0.0, state.firing_since or 0.0, state.counted_from or 0.0))
    if newest <= now:
        return state
    return replace(
        state,
        times=tuple(min(each, now) for each in state.times),
        sent_at=None if state.sent_at is None else min(state.sent_at, now),
        firing_since=None if state.firing_since is None else min(state.firing_since, now),
        counted_from=None if state.counted_from is None else min(state.counted_from, now),
    )
