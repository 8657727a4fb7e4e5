"""The spans of deliveries, from their acceptance to their outcome, over retries, restarts and replays."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec import structs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.errors import CallInterrupted, HandlerRaised, HandlerRejected, HandlerRetryAfter
from harn.lifecycle import Accepted, AcceptedDelivery, Answered, Lifecycle
from harn.manifest.model import RetrySpec
from harn.model.delivery import FILTER_ERROR, DeadLetter, NewDelivery
from harn.model.event_trace import ALWAYS_OFF, Sampler, TraceContexts, replayed_envelope
from harn.model.trace import TraceContext
from harn.testing.clocks import START
from harn.testing.stores.kit import new_delivery
from harn.traces.spans import CLIENT_GONE, CONSUMER, INTERNAL, PRODUCER, SERVER, Span, SpanMaker
from tests.dispatch.world import World, happened, one_trigger

SENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "v=1")


class Spans(list[Span]):
    """Takes spans."""

    def add(self, item: Span) -> None:
        """See `SpanTaker`."""
        self.append(item)

    def named(self, name: str) -> list[Span]:
        """Return those of one name."""
        return [span for span in self if span.name == name]


class TracedCase(SynchronousTestCase):
    """A world that makes spans."""

    def setUp(self) -> None:
        self.spans = Spans()
        self.world = self.start()
        self.world.adopt(one_trigger(retry=RetrySpec(max=3, backoff="linear", base=10.0)))

    def start(self, earlier: World | None = None, sampler: Sampler = Sampler()) -> World:  # noqa: B008  # frozen
        """Start a server, perhaps after another one."""
        contexts = TraceContexts(sampler, Random(3 if earlier is None else 4))
        clock = Clock() if earlier is None else earlier.clock
        if earlier is None:
            clock.advance(START)
        world = World(None if earlier is None else earlier.store, clock, traces=contexts)
        SpanMaker(world.lifecycle, contexts, world.wall, self.spans)
        return world

    def restart(self) -> None:
        """End the server, and begin again on what it left, as a recovery does."""
        before = self.world
        before.dispatcher.close()
        before.store.close()
        self.world = self.start(before)
        self.world.adopt(one_trigger(retry=before.version().spec.retry))
        recovery = self.successResultOf(self.world.store.recovery.recover(self.world.clock.seconds(), 10))
        self.world.dispatcher.take_over(recovery.backlog)
        self.world.dispatcher.resume(self.successResultOf(self.world.store.deliveries.next_due()))

    def take(self, **headers: str) -> None:
        """Accept an event of a request with these headers."""
        binding = self.world.version()
        binding.lease()
        arrival = Arrival(headers={"host": "h", **headers}, body=b"{}", received_at=self.world.clock.seconds() - 0.5)
        self.successResultOf(self.world.intake.take(binding, arrival, [happened()]))
        binding.release()

    def one(self, name: str) -> Span:
        """Return the only span of a name."""
        (span,) = self.spans.named(name)
        return span


class DeliveryTests(TracedCase):
    """`SpanMaker`, of deliveries."""

    def test_a_success(self) -> None:
        """Accept, dispatch and handler are one below the other, in the sender's trace, at the times that it took."""
        self.take(**SENT.headers())
        call = self.world.call()
        self.world.clock.advance(2.0)
        call.returns()
        accept, dispatch, handler = self.spans
        self.assertEqual([each.name for each in self.spans], ["accept", "dispatch", "handler"])
        self.assertEqual([each.kind for each in self.spans], [PRODUCER, CONSUMER, INTERNAL])
        self.assertEqual({each.trace_id for each in self.spans}, {SENT.trace_id})
        self.assertEqual({each.tracestate for each in self.spans}, {"v=1"})
        self.assertEqual((dispatch.parent_id, handler.parent_id), (accept.span_id, dispatch.span_id))
        self.assertEqual((accept.start, accept.end), (START - 0.5, START))
        self.assertEqual((handler.start, handler.end, dispatch.end), (START, START + 2.0, START + 2.0))
        self.assertEqual({each.error for each in self.spans}, {""})
        self.assertEqual(dispatch.attributes["result.status"], "succeeded")
        self.assertEqual(dispatch.attributes["result.duration_ms"], 2000.0)
        self.assertEqual(accept.attributes["messaging.message.id"], dispatch.attributes["messaging.message.id"])
        assert call.call.trace is not None
        self.assertEqual(call.call.trace.headers()["traceparent"], f"00-{SENT.trace_id}-{handler.span_id}-01")
        self.assertEqual(call.call.trace.tracestate, "v=1")

    def test_without_a_context(self) -> None:
        """A trace of its own is named for the event's trace id; a malformed context is ignored."""
        self.take(traceparent="00-ff")
        self.world.call().returns()
        (trace_id,) = {each.trace_id for each in self.spans}
        self.assertEqual(str(self.one("accept").attributes["trace_id"]).replace("-", ""), "trace_" + trace_id)

    def test_nothing_secret(self) -> None:
        """No header, body or text of an error is in a span."""
        self.take(authorization="s3cret", cookie="s3cret")
        self.world.call().raises(HandlerRaised("ValueError: s3cret"))
        self.assertEqual(len(self.spans), 3)
        self.assertNotIn("s3cret", repr(self.spans))

    def test_a_retry_after_a_restart(self) -> None:
        """Attempts have spans of their own below the same acceptance, whichever server runs them."""
        self.take(**SENT.headers())
        self.world.call().raises(HandlerRaised("no"))
        self.restart()
        self.world.clock.pump([5.0, 5.0, 5.0])
        self.world.call().returns()
        first, second = self.spans.named("dispatch")
        self.assertEqual({first.parent_id, second.parent_id}, {self.one("accept").span_id})
        self.assertNotEqual(first.span_id, second.span_id)
        self.assertEqual({each.trace_id for each in self.spans}, {SENT.trace_id})
        self.assertEqual([each.attributes["harn.attempt"] for each in (first, second)], [1, 2])
        self.assertEqual([each.attributes["result.status"] for each in (first, second)], ["failed", "succeeded"])
        failed = self.spans.named("handler")[0]
        self.assertEqual((failed.error, failed.exception, first.error), ("handler_error",) * 3)

    def test_endings(self) -> None:
        """A failure is an error with its class; a retry that the handler asked for is not."""
        for error, status, name in (
            (HandlerRejected("no"), "dead", HandlerRejected.error_class),
            (HandlerRetryAfter("later", 3600.0), "retry_after", ""),
        ):
            self.spans.clear()
            self.take()
            self.world.call().raises(error)
            dispatch = self.one("dispatch")
            self.assertEqual((dispatch.attributes["result.status"], dispatch.error), (status, name))
            self.assertEqual(self.one("handler").error, name)

    def test_a_predicate_that_said_no(self) -> None:
        """Its handler has not run, and has no span."""
        self.world.adopt(one_trigger(when="handlers:yes"))
        self.take()
        self.world.call().returns(None)
        self.assertEqual([each.name for each in self.spans], ["accept", "dispatch"])
        self.assertEqual(self.one("dispatch").attributes["result.status"], "skipped")
        self.assertEqual(self.one("dispatch").error, "")

    def test_an_interruption(self) -> None:
        """A run that ended with its interpreter has spans of its own, and the next run others."""
        self.take()
        self.world.call().raises(CallInterrupted("killed", suspect=False))
        self.world.clock.pump([1.0])
        self.world.call().returns()
        interrupted, done = self.spans.named("handler")
        self.assertEqual((interrupted.error, done.error), ("interrupted", ""))
        self.assertNotEqual(interrupted.span_id, done.span_id)
        self.assertEqual({each.parent_id for each in self.spans.named("dispatch")}, {self.one("accept").span_id})
        ids = [each.span_id for each in self.spans]
        self.assertEqual(len(set(ids)), len(ids))

    def test_ended_without_an_attempt(self) -> None:
        """What is cancelled while it waits for its retry has a span that says so, beside that of its attempt."""
        self.take()
        event_id = self.world.call().call.event_id
        self.world.call().raises(HandlerRaised("no"))
        (row,) = self.world.rows()
        self.successResultOf(self.world.dispatcher.cancel_delivery(event_id, row.delivery_id))
        statuses = [each.attributes["result.status"] for each in self.spans.named("dispatch")]
        self.assertEqual(statuses[0], "failed")
        ids = [each.span_id for each in self.spans]
        self.assertEqual(len(set(ids)), len(ids))

    def test_unsampled(self) -> None:
        """Nothing is recorded of a trace that its sender does not record; its handler says the same to others."""
        self.take(**structs.replace(SENT, flags=0).headers())
        call = self.world.call()
        call.returns()
        assert call.call.trace is not None
        self.assertEqual((self.spans, call.call.trace.traceparent[-2:]), ([], "00"))
        self.world = self.start(sampler=Sampler(ALWAYS_OFF, follows_sender=False))
        self.world.adopt(one_trigger())
        self.take(**SENT.headers())
        self.world.call().raises(CallInterrupted("killed", suspect=False))
        self.assertEqual(self.spans, [])


