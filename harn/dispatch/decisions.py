"""
The decision on the events of a request: which are kept, and for which binding version. Pure.

Match, filter and dedupe key are decided on the binding version whose lease the caller took; of the two versions of a
ramp, on the one that is chosen for the event.
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
    Data shared by all events of one request.

    :ivar headers: lower-case names; as received, without the server's credentials.
    :ivar received_at: seconds, Unix.
    :ivar guard: a claim that must be new for the request to count at all.
    """

    headers: Mapping[str, str]
    body: bytes
    received_at: float
    guard: Claim | None = None
    replay_of: str | None = None


class Decided(Acceptance, frozen=True, kw_only=True, gc=False):
    """
    The decision of a binding's rules: the events to keep, and how many did not match or were filtered out.

    :ivar holders: for each of the deliveries the version that it is for.
    :ivar reached: on a ramp: each version that was chosen for an event, whether that is kept or not. Else empty.
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
    Apply the binding's rules to each event. Pure computation: of a big body, to be done in a thread.

    :param always_claim: claim the provider's own key where the trigger names none.
    :param ramp: chooses for each event whose rules are applied: those of ``binding``, its fresh version, or of the
        stable one.
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
    """Decide on the only event of a request, as nearly all have one; an event of another kind gets no envelope."""
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
    """Apply the rules of a version to an event: return what to keep of it, or why nothing."""
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
    """Return the record to keep of an event."""
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
