"""Requests that two servers could read differently (RFC 9112), as bytes through the real channel."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.testing.clients import request_bytes
from tests.listener.world import World, signed, signed_post

BODY = b'{"n":1}'
SIGNED = b"X-Signature: " + signed(BODY)["X-Signature"].encode() + b"\r\n"
EMPTY_SIGNED = b"X-Signature: " + signed(b"")["X-Signature"].encode() + b"\r\n"
CHUNKS = b"7\r\n" + BODY + b"\r\n0\r\n\r\n"


def post(lines: bytes, body: bytes = b"", *, version: bytes = b"1.1", host: bytes = b"Host: harn.test\r\n") -> bytes:
    """Write a request to the trigger with these header lines, signed for `BODY`."""
    return b"POST /hooks/gh HTTP/" + version + b"\r\n" + host + SIGNED + lines + b"\r\n" + body


def lengthed(lines: bytes, **more: bytes) -> bytes:
    """Write a request that would be accepted, but for these header lines."""
    return post(b"Content-Length: 7\r\n" + lines, BODY, **more)


def chunked(body: bytes, coding: bytes = b"Transfer-Encoding: chunked") -> bytes:
    """Write a request in chunks."""
    return post(coding + b"\r\n", body)


NO_REQUEST = (
    b"nonsense\r\n\r\n",
    b"\r\n\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health HTTP/3.0\r\nHost: h\r\n\r\n",
    b"GET /health HTTP/1.1 \r\nHost: h\r\n\r\n",
    b"GET  /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET\t/health\tHTTP/1.1\r\nHost: h\r\n\r\n",
    b" GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health http/1.1\r\nHost: h\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    *(
        b"GET /health " + version + b"\r\nHost: h\r\n\r\n"
        for version in (
            b"HTTP/0.9",
            b"HTTP/1.2",
            b"HTTP/2.0",
            b"HTTP/1.10",
            b"HTTP/1",
            b"HTTP/1,1",
            b"HTTP/01.1",
            b"HTTPS/1.1",
            b"RTSP/1.0",
            b"HTTP/1.1\x00",
            b"",
        )
    ),
    b"GET\x00 /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health\x0bHTTP/1.1\r\nHost: h\r\n\r\n",
    b"\xa0GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\n\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\rGET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"G(T /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /he\x7falth HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /h\xe9 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health\r HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /health HTTP/1.1\nHost: h\n\n",
    b"GET /health HTTP/1.1\nHost: h\r\n\r\n",
    b"GET /health HTTP/1.1\rHost: h\r\n\r\n",
)

HEADERS = (
    lengthed(b"no colon\r\n"),
    lengthed(b": no name\r\n"),
    lengthed(b"na me: x\r\n"),
    lengthed(b"Name : x\r\n"),
    lengthed(b"Name\t: x\r\n"),
    lengthed(b"N\xe4me: x\r\n"),
    lengthed(b"N\x00me: x\r\n"),
    lengthed(b"X-A: a\x00b\r\n"),
    lengthed(b"X-A: a\rb\r\n"),
    lengthed(b"X-A: a\nX-B: b\r\n"),
    lengthed(b"X-A: a\r\n more\r\n"),
    lengthed(b"X-A: a\r\n\tmore\r\n"),
    post(b"", host=b" Host: harn.test\r\n"),
    lengthed(b"X-A: a\n\nGET /health HTTP/1.1\r\n"),
    lengthed(b"X-A: a\x01b\r\n"),
    lengthed(b"X-A: a\x7fb\r\n"),
    lengthed(b"X-A: a\r\r\n"),
    lengthed(b"X-A\r\n: a\r\n"),
    lengthed(b"\tX-A: a\r\n"),
    lengthed(b"(X): a\r\n"),
    lengthed(b'"X": a\r\n'),
    lengthed(b"X-A\x00: a\r\n"),
    lengthed(b"Content-Length\x00: 7\r\n"),
    lengthed(b"X-A: a\r\n: b\r\n"),
)

HOSTS = (
    lengthed(b"", host=b""),
    lengthed(b"Host: harn.test\r\n"),
    lengthed(b"Host: other.test\r\n"),
    lengthed(b"Host: h\r\n", version=b"1.0"),
    lengthed(b"", host=b"Host: a b\r\n"),
    lengthed(b"", host=b"Host: a, b\r\n"),
    lengthed(b"", host=b"Host: user@h\r\n"),
    lengthed(b"", host=b"Host: h/path\r\n"),
    lengthed(b"", host=b"Host: http://h\r\n"),
    lengthed(b"", host=b"Host: h:80:80\r\n"),
    lengthed(b"", host=b"Host: h:http\r\n"),
    lengthed(b"", host=b"Host: [::1\r\n"),
    lengthed(b"", host=b"Host: h%zz\r\n"),
    lengthed(b"", host=b"Host: h\xe9\r\n"),
)

LENGTHS = (
    *(
        post(b"Content-Length: " + length + b"\r\n", BODY)
        for length in (
            b"",
            b"-1",
            b"+7",
            b"7.0",
            b"0x7",
            b"7_0",
            b"7 7",
            b"7,7",
            b"7, 8",
            b"\x0b7",
            b"7\x0c",
            b"\xb2",
            b"seven",
            b"9" * 5000,
        )
    ),
    post(b"Content-Length: 7\r\nContent-Length: 8\r\n", BODY),
    post(b"Content-Length: 7\r\nContent-Length: 7\r\n", BODY),
    post(b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
    post(b"Transfer-Encoding: chunked\r\nContent-Length: 7\r\n", CHUNKS),
    post(b"Content-Length: 7\r\nTransfer-Encoding: identity\r\n", BODY),
    post(b"Content-Length : 7\r\n", BODY),
    post(b"Content-Length: 7\r\n 0\r\n", BODY),
    post(b"Content-Length:\r\n 7\r\n", BODY),
    post(b"Content-Length: 7\x00\r\n", BODY),
    post(b"Content-Length: 7\n\r\n", BODY),
    post(b"Content-Length: 7\r\ncontent-length: 8\r\n", BODY),
    post(b"Content-Length: 7\r\nContent-Length:\r\n", BODY),
    post(b"Content-Length: 18446744073709551623\r\n", BODY),
    post(b"Content-Length: 7\r\nTransfer-Encoding: gzip, chunked\r\n", CHUNKS),
    post(b"Content-Length: 7\r\nTransfer-Encoding:\tchunked\r\n", CHUNKS),
    post(b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", CHUNKS, version=b"1.0"),
)

MALFORMED_CODINGS = (
    *(
        chunked(CHUNKS, b"Transfer-Encoding: " + coding)
        for coding in (
            b"",
            b"chunked, chunked",
            b"chunked, identity",
            b"chunked,gzip",
            b"chunked,",
            b", chunked",
            b"\x0bchunked",
            b"chunked\x0c",
            b"chunked\xa0",
            b'"chunked"',
            b"chunked;q=1",
            b"chunk\xe9d",
            b"chunked chunked",
            b"chunked\x00",
            b"[chunked]",
        )
    ),
    chunked(CHUNKS, b"Transfer-Encoding : chunked"),
    chunked(CHUNKS, b"Transfer-Encoding:\r\n chunked"),
    chunked(CHUNKS, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    post(b"Transfer-Encoding: chunked\r\n", CHUNKS, version=b"1.0"),
    post(b"Transfer-Encoding: identity\r\n", version=b"1.0"),
)

UNKNOWN_CODINGS = (
    *(
        chunked(CHUNKS, b"Transfer-Encoding: " + coding)
        for coding in (b"identity", b"Identity", b"gzip", b"gzip, chunked", b"identity, chunked", b"xchunked")
    ),
    chunked(CHUNKS, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    chunked(CHUNKS, b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
)

CHUNK_SIZES = (
    *(
        chunked(size + b"\r\n" + BODY + b"\r\n0\r\n\r\n")
        for size in (
            b"",
            b"zz",
            b"-7",
            b"+7",
            b"0x7",
            b"7_0",
            b" 7",
            b"7 ",
            b"7\t",
            b"7 ;a",
            b"\xb2",
            b"7;a\nb",
            b"7;a\rb",
            b"7;a\x00",
            b"7,7",
            b"7\r",
            b"10000000000000007",
            b"7;" + b"a" * 2000,
        )
    ),
    chunked(b"7\n" + BODY + b"\n0\n\n" + b"x" * 2000),
    chunked(b"6\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunked(b"8\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"0\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r0\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\n\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nX: a\x00b\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\n: a\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\n0\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nX: a\n\nGET /health HTTP/1.1\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nno colon\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nX : a\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nX: a\r\n b\r\n\r\n"),
    chunked(b"7\r\n" + BODY + b"\r\n0\r\nX: " + b"a" * 70_000),
)


class RefusedTests(SynchronousTestCase):
    """Each is answered once and closed; nothing after it is read, and nothing of it is kept."""

    def assert_refused(self, requests: tuple[bytes, ...], status: int) -> None:
        for data in requests:
            for step in (len(data) + 1000, 1):
                world = World()
                wire = world.wire()
                whole = data + signed_post("/hooks/gh")
                for start in range(0, len(whole), step):
                    wire.send(whole[start : start + step])
                answers = wire.answers()
                self.assertEqual([answer.status for answer in answers], [status], data[:300])
                self.assertEqual(answers[0].headers["connection"], "close", data[:300])
                self.assertEqual(answers[0].headers["content-type"], "application/problem+json")
                self.assertTrue(wire.closing, data[:300])
                self.assertEqual(wire.send(signed_post("/hooks/gh")).raw(), b"")
                held = (world.admission.pending_bytes, world.admission.pending_events, world.site.in_flight)
                self.assertEqual((world.store.rows(), held), ([], (0, 0, 0)), data[:300])
                wire.drop()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_request_lines(self) -> None:
        """What does not begin as a request of HTTP/1.0 or 1.1 is 400."""
        self.assert_refused(NO_REQUEST, 400)

    def test_headers(self) -> None:
        """A header without a colon or a name, with space before its colon, folded, or with CR, LF or NUL is 400."""
        self.assert_refused(HEADERS, 400)

    def test_host(self) -> None:
        """On HTTP/1.1 there is one Host, which names a host."""
        self.assert_refused(HOSTS, 400)

    def test_lengths(self) -> None:
        """The body's length is given once, in digits."""
        self.assert_refused(LENGTHS, 400)

    def test_malformed_codings(self) -> None:
        """A Transfer-Encoding that hides something, comes twice or on HTTP/1.0 is 400."""
        self.assert_refused(MALFORMED_CODINGS, 400)

    def test_unknown_codings(self) -> None:
        """A Transfer-Encoding that is plain and not ``chunked`` is 501; ``identity`` was taken out of the standard."""
        self.assert_refused(UNKNOWN_CODINGS, 501)

    def test_chunks(self) -> None:
        """A size that is not a hexadecimal number, a chunk without its end, or a malformed trailer is 400."""
        self.assert_refused(CHUNK_SIZES, 400)

    def test_says_what_is_wrong(self) -> None:
        """The problem document names the line and what is wrong with it."""
        for data, words in (
            (lengthed(b"no colon\r\n"), "must have a colon, got 'no colon'"),
            (lengthed(b"Name : x\r\n"), "got 'Name '"),
            (lengthed(b"X-A: a\x00\r\n"), "a lone CR or LF, or a NUL"),
            (lengthed(b"X-A: a\r\n b\r\n"), "may begin with a space"),
            (lengthed(b"", host=b""), "Host is missing"),
            (lengthed(b"Host: h\r\n"), "one header Host, got 2"),
            (lengthed(b"", host=b"Host: a b\r\n"), "got 'a b'"),
            (post(b"Content-Length: +7\r\n"), "digits, got '+7'"),
            (post(b"Content-Length: 7\r\nContent-Length: 8\r\n"), "given once"),
            (post(b"Content-Length: " + b"9" * 5000 + b"\r\n"), "Content-Length"),
            (post(b"Transfer-Encoding: gzip, chunked\r\n"), "got 'gzip, chunked'"),
            (chunked(b"zz\r\n"), "chunks of the body are malformed"),
            (chunked(b"0\r\nno colon\r\n\r\n"), "trailer"),
            (b"GET /health HTTP/1.1\nHost: h\n\n", "CRLF"),
            (b"nonsense\r\n\r\n", "first line"),
        ):
            answer = World().wire().send(data).answer()
            self.assertIn(words, answer.json()["detail"])


