"""
Reading of many connections in one call of the reactor.

A reactor calls each connection that has bytes within a context of Twisted's log, and looks it up in its own tables:
that costs as much as reading the head of a request. Here an epoll of our own watches the connections of a port, and the
reactor watches that one; when it is readable, all that have bytes are read one after the other. Writing, which is rare
(`harn.listener.channel.HarnChannel.write` sends answers itself), is left to the reactor.
"""

# ruff: noqa: N802
# Names are those of twisted, whose own functions are not all typed.
# mypy: allow-untyped-calls
from __future__ import annotations

import select
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger(namespace="harn.listener")


@implementer(IReadDescriptor)
class Readers:
    """
    The connections of a port that are to be read.

    The reactor has it as a reader while there are any, so that a port without connections leaves nothing behind.

    :param reactor: an ``IReactorFDSet``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._poll = select.epoll()
        self._reading: dict[int, Any] = {}

    def add(self, connection: Any) -> None:
        """Read a connection whenever it has bytes."""
        number = connection.fileno()
        if number in self._reading:
            return
        self._poll.register(number, select.EPOLLIN)
        self._reading[number] = connection
        if len(self._reading) == 1:
            self._reactor.addReader(self)

    def remove(self, connection: Any) -> None:
        """Stop reading a connection; it is not an error if it is not read."""
        number = connection.fileno()
        if self._reading.get(number) is not connection:
            return
        del self._reading[number]
        self._poll.unregister(number)
        if not self._reading:
            self._reactor.removeReader(self)

    # For the reactor

    def fileno(self) -> int:
        """Return the descriptor that is readable while any connection is."""
        return self._poll.fileno()

    def logPrefix(self) -> str:
        """Return the name in Twisted's log."""
        return "connections"

    def doRead(self) -> None:
        """Read each connection that has bytes, or has ended."""
        reading = self._reading
        for number, event in self._poll.poll(0, len(reading) or 1):
            connection = reading.get(number)
            if connection is None:  # one before it has ended it
                continue
            try:
                why = connection.doRead() if event & select.EPOLLIN else CONNECTION_DONE
            except Exception as error:
                log.failure("a connection failed")
                why = error
            if why:
                try:
                    _end_reading(connection, why)
                except Exception:  # the reactor would end this, and with it every connection of the port
                    log.failure("ending a connection failed")

    def connectionLost(self, reason: Failure) -> None:
        """Called when the reactor ends, with every connection still open."""
        for connection in list(self._reading.values()):
            try:
                connection.connectionLost(reason)
            except Exception:
                log.failure("ending a connection failed")


def _end_reading(connection: Any, why: BaseException) -> None:
    """End a connection, or its reading where its client has only ended its own side; as a reactor does."""
    connection.stopReading()
    if isinstance(why, ConnectionDone):
        connection.readConnectionLost(Failure(why))
        return
    connection.stopWriting()
    connection.connectionLost(Failure(why))


class ReadTogether(Server):
    """A connection that its port's `Readers` read."""

    server: Any

    def startReading(self) -> None:
        """Add the connection to those that are read whenever there are bytes."""
        self.server.readers.add(self)

    def stopReading(self) -> None:
        """Remove it from them."""
        self.server.readers.remove(self)
