"""
Handlers that exceed their time: finding the call that caused it, and the deadlines of the calls of one process.

A blocked loop is caused by one call. The others' time does not run meanwhile, and only a call that is proven to block,
or was alone, counts as the cause of the process's end. Deadlines share one delayed call a worker, which also pings
about once a second while calls run, and never when none do.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Protocol

from twisted.logger import Logger

from harn.vm.calls import ActiveCall
from harn.vm.frames import BLOCKED_BY_NO_CALL, LOOP_TURNS, Pong


class TimeoutDecision(Enum):
    """The decision about one overdue call."""

    WAIT = "check again soon: another call blocks the loop, and has a deadline of its own"
    CANCEL = "request its end, and check again after a grace"
    KILL_CULPRIT = "end the process: this call is the cause"
    KILL_STUCK = "end the process: code that an earlier call left behind blocks it, not a call that is in it"
    KILL_UNKNOWN = "end the process: it is unknown which of its calls is the cause"


def decide_timeout(
    number: int, *, cancelled: bool, culprit: int | None, alone: bool, left_behind: bool = False
) -> TimeoutDecision:
    """
    Decide about an overdue call.

    :param cancelled: its end was requested, and its grace has passed.
    :param culprit: the culprit in a fresh `harn.vm.frames.Pong`, or None when none came: some code blocks the whole
        process.
    :param alone: no other call is in the process.
    :param left_behind: the culprit has ended, something that it started blocks the loop, and has done so for a while.
    """
    end = TimeoutDecision.KILL_CULPRIT if alone else TimeoutDecision.KILL_UNKNOWN
    if culprit is None:
        return end
    if culprit in (LOOP_TURNS, number):
        return TimeoutDecision.KILL_CULPRIT if cancelled else TimeoutDecision.CANCEL
    if culprit == BLOCKED_BY_NO_CALL:
        return end if cancelled else TimeoutDecision.CANCEL
    return TimeoutDecision.KILL_STUCK if left_behind else TimeoutDecision.WAIT


log = Logger(namespace="harn.vm")

PING_INTERVAL = 1.0
RECHECK = 0.25
"""Seconds until the next check of an overdue call while another one blocks the loop."""
GRACE = 0.5
"""Seconds that a call has to end after that was requested."""
SILENCE = 2.0
"""Seconds without an answer after which the whole process counts as blocked."""


class CallsHolder(Protocol):
    """The worker's interface for this module."""

    calls: dict[int, ActiveCall]

    def ping(self, number: int) -> None:
        """Check whether the process's loop runs."""

    def cancel(self, running: ActiveCall) -> None:
        """Request the end of a call."""

    def end(self, culprit: ActiveCall | None, why: str, *, suspect: bool) -> None:
        """End the process."""


class _NoCalls:
    """A holder without calls."""

    def __init__(self) -> None:
        self.calls: dict[int, ActiveCall] = {}

    def ping(self, number: int) -> None:
        pass

    def cancel(self, running: ActiveCall) -> None:
        pass

    def end(self, culprit: ActiveCall | None, why: str, *, suspect: bool) -> None:
        pass


