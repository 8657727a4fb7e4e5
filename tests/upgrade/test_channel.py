"""The channel between an old program and a new one: whole messages, and the end of the other side."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from harn.upgrade.interfaces import IChannelUser
from harn.upgrade.program import LONGEST_MESSAGE, HandoverChannel, HandoverFailed


@implementer(IChannelUser)
class HandoverChannelTests(TestCase):
    """The test is the user of one end."""

    def setUp(self) -> None:
        self.messages: list[Any] = []
        ours, theirs = socket.socketpair()
        self.theirs = theirs
        self.addCleanup(theirs.close)
        self.channel = HandoverChannel.open(reactor, ours.detach(), self)

    def message_received(self, message: bytes) -> None:
        """See `IChannelUser.message_received`."""
        self.messages.append(message)

    def channel_lost(self) -> None:
        """See `IChannelUser.channel_lost`."""
        self.messages.append(None)

    async def until(self, condition: Callable[[], Any]) -> None:
        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0)
        self.fail("it did not come")

    async def end(self) -> None:
        self.theirs.close()
        await self.until(lambda: None in self.messages)

    async def test_messages(self) -> None:
        """Messages arrive whole, in whatever pieces they come; the end of the other side is reported once."""
        for piece in (b"ser", b"ves\nyours", b"\n", b"half"):
            self.theirs.send(piece)
        await self.end()
        self.assertEqual(self.messages, [b"serves", b"yours", None])
        self.channel.send(b"anybody?")
        self.channel.close()

    async def test_sending(self) -> None:
        """A message is sent with its line end."""
        self.channel.send(b"yours")
        self.theirs.setblocking(False)
        received = bytearray()

        def has_received() -> bool:
            try:
                received.extend(self.theirs.recv(100))
            except BlockingIOError:
                return False
            return True

        await self.until(has_received)
        self.assertEqual(bytes(received), b"yours\n")
        await self.end()

    async def test_endless_message(self) -> None:
        """Of a line without end, no more than a message may have is buffered."""
        self.theirs.sendall(b"x" * 100_000)
        await self.until(lambda: len(self.channel._buffer) == LONGEST_MESSAGE)
        await self.end()
        self.assertEqual(self.messages, [None])

    async def test_no_channel(self) -> None:
        """A descriptor that is not a socket is refused."""
        descriptor = os.open(os.devnull, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        raised = self.assertRaises(HandoverFailed, HandoverChannel.open, reactor, descriptor, self)
        self.assertIn("must be an end of a socket pair", str(raised))
        await self.end()
