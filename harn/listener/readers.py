"""
Reading from many connections in one call by the reactor.

For each readable connection the reactor looks up its tables and sets a context of Twisted's log, which costs as much as
parsing the head of a request. Instead, an epoll of our own polls the connections of a port, and the reactor polls the
descriptor of that epoll. When it is readable, all readable connections are read one after the other. The reactor does
the writing, which is rare, as `harn.listener.channel.HarnChannel.write` sends responses directly.
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
    The connections of a port from which bytes are read.

    It is a reader of the reactor only while there are connections, so that it need not be closed after the last one.

    :param reactor: an ``IReactorFDSet``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._poll = select.epoll()
        self._reading: dict[int, Any] = {}

    def add(self, connection: Any) -> None:
        """Read from a connection whenever it is readable."""
        number = connection.fileno()
        if number in self._reading:
            return
        self._poll.register(number, select.EPOLLIN)
        self._reading[number] = connection
        if len(self._reading) == 1:
            self._reactor.addReader(self)

    def remove(self, connection: Any) -> None:
        """Stop reading from a connection; do nothing if it was not added."""
        number = connection.fileno()
        if self._reading.get(number) is not connection:
            return
        del self._reading[number]
        self._poll.unregister(number)
        if not self._reading:
            self._reactor.removeReader(self)

    # For the reactor

    def fileno(self) -> int:
        """Return the epoll's descriptor, which is readable while any connection is."""
        return self._poll.fileno()

    def logPrefix(self) -> str:
        """Return the name in Twisted's log."""
        return "connections"

    def doRead(self) -> None:
        """Read from each connection that has bytes or was closed."""
        reading = self._reading
        for number, event in self._poll.poll(0, len(reading) or 1):
            connection = reading.get(number)
            if connection is None:  # the processing of an earlier one has ended it
                continue
            try:
                why = connection.doRead() if event & select.EPOLLIN else CONNECTION_DONE
            except Exception as error:
                log.failure("a connection failed")
                why = error
            if why:
                try:
                    _end_reading(connection, why)
                except Exception:  # else the reactor would remove this reader, and end every connection of the port
                    log.failure("ending a connection failed")

    def connectionLost(self, reason: Failure) -> None:
        """Called when the reactor stops, for the connections that are still open."""
        for connection in list(self._reading.values()):
            try:
                connection.connectionLost(reason)
            except Exception:
                log.failure("ending a connection failed")


def _end_reading(connection: Any, why: BaseException) -> None:
    """End a connection, or only reading if the client has closed its sending side, as a reactor does."""
    connection.stopReading()
    if isinstance(why, ConnectionDone):
        connection.readConnectionLost(Failure(why))
        return
    connection.stopWriting()
    connection.connectionLost(Failure(why))


class ReadTogether(Server):
    """A connection that the `Readers` of its port read."""

    server: Any

    def startReading(self) -> None:
        """Add the connection to the `Readers`."""
        self.server.readers.add(self)

    def stopReading(self) -> None:
        """Remove the connection from the `Readers`."""
        self.server.readers.remove(self)
