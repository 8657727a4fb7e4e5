"""One end of a pipe or socket, read and written by the reactor: frames sent in one turn leave in one packet."""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Protocol

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.vm.frames import PacketWriter

READ_SIZE = 262144
LAST_READS = 64
"""The most reads after the end; another process that holds the other end of a pipe may write to it for ever."""


class IChannelUser(Protocol):
    """The part of a ``ProcessProtocol`` that a channel calls, as a transport calls it for the pipes to a process."""

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's names
        """Called with each piece that arrives."""

    def childConnectionLost(self, childFD: int) -> None:  # noqa: N802, N803 - Twisted's names
        """Called once, when the other end is closed."""


@implementer(IReadWriteDescriptor)
class Channel:
    """
    A descriptor that this object owns.

    What was sent in a turn of the reactor leaves at its end, before the reactor looks at other descriptors: however
    many requests wait there, the other process need not wait for its work. Its answers that have come meanwhile are
    read at the same moment, for the same reason.

    :param reactor: an ``IReactorFDSet`` and ``IReactorTime``.
    :param child_descriptor: the child's descriptor of the other end, which the user gets with each call.
    """

    def __init__(self, reactor: Any, descriptor: int, user: IChannelUser, child_descriptor: int) -> None:
        """Begin to read."""
        os.set_blocking(descriptor, False)
        self._user = user
        self._child_descriptor = child_descriptor
        self._is_finished = False
        self._reactor = reactor
        self._descriptor = descriptor
        self._frames = PacketWriter()
        self._outgoing: deque[bytes | memoryview] = deque()
        self._turn_end: IDelayedCall | None = None
        reactor.addReader(self)

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame together with the other frames of this turn; on a closed channel do nothing."""
        if self._descriptor < 0:
            return
        self._frames.add(frame)
        if self._turn_end is None:
            self._turn_end = self._reactor.callLater(0, self._turn_ends)

    def close(self) -> None:
        """
        Stop reading and writing; unsent data is dropped. The descriptor is closed before the reactor polls again.

        Not immediately: the reactor may be handling an event of this descriptor, as of a pipe whose other end was
        closed, and a connection that is accepted meanwhile gets the number of one that is closed, and with it that
        event: it would be taken for a client that has gone.
        """
        if self._descriptor < 0:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._turn_end is not None:
            self._turn_end.cancel()
            self._turn_end = None
        descriptor, self._descriptor = self._descriptor, -1
        self._reactor.callLater(0, os.close, descriptor)
        self._frames.take()
        self._outgoing.clear()

    def finish(self) -> None:
        """
        Read the rest of a pipe or socket whose other end is gone, up to a limit, and close; the end is not reported.
        """
        self._is_finished = True
        for _ in range(LAST_READS):
            if self._descriptor < 0 or not self._read():
                break
        self.close()

    def exchange(self) -> None:
        """Read the bytes that have arrived, and write those that wait and those that they cause, now."""
        if self._descriptor >= 0:
            self._read()
        if self._descriptor >= 0 and not self._write():
            self._reactor.addWriter(self)

    def _turn_ends(self) -> None:
        self._turn_end = None
        self.exchange()
        if self._turn_end is not None:  # what was received has made something be sent, which has left
            self._turn_end.cancel()
            self._turn_end = None

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:  # a reset: the other process was killed
            data = b""
        if data:
            self._user.childDataReceived(self._child_descriptor, data)
            return True
        self.close()
        self._lost()
        return False

    def _lost(self) -> None:
        if not self._is_finished:
            self._user.childConnectionLost(self._child_descriptor)

    def _write(self) -> bool:
        """Write as much as the system accepts; return whether that was everything."""
        outgoing = self._outgoing
        outgoing += self._frames.take()
        try:
            while outgoing:
                first = outgoing[0]
                sent = os.write(self._descriptor, first)
                if sent == len(first):
                    outgoing.popleft()
                else:
                    outgoing[0] = memoryview(first)[sent:]
        except BlockingIOError:
            return False
        except OSError:  # the other end is gone, which the reading side reports
            outgoing.clear()
        return True

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
        if self._write():
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """Close, since the reactor stops or found the descriptor broken."""
        if self._descriptor >= 0:
            self.close()
            self._lost()