class EventTests(SynchronousTestCase):
    """`SpanMaker`, of events alone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.spans = Spans()
        self.lifecycle = Lifecycle()
        self.contexts = TraceContexts(Sampler(), Random(3))
        SpanMaker(self.lifecycle, self.contexts, self.clock, self.spans)

    def accepted(self, **changes: Any) -> NewDelivery:
        """Emit that an event was accepted."""
        delivery = new_delivery("trigger_evt_1", **changes)
        self.lifecycle.emit(Accepted.of([AcceptedDelivery("gh@v1", 1, delivery)]))
        return delivery

    def answered(self, envelope: bytes = b"", **changes: Any) -> Span:
        """Emit that a request was answered; return its span."""
        given: dict[str, Any] = {
            "trigger_id": "gh",
            "provider": "github",
            "path": "/hooks/gh",
            "method": "POST",
            "headers": SENT.headers(),
            "status": 200,
            "began_at": START - 0.25,
            "ended_at": START,
            "size": 7,
            "is_verified": True,
            "envelope": envelope,
        }
        self.lifecycle.emit(Answered(**{**given, **changes}))
        return self.spans[-1]

    def test_a_replay(self) -> None:
        """Its acceptance begins a trace, and is linked to the one that it repeats."""
        old = self.accepted()
        self.accepted(envelope=replayed_envelope(old.envelope, "trigger_evt_2"), replay_of="trigger_evt_1")
        before, after = self.spans
        self.assertNotEqual(before.trace_id, after.trace_id)
        self.assertEqual([(each.trace_id, each.span_id) for each in after.links], [(before.trace_id, before.span_id)])
        self.assertEqual((after.parent_id, after.attributes["harn.replay_of"]), ("", "trigger_evt_1"))

    def test_a_dead_letter_at_once(self) -> None:
        """An event whose filter failed is an error of its acceptance."""
        self.accepted(dead=DeadLetter(reason=FILTER_ERROR, error_class=FILTER_ERROR, error="s3cret"))
        (span,) = self.spans
        self.assertEqual((span.error, span.attributes["result.status"]), (FILTER_ERROR, FILTER_ERROR))
        self.assertNotIn("s3cret", repr(span))

    def test_a_request(self) -> None:
        """Its span is below the sender's, and above that of its event."""
        world = World()
        world.adopt(one_trigger())
        binding = world.version()
        arrival = Arrival(headers={"host": "h", **SENT.headers()}, body=b"{}", received_at=START)
        taken: list[AcceptedDelivery] = []
        world.lifecycle.subscribe(Accepted, lambda event: taken.extend(event.deliveries))
        binding.lease()
        self.successResultOf(world.intake.take(binding, arrival, [NormalizedEvent(kind="ping", dedupe_key="d")]))
        span = self.answered(taken[0].delivery.envelope)
        self.lifecycle.emit(Accepted.of(taken))
        self.assertEqual((span.kind, span.parent_id, span.has_remote_parent), (SERVER, SENT.span_id, True))
        self.assertEqual((self.spans[-1].parent_id, self.spans[-1].has_remote_parent), (span.span_id, False))
        self.assertEqual((span.start, span.end), (START - 0.25, START))
        self.assertEqual(span.attributes["http.response.status_code"], 200)
        self.assertEqual((span.attributes["http.route"], span.error), ("/hooks/gh", ""))

    def test_a_request_without_an_event(self) -> None:
        """A verified one is in the sender's trace; one of anyone is only linked to it."""
        self.assertEqual(self.answered().trace_id, SENT.trace_id)
        refused = self.answered(status=401, is_verified=False)
        self.assertNotEqual(refused.trace_id, SENT.trace_id)
        self.assertEqual([each.span_id for each in refused.links], [SENT.span_id])
        self.assertEqual((refused.parent_id, refused.error), ("", ""))
        self.assertEqual(self.answered(headers={}).links, ())

    def test_errors_of_the_server(self) -> None:
        """They set the status; those of the sender do not, by the conventions."""
        self.assertEqual(self.answered(status=503).error, "503")
        gone = self.answered(status=None)
        self.assertEqual(gone.error, CLIENT_GONE)
        self.assertNotIn("http.response.status_code", gone.attributes)
