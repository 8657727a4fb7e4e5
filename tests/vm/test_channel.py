"""The server's end of a channel: what is sent leaves in order, one packet a turn, and large bodies are not copied."""

from __future__ import annotations

import os
import socket
import sys
import tracemalloc
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from harn.vm.channel import Channel
from harn.vm.child.guard import DATA
from harn.vm.frames import LARGE, Begin, Cancel, Done, FrameReader, ToChild, packet

MIB = 1 << 20
OLD, NEW = 10, 11


def begin(number: int, body: bytes) -> Begin:
    """Make a frame that begins a call."""
    return Begin(number, "m:f", None, "gh@v1", "gh", 1, 30.0, None, "", b"{}", body)


class ChannelTests(SynchronousTestCase):
    """The test is the channel's user."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.came: list[bytes] = []
        self.answers = False
        self.channel = Channel(self.reactor, ours.detach(), self, DATA)
        self.addCleanup(self.channel.close)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See `IChannelUser.childDataReceived`."""
        self.came.append(data)
        if self.answers:
            self.channel.send(Cancel(2))

    def childConnectionLost(self, childFD: int) -> None:
        """See `IChannelUser.childConnectionLost`."""
        self.came.append(b"")

    def received(self) -> list[Any]:
        """End the turn, and run the channel until it has nothing left to write; return the frames that came out."""
        self.reactor.advance(0)
        reader = FrameReader(ToChild, 64 * MIB)
        frames = reader.feed(self.theirs.recv(MIB))
        while self.channel in self.reactor.writers:
            self.channel.doWrite()
            frames += reader.feed(self.theirs.recv(MIB))
        return frames

    def test_in_order(self) -> None:
        """Small and large frames come out whole, in the order in which they were sent."""
        sizes = [10, LARGE + 1, LARGE + 1, LARGE, 3 * MIB, 0]
        sent: list[Any] = [begin(number, os.urandom(size)) for number, size in enumerate(sizes)]
        sent[3:3] = [Cancel(1), Cancel(2)]
        for frame in sent:
            self.channel.send(frame)
        self.assertEqual(self.received(), sent)
        self.channel.send(Cancel(3))
        self.assertEqual(self.received(), [Cancel(3)])

    def test_not_copied(self) -> None:
        """What waits to be written takes no memory beside the bodies themselves."""
        body = os.urandom(4 * MIB)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(8):
            self.channel.send(begin(number, body))
            self.reactor.advance(0)
        self.assertLess(tracemalloc.get_traced_memory()[1], MIB)

    def test_closed(self) -> None:
        """Once it is closed it holds nothing, and takes nothing more."""
        body = os.urandom(MIB)
        holders = sys.getrefcount(body)
        self.channel.send(begin(1, body))
        self.channel.close()
        self.channel.send(begin(2, body))
        self.assertEqual((sys.getrefcount(body), self.reactor.writers), (holders, set()))

    def test_answers_of_the_same_turn(self) -> None:
        """At the end of a turn what has come is received before, and what it makes be sent leaves with the rest."""
        self.answers = True
        self.theirs.sendall(packet(Done(1, None)))
        self.channel.send(Cancel(1))
        self.assertEqual(self.received(), [Cancel(1), Cancel(2)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_exchange(self) -> None:
        """In a turn that continues, what has come is received, and what waits and what that makes be sent leaves."""
        self.answers = True
        self.theirs.sendall(packet(Done(1, None)))
        self.channel.send(Cancel(1))
        self.channel.exchange()
        self.assertEqual(FrameReader(ToChild, MIB).feed(self.theirs.recv(MIB)), [Cancel(1), Cancel(2)])
        self.reactor.advance(0)
        self.theirs.setblocking(False)
        self.assertRaises(BlockingIOError, self.theirs.recv, 1)
        self.channel.close()
        self.channel.exchange()
        self.assertEqual(self.came, [packet(Done(1, None))])

    def test_lost_at_the_end_of_a_turn(self) -> None:
        """The end of the other side is noticed once, and what waits is dropped."""
        self.channel.send(Cancel(1))
        self.theirs.close()
        self.reactor.advance(0)
        self.channel.send(Cancel(2))
        self.reactor.advance(0)
        self.assertEqual((self.came, self.channel.fileno(), self.reactor.getDelayedCalls()), ([b""], -1, []))


class DescriptorTests(SynchronousTestCase):
    """The system gives the number of a closed descriptor to the next one that is opened."""

    def setUp(self) -> None:
        """Open two, with two channels."""
        self.reactor: Any = EPollReactor()
        self.lost: list[int] = []
        self.ends = [os.pipe() for _ in range(2)]
        self.pair = [self.channel(OLD, reading) for reading, _ in self.ends]

    def channel(self, number: int, descriptor: int) -> Channel:
        """Make a channel of this number."""
        channel = Channel(self.reactor, descriptor, self, number)
        self.addCleanup(channel.close)
        return channel

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See `IChannelUser.childDataReceived`."""

    def childConnectionLost(self, childFD: int) -> None:
        """See `IChannelUser.childConnectionLost`. With the first, close all, and open others."""
        self.lost.append(childFD)
        for each in self.pair:
            each.close()
        for _ in self.ends:
            reading, writing = os.pipe()
            self.addCleanup(os.close, writing)
            self.channel(NEW, reading)

    def test_no_event_of_another(self) -> None:
        """An event of a channel that is closed in the same turn does not reach what is opened next."""
        for _, writing in self.ends:
            os.close(writing)
        self.reactor.doIteration(0)
        self.assertEqual(self.lost, [OLD])
        self.reactor.runUntilCurrent()
        for reading, _ in self.ends:
            self.assertRaises(OSError, os.fstat, reading)
