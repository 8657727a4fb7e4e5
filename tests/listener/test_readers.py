"""Connections that are read together: whatever happens to one, the others are read, and nothing is left behind."""

from __future__ import annotations

import select
import socket
from typing import Any
from unittest import SkipTest

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.listener.readers import Readers


class _Reactor:
    """Keeps which readers there are."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)


class _Connection:
    """Reads one byte from its end of a pair of sockets; ``outcome`` says how it continues."""

    def __init__(self, readers: Readers) -> None:
        self.readers = readers
        self.own, self.peer = socket.socketpair()
        self.fileno = self.own.fileno
        self.seen: list[Any] = []
        self.outcome: Any = None

    def doRead(self) -> Any:
        self.seen.append(self.own.recv(1))
        return self.outcome() if callable(self.outcome) else self.outcome

    def startReading(self) -> None:
        self.readers.add(self)

    def stopReading(self) -> None:
        self.readers.remove(self)

    def stopWriting(self) -> None:
        self.seen.append("not written")

    def readConnectionLost(self, reason: Failure) -> None:
        self.seen.append(reason.check(ConnectionDone))

    def connectionLost(self, reason: Failure) -> None:
        self.stopReading()
        self.seen.append(reason.type)


class ReadersTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not hasattr(select, "epoll"):
            raise SkipTest("there is no epoll here")
        self.reactor = _Reactor()
        self.readers = Readers(self.reactor)
        self.connections = [self.connect() for _ in range(3)]

    def connect(self) -> _Connection:
        """Make a connection that is read, with two bytes to read."""
        connection = _Connection(self.readers)
        self.addCleanup(connection.own.close)
        self.addCleanup(connection.peer.close)
        connection.startReading()
        connection.peer.send(b"ab")
        return connection

    def seen(self) -> list[list[Any]]:
        """Return the bytes that each connection has received."""
        return [connection.seen for connection in self.connections]

    def test_all_in_one_call(self) -> None:
        """One call of the reactor reads each connection that has bytes, once; one that is added twice as well."""
        verifyObject(IReadDescriptor, self.readers)
        self.connections[0].startReading()
        self.readers.doRead()
        self.assertEqual(self.seen(), [[b"a"], [b"a"], [b"a"]])
        self.readers.doRead()
        self.readers.doRead()
        self.assertEqual(self.seen(), [[b"a", b"b"]] * 3)

    def test_reactor(self) -> None:
        """The reactor has one reader while any connection is to be read, and none after that."""
        self.assertEqual(self.reactor.readers, [self.readers])
        for connection in self.connections:
            connection.stopReading()
            connection.stopReading()
        self.assertEqual(self.reactor.readers, [])
        self.connections[1].startReading()
        self.assertEqual(self.reactor.readers, [self.readers])
        self.readers.doRead()
        self.assertEqual(self.seen(), [[], [b"a"], []])

    def test_ends(self) -> None:
        """A client's end ends the reading alone; a lost connection, and one that raises, are ended; others continue."""
        first, second, third = self.connections
        first.outcome, second.outcome = CONNECTION_DONE, CONNECTION_LOST

        def fail() -> None:
            raise ValueError("broken")

        third.outcome = fail
        fourth = self.connect()
        self.readers.doRead()
        self.assertEqual(first.seen, [b"a", ConnectionDone])
        self.assertEqual(second.seen, [b"a", "not written", ConnectionLost])
        self.assertEqual(third.seen, [b"a", "not written", ValueError])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.readers.doRead()
        self.assertEqual((len(first.seen), fourth.seen), (2, [b"a", b"b"]))

    def test_ending_fails(self) -> None:
        """A connection whose end raises is logged, and the others are read all the same."""
        first, second, third = self.connections

        def lost(reason: Failure) -> None:
            raise ValueError("broken")

        for connection in (first, second):
            connection.outcome = CONNECTION_LOST
            self.patch(connection, "connectionLost", lost)
        self.readers.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.assertEqual((first.seen, third.seen), ([b"a", "not written"], [b"a"]))
        self.readers.doRead()
        self.assertEqual((len(second.seen), third.seen), (2, [b"a", b"b"]))

    def test_ended_by_another(self) -> None:
        """A connection that an earlier one ends in the same call is not read any more."""

        def end_others(this: _Connection) -> None:
            for connection in self.connections:
                if connection is not this:
                    connection.stopReading()

        for connection in self.connections:
            connection.outcome = lambda this=connection: end_others(this)
        self.readers.doRead()
        self.assertEqual(sum(map(len, self.seen())), 1)

    def test_reactor_ends(self) -> None:
        """Where the reactor ends, every connection is lost."""
        self.readers.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(self.seen(), [[ConnectionLost]] * 3)
        self.assertEqual(self.reactor.readers, [])

    def test_reactor_ends_and_one_fails(self) -> None:
        """Also those after one whose end raises."""

        def lost(reason: Failure) -> None:
            raise ValueError("broken")

        self.patch(self.connections[0], "connectionLost", lost)
        self.readers.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(self.seen(), [[], [ConnectionLost], [ConnectionLost]])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
