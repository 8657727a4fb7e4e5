"""
Incremental decoding of a request's body: of a known length, or chunked (RFC 9112, 7.1).

Decoding stops exactly at the end of the body, so that bytes of the next request are not consumed. llhttp does not
decode chunks here: through httptools it cannot stop at that point, and it does not limit extensions and trailers.
"""

from __future__ import annotations

import re
from typing import Protocol

from harn.errors import MessageMalformed
from harn.listener.framing import check_trailer, has_bare_end

MAX_CHUNK_LINE = 1024
"""The longest line with a chunk's size and extensions (bytes)."""
MAX_TRAILERS = 64 * 1024
"""The largest trailer section (bytes)."""
_END_OF_LINE = b"\r\n"
_SIZE_LINE, _EMPTY_LINE, _TRAILER = "size", "empty", "trailer"
"""The next line: a chunk's size; the line's end after its data; a trailer field, or the empty line at the end."""
# Extensions are ignored, so it is enough that no server can find a line's end in them.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_MALFORMED = "the chunks of the body are malformed"


class Body(Protocol):
    """
    A decoder of one body.

    :ivar is_complete: whether the whole body has arrived.
    """

    is_complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Return the decoded content in ``data``, and the bytes that follow the end of the body.

        :raises MessageMalformed: the framing of the body is malformed.
        """


class SizedBody:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_complete = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Body.feed`."""
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self.is_complete = self._left == 0
        return piece, rest


class ChunkedBody:
    """A body in chunks."""

    def __init__(self) -> None:
        self.is_complete = False
        self._expected = _SIZE_LINE
        self._held = b""  # a line that has no end yet
        self._left = 0  # bytes of the present chunk
        self._trailers = 0  # bytes

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Body.feed`."""
        data = self._held + data
        pieces: list[bytes] = []
        start = 0
        while not self.is_complete and start < len(data):
            if self._left:
                piece = data[start : start + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                start += len(piece)
                continue
            end = data.find(_END_OF_LINE, start)
            if end < 0:
                break
            self._read_line(data[start:end])
            start = end + 2
        rest = data[start:]
        if not self.is_complete:
            self._hold(rest)
            rest = b""
        return b"".join(pieces), rest

    def _hold(self, line: bytes) -> None:
        """Keep an incomplete line, unless it is too long or malformed already."""
        limit = MAX_CHUNK_LINE
        if self._expected is _EMPTY_LINE:
            limit = 1
        elif self._expected is _TRAILER:
            limit = MAX_TRAILERS - self._trailers
        if len(line) > limit or has_bare_end(line):
            raise MessageMalformed(_MALFORMED)
        self._held = line

    def _read_line(self, line: bytes) -> None:
        """Read a line of the framing: a chunk's size, a line's end, or a trailer field."""
        if self._expected is _SIZE_LINE:
            match = _SIZE.fullmatch(line)
            if match is None or len(line) > MAX_CHUNK_LINE:
                raise MessageMalformed(_MALFORMED)
            self._left = int(match[1], 16)
            self._expected = _EMPTY_LINE if self._left else _TRAILER
        elif self._expected is _EMPTY_LINE:
            if line:
                raise MessageMalformed(_MALFORMED)
            self._expected = _SIZE_LINE
        elif line:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS:
                raise MessageMalformed(f"the trailers after the chunks are larger than {MAX_TRAILERS} bytes")
            check_trailer(line)
        else:
            self.is_complete = True
