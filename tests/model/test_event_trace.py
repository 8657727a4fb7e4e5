"""The trace of an event, derived from its envelope."""

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from harn.model.event import UNSIGNED, Envelope, decode_envelope, encode_envelope
from harn.model.event_trace import (
    ALWAYS_OFF,
    RATIO,
    Sampler,
    TraceContexts,
    own_trace_id,
    replayed_envelope,
)
from harn.model.references import new_event_id, new_trace_id
from harn.model.trace import NO_TRACE, TraceContext

SENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "v=1")
NOW = 1_700_000_000.0


def envelope(**changes: Any) -> Envelope:
    """Make the envelope of an event that a request brought."""
    made = Envelope(
        id=new_event_id(NOW),
        provider="webhook",
        kind="ping",
        received_at="2027-01-15T08:00:00.000Z",
        dedupe_key="d",
        trace_id=new_trace_id(NOW),
        headers={"host": "h"},
        signature_status=UNSIGNED,
        payload={},
        lifted={},
        body_format="json",
    )
    return structs.replace(made, **changes)


def contexts(sampler: Sampler = Sampler()) -> TraceContexts:  # noqa: B008  # frozen
    """Make a source of traces."""
    return TraceContexts(sampler, Random(7))


class DerivedTests(SynchronousTestCase):
    """`TraceContexts`."""

    def test_of_the_sender(self) -> None:
        """A sender's trace is continued, with its state, as it was sampled."""
        made = envelope(headers={"host": "h", **SENT.headers()})
        trace = contexts().of_event(encode_envelope(made), made.id)
        self.assertEqual((trace.trace_id, trace.sender, trace.tracestate), (SENT.trace_id, SENT, "v=1"))
        self.assertTrue(trace.is_sampled and trace.is_from_request)
        unsampled = structs.replace(SENT, flags=0)
        made = envelope(headers={"host": "h", **unsampled.headers()})
        self.assertFalse(contexts().of_event(encode_envelope(made), made.id).is_sampled)

    def test_of_its_own(self) -> None:
        """Without one, or with one that is malformed, it has the digits of the event's trace id."""
        for headers in ({"host": "h"}, {"host": "h", "traceparent": "00-no"}):
            made = envelope(headers=headers)
            trace = contexts().of_event(encode_envelope(made), made.id)
            self.assertEqual("trace_" + trace.trace_id, made.trace_id.replace("-", ""))
            self.assertEqual((trace.sender, trace.is_from_request, trace.is_sampled), (NO_TRACE, True, True))
        self.assertFalse(contexts().of_event(encode_envelope(envelope(headers={})), "e").is_from_request)

    def test_attempts(self) -> None:
        """Each attempt has spans of its own below the same acceptance, whoever begins it."""
        made = envelope(headers={"host": "h", **SENT.headers()})
        first, again = (contexts(), TraceContexts(Sampler(), Random(8)))
        attempts = [each.begin(encode_envelope(made), made.id, NOW) for each in (first, first, again)]
        self.assertEqual(len({each.span_id for each in attempts} | {each.dispatch_id for each in attempts}), 6)
        self.assertEqual(len({each.event.accept_id for each in attempts}), 1)
        self.assertEqual({each.headers()["tracestate"] for each in attempts}, {"v=1"})
        self.assertEqual({each.trace_id for each in attempts}, {SENT.trace_id})

    def test_replays(self) -> None:
        """A replay begins a new trace, and names the span of the acceptance that it repeats; so does one of it."""
        made = envelope(headers={"host": "h", **SENT.headers()})
        old = contexts().of_event(encode_envelope(made), made.id)
        for _ in range(2):
            event_id = new_event_id(NOW)
            replay = replayed_envelope(encode_envelope(made), event_id)
            trace = contexts().of_event(replay, event_id)
            self.assertEqual((trace.link.trace_id, trace.link.span_id), (old.trace_id, old.accept_id))
            self.assertEqual("trigger_evt_" + trace.trace_id, event_id.replace("-", ""))
            self.assertEqual((trace.sender, trace.tracestate, trace.is_from_request), (NO_TRACE, "", False))
            made, old = decode_envelope(replay), trace
        imported = envelope(headers=SENT.headers(), trace_link="")
        trace = contexts().of_event(encode_envelope(imported), imported.id)
        self.assertEqual((trace.sender, trace.link, trace.is_sampled), (NO_TRACE, NO_TRACE, True))

    def test_damaged(self) -> None:
        """An envelope that cannot be read has a trace, by the id in its row."""
        trace = contexts().of_event(b"\xff", "trigger_evt_x")
        self.assertEqual((len(trace.trace_id), trace.event_id), (32, "trigger_evt_x"))

    @given(st.dictionaries(st.sampled_from(("traceparent", "tracestate", "host")), st.text(max_size=70)), st.text())
    def test_anything(self, headers: Any, trace_id: Any) -> None:
        """Whatever headers and ids say, there is a trace with a valid id, and always the same."""
        made = encode_envelope(envelope(headers=headers, trace_id=trace_id))
        one, two = (contexts().of_event(made, "e") for _ in range(2))
        self.assertEqual(one, two)
        self.assertRegex(one.trace_id, r"\A(?!0{32})[0-9a-f]{32}\Z")
        self.assertNotEqual(one.ingest_id, one.accept_id)


class SamplerTests(SynchronousTestCase):
    """`Sampler`."""

    def test_follows_the_sender(self) -> None:
        """Its decision counts, unless the sampler is one that does not look at it."""
        unsampled = structs.replace(SENT, flags=0)
        for sampler in (Sampler(), Sampler(ALWAYS_OFF), Sampler(RATIO, 0.0)):
            self.assertTrue(sampler.samples(SENT.trace_id, SENT))
            self.assertFalse(sampler.samples(SENT.trace_id, unsampled))
        self.assertFalse(Sampler(ALWAYS_OFF, follows_sender=False).samples(SENT.trace_id, SENT))
        self.assertTrue(Sampler(follows_sender=False).samples(SENT.trace_id, unsampled))

    def test_a_ratio(self) -> None:
        """That share of the traces that begin here is recorded: their ids are random where it is looked at."""
        own = [own_trace_id(new_trace_id(NOW))[0] for _ in range(4000)]
        for ratio in (0.0, 0.1, 0.5, 1.0):
            share = sum(map(Sampler(RATIO, ratio).samples, own)) / len(own)
            self.assertLess(abs(share - ratio), 0.05)

    def test_a_ratio_of_others(self) -> None:
        """Of a trace that was begun elsewhere, it decides as other services do: by the last eight bytes."""
        sampler = Sampler(RATIO, 0.5, follows_sender=False)
        for digit, samples in (("0", True), ("7", True), ("8", False), ("f", False)):
            trace_id = "a" * 16 + digit + "f" * 15
            self.assertEqual(sampler.samples(trace_id, TraceContext(trace_id, "b" * 16, 0)), samples)
