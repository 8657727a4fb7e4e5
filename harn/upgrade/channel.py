"""
The channel between the old program and the new one: a socket pair with one message a line.

The new program sends `READY` when it could serve. When the old one accepts no more connections, it sends `TAKE_OVER`;
the new one then accepts them, and sends `TAKEN`: until then the old one can go on. `MAIN` says that the service manager
was given the new program's process id. That the channel closes says that the other program has ended or given up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from harn.upgrade.program import HandoverFailed

READY, TAKE_OVER, TAKEN, MAIN = b"serves", b"yours", b"taken", b"main"
"""As sent. A version never changes them: the other program may be an older or newer one."""
LONGEST_MESSAGE = 64


class HandoverChannel(Protocol):
    """
    One end of the channel.

    :ivar received: called with each message of the other program.
    :ivar lost: called once, when the other end is closed.
    """

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.received = received
        self.lost = lost
        self._buffer = b""

    @classmethod
    def open(
        cls, reactor: Any, descriptor: int, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> HandoverChannel:
        """
        Begin to read from an end; the descriptor is taken over.

        :param reactor: an ``IReactorSocket``.
        :raises HandoverFailed: it is not an end of a socket pair.
        """
        channel = cls(received, lost)
        try:
            with socket.socket(fileno=descriptor) as end:
                end.setblocking(False)
                reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _ChannelFactory(channel))
        except OSError as error:
            raise HandoverFailed(
                f"descriptor {descriptor} must be an end of a socket pair, got: {error.strerror}"
            ) from None
        return channel

    def send(self, message: bytes) -> None:
        """Send a message; nothing is sent once the other end is closed."""
        if self.transport is not None:
            self.transport.write(message + b"\n")

    def close(self) -> None:
        """Close this end."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Buffer input and pass on complete lines; the rest of a line that is too long is dropped."""
        *messages, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[:LONGEST_MESSAGE]
        for message in messages:
            self.received(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the other end is closed."""
        self.transport = None
        self.lost()


class _ChannelFactory(Factory):
    """Returns the one protocol that there is."""

    noisy = False

    def __init__(self, channel: HandoverChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: IAddress | None) -> HandoverChannel:  # noqa: N802 - Twisted's name
        return self._channel
