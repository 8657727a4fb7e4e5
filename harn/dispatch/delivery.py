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
    """Handed to its destination."""
    INTERRUPTED = 3
    """Its call ended with its interpreter, by no fault of its own: it is queued again in a moment."""
    SETTLING = 4
    """Its outcome is being written."""
    WAITING = 5
    """In the store, until the time of its next attempt."""
    DONE = 6
    DEAD = 7


MOVES: dict[Phase, frozenset[Phase]] = {
    # What nothing waits before begins immediately; if its version is to be given up, it is settled instead.
    Phase.STORED: frozenset((Phase.QUEUED, Phase.RUNNING, Phase.SETTLING, Phase.DEAD)),
    Phase.QUEUED: frozenset((Phase.RUNNING, Phase.SETTLING, Phase.STORED)),
    # What another server has taken over is left to the store.
    Phase.RUNNING: frozenset((Phase.INTERRUPTED, Phase.SETTLING, Phase.STORED)),
    Phase.INTERRUPTED: frozenset((Phase.QUEUED, Phase.SETTLING, Phase.STORED)),
    # An attempt that failed may be followed by the next one immediately, or by the end of a delivery without a version.
    Phase.SETTLING: frozenset((Phase.QUEUED, Phase.SETTLING, Phase.WAITING, Phase.DONE, Phase.DEAD, Phase.STORED)),
    Phase.WAITING: frozenset((Phase.STORED, Phase.DEAD)),
    Phase.DONE: frozenset(),
    # Of a version that was rolled back, dead letters are made ready again.
    Phase.DEAD: frozenset((Phase.STORED,)),
}
"""The legal moves, by the phase before."""


class Delivery(msgspec.Struct, eq=False):
    """
    One accepted event for one binding version, while memory holds it. A Struct: thousands are made each second.

    :ivar phase: changed by `become` alone.
    :ivar queue: the queue of the version that its row names. It is in this, or counts against it.
    :ivar binding: the version that runs it, and on which it holds a lease, from its beginning until it is settled; set
        when it begins. Before that its queue holds the lease.
    :ivar destination: what runs it, and is held for it; ``began_at``: since when (seconds of the reactor). Both are set
        when it begins.
    :ivar calling: what cancels its call, while that runs. ``again``: the timer after which it is queued again.
    :ivar cancelling: operators who cancel it, and wait for its end.
    :ivar attempts: used up so far. ``passed``: its predicate returned true, and is not called again.
    :ivar interruptions: calls that ended with their interpreter; ``deaths``: those of them that it may have caused.
    :ivar is_taken: another server has taken it over: nothing that follows here is kept.
    :ivar crashes: of servers, while it ran. ``is_read_back``: it comes from the store, not just from a request.
    :ivar first_seen: when it was accepted (seconds, Unix).
    :ivar body: None while a large one is in the store alone. ``large``: the bytes of a large body, 0 for a small one.
    :ivar size: the bytes that it keeps in memory while it waits: of a large body none.
    :ivar trace: the context of its attempt, from its beginning until it is settled; None while traces are off.
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
        """Make the delivery of a row that the inbox has just made durable."""
        envelope, body = new.envelope, new.body
        length = len(body)
        large = length if length > LARGE_BODY else 0
        size = len(envelope) + length - large
        return cls(delivery_id, queue, new.event_id, envelope, body, new.received_at, new.replay_of, large, size)

    @classmethod
    def stored(cls, row: StoredDelivery, queue: Queue) -> Delivery:
        """Make the delivery of a row that was read back."""
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
        """Return its next attempt, as its destination sees it; its body is there."""
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
        """Return the event's part about a settlement that is on disk; the delivery itself stands as before."""
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
        """Keep a large body no longer; it is in the store."""
        if self.large:
            self.body = None
