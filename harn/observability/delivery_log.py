"""
The log of single deliveries that go well, as a subscriber to lifecycle events. While no output takes such records, an
event costs one look at a flag.
"""

from __future__ import annotations

from harn.lifecycle import Accepted, Lifecycle, Settled
from harn.model.event import decode_envelope
from harn.observability.logs import deliveries


def log_deliveries(lifecycle: Lifecycle) -> None:
    """Log each delivery that is accepted or settled from now on."""
    lifecycle.subscribe(Accepted, _accepted)
    lifecycle.subscribe(Settled, _settled)


def _accepted(event: Accepted) -> None:
    if deliveries.active:
        new = event.delivery
        deliveries.note(
            "trigger event accepted",
            component="listener",
            trace_id=decode_envelope(new.envelope).trace_id,
            trigger_id=new.trigger_id,
            binding=event.binding,
            event_id=new.event_id,
        )


def _settled(event: Settled) -> None:
    settlement = event.settlement
    attempt = settlement.attempt
    # What failed has a line in every format: see `harn.dispatch.failure_log`.
    if deliveries.active and attempt is not None and attempt.error_class is None:
        deliveries.note(
            "delivery {state}",
            component="dispatcher",
            state=settlement.state,
            trace_id=decode_envelope(event.envelope).trace_id,
            trigger_id=event.trigger_id,
            binding=event.binding,
            event_id=event.event_id,
            attempt=settlement.attempts,
            outcome=attempt.outcome,
        )
