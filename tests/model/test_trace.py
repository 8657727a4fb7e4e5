"""The W3C trace context: what is read of a sender's headers, and what is passed on."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.trace import (
    LONGEST_STATE,
    NO_TRACE,
    TraceContext,
    context_of,
    parse_traceparent,
    parse_tracestate,
    trace_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = "0123456789abcdef"
TRACEPARENTS = st.builds(
    "{}-{}-{}-{}{}".format,
    st.text(HEX + "F", min_size=2, max_size=2),
    st.text(HEX, min_size=31, max_size=33),
    st.text(HEX, min_size=15, max_size=17),
    st.text(HEX + "g", min_size=2, max_size=2),
    st.sampled_from(("", "-", "-later", "x", "\n", " ")),
)
MEMBERS = st.lists(st.text("ab1@=, \t-*/é\x7f~", max_size=30) | st.just("vendor=value"), max_size=40)


class TraceparentTests(SynchronousTestCase):
    """`parse_traceparent`."""

    def test_a_good_one(self) -> None:
        """Ids and known flags are read, and given on in version 00."""
        context = parse_traceparent(f"00-{TRACE}-{SPAN}-01", "congo=t61rcWkgMzE, rojo=00f067aa0ba902b7")
        self.assertEqual((context.trace_id, context.span_id, context.is_sampled), (TRACE, SPAN, True))
        self.assertEqual(
            context.headers(),
            {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"},
        )
        self.assertEqual(trace_of(context.text), context)
        self.assertFalse(parse_traceparent(f"00-{TRACE}-{SPAN}-fe").is_sampled)
        self.assertEqual(parse_traceparent(f"00-{TRACE}-{SPAN}-ff").traceparent, f"00-{TRACE}-{SPAN}-03")

    def test_a_later_version(self) -> None:
        """What a later version adds is passed over; it begins with a dash."""
        self.assertEqual(parse_traceparent(f"cc-{TRACE}-{SPAN}-01-more").traceparent, f"00-{TRACE}-{SPAN}-01")
        self.assertEqual(parse_traceparent(f"cc-{TRACE}-{SPAN}-01.more"), NO_TRACE)

    def test_bad_ones(self) -> None:
        """What the grammar does not allow counts as absent, as two headers of the name do."""
        good = f"00-{TRACE}-{SPAN}-01"
        bad = (
            "",
            good.upper(),
            good[:-1],
            good + "-",
            good + "0",
            f" {good}",
            f"{good}, {good}",
            f"ff-{TRACE}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[:-1]}١-{SPAN}-01",
            good.replace("-", "_"),
        )
        for text in bad:
            self.assertEqual(parse_traceparent(text), NO_TRACE, text)
        self.assertEqual((NO_TRACE.headers(), NO_TRACE.text, bool(NO_TRACE)), ({}, "", False))
        self.assertEqual(trace_of(""), NO_TRACE)

    @given(TRACEPARENTS | st.text(max_size=80), st.text(max_size=80))
    def test_anything(self, traceparent: Any, tracestate: Any) -> None:
        """Whatever a sender writes, what continues is well-formed, and has the sender's ids."""
        context = context_of({"traceparent": traceparent, "tracestate": tracestate})
        if not context:
            self.assertEqual(context.headers(), {})
            return
        headers = context.headers()
        self.assertRegex(headers["traceparent"], re.compile(r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]\Z"))
        self.assertEqual(headers["traceparent"][2:52], traceparent[2:52])
        self.assertEqual(trace_of(context.text), context)


class TracestateTests(SynchronousTestCase):
    """`parse_tracestate`."""

    def test_bad_ones(self) -> None:
        """One bad entry, a key twice, or more than 32 entries: none is passed on."""
        many = ",".join(f"k{n}=v" for n in range(33))
        for text in ("a", "=v", "a=", "A=v", "a=v,a=w", "a=b=c", "a=é", "a=v\n", "a b=c", many):
            self.assertEqual(parse_tracestate(text), "", text)
        self.assertEqual(parse_tracestate(many.rpartition(",")[0]).count(","), 31)
        self.assertEqual(parse_tracestate("a=v,, \t,0t@v= w "), "a=v,0t@v= w")

    def test_a_long_one(self) -> None:
        """Long entries are left out first, then the last ones."""
        long, short = f"long={'x' * 130}", [f"k{n}={'y' * 60}" for n in range(9)]
        self.assertEqual(parse_tracestate(",".join((long, *short))), ",".join(short[:8]))
        self.assertEqual(parse_tracestate(f"{long},a=b"), f"{long},a=b")

    @given(MEMBERS)
    def test_anything(self, members: Any) -> None:
        """What continues is within the limits, is read again as it is, and has entries of the sender's only."""
        kept = parse_tracestate(",".join(members))
        self.assertLessEqual(len(kept), LONGEST_STATE)
        self.assertEqual(parse_tracestate(kept), kept)
        sent = {each.strip(" \t") for each in ",".join(members).split(",")}
        self.assertLessEqual({each for each in kept.split(",") if each}, sent)
        self.assertEqual(TraceContext(TRACE, SPAN, 1, kept).headers().get("tracestate", ""), kept)
