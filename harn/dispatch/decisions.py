"""
Pure functions that decide which events of a request are accepted, and for which binding version.

The match, the filter and the dedupe key are those of the binding version on which the caller holds a lease. On a ramp,
they are those of the version that the ramp chooses for the event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from harn.clocks import rfc3339
from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.settlements import shortened
from harn.model.delivery import FILTER_ERROR, Acceptance, Claim, DeadLetter, NewDelivery
from harn.model.event import Envelope, TriggerEvent, encode_envelope
from harn.model.references import new_event_id, new_ids, new_trace_id
from harn.triggers.binding import BindingVersion
from harn.triggers.matching import Ignored, Matched
from harn.triggers.routing import Ramp

DAY = 86400.0


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The data that all events of one request share.

    :ivar headers: the headers as received, names in lower case, without the server's credentials.
    :ivar received_at: when the request was received (seconds, Unix).
    :ivar guard: a claim that must be new, or no event of the request is accepted.
    """

    headers: Mapping[str, str]
    body: bytes
    received_at: float
    guard: Claim | None = None
    replay_of: str | None = None


class Decided(Acceptance, frozen=True, kw_only=True, gc=False):
    """
    The decision by a binding's rules: the deliveries to accept, and how many events did not match or were filtered out.

    :ivar holders: the version of each delivery, in the same order.
    :ivar reached: on a ramp, each version that was chosen for an event, accepted or not; otherwise empty.
    """

    holders: tuple[BindingVersion, ...]
    ignored: int = 0
    filtered: int = 0
    reached: frozenset[BindingVersion] = frozenset()


def decide(
    binding: BindingVersion,
    arrival: Arrival,
    events: Sequence[NormalizedEvent],
    *,
    always_claim: bool = False,
    ramp: Ramp | None = None,
) -> Decided:
    """
    Return the decision by the binding's rules on each event. Call this in a thread if the body is large.

    :param always_claim: whether to claim the provider's dedupe key if the trigger names none.
    :param ramp: chooses for each event the version whose rules are applied: ``binding``, which is the fresh version,
        or the stable one.
    """
    if ramp is None and len(events) == 1:
        return _decide_one(binding, arrival, events[0], always_claim)
    trace_id = new_trace_id(arrival.received_at)
    kept: list[NewDelivery] = []
    holders: list[BindingVersion] = []
    reached: frozenset[BindingVersion] = frozenset()
    ignored = filtered = 0
    for normalized in events:
        envelope = _envelope_of(binding, arrival, normalized, new_event_id(arrival.received_at), trace_id)
        body = arrival.body if normalized.body is None else normalized.body
        holder = binding
        if ramp is not None:
            holder = ramp.choose(ramp.stable.rules.key_of(TriggerEvent(envelope, body)))
            reached |= {holder}
        found = _apply(holder, arrival, envelope, body, always_claim)
        if isinstance(found, NewDelivery):
            kept.append(found)
            holders.append(holder)
        elif found.stage == "filter":
            filtered += 1
        else:
            ignored += 1
    return Decided(
        deliveries=tuple(kept),
        guard=arrival.guard,
        holders=tuple(holders),
        ignored=ignored,
        filtered=filtered,
        reached=reached,
    )


def _decide_one(binding: BindingVersion, arrival: Arrival, event: NormalizedEvent, always_claim: bool) -> Decided:
    """Decide on the single event that most requests have; make no envelope if its kind does not match."""
    rules = binding.rules
    if not rules.match(event.kind):
        return Decided(deliveries=(), guard=arrival.guard, holders=(), ignored=1)
    event_id, trace_id = new_ids(arrival.received_at)
    envelope = _envelope_of(binding, arrival, event, event_id, trace_id)
    body = arrival.body if event.body is None else event.body
    if rules.is_by_kind and not always_claim:
        kept = _new(binding, arrival, envelope, body)
        return Decided(deliveries=(kept,), guard=arrival.guard, holders=(binding,))
    found = _apply(binding, arrival, envelope, body, always_claim)
    if isinstance(found, NewDelivery):
        return Decided(deliveries=(found,), guard=arrival.guard, holders=(binding,))
    return Decided(deliveries=(), guard=arrival.guard, holders=(), filtered=1)


def _envelope_of(
    binding: BindingVersion, arrival: Arrival, normalized: NormalizedEvent, event_id: str, trace_id: str
) -> Envelope:
    """Return the envelope of an event."""
    return Envelope(
        id=event_id,
        provider=binding.spec.provider,
        kind=normalized.kind,
        received_at=rfc3339(arrival.received_at),
        occurred_at=normalized.occurred_at,
        dedupe_key=normalized.dedupe_key,
        trace_id=trace_id,
        headers=arrival.headers if type(arrival.headers) is dict else dict(arrival.headers),
        signature_status=normalized.signature_status,
        payload=normalized.payload,
        lifted=normalized.lifted,
        body_format=normalized.body_format,
    )


def _apply(
    binding: BindingVersion, arrival: Arrival, envelope: Envelope, body: bytes, always_claim: bool
) -> NewDelivery | Ignored:
    """Apply the rules of a version to an event; return the delivery to accept, or why there is none."""
    verdict = binding.rules.decide(TriggerEvent(envelope, body), always_claim=always_claim)
    claim: Claim | None = None
    dead: DeadLetter | None = None
    if isinstance(verdict, Matched):
        if verdict.dedupe_key is not None:
            claim = Claim(
                scope="trigger:" + binding.id,
                key=verdict.dedupe_key,
                expires_at=arrival.received_at + binding.spec.retry.retention_days * DAY,
            )
    elif isinstance(verdict, Ignored):
        return verdict
    else:
        dead = DeadLetter(reason=FILTER_ERROR, error_class=FILTER_ERROR, error=shortened(verdict.error))
    return _new(binding, arrival, envelope, body, claim, dead)


def _new(
    binding: BindingVersion,
    arrival: Arrival,
    envelope: Envelope,
    body: bytes,
    claim: Claim | None = None,
    dead: DeadLetter | None = None,
) -> NewDelivery:
    """Return the new delivery of an event."""
    return NewDelivery(
        event_id=envelope.id,
        trigger_id=binding.id,
        version=binding.version,
        provider=envelope.provider,
        kind=envelope.kind,
        envelope=encode_envelope(envelope),
        body=body,
        received_at=arrival.received_at,
        claim=claim,
        dead=dead,
        replay_of=arrival.replay_of,
    )
