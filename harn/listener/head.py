"""
The head of a request as a value: its headers are read by llhttp, through httptools.

llhttp is the parser of Node.js; it refuses bare CR and LF, folded lines, control characters, and framing that is
contradictory. It reads the headers alone, below a fixed request line: its methods are a fixed list, and in that line
it is lenient. Each head has a parser of its own, so that nothing of one request reaches the next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import SimpleNamespace

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from harn.errors import HeadersTooLarge, MessageMalformed, TargetTooLong
from harn.listener.framing import Field, RequestLine, body_length, field_of, first_line, has_bare_end, lower

MAX_LINE = 16 * 1024
"""Bytes of the request line, and of each header."""
MAX_HEADERS = 200
MAX_HEAD = 64 * 1024
"""Bytes of a head."""
_END_OF_LINE, _END = b"\r\n", b"\r\n\r\n"
_LINE = b"POST / HTTP/1.1"
_TOO_LARGE = f"the headers are larger than {MAX_HEAD} bytes, more than {MAX_HEADERS}, or one of them is longer than"
_NO_CRLF = "each line of the head must end in CRLF, got a lone CR or LF"


class RequestHead(Struct, frozen=True, gc=False):
    """
    The head of a request whose lines are well-formed.

    :ivar headers: as connectors see them: names in lower case, repeated ones joined by a comma and a space, latin-1.
    :ivar fields: each header as it came.
    :ivar size: bytes.
    """

    line: RequestLine
    headers: Mapping[str, str]
    fields: Collection[Field]
    size: int


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the head at the beginning of ``data``, and what follows it; None if it is not complete."""
    if data.startswith(_END_OF_LINE):
        data = data[2:]  # RFC 9112, 2.2: one empty line before a request is ignored
    head, end, rest = data.partition(_END)
    return (head + end, rest) if end else None


def parse_head(data: bytes) -> RequestHead:
    """
    Read a head.

    :param data: from the request line to the empty line, as `split_head` returns it.
    :raises TargetTooLong: the request line is longer than `MAX_LINE`.
    :raises HeadersTooLarge: the headers are larger than the limits.
    :raises MessageMalformed: a line is malformed.
    """
    count = data.count(b"\n") - 2  # neither the request line nor the empty line
    if count > MAX_HEADERS or len(data) > MAX_LINE:
        _check_sizes(data)
    end = data.find(_END_OF_LINE)
    line = first_line(data[:end])
    found: dict[bytes, bytes] = {}
    try:
        # A dictionary's own method receives the headers, which takes no frame of Python's for each.
        HttpRequestParser(SimpleNamespace(on_header=found.setdefault)).feed_data(_LINE + data[end:])
    except HttpParserUpgrade:
        pass  # the offer of another protocol is ignored (RFC 9110, 7.8)
    except HttpParserError:
        return _read_lines(line, data)
    values = b"\n".join(found.values()).decode("latin-1").split("\n")  # together, which takes less than one by one
    if len(values) != count:  # a header is repeated: `setdefault` has kept one value of it; or there is none
        return _read_lines(line, data)
    headers = dict(zip(map(lower, found), values, strict=True))
    if data.find(b" \r") >= 0 or data.find(b"\t\r") >= 0:  # llhttp leaves the space behind a value
        headers = {name: value.rstrip(" \t") for name, value in headers.items()}
    if len(headers) != count:  # a name is repeated with other capitals
        return _read_lines(line, data)
    return RequestHead(line, headers, found.items(), len(data))


class _Completion:
    """
    Notes that llhttp read all headers.

    :ivar is_complete: whether it did. It may still refuse the coding of the body, which `body_length` decides.
    """

    is_complete = False

    def on_headers_complete(self) -> None:
        """Called after the empty line."""
        self.is_complete = True


def _read_lines(line: RequestLine, data: bytes) -> RequestHead:
    """
    Read a head line by line: one with repeated headers, and one that llhttp refuses, to say what is wrong with it.

    :raises MessageMalformed: a line is malformed, or llhttp refuses it.
    """
    fields = [field_of(each) for each in data[: -len(_END)].split(_END_OF_LINE)[1:]]
    headers: dict[str, str] = {}
    for name, value in fields:
        key, text = lower(name), value.decode("latin-1")
        headers[key] = text if key not in headers else f"{headers[key]}, {text}"
    completion = _Completion()
    try:
        HttpRequestParser(completion).feed_data(_LINE + data[data.find(_END_OF_LINE) :])
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        if not completion.is_complete:
            body_length(line.version, headers, fields)
            raise MessageMalformed(f"the headers are malformed: {error}") from None
    return RequestHead(line, headers, fields, len(data))


def _check_sizes(data: bytes) -> None:
    """Refuse a head that is over a limit."""
    line, *headers = data.split(_END_OF_LINE)
    if len(line) > MAX_LINE:
        raise TargetTooLong(f"the request line is longer than {MAX_LINE} bytes")
    if len(data) > MAX_HEAD or len(headers) - 2 > MAX_HEADERS or max(map(len, headers)) > MAX_LINE:
        raise HeadersTooLarge(f"{_TOO_LARGE} {MAX_LINE}")


class PartialHead:
    """A head that comes in pieces. Bytes that cannot become one are refused as soon as they come."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._line = 0  # where the first line that has no end yet begins
        self._lines = 0  # before it

    def add(self, data: bytes) -> tuple[bytes, bytes] | None:
        """
        Return the head and what follows it, or None while it is not complete.

        :raises TargetTooLong: and the other errors of `parse_head`.
        """
        searched = max(0, len(self._data) - len(_END) + 1)
        self._data += data
        start = 2 if self._data.startswith(_END_OF_LINE) else 0
        end = self._data.find(_END, max(start, searched))
        if end >= 0:
            return bytes(self._data[start : end + 4]), bytes(self._data[end + 4 :])
        self._line = max(self._line, start)
        self._check()
        return None

    def _check(self) -> None:
        """Check the lines that have come, each once, and the one that is incomplete."""
        while (end := self._data.find(_END_OF_LINE, self._line)) >= 0:
            self._check_size(end)
            line = bytes(self._data[self._line : end])
            if self._lines == 0:
                first_line(line)
            else:
                field_of(line)
            self._line, self._lines = end + 2, self._lines + 1
        self._check_size(len(self._data))
        if has_bare_end(bytes(self._data[self._line :])):
            raise MessageMalformed(_NO_CRLF)

    def _check_size(self, end: int) -> None:
        """Check the limits up to ``end``, which is in the line that begins at ``_line``."""
        if end - self._line > MAX_LINE and self._lines == 0:
            raise TargetTooLong(f"the request line is longer than {MAX_LINE} bytes")
        if end - self._line > MAX_LINE or end > MAX_HEAD or self._lines > MAX_HEADERS + 1:
            raise HeadersTooLarge(f"{_TOO_LARGE} {MAX_LINE}")
