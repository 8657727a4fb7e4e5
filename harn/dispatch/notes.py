"""What the log says of single deliveries, where somebody reads it; else it costs one look at a flag."""

from __future__ import annotations

from harn.dispatch.delivery import Delivery
from harn.model.delivery import NewDelivery, Settlement
from harn.model.event import decode_envelope
from harn.observability.logs import deliveries
from harn.triggers.binding import BindingVersion


def note_accepted(binding: BindingVersion, new: NewDelivery) -> None:
    """Say that an event is on disk."""
    if deliveries.active:
        deliveries.note(
            "trigger event accepted",
            component="listener",
            trace_id=decode_envelope(new.envelope).trace_id,
            trigger_id=new.trigger_id,
            binding_key=binding.key,
            event_id=new.event_id,
        )


def note_settled(delivery: Delivery, settlement: Settlement) -> None:
    """Say where a delivery stands after an attempt."""
    if deliveries.active:
        attempt = settlement.attempt
        deliveries.note(
            "delivery {state}",
            component="dispatcher",
            state=settlement.state,
            trace_id=decode_envelope(delivery.envelope).trace_id,
            trigger_id=delivery.binding.id,
            binding_key=delivery.binding.key,
            event_id=delivery.event_id,
            attempt=settlement.attempts,
            outcome=None if attempt is None else attempt.outcome,
            error=None if attempt is None else attempt.error,
        )
