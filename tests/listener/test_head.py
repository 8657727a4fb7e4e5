"""Heads as values: what llhttp reads is what our line rules read, and limits hold however the bytes come."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import HeadersTooLarge, MessageMalformed, Refused, TargetTooLong
from harn.listener.framing import field_of, lower
from harn.listener.head import MAX_HEAD, MAX_HEADERS, MAX_LINE, PartialHead, RequestHead, parse_head, split_head

HEAD = b"POST /x?y HTTP/1.1\r\nHost: h\r\nX-A:  one \t\r\nContent-Length: 7\r\n\r\n"
NAMES = st.one_of(st.sampled_from([b"Host", b"X-A", b"x-a", b"Connection", b"Upgrade"]), st.binary(max_size=6))
VALUES = st.one_of(st.sampled_from([b"a", b" b\t", b"close", b"upgrade"]), st.binary(max_size=10))
LINES = st.lists(
    st.one_of(st.tuples(NAMES, VALUES).map(lambda pair: pair[0] + b":" + pair[1]), st.binary(max_size=12)), max_size=5
)


def request(*lines: bytes) -> bytes:
    """Write a head with these header lines."""
    return b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def by_lines(data: bytes) -> dict[str, str] | None:
    """Read the headers by the rules of single lines alone; None if one breaks them."""
    headers: dict[str, str] = {}
    try:
        for line in data[:-4].split(b"\r\n")[1:]:
            name, value = field_of(line)
            text = value.decode("latin-1")
            headers[lower(name)] = f"{headers[lower(name)]}, {text}" if lower(name) in headers else text
    except MessageMalformed:
        return None
    return headers


def by_llhttp(data: bytes) -> dict[str, str] | None:
    """Read the headers as the server does."""
    try:
        return dict(parse_head(data).headers)
    except Refused:
        return None


class ParseTests(SynchronousTestCase):
    """`parse_head`."""

    def test_value(self) -> None:
        """A head has method, target, version and its headers, without the space around their values."""
        head = parse_head(HEAD)
        line = head.line
        self.assertEqual((line.method, line.target, line.version), (b"POST", b"/x?y", b"HTTP/1.1"))
        self.assertEqual((line.path, line.query), (b"/x", b"y"))
        self.assertEqual(head.headers, {"host": "h", "x-a": "one", "content-length": "7"})
        self.assertEqual(head.size, len(HEAD))

    def test_repeated(self) -> None:
        """Repeated headers are joined in their order, however their names are written; each line is kept."""
        head = parse_head(request(b"X-A: 1", b"Host: h", b"x-a: 2", b"X-A:"))
        self.assertEqual(head.headers, {"x-a": "1, 2, ", "host": "h"})
        self.assertEqual([value for name, value in head.fields if name.lower() == b"x-a"], [b"1", b"2", b""])

    def test_methods(self) -> None:
        """A method is any token: which ones there are is for the path to decide."""
        for method in (b"GET", b"get", b"BREW", b"CONNECT", b"PRI", b"X" * 40):
            self.assertEqual(parse_head(method + b" /x HTTP/1.1\r\nHost: h\r\n\r\n").line.method, method)

    @settings(max_examples=500, deadline=None)
    @given(LINES)
    @example([b"X-A: \x80\xff", b"X-B:\t"])
    @example([b"X-A: a\x0bb"])
    @example([b"A:1", b"a:2"])
    def test_two_readers(self, lines: list[bytes]) -> None:
        """Llhttp accepts no head that our rules of lines refuse, refuses none that they accept, and reads the same."""
        data = request(*lines)
        whole = split_head(data)
        if whole is not None and whole[0] == data:  # no line was empty
            self.assertEqual(by_llhttp(data), by_lines(data), data)


class LimitTests(SynchronousTestCase):
    """Sizes and numbers, in one piece and in several."""

    def outcome(self, data: bytes, step: int) -> RequestHead | None:
        """Read a head in pieces; None if it is not complete."""
        partial = PartialHead()
        for start in range(0, len(data), step):
            found = partial.add(data[start : start + step])
            if found is not None:
                return parse_head(found[0])
        return None

    def assert_refused(self, error: type[Refused], data: bytes) -> None:
        for step in (len(data), 1000, 7):
            self.assertRaises(error, self.outcome, data, step)

    def test_line(self) -> None:
        """A request line, and a header, may have 16 KiB."""
        target = b"/" + b"x" * (MAX_LINE - len("GET / HTTP/1.1"))
        self.assertIsNotNone(self.outcome(b"GET " + target + b" HTTP/1.1\r\n\r\n", 1000))
        self.assert_refused(TargetTooLong, b"GET " + target + b"x HTTP/1.1\r\n\r\n")
        self.assert_refused(TargetTooLong, b"GET " + b"x" * MAX_LINE)
        header = b"X: " + b"x" * (MAX_LINE - 3)
        self.assertIsNotNone(self.outcome(request(header), 1000))
        self.assert_refused(HeadersTooLarge, request(header + b"x"))
        self.assert_refused(HeadersTooLarge, b"GET / HTTP/1.1\r\n" + header + b"x")

    def test_number(self) -> None:
        """There may be 200 headers."""
        headers = [b"X-%d: x" % number for number in range(MAX_HEADERS)]
        self.assertIsNotNone(self.outcome(request(*headers), 1000))
        self.assert_refused(HeadersTooLarge, request(*headers, b"Y: y"))

    def test_total(self) -> None:
        """All of it may have 64 KiB."""
        headers = [b"X-%d: %s" % (number, b"x" * 10_000) for number in range(6)]
        left = MAX_HEAD - len(request(*headers, b"Y: "))
        self.assertIsNotNone(self.outcome(request(*headers, b"Y: " + b"y" * left), 1000))
        self.assert_refused(HeadersTooLarge, request(*headers, b"Y: " + b"y" * (left + 1)))

    def test_refused_at_once(self) -> None:
        """A line that is malformed, or has a bare end, is refused before the head is complete."""
        for data in (b"nonsense\r\n", b"GET / HTTP/1.1\r\nX Y: z\r\n", b"GET / HTTP/1.1\n", b"G\rE", b"\r\n\r\n"):
            self.assert_refused(MessageMalformed, data)

    def test_what_follows(self) -> None:
        """What follows a head is given back, wherever the pieces are cut; one empty line before it is ignored."""
        for cut in range(len(HEAD) + 2):
            partial = PartialHead()
            data = b"\r\n" + HEAD + b"body"
            found = partial.add(data[:cut])
            self.assertIsNone(found)
            self.assertEqual(partial.add(data[cut:]), (HEAD, b"body"))
        self.assertEqual(split_head(b"\r\n" + HEAD + b"body"), (HEAD, b"body"))
