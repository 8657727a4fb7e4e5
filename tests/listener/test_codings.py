"""Content codings: what is decoded, how much of it, and what is refused."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import BodyTooLarge, MediaTypeUnsupported, PayloadInvalid
from harn.listener.codings import codings_of, decode

LIMIT = 1_000_000


def raw_deflate(body: bytes) -> bytes:
    """Compress as senders do that take ``deflate`` at its word."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


ENCODERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
)


class DecodeTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Names are read in any case, in a list; ``identity`` is ignored."""
        for value, expected in (
            ("gzip", ("gzip",)),
            (" GZip , br", ("gzip", "br")),
            ("identity", ()),
            ("", ()),
            ("identity, Deflate", ("deflate",)),
        ):
            self.assertEqual(codings_of({"content-encoding": value}), expected)
        self.assertEqual(codings_of({}), ())

    @settings(deadline=None)
    @given(st.binary(max_size=2000), st.integers(1, 400))
    def test_round_trip(self, piece: bytes, times: int) -> None:
        """Whatever was encoded comes back."""
        body = piece * times
        for name, encode in ENCODERS:
            self.assertEqual(decode(encode(body), (name,), LIMIT), body)

    def test_several(self) -> None:
        """Codings come off in the opposite order, at most four of them; an empty body has none on it."""
        self.assertEqual(decode(brotli.compress(gzip.compress(b"{}")), ("gzip", "br"), LIMIT), b"{}")
        self.assertEqual(decode(b"", ("gzip",), LIMIT), b"")
        with self.assertRaises(MediaTypeUnsupported):
            decode(b"", ("gzip",) * 5, LIMIT)

    def test_unknown(self) -> None:
        """A coding that we do not know is named, shortened."""
        error = self.assertRaises(MediaTypeUnsupported, decode, b"x", ("gzip", "zstd" * 50), LIMIT)
        self.assertIn("gzip, deflate, br, got 'zstdzstd", str(error))
        self.assertLess(len(str(error)), 120)

    def test_bomb(self) -> None:
        """A body stops growing at the limit, at each step; up to it, it is taken."""
        for name, encode in ENCODERS:
            self.assertEqual(len(decode(encode(bytes(LIMIT)), (name,), LIMIT)), LIMIT)
            for bomb in (encode(bytes(LIMIT + 1)), encode(bytes(50 * LIMIT))):
                error = self.assertRaises(BodyTooLarge, decode, bomb, (name,), LIMIT)
                self.assertIn(name, str(error))
        with self.assertRaises(BodyTooLarge):
            decode(gzip.compress(gzip.compress(bytes(50 * LIMIT))), ("gzip", "gzip"), 10_000)

    def test_members(self) -> None:
        """Several gzip members are one body; an unbounded sequence of empty ones is refused."""
        self.assertEqual(
            decode(gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c"), ("gzip",), LIMIT), b"abc"
        )
        with self.assertRaises(PayloadInvalid):
            decode(gzip.compress(b"") * 1001, ("gzip",), LIMIT)

    def test_garbled(self) -> None:
        """What is not what the coding says, what is cut short, and what has something after it is refused."""
        body = bytes(range(256)) * 300
        for name, encode in ENCODERS:
            good = encode(body)
            flipped = good[:20] + bytes((good[20] ^ 0xFF,)) + good[21:]
            for bad in (b"{}", b"\x00", good[:-1], good[: len(good) // 2], good[:3], good + b"x", flipped):
                with self.assertRaises((PayloadInvalid, BodyTooLarge), msg=(name, bad[:10])):
                    if decode(bad, (name,), LIMIT) != body:
                        raise PayloadInvalid("a bare deflate stream has no checksum: other bytes came out")

    @settings(deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes(self, body: bytes) -> None:
        """Whatever the bytes are, they are decoded or refused, and nothing else is raised."""
        for name, _ in ENCODERS:
            try:
                decode(body, (name,), LIMIT)
            except (PayloadInvalid, BodyTooLarge) as error:
                self.assertTrue(str(error))
