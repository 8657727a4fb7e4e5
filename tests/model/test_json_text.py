"""JSON as senders write it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.event import DEEPEST, is_too_deep, mended


class MendedTests(SynchronousTestCase):
    def test_half_a_pair(self) -> None:
        """An escape of half a surrogate pair is U+FFFD; a pair, and what only looks like an escape, is left alone."""
        for text, expected in (
            (rb'"cut \ud83d"', rb'"cut \ufffd"'),
            (rb'"\uDE00 \uD83D"', rb'"\ufffd \ufffd"'),
            (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
            (rb'"\ud83d\u0041"', rb'"\ufffd\u0041"'),
            (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
            (rb'"\\ud83d"', rb'"\\ud83d"'),
            (rb'"\\\ud83d\n"', rb'"\\\ufffd\n"'),
            (rb'{"\ud83d":1}', rb'{"\ufffd":1}'),
            (b"\xef\xbb\xbf{}", b"{}"),
            (b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xef\xbb\xbf{}"),
        ):
            self.assertEqual(mended(text), expected)

    @settings(deadline=None)
    @given(st.text(st.characters() | st.characters(categories=["Cs"])))
    def test_any_text(self, text: str) -> None:
        """What Python writes of any text reads back as UTF-16 would have it, halves replaced."""
        expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.assertEqual(json.loads(mended(json.dumps(text).encode())), expected)


class DepthTests(SynchronousTestCase):
    def test_depth(self) -> None:
        """Levels are counted up to the limit; brackets in strings do not count."""
        for text, expected in (
            (b"[" * DEEPEST + b"]" * DEEPEST, False),
            (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), True),
            (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), True),
            (b"[" + b"[]," * 5000 + b"[]]", False),
            (b'["' + b"[" * 5000 + b'\\"["]', False),
            (b" " * 300_000 + b"[" * 600, True),
            # Its string has no end, and a quote in it begins none: else this would take hours.
            (b"[" * 600 + b'"' + b'\\"' * 1_000_000, True),
        ):
            self.assertEqual(is_too_deep(text), expected, text[:20])
