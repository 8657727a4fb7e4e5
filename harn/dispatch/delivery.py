"""A delivery in memory, its phase, and the legal moves from one phase to the next."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from harn.lifecycle import SettledDelivery
from harn.model.delivery import LARGE_BODY, NewDelivery, Settlement, StoredDelivery
from harn.model.event_trace import AttemptTrace
from harn.model.exchange import OutgoingDelivery, Running
from harn.triggers.binding import BindingVersion, Target

if TYPE_CHECKING:
    from harn.dispatch.queue import Queue


class Phase(IntEnum):
    """The phase of a delivery from its acceptance to its end. `MOVES` holds the legal moves."""

    STORED = 0
    """Ready to run, and in the store alone."""
    QUEUED = 1
    """In memory, in its queue."""
    RUNNING = 2
    """Its destination runs it."""
    INTERRUPTED = 3
    """The call ended because its interpreter did, without an outcome; the delivery is queued again soon."""
    SETTLING = 4
    """Its outcome is being written."""
    WAITING = 5
    """In the store, until its next attempt is due."""
    DONE = 6
    DEAD = 7


MOVES: dict[Phase, frozenset[Phase]] = {
    # It begins at once if nothing waits before it; if no version may run it, it is settled instead.
    Phase.STORED: frozenset((Phase.QUEUED, Phase.RUNNING, Phase.SETTLING, Phase.DEAD)),
    Phase.QUEUED: frozenset((Phase.RUNNING, Phase.SETTLING, Phase.STORED)),
    # A delivery that another server has taken over is left to the store.
    Phase.RUNNING: frozenset((Phase.INTERRUPTED, Phase.SETTLING, Phase.STORED)),
    Phase.INTERRUPTED: frozenset((Phase.QUEUED, Phase.SETTLING, Phase.STORED)),
    # After a failed attempt, the next may begin at once, or the delivery ends if no version may run it.
    Phase.SETTLING: frozenset((Phase.QUEUED, Phase.SETTLING, Phase.WAITING, Phase.DONE, Phase.DEAD, Phase.STORED)),
    Phase.WAITING: frozenset((Phase.STORED, Phase.DEAD)),
    Phase.DONE: frozenset(),
    # The dead letters of a rolled-back version are made ready again.
    Phase.DEAD: frozenset((Phase.STORED,)),
}
"""The phases that a delivery may enter, by its present phase."""


class Delivery(msgspec.Struct, eq=False):
    """
    One accepted event for one binding version, while it is in memory. A Struct, since thousands are made each second.

    :ivar phase: the present phase; only `become` changes it.
    :ivar queue: the queue of the version that its row names; the delivery is in this queue, or counted by it.
    :ivar binding: the version that runs it; set when it begins. From then until it is settled, the delivery holds a
        lease on this version; before, its queue holds the lease.
    :ivar destination: the destination that runs it, retained until the attempt ends; set when it begins.
    :ivar began_at: when it began (seconds of the reactor); set then.
    :ivar calling: the Deferred that cancels its call; None unless the call runs.
    :ivar again: the timer that queues it again after an interruption; None without one.
    :ivar cancelling: Deferreds of the operators who cancel it and wait for its end.
    :ivar attempts: how many attempts it has used up.
    :ivar passed: whether its predicate has returned true; then it is not called again.
    :ivar interruptions: how many of its calls ended because their interpreter did.
    :ivar deaths: how many of these ends it may have caused.
    :ivar is_taken: whether another server has taken it over; then its outcome here is dropped.
    :ivar crashes: how many servers crashed while it ran.
    :ivar is_read_back: whether it was read from the store, not made from a request that was just accepted.
    :ivar first_seen: when it was accepted (seconds, Unix).
    :ivar body: the body; None while a large one is only in the store.
    :ivar large: the bytes of a large body; 0 if the body is small.
    :ivar size: the bytes that it takes in memory while it waits, without a large body.
    :ivar trace: the trace context of its attempt, from its beginning until it is settled; None while traces are off.
    """

    delivery_id: int
    queue: Queue
    event_id: str
    envelope: bytes
    body: bytes | None
    first_seen: float
    replay_of: str | None
    large: int = 0
    size: int = 0
    phase: Phase = Phase.STORED
    attempts: int = 0
    passed: bool = False
    interruptions: int = 0
    deaths: int = 0
    crashes: int = 0
    is_read_back: bool = False
    is_taken: bool = False
    calling: Running | None = None
    again: IDelayedCall | None = None
    cancelling: tuple[Deferred[bool], ...] = ()
    binding: BindingVersion = cast("BindingVersion", None)
    destination: Target = cast("Target", None)
    began_at: float = 0.0
    trace: AttemptTrace | None = None

    @classmethod
    def accepted(cls, delivery_id: int, queue: Queue, new: NewDelivery) -> Delivery:
        """Return the delivery for a row that the inbox has just made durable."""
        envelope, body = new.envelope, new.body
        length = len(body)
        large = length if length > LARGE_BODY else 0
        size = len(envelope) + length - large
        return cls(delivery_id, queue, new.event_id, envelope, body, new.received_at, new.replay_of, large, size)

    @classmethod
    def stored(cls, row: StoredDelivery, queue: Queue) -> Delivery:
        """Return the delivery for a row that was read from the store."""
        length = 0 if row.left_out else len(row.body)
        large = length if length > LARGE_BODY else 0
        return cls(
            delivery_id=row.delivery_id,
            queue=queue,
            event_id=row.event_id,
            envelope=row.envelope,
            body=None if row.left_out else row.body,
            first_seen=row.received_at,
            replay_of=row.replay_of,
            large=large or row.left_out,
            size=len(row.envelope) + length - large,
            attempts=row.attempts,
            passed=row.passed,
            crashes=row.crashes,
            is_read_back=True,
        )

    def __repr__(self) -> str:
        return f"<Delivery {self.delivery_id} of {self.event_id}, {self.phase.name}>"  # without headers and body

    def become(self, phase: Phase) -> None:
        """
        Enter a phase.

        :raises AssertionError: `MOVES` does not allow it.
        """
        if phase not in MOVES[self.phase]:
            raise AssertionError(f"delivery {self.delivery_id} must not become {phase.name} after {self.phase.name}")
        self.phase = phase

    def outgoing(self) -> OutgoingDelivery:
        """Return the form that its destination gets for the next attempt; the body must be in memory."""
        binding = self.binding
        assert self.body is not None
        return OutgoingDelivery(
            target=binding.spec.handler,
            binding=binding.key,
            trigger_id=binding.id,
            event_id=self.event_id,
            predicate=None if self.passed else binding.predicate,
            envelope=self.envelope,
            body=self.body,
            attempt=self.attempts + 1,
            timeout=binding.spec.timeout,
            replay_of=self.replay_of,
            secrets=binding.spec.handler_secrets,
            trace=self.trace,
        )

    def settled(self, settlement: Settlement) -> SettledDelivery:
        """Return the part of a `Settled` event for a settlement on disk, before the delivery is changed by it."""
        binding = self.binding
        passed = binding.predicate is not None and settlement.passed and not self.passed
        return SettledDelivery(
            binding.id,
            binding.spec.provider,
            binding.key,
            self.event_id,
            self.envelope,
            passed,
            settlement,
            binding.handler_kind,
            self.first_seen,
            self.trace,
        )

    def drop_body(self) -> None:
        """Release a large body from memory; it stays in the store."""
        if self.large:
            self.body = None
