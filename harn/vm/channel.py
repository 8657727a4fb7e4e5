"""
One end of a pipe or socket, read and written by the reactor: frames sent in one reactor turn leave with one system
call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.vm.frames import Begin, append_frame, append_head

READ_SIZE = 262144
LARGE = 65536
"""Bodies of at least so many bytes are not copied into a frame, but written from where they are."""
LAST_READS = 64
"""The most reads after the end; another process that holds the other end of a pipe may write to it for ever."""


def _nothing() -> None:
    pass


def _ignore(data: bytes) -> None:
    pass


@implementer(IReadWriteDescriptor)
class Channel:
    """
    A descriptor that this object owns.

    :ivar received: called with each piece that arrives.
    :ivar lost: called once, when the other end is closed.
    """

    def __init__(
        self, reactor: Any, descriptor: int, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        """Begin to read. ``reactor`` is an ``IReactorFDSet`` and an ``IReactorTime``."""
        os.set_blocking(descriptor, False)
        self.received = received
        self.lost = lost
        self._reactor = reactor
        self._descriptor = descriptor
        self._outgoing: deque[bytearray | memoryview] = deque()
        self._writing = False
        reactor.addReader(self)

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame together with the other frames of this turn; on a closed channel do nothing."""
        if self._descriptor < 0:
            return
        if not self._outgoing or isinstance(self._outgoing[-1], memoryview):
            self._outgoing.append(bytearray())
        tail = self._outgoing[-1]
        assert isinstance(tail, bytearray)
        if type(frame) is Begin and len(frame.body) > LARGE:
            append_head(tail, frame)
            self._outgoing.append(memoryview(frame.body))
        else:
            append_frame(tail, frame)
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def close(self) -> None:
        """
        Stop reading and writing; unsent data is dropped. The descriptor is closed before the reactor polls again.

        Not at once: the reactor may have an event of this descriptor in hand, as of a pipe whose other end was closed,
        and a connection that is accepted meanwhile gets the number of one that is closed, and with it that event: it
        would be taken for a client that has gone.
        """
        if self._descriptor < 0:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        descriptor, self._descriptor = self._descriptor, -1
        self._reactor.callLater(0, os.close, descriptor)
        self._outgoing.clear()

    def finish(self) -> None:
        """
        Read what is left in a pipe or socket whose other end is gone, up to a limit, and close; ``lost`` is not called.
        """
        self.lost = _nothing
        for _ in range(LAST_READS):
            if self._descriptor < 0 or not self._read():
                break
        self.close()
        self.received = _ignore

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:  # a reset: the other process was killed
            data = b""
        if data:
            self.received(data)
            return True
        self.close()
        self.lost()
        return False

    # For the reactor

    def fileno(self) -> int:
        """Return the descriptor; -1 when it is closed."""
        return self._descriptor

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """Return the name for Twisted's log."""
        return "interpreter"

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Read once."""
        self._read()

    def doWrite(self) -> None:  # noqa: N802 - Twisted's name
        """Write as much as the system accepts."""
        try:
            sent = os.write(self._descriptor, self._outgoing[0])
        except BlockingIOError:
            return
        except OSError:  # the other end is gone, which the reading side reports
            self._outgoing.clear()
        else:
            self._sent(sent)
        if not self._outgoing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _sent(self, count: int) -> None:
        first = self._outgoing[0]
        if count == len(first):
            self._outgoing.popleft()
        elif isinstance(first, bytearray):
            del first[:count]
        else:
            self._outgoing[0] = first[count:]

    def connectionLost(self, reason: Failure) -> None:
        """Close, since the reactor stops or found the descriptor broken."""
        if self._descriptor >= 0:
            self.close()
            self.lost()
