"""A delivery as it is stored: its acceptance, its attempts and its state."""

from __future__ import annotations

from attrs import evolve, frozen

from harn.errors import HandlerRetryAfter

READY = "ready"
WAITING = "waiting"
DONE = "done"
DEAD = "dead"

LARGE_BODY = 256 * 1024
"""Bytes of a body beyond which it is in memory only while its delivery runs, and in the event log otherwise."""

RETRY_EXHAUSTED = "retry_exhausted"
REJECTED = "rejected"
FILTER_ERROR = "filter_error"
BINDING_REMOVED = "binding_removed"
RECOVERY_LIMIT = "recovery_limit"
DRAIN_CANCELLED = "drain_cancelled"
REASONS = (RETRY_EXHAUSTED, REJECTED, FILTER_ERROR, BINDING_REMOVED, RECOVERY_LIMIT, DRAIN_CANCELLED)


@frozen(kw_only=True)
class Claim:
    """
    The right to be the first of its kind, within a scope.

    :ivar scope: for dedupe keys ``trigger:<id>``; for signatures that count once ``admin``.
    :ivar expires_at: seconds, Unix; from then on the claim has no effect.
    :ivar lasting: keep it when its delivery becomes a dead letter, which releases it otherwise.
    """

    scope: str
    key: str
    expires_at: float
    lasting: bool = False


@frozen(kw_only=True)
class DeadLetter:
    """
    The reason why a delivery was given up: ``reason`` is one of this module's, ``error_class`` an attempt's class.
    """

    reason: str
    error_class: str
    error: str


@frozen(kw_only=True)
class NewDelivery:
    """
    One event for one binding version, to be accepted.

    :ivar envelope: the encoded `harn.model.event.Envelope`.
    :ivar body: the request's body as received.
    :ivar received_at: seconds, Unix.
    :ivar claim: must be new, else this delivery is a duplicate and is not kept. A dead letter releases its claim.
    :ivar dead: if set, store the event as a dead letter from the start.
    """

    event_id: str
    trigger_id: str
    version: int
    provider: str
    kind: str
    envelope: bytes
    body: bytes
    received_at: float
    claim: Claim | None = None
    dead: DeadLetter | None = None
    replay_of: str | None = None


@frozen(kw_only=True)
class Acceptance:
    """
    The deliveries of one request, stored as one durable unit, or not at all.

    :ivar guard: must be new, else the whole unit is refused with `harn.errors.ClaimTaken`.
    """

    deliveries: tuple[NewDelivery, ...]
    guard: Claim | None = None


@frozen(kw_only=True)
class Attempt:
    """
    One try. ``outcome`` is ``success``, ``skipped``, ``failed``, ``timeout`` or ``denied``; times are seconds, Unix.
    """

    number: int
    version: int
    started_at: float
    completed_at: float
    outcome: str
    error_class: str | None = None
    error: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether it failed; one that the handler ended by ``RetryAfter``, of its own choice, did not."""
        return self.error_class is not None and self.error_class != HandlerRetryAfter.error_class


@frozen(kw_only=True)
class Settlement:
    """
    The new state of a delivery, after an attempt or without one: one durable unit.

    :ivar state: `READY`, `WAITING`, `DONE` or `DEAD`.
    :ivar version: the version that it belongs to from now on.
    :ivar attempts: how many attempts are used up.
    :ivar passed: its predicate returned true, and is not called again.
    :ivar due_at: for `WAITING`: seconds, Unix.
    :ivar attempt: the attempt to record, if one was made.
    :ivar result: for `DONE`: the handler's result as JSON; None when the predicate returned false.
    :ivar dead: for `DEAD`.
    """

    delivery_id: int
    state: str
    version: int
    attempts: int
    passed: bool = False
    due_at: float | None = None
    attempt: Attempt | None = None
    result: bytes | None = None
    dead: DeadLetter | None = None


@frozen(kw_only=True)
class StoredDelivery:
    """
    A delivery read back, with its event.

    :ivar left_out: bytes of a body larger than `LARGE_BODY` that was not read with the rest: ``body`` is empty then.
    """

    delivery_id: int
    event_id: str
    trigger_id: str
    version: int
    provider: str
    kind: str
    state: str
    attempts: int
    passed: bool
    crashes: int
    due_at: float | None
    received_at: float
    replay_of: str | None
    envelope: bytes
    body: bytes
    left_out: int = 0

    def light(self) -> StoredDelivery:
        """Return this delivery without its body, if that is large."""
        size = len(self.body)
        return self if size <= LARGE_BODY else evolve(self, body=b"", left_out=size)


@frozen
class Workload:
    """
    The unfinished work of a binding version.

    :ivar running: how many of its handlers run; ``queued``: how many of its deliveries are ready and not begun.
    """

    running: int
    queued: int
