"""
The intake: from normalized events to what is durably accepted.

Match, filter and dedupe key are decided on the binding version whose lease the caller took; what is kept is one durable
unit; then each delivery is handed over to the dispatcher in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from harn.clocks import rfc3339
from harn.connectors.model import NormalizedEvent
from harn.dispatch.attempt import shortened
from harn.dispatch.delivery import Delivery
from harn.dispatch.notes import note_accepted
from harn.model.delivery import FILTER_ERROR, Acceptance, Claim, DeadLetter, NewDelivery
from harn.model.event import Envelope, TriggerEvent, encode_envelope
from harn.model.identifiers import new_event_id, new_trace_id
from harn.observability.metrics import Metrics
from harn.store.interfaces import IInbox
from harn.triggers.binding import BindingVersion
from harn.triggers.matching import FilterFailed, Ignore

DAY = 86400.0
INBOX_TOPIC = "trigger.inbox.envelopes"
"""What the metrics call the inbox."""


@frozen(kw_only=True)
class Arrival:
    """
    What came in, beside the events: shared by all events of one request.

    :ivar headers: redacted, lower-case names.
    :ivar received_at: seconds, Unix.
    :ivar guard: a claim that must be new for the request to count at all.
    """

    headers: Mapping[str, str]
    body: bytes
    received_at: float
    guard: Claim | None = None
    replay_of: str | None = None


@frozen
class Taken:
    """
    What became of a request's events: ids of the accepted ones in order, and counts.

    :ivar dead: how many of the accepted were kept as dead letters at once.
    """

    event_ids: tuple[str, ...]
    duplicates: int
    ignored: int
    dead: int = 0


@frozen
class Decided:
    """
    What a binding's rules say of a request's events: what to keep, and how many did not match or were filtered out.

    :ivar guard: the arrival's.
    """

    deliveries: tuple[NewDelivery, ...]
    ignored: int
    filtered: int
    guard: Claim | None


def decide(
    binding: BindingVersion, arrival: Arrival, events: Sequence[NormalizedEvent], *, always_claim: bool = False
) -> Decided:
    """
    Apply the binding's rules to each event. Pure computation: of a big body, to be done in a thread.

    :param always_claim: claim the provider's own key where the trigger names none.
    """
    kept: list[NewDelivery] = []
    ignored = filtered = 0
    trace_id = new_trace_id(arrival.received_at)
    for normalized in events:
        found = _decide_one(binding, arrival, normalized, trace_id, always_claim)
        if not isinstance(found, Ignore):
            kept.append(found)
        elif found.stage == "filter":
            filtered += 1
        else:
            ignored += 1
    return Decided(tuple(kept), ignored, filtered, arrival.guard)


def _decide_one(
    binding: BindingVersion, arrival: Arrival, normalized: NormalizedEvent, trace_id: str, always_claim: bool
) -> NewDelivery | Ignore:
    """Apply the rules to one event: what to keep of it, or why nothing."""
    body = arrival.body if normalized.body is None else normalized.body
    spec = binding.spec
    envelope = Envelope(
        id=new_event_id(arrival.received_at),
        provider=spec.provider,
        kind=normalized.kind,
        received_at=rfc3339(arrival.received_at),
        occurred_at=normalized.occurred_at,
        dedupe_key=normalized.dedupe_key,
        trace_id=trace_id,
        headers=dict(arrival.headers),
        signature_status=normalized.signature_status,
        payload=normalized.payload,
        lifted=normalized.lifted,
        body_format=normalized.body_format,
    )
    verdict = binding.rules.decide(TriggerEvent(envelope, body), always_claim=always_claim)
    claim: Claim | None = None
    dead: DeadLetter | None = None
    if isinstance(verdict, Ignore):
        return verdict
    if isinstance(verdict, FilterFailed):
        dead = DeadLetter(reason=FILTER_ERROR, error_class=FILTER_ERROR, error=shortened(verdict.error))
    elif verdict.dedupe_key is not None:
        claim = Claim(
            scope="trigger:" + spec.id,
            key=verdict.dedupe_key,
            expires_at=arrival.received_at + spec.retry.retention_days * DAY,
        )
    return NewDelivery(
        event_id=envelope.id,
        trigger_id=spec.id,
        version=binding.version,
        provider=spec.provider,
        kind=normalized.kind,
        envelope=encode_envelope(envelope),
        body=body,
        received_at=arrival.received_at,
        claim=claim,
        dead=dead,
        replay_of=arrival.replay_of,
    )


class Intake:
    """Accepts events for bindings."""

    def __init__(
        self,
        clock: IReactorTime,
        inbox: IInbox,
        submit: Callable[[Delivery], None],
        metrics: Metrics,
    ) -> None:
        self._clock = clock
        self._inbox = inbox
        self._submit = submit
        self._metrics = metrics

    def take(
        self,
        binding: BindingVersion,
        arrival: Arrival,
        events: Sequence[NormalizedEvent],
        *,
        always_claim: bool = False,
    ) -> Deferred[Taken]:
        """
        Accept ``events`` for ``binding``, on which the caller holds a lease.

        :return: fires when everything that is kept is on disk.
        :raises ClaimTaken: the arrival's guard was used before.
        :raises EventLogUnavailable: nothing is kept, no dedupe key is used up.
        """
        try:
            decided = decide(binding, arrival, events, always_claim=always_claim)
        except Exception:
            # For example a plugin's event that has no form in JSON. Whoever holds a lease waits for a Deferred.
            return fail()
        return self.keep(binding, decided)

    def keep(self, binding: BindingVersion, decided: Decided) -> Deferred[Taken]:
        """Accept what was decided to be kept, as `take` does."""
        deliveries, ignored = decided.deliveries, decided.ignored + decided.filtered
        if ignored:
            stats = self._metrics.trigger(binding.id, binding.spec.provider)
            stats.ignored += decided.ignored
            stats.filtered += decided.filtered
        if not deliveries and decided.guard is None:
            return succeed(Taken((), 0, ignored))
        binding.lease(len(deliveries))
        return self._inbox.accept(Acceptance(deliveries=deliveries, guard=decided.guard)).addCallbacks(
            self._accepted,
            self._failed,
            callbackArgs=(binding, deliveries, ignored, self._clock.seconds()),
            errbackArgs=(binding, deliveries),
        )

    def _accepted(
        self,
        delivery_ids: tuple[int | None, ...],
        binding: BindingVersion,
        deliveries: tuple[NewDelivery, ...],
        ignored: int,
        began_at: float,
    ) -> Taken:
        """Hand over what is new; give back the leases of what is not."""
        self._metrics.append_observed(INBOX_TOPIC, self._clock.seconds() - began_at)
        stats = self._metrics.trigger(binding.id, binding.spec.provider)
        event_ids: list[str] = []
        duplicates = dead = 0
        for delivery_id, new in zip(delivery_ids, deliveries, strict=True):
            if delivery_id is None:
                duplicates += 1
                binding.release()
                continue
            event_ids.append(new.event_id)
            note_accepted(binding, new)
            if new.dead is not None:
                stats.dead(new.dead.reason)
                binding.dead += 1
                dead += 1
                binding.release()
            else:
                self._submit(Delivery.accepted(delivery_id, binding, new))
        stats.accepted += len(event_ids)
        stats.deduped += duplicates
        return Taken(tuple(event_ids), duplicates, ignored, dead)

    @staticmethod
    def _failed(failure: Failure, binding: BindingVersion, deliveries: tuple[NewDelivery, ...]) -> Failure:
        """Nothing was kept: no lease is needed."""
        binding.release(len(deliveries))
        return failure
