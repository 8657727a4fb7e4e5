"""
A circuit breaker for the destination of one trigger. Pure.

Closed, everything begins. After so many deliveries in a row that failed an attempt it opens, and nothing begins until
its time is up. Then it is half-open: one delivery begins, the probe, and its outcome closes or opens the circuit. What
began before the circuit opened does not change it any more.

It counts deliveries, not attempts: one event that fails each of its seven attempts is one failure.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from harn.manifest.model import CircuitSpec

KEPT_UNUSED = 86400.0
"""Seconds after its time for which an open circuit is kept that nothing has tried, for example of a removed trigger."""


class CircuitOutcome(StrEnum):
    """The result of an attempt, as far as it concerns the destination."""

    ANSWERED = "answered"
    """It works: the handler returned, or rejected this one event."""
    FAILED = "failed"
    POSTPONED = "postponed"
    """Neither: the handler asked for a retry later."""
    INTERRUPTED = "interrupted"
    """Neither: the attempt was cut off or cancelled, and does not count."""


class CircuitState(StrEnum):
    """Whether deliveries begin."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Circuit(Struct, frozen=True, kw_only=True):
    """
    The state of one circuit.

    :ivar failed: while closed: the deliveries (their ids) that failed an attempt since the last that did not.
    :ivar failures: how many those were when it opened; 0 while closed.
    :ivar retry_at: while open: when a probe may begin (seconds, Unix).
    :ivar probe: while half-open: the delivery that decides.
    :ivar claimed_until: while open or half-open: until when this server of several may try the probe (seconds, Unix).
    """

    state: CircuitState = CircuitState.CLOSED
    failed: frozenset[int] = frozenset()
    failures: int = 0
    retry_at: float | None = None
    probe: int | None = None
    claimed_until: float | None = None

    def may_begin(self, now: float) -> bool:
        """Return whether a delivery may begin at ``now`` (seconds, Unix); if the circuit is open, as its probe."""
        if self.state is CircuitState.OPEN:
            return self.retry_at is None or now >= self.retry_at
        return self.state is CircuitState.CLOSED

    def within(self, now: float, spec: CircuitSpec) -> Circuit:
        """
        Return the circuit as its settings allow it at ``now`` (seconds, Unix): open no longer than one whole ``reset``.

        So neither a clock that was set back nor a reload that shortens ``reset`` leaves it open for longer.
        """
        if self.retry_at is None or self.retry_at <= now + spec.reset:
            return self
        return replace(self, retry_at=now + spec.reset)

    def begun(self, delivery_id: int) -> Circuit:
        """Return the circuit after a delivery has begun that `may_begin` allowed."""
        if self.state is CircuitState.OPEN:
            return replace(self, state=CircuitState.HALF_OPEN, retry_at=None, probe=delivery_id)
        return self

    def ended(self, delivery_id: int, outcome: CircuitOutcome, now: float, spec: CircuitSpec) -> Circuit:
        """Return the circuit after an attempt has ended, at ``now`` (seconds, Unix)."""
        if self.state is CircuitState.HALF_OPEN and self.probe == delivery_id:
            if outcome is CircuitOutcome.ANSWERED:
                return Circuit()
            opened = self.opened(now, spec)
            return replace(opened, retry_at=now) if outcome is CircuitOutcome.INTERRUPTED else opened
        if self.state is not CircuitState.CLOSED or outcome in (CircuitOutcome.POSTPONED, CircuitOutcome.INTERRUPTED):
            return self
        if outcome is CircuitOutcome.ANSWERED:
            return Circuit() if self.failed else self
        return self.counted(self.failed | {delivery_id}, now, spec)

    def counted(self, failed: frozenset[int], now: float, spec: CircuitSpec) -> Circuit:
        """Return the circuit once these deliveries have failed in a row, on any server; now is seconds, Unix."""
        if self.state is not CircuitState.CLOSED:
            return self
        if len(failed) < spec.failures:
            return replace(self, failed=failed)
        return Circuit(failures=len(failed)).opened(now, spec)

    def claimed(self, until: float) -> Circuit:
        """Return the circuit once this server may try its probe, until then (seconds, Unix)."""
        return replace(self, claimed_until=until) if self.state is CircuitState.OPEN else self

    def opened(self, now: float, spec: CircuitSpec) -> Circuit:
        """Return the circuit open, from ``now`` (seconds, Unix) on."""
        return Circuit(state=CircuitState.OPEN, failures=self.failures, retry_at=now + spec.reset)


def restored(failures: int, retry_at: float, reset: float, now: float) -> Circuit:
    """
    Return an open circuit of an earlier server; all times are seconds, Unix.

    If the clock was set back meanwhile, it waits one whole ``reset`` and not longer.
    """
    return Circuit(state=CircuitState.OPEN, failures=failures, retry_at=min(retry_at, now + reset))
