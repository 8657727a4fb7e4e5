"""
A delivery as it is stored: its acceptance, its attempts and its state.

What is made for each delivery is a Struct, which takes a fraction of the time that a frozen attrs class takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harn.errors import (
    HandlerRaised,
    HandlerRetryAfter,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)


class State(StrEnum):
    """
    The state of a delivery, as users see it.

    ``RUNNING`` is in the memory of the server that runs it, and nowhere in a store: there such a delivery is ready, or
    waits. ``REPLAYED`` and ``DISCARDED`` are dead letters that an operator has dealt with.
    """

    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"
    DEAD = "dead"
    DISCARDED = "discarded"
    REPLAYED = "replayed"

    def may_become(self, other: State) -> bool:
        """Return whether `MOVES` has this step."""
        return other in MOVES[self]


READY, RUNNING, WAITING, DONE, SKIPPED, DEAD, DISCARDED, REPLAYED = State

MOVES: Mapping[State, frozenset[State]] = {
    READY: frozenset((RUNNING, WAITING, SKIPPED, DEAD)),
    # Ready again: it was interrupted by something that was not its own doing, or is retried immediately.
    RUNNING: frozenset((READY, WAITING, DONE, SKIPPED, DEAD)),
    WAITING: frozenset((READY, RUNNING, SKIPPED, DEAD)),
    DONE: frozenset(),
    SKIPPED: frozenset(),
    # Ready again: a rollback redrives what the version before it gave up.
    DEAD: frozenset((READY, DISCARDED, REPLAYED)),
    DISCARDED: frozenset(),
    REPLAYED: frozenset(),
}
"""Every step from one state to another."""

UNFINISHED = frozenset((READY, RUNNING, WAITING))
"""States that something follows by itself. Retention keeps such deliveries."""

PREDICATE = "predicate"
RATE_LIMITED = "rate_limited"
DEBOUNCED = "debounced"
SINGLETON = "singleton"
BATCHED = "batched"
CANCELLED = "cancelled"
SKIP_REASONS = (PREDICATE, RATE_LIMITED, DEBOUNCED, SINGLETON, BATCHED, CANCELLED)

LARGE_BODY = 256 * 1024
"""Bytes of a body beyond which it is in memory only while its delivery runs, and in the event log otherwise."""

RETRY_EXHAUSTED = "retry_exhausted"
REJECTED = "rejected"
FILTER_ERROR = "filter_error"
BINDING_REMOVED = "binding_removed"
RECOVERY_LIMIT = "recovery_limit"
DRAIN_CANCELLED = "drain_cancelled"
CIRCUIT_OPEN = "circuit_open"
REASONS = (RETRY_EXHAUSTED, REJECTED, FILTER_ERROR, BINDING_REMOVED, RECOVERY_LIMIT, DRAIN_CANCELLED, CIRCUIT_OPEN)


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The right to be the first of its kind, within a scope.

    :ivar scope: for dedupe keys ``trigger:<id>``; for signatures that count once ``admin``.
    :ivar expires_at: seconds, Unix; from then on the claim has no effect. That of a delivery ends before, when that
        becomes a dead letter; a claim that stands alone does not.
    """

    scope: str
    key: str
    expires_at: float


class DeadLetter(Struct, frozen=True, kw_only=True):
    """
    The reason why a delivery was given up: ``reason`` is one of this module's, ``error_class`` an attempt's class.
    """

    reason: str
    error_class: str
    error: str


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One event for one binding version, to be accepted.

    :ivar envelope: the encoded `harn.model.event.Envelope`.
    :ivar body: the request's body as received.
    :ivar received_at: seconds, Unix.
    :ivar claim: must be new, else this delivery is a duplicate and is not kept. A dead letter releases its claim.
    :ivar dead: if set, store the event as a dead letter from the start; it takes no claim.
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


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """A JSON value to keep under a name, in place of the previous one; see `harn.store.generations.ICheckpoints`."""

    name: str
    value: bytes


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The deliveries of one request, stored as one durable unit, or not at all.

    :ivar guard: must be new, else the whole unit is refused with `harn.errors.ClaimTaken`.
    :ivar checkpoint: kept in the same unit: how far the source of the events has come.
    """

    deliveries: tuple[NewDelivery, ...]
    guard: Claim | None = None
    checkpoint: Checkpoint | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One try. ``outcome`` is ``success``, ``skipped``, ``failed``, ``timeout`` or ``denied``; times are seconds, Unix.

    :ivar traceback: of the handler's code, if that raised.
    :ivar output: the last lines that the handler logged or printed. Both are kept of a failed attempt only, and are
        bounded.
    """

    number: int
    version: int
    started_at: float
    completed_at: float
    outcome: str
    error_class: str | None = None
    error: str | None = None
    traceback: str | None = None
    output: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether it failed; one that the handler ended by ``RetryAfter``, of its own choice, did not."""
        return self.error_class is not None and self.error_class != HandlerRetryAfter.error_class


class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The new state of a delivery, after an attempt or without one: one durable unit.

    :ivar state: `READY`, `WAITING`, `DONE`, `SKIPPED` or `DEAD`.
    :ivar version: the version that it belongs to from now on.
    :ivar attempts: how many attempts are used up.
    :ivar passed: its predicate returned true, and is not called again.
    :ivar due_at: for `WAITING`: seconds, Unix.
    :ivar attempt: the attempt to record, if one was made.
    :ivar result: for `DONE`: the handler's result as JSON.
    :ivar skip_reason: for `SKIPPED`: one of `SKIP_REASONS`.
    :ivar dead: for `DEAD`.
    """

    delivery_id: int
    state: State
    version: int
    attempts: int
    passed: bool = False
    due_at: float | None = None
    attempt: Attempt | None = None
    result: bytes | None = None
    skip_reason: str | None = None
    dead: DeadLetter | None = None

    @property
    def succeeded(self) -> bool:
        """Whether its code did what it should: the handler returned, or the predicate refused the event."""
        return self.state is DONE or (self.state is SKIPPED and self.skip_reason == PREDICATE)


class StoredDelivery(Struct, frozen=True, kw_only=True):
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
    state: State
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
        return self if size <= LARGE_BODY else replace(self, body=b"", left_out=size)


class Workload(Struct, frozen=True):
    """
    The unfinished work of a binding version.

    :ivar running: how many of its handlers run.
    :ivar queued: how many of its deliveries are ready and not begun.
    """

    running: int
    queued: int


FAILURES = frozenset(
    each.error_class
    for each in (HandlerRaised, HandlerTimedOut, InterpreterDied, PredicateRaised, ResultInvalid, ResultTooLarge)
)
"""Error classes of attempts that count against the code; `Reject` and `RetryAfter` of a handler do not."""


def counts_against_code(attempt: Attempt) -> bool:
    """Return whether an attempt failed for a reason that lies in the handler, its predicate or its interpreter."""
    return attempt.error_class in FAILURES
