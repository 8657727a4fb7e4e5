"""
A circuit breaker for the destination of one trigger, as a value with pure functions.

While the circuit is closed, every delivery may begin. It opens when ``failures`` deliveries in a row have failed an
attempt; then no delivery begins until ``reset`` seconds have passed. After that one delivery begins as the probe, and
the circuit is half-open: the outcome of the probe closes it or opens it again. Outcomes of deliveries that began before
the circuit opened do not change it.

It counts deliveries, not attempts: one event that fails each of its seven attempts is one failure.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from harn.manifest.model import CircuitSpec

KEPT_UNUSED = 86400.0
"""Seconds for which the record of an open circuit is kept after ``retry_at`` if no probe begins (a removed trigger)."""


class CircuitOutcome(StrEnum):
    """The result of an attempt, as it counts for the destination."""

    ANSWERED = "answered"
    """The destination works: the handler returned, or rejected this one event."""
    FAILED = "failed"
    """The attempt failed."""
    POSTPONED = "postponed"
    """Neither of these: the handler asked for a retry later."""
    INTERRUPTED = "interrupted"
    """Neither of these: the attempt was interrupted or cancelled, and is not counted."""


class CircuitState(StrEnum):
    """The state of a circuit: whether deliveries may begin; see the module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Circuit(Struct, frozen=True, kw_only=True):
    """
    The state of one circuit.

    :ivar failed: while closed: the ids of the deliveries that failed an attempt since the last answered one.
    :ivar failures: the number of failed deliveries that opened the circuit; 0 while closed.
    :ivar retry_at: while open: when a probe may begin (seconds, Unix).
    :ivar probe: while half-open: the id of the delivery whose outcome closes or opens the circuit.
    :ivar claimed_until: while open or half-open: when the claim of this server to the probe ends (seconds, Unix); None
        without a claim.
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
        Return the circuit with ``retry_at`` at most one ``reset`` after ``now`` (seconds, Unix).

        Otherwise a clock that was set back, or a reload that shortens ``reset``, would keep it open for longer.
        """
        if self.retry_at is None or self.retry_at <= now + spec.reset:
            return self
        return replace(self, retry_at=now + spec.reset)

    def begun(self, delivery_id: int) -> Circuit:
        """Return the circuit after a delivery has begun, which `may_begin` allowed; an open one becomes half-open."""
        if self.state is CircuitState.OPEN:
            return replace(self, state=CircuitState.HALF_OPEN, retry_at=None, probe=delivery_id)
        return self

    def ended(self, delivery_id: int, outcome: CircuitOutcome, now: float, spec: CircuitSpec) -> Circuit:
        """Return the circuit after an attempt of a delivery has ended at ``now`` (seconds, Unix)."""
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
        """Return the circuit after these deliveries have failed in a row on any server; ``now`` is in seconds, Unix."""
        if self.state is not CircuitState.CLOSED:
            return self
        if len(failed) < spec.failures:
            return replace(self, failed=failed)
        return Circuit(failures=len(failed)).opened(now, spec)

    def claimed(self, until: float) -> Circuit:
        """Return the circuit after this server has claimed the probe until ``until`` (seconds, Unix)."""
        return replace(self, claimed_until=until) if self.state is CircuitState.OPEN else self

    def opened(self, now: float, spec: CircuitSpec) -> Circuit:
        """Return the circuit as opened at ``now`` (seconds, Unix)."""
        return Circuit(state=CircuitState.OPEN, failures=self.failures, retry_at=now + spec.reset)


def restored(failures: int, retry_at: float, reset: float, now: float) -> Circuit:
    """
    Return an open circuit from the record of another server.

    :param failures: the number of failed deliveries that opened it.
    :param retry_at: when a probe may begin (seconds, Unix). If the clock was set back since, the circuit stays open for
        one ``reset`` from ``now`` at most.
    :param reset: seconds that the circuit stays open.
    :param now: seconds, Unix.
    """
    return Circuit(state=CircuitState.OPEN, failures=failures, retry_at=min(retry_at, now + reset))
