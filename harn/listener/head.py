"""
The head of a request as a value; llhttp, through httptools, parses its header fields.

llhttp is the parser of Node.js. It refuses bare CR and LF, folded lines, control characters and contradictory framing.
It gets a fixed request line with the header fields, since it accepts a fixed list of methods and is lenient with that
line; `harn.listener.framing` parses the real one. Each head has its own parser, so no state is left for the next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import SimpleNamespace

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from harn.errors import HeadersTooLarge, MessageMalformed, TargetTooLong
from harn.listener.framing import Field, RequestLine, body_length, field_of, first_line, has_bare_end, lower

MAX_LINE = 16 * 1024
"""The longest request line, and the longest header field (bytes)."""
MAX_HEADERS = 200
MAX_HEAD = 64 * 1024
"""The largest head (bytes)."""
_END_OF_LINE, _END = b"\r\n", b"\r\n\r\n"
_LINE = b"POST / HTTP/1.1"
_TOO_LARGE = f"the headers are larger than {MAX_HEAD} bytes, more than {MAX_HEADERS}, or one of them is longer than"
_NO_CRLF = "each line of the head must end in CRLF, got a lone CR or LF"


class RequestHead(Struct, frozen=True, gc=False):
    """
    The head of a request whose lines are well-formed.

    :ivar line: the request line.
    :ivar headers: the header fields as connectors receive them: names in lower case, values of one name joined by a
        comma and a space, latin-1.
    :ivar fields: each header field as received.
    :ivar size: the size of the head (bytes).
    """

    line: RequestLine
    headers: Mapping[str, str]
    fields: Collection[Field]
    size: int


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the head at the beginning of ``data`` and the bytes after it; None if the head is not complete."""
    if data.startswith(_END_OF_LINE):
        data = data[2:]  # RFC 9112, 2.2: one empty line before a request is ignored
    head, end, rest = data.partition(_END)
    return (head + end, rest) if end else None


def parse_head(data: bytes) -> RequestHead:
    """
    Return a head parsed.

    :param data: the bytes from the request line to the empty line, as `split_head` returns them.
    :raises TargetTooLong: the request line is longer than `MAX_LINE`.
    :raises HeadersTooLarge: the header fields are larger than the limits.
    :raises MessageMalformed: a line is malformed.
    """
    count = data.count(b"\n") - 2  # neither the request line nor the empty line
    if count > MAX_HEADERS or len(data) > MAX_LINE:
        _check_sizes(data)
    end = data.find(_END_OF_LINE)
    line = first_line(data[:end])
    found: dict[bytes, bytes] = {}
    try:
        # A method of `dict` receives the header fields, which takes no Python frame for each.
        HttpRequestParser(SimpleNamespace(on_header=found.setdefault)).feed_data(_LINE + data[end:])
    except HttpParserUpgrade:
        pass  # the offer of another protocol is ignored (RFC 9110, 7.8)
    except HttpParserError:
        return _read_lines(line, data)
    values = b"\n".join(found.values()).decode("latin-1").split("\n")  # decoding all at once is faster
    if len(values) != count:  # a name is repeated, and `setdefault` kept one value; or there are no fields
        return _read_lines(line, data)
    headers = dict(zip(map(lower, found), values, strict=True))
    if data.find(b" \r") >= 0 or data.find(b"\t\r") >= 0:  # llhttp keeps the whitespace after a value
        headers = {name: value.rstrip(" \t") for name, value in headers.items()}
    if len(headers) != count:  # a name is repeated with other capitals
        return _read_lines(line, data)
    return RequestHead(line, headers, found.items(), len(data))


class _Completion:
    """
    Callbacks of llhttp that record whether it parsed all header fields.

    :ivar is_complete: whether it did. llhttp may refuse the transfer coding after that, which `body_length` checks.
    """

    is_complete = False

    def on_headers_complete(self) -> None:
        """Called after the empty line."""
        self.is_complete = True


def _read_lines(line: RequestLine, data: bytes) -> RequestHead:
    """
    Return a head parsed line by line: one with repeated fields, or one that llhttp refuses, to name the invalid line.

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
    """Refuse a head that exceeds a limit."""
    line, *headers = data.split(_END_OF_LINE)
    if len(line) > MAX_LINE:
        raise TargetTooLong(f"the request line is longer than {MAX_LINE} bytes")
    if len(data) > MAX_HEAD or len(headers) - 2 > MAX_HEADERS or max(map(len, headers)) > MAX_LINE:
        raise HeadersTooLarge(f"{_TOO_LARGE} {MAX_LINE}")


class PartialHead:
    """A head that arrives in pieces. Invalid bytes are refused as soon as they arrive."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._line = 0  # where the first incomplete line begins
        self._lines = 0  # number of lines before it

    def add(self, data: bytes) -> tuple[bytes, bytes] | None:
        """
        Return the head and the bytes after it, or None while the head is not complete.

        :raises Refused: the errors of `parse_head`.
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
        """Check each complete line once, and the incomplete one."""
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
        """Check the limits up to the position ``end``, which is in the line that begins at ``_line``."""
        if end - self._line > MAX_LINE and self._lines == 0:
            raise TargetTooLong(f"the request line is longer than {MAX_LINE} bytes")
        if end - self._line > MAX_LINE or end > MAX_HEAD or self._lines > MAX_HEADERS + 1:
            raise HeadersTooLarge(f"{_TOO_LARGE} {MAX_LINE}")
