"""A delivery in memory: the window's view of one unfinished row."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from harn.lifecycle import Settled
from harn.model.delivery import LARGE_BODY, NewDelivery, Settlement, StoredDelivery
from harn.model.outgoing import OutgoingDelivery, Returned
from harn.triggers.binding import BindingVersion


class Delivery:
    """
    One accepted event for one binding version, from accept to settled.

    It holds one lease on ``binding``. ``calling`` is its call while that runs; ``attempts`` are used up so far;
    ``interruptions`` counts the calls that ended with their interpreter, ``deaths`` those of them that it may have
    caused; ``first_seen`` is when it was accepted (seconds, Unix). ``crashes`` of servers it has seen while it ran;
    ``is_read_back``: it comes from the store, not just from a request.

    ``large`` is the number of bytes of a large body, 0 for a small one. ``body`` is None while a large one is absent.
    ``size`` is the number of bytes that it keeps in memory while it waits: of a large body none.
    """

    __slots__ = (
        "attempts",
        "binding",
        "body",
        "calling",
        "crashes",
        "deaths",
        "delivery_id",
        "envelope",
        "event_id",
        "first_seen",
        "interruptions",
        "is_read_back",
        "large",
        "passed",
        "replay_of",
        "size",
    )

    def __init__(
        self,
        delivery_id: int,
        binding: BindingVersion,
        event_id: str,
        envelope: bytes,
        body: bytes | None,
        first_seen: float,
        replay_of: str | None,
    ) -> None:
        self.delivery_id = delivery_id
        self.binding = binding
        self.event_id = event_id
        self.envelope = envelope
        self.body = body
        self.first_seen = first_seen
        self.replay_of = replay_of
        self.attempts = 0
        self.passed = False
        self.interruptions = 0
        self.deaths = 0
        self.crashes = 0
        self.is_read_back = False
        length = 0 if body is None else len(body)
        self.large = length if length > LARGE_BODY else 0
        self.size = len(envelope) + length - self.large
        self.calling: Deferred[Returned] | None = None

    @classmethod
    def accepted(cls, delivery_id: int, binding: BindingVersion, new: NewDelivery) -> Delivery:
        """Make the delivery of a row that the inbox has just made durable."""
        return cls(delivery_id, binding, new.event_id, new.envelope, new.body, new.received_at, new.replay_of)

    @classmethod
    def stored(cls, row: StoredDelivery, binding: BindingVersion) -> Delivery:
        """Make the delivery of a row that was read back."""
        body = None if row.left_out else row.body
        delivery = cls(row.delivery_id, binding, row.event_id, row.envelope, body, row.received_at, row.replay_of)
        delivery.large = delivery.large or row.left_out
        delivery.attempts = row.attempts
        delivery.passed = row.passed
        delivery.crashes = row.crashes
        delivery.is_read_back = True
        return delivery

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
        )

    def settled(self, settlement: Settlement) -> Settled:
        """Return the event of a settlement that is on disk; the delivery itself stands as before."""
        binding = self.binding
        passed = binding.predicate is not None and settlement.passed and not self.passed
        return Settled(
            binding.id,
            binding.spec.provider,
            binding.key,
            self.event_id,
            self.envelope,
            passed,
            settlement,
            binding.handler_kind,
            self.first_seen,
        )

    def let_go_of_body(self) -> None:
        """Keep a large body no longer; it is in the store."""
        if self.large:
            self.body = None
