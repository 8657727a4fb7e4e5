"""
The spans of deliveries, made of lifecycle events: ``ingest`` for a request, ``accept`` for an event that is on disk,
``dispatch`` for an attempt until its outcome is on disk, and in it ``handler`` for the run of its code.

No header, body, error text or query becomes part of a span: those may hold secrets, and a collector may be anyone's.

Source of the names of attributes: OpenTelemetry, "Semantic Conventions", of HTTP, messaging, errors and exceptions.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from harn.clocks import WallTime
from harn.lifecycle import Accepted, AcceptedDelivery, Answered, Interrupted, Lifecycle, Settled, SettledDelivery
from harn.model.delivery import DONE, SKIPPED, Attempt, Settlement
from harn.model.event_trace import AttemptTrace, EventTrace, TraceContexts
from harn.model.references import LOCAL, new_trace_id
from harn.model.trace import TraceContext, context_of

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(1, 6)
"""Kinds of spans, by their numbers in OTLP."""

INTERRUPTED = "interrupted"
CLIENT_GONE = "client_disconnected"

Attributes = dict[str, str | int | float]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """
    A span that has ended.

    :ivar parent_id: empty for the first of a trace.
    :ivar has_remote_parent: that is a span of the sender.
    :ivar start: seconds, Unix.
    :ivar end: seconds, Unix.
    :ivar error: the class of the error, where it failed; else empty.
    :ivar exception: it was raised in the span.
    :ivar links: spans of other traces that led to it.
    """

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    attributes: Attributes
    tracestate: str = ""
    has_remote_parent: bool = False
    error: str = ""
    exception: str = ""
    links: tuple[TraceContext, ...] = ()


class SpanTaker(Protocol):
    """Takes spans to send them."""

    def add(self, item: Span) -> None:
        """Record a span to send."""


class SpanMaker:
    """
    Makes spans while the server runs; subscribes to the events of deliveries and requests.

    :param contexts: those of attempts.
    :param taker: gets each span of a sampled trace.
    """

    def __init__(self, lifecycle: Lifecycle, contexts: TraceContexts, wall: WallTime, taker: SpanTaker) -> None:
        self._contexts = contexts
        self._wall = wall
        self._taker = taker
        lifecycle.subscribe(Answered, self._answered)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(Interrupted, self._interrupted)

    def _answered(self, event: Answered) -> None:
        if event.envelope:
            trace = self._contexts.of_event(event.envelope, "")
        else:
            sender, harn_trace_id = context_of(event.headers), new_trace_id(event.began_at)
            trace = self._contexts.of_request(sender, harn_trace_id, trusts=event.is_verified)
        if trace.is_sampled:
            self._taker.add(ingest_span(event, trace))

    def _accepted(self, event: Accepted) -> None:
        now = self._wall.seconds()
        for each in event.deliveries:
            trace = self._contexts.of_event(each.delivery.envelope, each.delivery.event_id)
            if trace.is_sampled:
                self._taker.add(accept_span(each, trace, now))

    def _settled(self, event: Settled) -> None:
        for each in event.deliveries:
            self._settled_one(each)

    def _settled_one(self, event: SettledDelivery) -> None:
        trace = event.trace
        now = self._wall.seconds()
        if trace is None:  # it ended without an attempt
            trace = self._contexts.begin(event.envelope, event.event_id, now)
        if not trace.is_sampled:
            return
        self._taker.add(dispatch_span(event, trace, now))
        attempt = event.settlement.attempt
        if attempt is not None and event.settlement.state is not SKIPPED:
            self._taker.add(handler_span(event, attempt, trace))

    def _interrupted(self, event: Interrupted) -> None:
        trace = event.trace
        if trace is None or not trace.is_sampled:
            return
        now = self._wall.seconds()
        attributes: Attributes = {
            "messaging.destination.name": event.trigger_id,
            "messaging.message.id": trace.event.event_id,
            "harn.binding": event.binding,
            "result.status": INTERRUPTED,
            "error.type": INTERRUPTED,
        }
        for name, kind, span_id, parent_id in (
            ("dispatch", CONSUMER, trace.dispatch_id, trace.event.accept_id),
            ("handler", INTERNAL, trace.span_id, trace.dispatch_id),
        ):
            span = Span(
                name=name,
                kind=kind,
                trace_id=trace.trace_id,
                span_id=span_id,
                parent_id=parent_id,
                start=trace.began_at,
                end=max(now, trace.began_at),
                attributes=attributes,
                tracestate=trace.tracestate,
                error=INTERRUPTED,
            )
            self._taker.add(span)


def ingest_span(event: Answered, trace: EventTrace) -> Span:
    """Return the span of a request, from the end of its headers to its answer."""
    status, sender = event.status, trace.sender
    attributes: Attributes = {
        "http.request.method": event.method,
        "http.route": event.path,
        "http.request.body.size": event.size,
        "harn.trigger_id": event.trigger_id,
        "harn.provider": event.provider,
        "trace_id": trace.harn_trace_id,
    }
    error = ""
    if status is None:
        error = CLIENT_GONE
    else:
        attributes["http.response.status_code"] = status
        if status >= 500:  # an error of the sender is none of the server, by the conventions
            error = str(status)
    if error:
        attributes["error.type"] = error
    return Span(
        name="ingest",
        kind=SERVER,
        trace_id=trace.trace_id,
        span_id=trace.ingest_id,
        parent_id=sender.span_id,
        has_remote_parent=bool(sender),
        start=event.began_at,
        end=max(event.began_at, event.ended_at),
        attributes=attributes,
        tracestate=trace.tracestate,
        error=error,
        links=(trace.link,) if trace.link else (),
    )


def accept_span(accepted: AcceptedDelivery, trace: EventTrace, now: float) -> Span:
    """Return the span of an event's acceptance, from the end of its request's body until it is on disk."""
    delivery = accepted.delivery
    attributes: Attributes = {
        "messaging.system": "harn",
        "messaging.operation.type": "send",
        "messaging.destination.name": delivery.trigger_id,
        "messaging.message.id": delivery.event_id,
        "messaging.message.body.size": len(delivery.body),
        "harn.binding": accepted.binding,
        "harn.provider": delivery.provider,
        "harn.event_kind": delivery.kind,
        "trace_id": trace.harn_trace_id,
    }
    if delivery.replay_of is not None:
        attributes["harn.replay_of"] = delivery.replay_of
    error = ""
    if delivery.dead is not None:
        error = attributes["error.type"] = delivery.dead.error_class
        attributes["result.status"] = delivery.dead.reason
    return Span(
        name="accept",
        kind=PRODUCER,
        trace_id=trace.trace_id,
        span_id=trace.accept_id,
        parent_id=trace.ingest_id if trace.is_from_request else trace.sender.span_id,
        has_remote_parent=not trace.is_from_request and bool(trace.sender),
        start=delivery.received_at,
        end=max(now, delivery.received_at),
        attributes=attributes,
        tracestate=trace.tracestate,
        error=error,
        links=(trace.link,) if trace.link else (),
    )


def dispatch_span(event: SettledDelivery, trace: AttemptTrace, now: float) -> Span:
    """Return the span of an attempt, from its beginning until its outcome is on disk."""
    settlement = event.settlement
    attempt = settlement.attempt
    start = trace.began_at if attempt is None else attempt.started_at
    end = max(now, start)
    attributes: Attributes = {
        "messaging.system": "harn",
        "messaging.operation.type": "process",
        "messaging.destination.name": event.trigger_id,
        "messaging.message.id": event.event_id,
        "harn.binding": event.binding,
        "harn.attempt": settlement.attempts,
        "result.status": status_of(settlement),
        "result.duration_ms": round((end - start) * 1000.0, 3),
        "trace_id": trace.event.harn_trace_id,
    }
    error = error_of(settlement)
    if error:
        attributes["error.type"] = error
    return Span(
        name="dispatch",
        kind=CONSUMER,
        trace_id=trace.trace_id,
        span_id=trace.dispatch_id,
        parent_id=trace.event.accept_id,
        start=start,
        end=end,
        attributes=attributes,
        tracestate=trace.tracestate,
        error=error,
    )


def handler_span(event: SettledDelivery, attempt: Attempt, trace: AttemptTrace) -> Span:
    """Return the span of the handler's run, or of the delivery to a destination elsewhere."""
    error = attempt.error_class or "" if attempt.is_failure else ""
    attributes: Attributes = {
        "messaging.destination.name": event.trigger_id,
        "messaging.message.id": event.event_id,
        "harn.binding": event.binding,
        "harn.attempt": attempt.number,
        "harn.handler_kind": event.handler_kind,
        "result.status": attempt.outcome,
    }
    if error:
        attributes["error.type"] = error
    return Span(
        name="handler",
        kind=INTERNAL if event.handler_kind == LOCAL else CLIENT,
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_id=trace.dispatch_id,
        start=attempt.started_at,
        end=max(attempt.completed_at, attempt.started_at),
        attributes=attributes,
        tracestate=trace.tracestate,
        error=error,
        exception=error,
    )


def status_of(settlement: Settlement) -> str:
    """Return how an attempt, or a decision without one, ended: the attribute ``result.status``."""
    if settlement.state is DONE:
        return "succeeded"
    if settlement.skip_reason is not None:
        return "skipped"
    if settlement.dead is not None:
        return "dead"
    return "failed" if settlement.attempt is None or settlement.attempt.is_failure else "retry_after"


def error_of(settlement: Settlement) -> str:
    """Return the class of the error, empty where it did not fail."""
    attempt = settlement.attempt
    if attempt is not None and attempt.is_failure:
        return attempt.error_class or ""
    return "" if settlement.dead is None else settlement.dead.error_class
