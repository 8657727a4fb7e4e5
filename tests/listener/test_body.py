"""Bodies in pieces: where they end, and that llhttp, as another reader, finds the same body in the same chunks."""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import MessageMalformed
from harn.listener.body import MAX_CHUNK_LINE, MAX_TRAILERS, Body, ChunkedBody, SizedBody

CHUNKS = b"3;a=b\r\nabc\r\n00A\r\n0123\r\n6789\r\n0\r\nX: y\r\n\r\n"
DAMAGE = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b";", b"0", b"-", b"+", b"x", b"\x00", b"\xff", b"f" * 17]
)


def read(body: Body, data: bytes, step: int) -> tuple[bytes, bytes]:
    """Return the body, fed in pieces, and what follows it."""
    pieces: list[bytes] = []
    rest = b""
    for start in range(0, len(data), step):
        if body.is_complete:
            return b"".join(pieces), rest + data[start:]
        piece, rest = body.feed(data[start : start + step])
        pieces.append(piece)
    return b"".join(pieces), rest


class Reader:
    """llhttp, reading a request whose body is chunks."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.ends = False
        parser = HttpRequestParser(self)
        try:
            parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
        except HttpParserError:
            self.ends = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ends = True


class SizedTests(SynchronousTestCase):
    def test_end(self) -> None:
        """It ends with its last byte; what follows is given back."""
        for step in (1, 3, 100):
            self.assertEqual(read(SizedBody(5), b"abcdefg", step), (b"abcde", b"fg"))


class ChunkedTests(SynchronousTestCase):
    def test_end(self) -> None:
        """It ends with the empty line; what follows is given back, however the pieces are cut."""
        for step in range(1, len(CHUNKS) + 5):
            body = ChunkedBody()
            self.assertEqual(read(body, CHUNKS + b"POST", step), (b"abc0123\r\n6789", b"POST"), step)
            self.assertTrue(body.is_complete)

    def test_pieces_at_once(self) -> None:
        """The part of a chunk that has arrived is returned before the rest arrives."""
        body = ChunkedBody()
        self.assertEqual(body.feed(b"a\r\n0123"), (b"0123", b""))
        self.assertFalse(body.is_complete)

    def test_limits(self) -> None:
        """A size with its extensions, and all trailers together, have limits, whether their lines end or not."""
        extension = b"1;" + b"a" * (MAX_CHUNK_LINE - 2)
        trailer = b"X: " + b"a" * 1000 + b"\r\n"
        self.assertEqual(read(ChunkedBody(), extension + b"\r\nx\r\n0\r\n" + trailer * 60 + b"\r\n", 999)[0], b"x")
        for data in (
            extension + b"a",
            extension + b"a\r\n",
            b"0\r\n" + trailer * (MAX_TRAILERS // 1000 + 1),
            b"0\r\nX: " + b"a" * MAX_TRAILERS,
        ):
            for step in (len(data), 999):
                self.assertRaises(MessageMalformed, read, ChunkedBody(), data, step)

    @settings(max_examples=500, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=20), max_size=4), st.integers(0, 80), st.one_of(st.just(b""), DAMAGE)
    )
    @example([b"\r\n0\r\n\r\n"], 0, b"")
    def test_two_readers(self, chunks: list[bytes], place: int, damage: bytes) -> None:
        """Of chunks that may be damaged, what is accepted as a whole is what llhttp reads too."""
        data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        data = data[:place] + damage + data[place + len(damage) :]
        body = ChunkedBody()
        try:
            found, rest = read(body, data, 5)
        except MessageMalformed:
            return
        if body.is_complete and b";" not in data:  # llhttp is stricter about extensions
            other = Reader(data[: len(data) - len(rest)])
            self.assertEqual((other.ends, other.body), (True, found), data)