class TakenTests(SynchronousTestCase):
    """What is unusual and plain is taken."""

    def assert_taken(self, *requests: bytes) -> None:
        for data in requests:
            for step in (len(data), 1):
                world = World()
                wire = world.wire()
                for start in range(0, len(data), step):
                    wire.send(data[start : start + step])
                self.assertEqual(wire.answer().status, 200, data)
                self.assertEqual(len(world.store.rows()), 1)

    def test_hosts(self) -> None:
        """Names, addresses, ports, and nothing where the target has no host."""
        hosts = (b"", b"h", b"a_b.c-d.:8080", b"127.0.0.1:", b"[::1]:80", b"[fe80::1%25eth0]", b"x%C3%A4.test", b"a,b")
        self.assert_taken(*(lengthed(b"", host=b"host:" + host + b" \r\n") for host in hosts))
        self.assert_taken(lengthed(b"", host=b"", version=b"1.0"))

    def test_framing(self) -> None:
        """Cases and spaces that the standard allows, chunks with extensions and trailers, an empty line before."""
        self.assert_taken(
            post(b"content-length:\t7 \r\n", BODY),
            post(b"Content-Length: 007\r\n", BODY),
            chunked(CHUNKS, b"transfer-encoding: \tCHUNKED\t"),
            chunked(b'3;a="b;c"\r\n{"n\r\n004\r\n":1}\r\n000\r\nServer-Timing: x\r\nX:\r\n\r\n'),
            chunked(b"7;\xe9\t=x\r\n" + BODY + b"\r\n0;last\r\n\r\n"),
            chunked(CHUNKS, b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked"),
            lengthed(b"Upgrade: websocket\r\nConnection: upgrade\r\n"),
            lengthed(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            b"\r\n" + lengthed(b""),
            lengthed(b"X-Empty:\r\nX-Latin: \xe9\r\n"),
        )

    def test_pipeline(self) -> None:
        """Requests in one piece are read one after the other, whatever the parts that the bytes come in."""
        data = (
            lengthed(b"")
            + chunked(CHUNKS)
            + request_bytes("GET", "/nope")
            + b"\r\n"
            + lengthed(b"Connection: close\r\n")
        )
        for step in (len(data), 1, 7):
            wire = World().wire()
            for start in range(0, len(data), step):
                wire.send(data[start : start + step])
            self.assertEqual([answer.status for answer in wire.answers()], [200, 200, 404, 200])


class PersistenceTests(SynchronousTestCase):
    def test_close(self) -> None:
        """``close`` counts on every line of ``Connection``, anywhere in its list, in any case."""
        for lines in (
            b"Connection: close\r\n",
            b"Connection: CLOSE\r\n",
            b"Connection: keep-alive\r\nConnection: close\r\n",
            b"Connection: keep-alive, close\r\n",
            b"Connection: close,keep-alive\r\n",
            b"Connection: x ,\tClose\t, y\r\n",
        ):
            wire = World().wire().send(lengthed(lines) + lengthed(b""))
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"), lines)
            self.assertTrue(wire.closing, lines)

    def test_kept(self) -> None:
        """Other options close nothing."""
        for lines in (b"", b"Connection:\r\n", b"Connection: keep-alive\r\n", b"Connection: closed, x-close\r\n"):
            wire = World().wire().send(lengthed(lines))
            self.assertNotIn("connection", wire.answer().headers)
            self.assertFalse(wire.closing, lines)
