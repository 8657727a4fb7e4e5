"""
An answer that continues: pieces are sent while its connection is open, for pages that show what happens.

The connection serves nothing after it: the end of the body is that of the connection (RFC 9112, 6.3). It holds up
neither a stop nor a hand-over, which end it immediately; a client that reads nothing for `Limits.unread` is cut off.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from harn.errors import ShuttingDown
from harn.listener.phases import STREAMING

if TYPE_CHECKING:
    from harn.listener.channel import HarnChannel
    from harn.listener.request import HarnRequest


class Stream:
    """The body of such an answer."""

    def __init__(self, channel: HarnChannel | None) -> None:
        self._channel = channel

    @property
    def is_open(self) -> bool:
        """Return whether a client still listens."""
        channel = self._channel
        return channel is not None and channel.phase is STREAMING and channel in channel.site.channels

    @property
    def is_full(self) -> bool:
        """Return whether the client must first read what was sent before: nothing more is sent until then."""
        return self._channel is not None and self._channel.read_by != inf

    def send(self, piece: bytes) -> bool:
        """Send a piece; return False, having sent nothing, while the stream is full, or when it has ended."""
        if not self.is_open or self.is_full:
            return False
        assert self._channel is not None
        self._channel.write(piece)
        return True

    def end(self) -> None:
        """End the body and with it the connection, after what was sent."""
        if self.is_open:
            assert self._channel is not None
            self._channel.end()
        self._channel = None


def begin_stream(request: HarnRequest, content_type: bytes, headers: bytes = b"") -> Stream:
    """
    Answer a request with a body that continues; the request is over when this returns.

    :param headers: further header lines, each ending in CRLF.
    :raises ShuttingDown: the server is going down, or another process takes its place.
    """
    channel = request.channel
    if request.site.closes:
        raise ShuttingDown("the server is shutting down, and begins no stream")
    if channel is not None:
        channel.begin_stream()
    request.send(200, b"", content_type, headers)
    return Stream(channel)
