"""Whatever bytes come: a well-formed answer or none, never 500, never a traceback, never a lease left behind."""

from __future__ import annotations

import contextlib
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import PayloadInvalid
from harn.operations.http import Arguments, read_parameters
from harn.reload.operations import PlanReload, label, plan, tag_wanted
from harn.testing.clients import parse_answers, request_bytes
from tests.listener.world import KEY, World, signed_post

TARGETS = st.one_of(
    st.sampled_from(
        ["/hooks/gh", "/a2a/push", "/admin/reload", "/admin/fire/x", "/readyz", "*", "/", "http://h/health"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=176), min_size=1, max_size=30),
)
TOKENS = st.text("abcXYZ09-_", min_size=1, max_size=12)
HEADERS = st.dictionaries(
    st.one_of(
        TOKENS,
        st.sampled_from(
            ["Host", "Origin", "Expect", "Connection", "Content-Length", "Transfer-Encoding", "Authorization"]
        ),
    ),
    st.one_of(
        st.text(st.characters(max_codepoint=255), max_size=40),
        st.sampled_from(["chunked", "close", "100-continue", "0", "3", "9" * 5000, "HMAC-SHA256 timestamp=1"]),
    ),
    max_size=6,
)
METHODS = st.one_of(st.sampled_from(["POST", "GET", "HEAD", "OPTIONS", "TRACE"]), TOKENS)


class GarbageTests(SynchronousTestCase):
    def play(self, pieces: list[bytes]) -> None:
        """Send pieces, advance time until everything has ended, and check that nothing is left."""
        world = World()
        wire = world.wire()
        for piece in pieces:
            wire.send(piece)
            if wire.aborted:
                break
        world.advance(120)
        raw = wire.raw()
        self.assertNotIn(b"Traceback", raw)
        self.assertNotIn(b" 500 ", raw.split(b"\r\n")[0])
        for answer in parse_answers(raw) if b"HEAD" not in b"".join(pieces) else ():
            self.assertNotEqual(answer.status, 500)
        self.assertTrue(wire.closing)
        wire.drop()
        self.assertEqual(self.flushLoggedErrors(), [])
        admission = world.admission
        self.assertEqual((admission.pending_bytes, admission.pending_events, world.site.in_flight), (0, 0, 0))
        for trigger in (world.gh, world.push):
            self.assertEqual(trigger.route.receiver.holders, 1)
        self.assertEqual(world.site.channels, set())

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def test_bytes(self, pieces: list[bytes]) -> None:
        """Any bytes at all."""
        self.play(pieces)

    @settings(max_examples=300, deadline=None)
    @given(METHODS, TARGETS, HEADERS, st.binary(max_size=100), st.integers(1, 400), st.booleans())
    def test_requests(
        self, method: str, target: str, headers: dict[str, str], body: bytes, cut: int, known: bool
    ) -> None:
        """Requests with odd methods, targets, headers and bodies, in any two pieces, with credentials or without."""
        data = request_bytes(method, target, {**headers, **({"X-API-Key": KEY} if known else {})}, body)
        self.play([data[:cut], data[cut:]])

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.integers(0, 250), max_size=6), st.integers(0, 200), st.binary(min_size=1, max_size=3))
    def test_damaged(self, cuts: list[int], place: int, damage: bytes) -> None:
        """A good request, pipelined with itself, cut anywhere and damaged somewhere."""
        data = signed_post("/hooks/gh") * 2
        data = data[:place] + damage + data[place + len(damage) :]
        edges = [0, *sorted(cuts), len(data)]
        self.play([data[start:end] for start, end in pairwise(edges)])


class ArgumentTests(SynchronousTestCase):
    @given(st.binary(max_size=60))
    def test_bodies(self, body: bytes) -> None:
        """A body is read as parameters, or refused."""
        with contextlib.suppress(PayloadInvalid):
            self.assertIsInstance(read_parameters(plan, Arguments(body=body)), PlanReload)

    @given(st.text(max_size=60))
    def test_labels(self, text: str) -> None:
        """A label is short, printable and none of the server's own, or refused."""
        try:
            made = label(text, "none")
        except PayloadInvalid:
            return
        self.assertTrue(0 < len(made) <= 32 and made.isascii() and made.isprintable())
        self.assertNotIn(made, ("signal", "file_watch"))

    @given(st.text(max_size=30))
    def test_numbers(self, text: str) -> None:
        """A number is within its bounds, or refused."""
        try:
            found = read_parameters(plan, Arguments(query={"replay": text}))
        except PayloadInvalid:
            return
        self.assertTrue(1 <= (found.replay or 0) <= 1000)

    @given(st.text(max_size=40))
    def test_tags(self, header: str) -> None:
        """Whatever the header says, it asks for the live tag, for none, or for one that is not live."""
        asked = tag_wanted(header, '"7-a"')
        self.assertTrue(asked is None or (asked.startswith('"') and asked.endswith('"')))
        if asked == '"7-a"':
            self.assertIn("7-a", header)

    @given(st.sampled_from(('"7-a"', 'W/"7-a"', "7-a", '"6-x", "7-a"', '"6-x", W/"7-a"')))
    def test_live_tag(self, header: str) -> None:
        """The live tag is found among others, weak or strong, with quotes or without."""
        self.assertEqual(tag_wanted(header, '"7-a"'), '"7-a"')