class CallDeadlines:
    """Watches the calls of one worker."""

    def __init__(self, reactor: Any, holder: CallsHolder) -> None:
        self._reactor = reactor
        self._holder: CallsHolder = holder
        self._timer: Any = None
        self._wakes_at = 0.0  # of the timer
        self._number = 0
        self._pinged_at: float | None = None  # of the unanswered ping
        self._turned_at = 0.0  # when the loop was last known to run
        self._blocked_since: float | None = None
        self._culprits: set[int] = set()

    # Events of calls

    def began(self, running: ActiveCall) -> None:
        """Called when a call was sent: its time runs."""
        now = self._reactor.seconds()
        due_at = running.due_at = now + running.call.timeout
        if len(self._holder.calls) == 1:
            self._turned_at = now
        latest = now + PING_INTERVAL if now + PING_INTERVAL < due_at else due_at
        if self._timer is None or latest < self._wakes_at:
            self._wake_by(latest)

    def queued(self, running: ActiveCall, *, waits: bool) -> None:
        """Called when a call waits for a thread, or has got one: its time stops, or starts again."""
        if waits:
            running.due_at = math.inf
        else:
            self.began(running)

    def expire(self, running: ActiveCall) -> None:
        """Expire a call now."""
        running.due_at = self._reactor.seconds()
        self._wake_by(running.due_at)

    def loop_turned(self) -> None:
        """Called when the loop did something: it is not blocked."""
        self._turned_at = self._reactor.seconds()

    def stop(self) -> None:
        """Reset the state: the process is gone."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._pinged_at = self._blocked_since = None
        self._culprits.clear()

    def close(self) -> None:
        """Stop, and drop the reference to the worker, which references this object."""
        self.stop()
        self._holder = _NoCalls()

    # Timer

    def _wake_by(self, moment: float) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(max(0.0, moment - self._reactor.seconds()), self._wake)
        elif moment < self._wakes_at:
            self._timer.reset(max(0.0, moment - self._reactor.seconds()))
        else:
            return
        self._wakes_at = moment

    def _wake(self) -> None:
        self._timer = None
        calls = self._holder.calls
        if not calls:
            return
        now = self._reactor.seconds()
        if self._pinged_at is None:
            self._number += 1
            self._pinged_at = now
            self._holder.ping(self._number)
        elif now - self._pinged_at >= SILENCE:
            self._decide(now, None)
            if not calls or self._holder.calls is not calls:
                return
        next_due = min(running.due_at for running in calls.values())
        self._wake_by(now + RECHECK if next_due <= now else min(next_due, now + PING_INTERVAL))

    def pong_received(self, pong: Pong) -> None:
        """Called with the watchdog's answer."""
        if pong.number != self._number or self._pinged_at is None:
            return
        self._pinged_at = None
        now = self._reactor.seconds()
        if pong.culprit == LOOP_TURNS:
            self._unblocked(now)
        else:
            self._blocked(pong)
        self._decide(now, pong)

    def _blocked(self, pong: Pong) -> None:
        self._culprits.add(pong.culprit)
        if self._blocked_since is not None:
            return
        self._blocked_since = self._turned_at
        running = self._holder.calls.get(pong.culprit)
        if running is not None:
            log.warn(
                "{binding} blocks the loop of its interpreter{where}; make it def, or await what takes long",
                binding=running.call.binding,
                trigger_id=running.call.trigger_id,
                event_id=running.call.event_id,
                where=f" at {pong.where}" if pong.where else "",
            )

    def _unblocked(self, now: float) -> None:
        """Extend the deadlines of all calls by the time of a block, except those that caused it."""
        self._turned_at = now
        if self._blocked_since is None:
            return
        lost = now - self._blocked_since
        for running in self._holder.calls.values():
            if not running.cancelled and running.number not in self._culprits:
                running.due_at += min(lost, running.call.timeout)
        self._blocked_since = None
        self._culprits.clear()

    def _decide(self, now: float, pong: Pong | None) -> None:
        calls = self._holder.calls
        since = self._blocked_since
        left_behind = pong is not None and pong.culprit not in calls and since is not None and now - since >= SILENCE
        for running in [running for running in calls.values() if running.due_at <= now]:
            decision = decide_timeout(
                running.number,
                cancelled=running.cancelled,
                culprit=None if pong is None else pong.culprit,
                alone=len(calls) == 1,
                left_behind=left_behind,
            )
            if decision is TimeoutDecision.WAIT:
                running.due_at = now + RECHECK
            elif decision is TimeoutDecision.CANCEL:
                running.cancelled = True
                running.due_at = now + GRACE
                self._holder.cancel(running)
            else:
                self._end(decision, running)
                return
            self._wake_by(running.due_at)

    def _end(self, decision: TimeoutDecision, running: ActiveCall) -> None:
        if decision is TimeoutDecision.KILL_CULPRIT:
            self._holder.end(running, f"{running.call.binding} did not end when its time had run out", suspect=False)
        elif decision is TimeoutDecision.KILL_STUCK:
            self._holder.end(None, "code that an earlier call left behind blocked it", suspect=False)
        else:
            self._holder.end(None, "an unknown call blocked it", suspect=True)
