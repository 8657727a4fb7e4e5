"""
Streams: responses whose pieces are sent while the connection is open, for pages that follow events.

The body ends with the connection (RFC 9112, 6.3), which serves no further request. A stop or a hand-over ends a stream
at once, without waiting for it. The connection of a client that reads nothing for `Limits.unread` is aborted.
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
    """The body of a response that continues."""

    def __init__(self, channel: HarnChannel | None) -> None:
        self._channel = channel

    @property
    def is_open(self) -> bool:
        """Return whether the client is still connected."""
        channel = self._channel
        return channel is not None and channel.phase is STREAMING and channel in channel.site.channels

    @property
    def is_full(self) -> bool:
        """Return whether the send buffer is full: nothing more is sent until the client has read from it."""
        return self._channel is not None and self._channel.read_by != inf

    def send(self, piece: bytes) -> bool:
        """Send a piece and return True; if the stream is full or has ended, send nothing and return False."""
        if not self.is_open or self.is_full:
            return False
        assert self._channel is not None
        self._channel.write(piece)
        return True

    def end(self) -> None:
        """End the body by closing the connection, after the pieces sent so far."""
        if self.is_open:
            assert self._channel is not None
            self._channel.end()
        self._channel = None


def begin_stream(request: HarnRequest, content_type: bytes, headers: bytes = b"") -> Stream:
    """
    Begin a stream as the response to a request; the request has ended when this returns.

    :param headers: further field lines, each ending in CRLF.
    :raises ShuttingDown: the server is shutting down, or another process takes over.
    """
    channel = request.channel
    if request.site.closes:
        raise ShuttingDown("the server is shutting down, and begins no stream")
    if channel is not None:
        channel.begin_stream()
    request.send(200, b"", content_type, headers)
    return Stream(channel)
