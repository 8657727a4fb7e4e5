"""
The log of failed attempts and dead letters, as a subscriber to lifecycle events: in every format, at the default level.

Each has a line, within the limits of `harn.observability.log_limits`; what these leave out is counted, and a line that
follows soon says how much that was.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.dispatch.failure_lines import (
    LeftOut,
    Line,
    attempt_line,
    bulk_line,
    counted,
    dead_letter_line,
    left_out_line,
    refused_by_filter_line,
)
from harn.lifecycle import Accepted, DeadLettered, Lifecycle, Settled
from harn.model.delivery import Attempt
from harn.observability.log_limits import LineLimits
from harn.triggers.registry import Registry

FIRST = 1.0
"""Seconds from the first line that was left out to the line that says so; it doubles while a flood goes on."""
LAST = 16.0
MOST = 20
"""Triggers that have such a line of their own; the others share one."""

log = Logger(namespace="harn.deliveries")


class FailureLog:
    """Writes the lines, and counts those that are left out, by trigger."""

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
        """Write what is still to be said of lines that were left out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_left_out()

    def _settled(self, event: Settled) -> None:
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

    def _attempt_line(self, event: Settled, attempt: Attempt) -> Line:
        own = next((each for each in self._registry.versions(event.trigger_id) if each.key == event.binding), None)
        target = self._registry.for_retry(event.trigger_id, own)
        retry = None if own is None else own.spec.retry
        return attempt_line(event, attempt, retry, None if target is None else f"v{target.version}")

    def _accepted(self, event: Accepted) -> None:
        new = event.delivery
        if new.dead is None:
            return
        if self._takes_dead(new.trigger_id):
            write(refused_by_filter_line(event, new.dead))
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
        """Return whether a dead letter is logged, apart from failed attempts, which are more: no id has a slash."""
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
        if not self._left_out:  # a whole pause without any: the flood has ended
            self._pause = FIRST
            return
        self._write_left_out()
        self._pause = min(2 * self._pause, LAST)
        self._timer = self._clock.callLater(self._pause, self._due)

    def _write_left_out(self) -> None:
        left_out, self._left_out = self._left_out, {}
        now = self._clock.seconds()
        # Dead letters first: nothing brings them back by itself.
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
