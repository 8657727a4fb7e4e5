"""A worker's connection to its supervisor."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from harn.workers.link import ALIVE, LAST, RETIRE, STOP, SupervisorLink


class SocketsWithClock(Clock):
    """The real reactor's sockets, with a time that the test moves."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class SupervisorLinkTests(TestCase):
    """The test is the server's life, and holds the supervisor's end."""

    def setUp(self) -> None:
        """Open a link."""
        self.calls: list[str] = []
        self.is_ending = False
        self.clock = SocketsWithClock()
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.link = SupervisorLink(self.clock, ours.detach())
        self.link.begin(self)
        self.addCleanup(self.link.close)

    def terminate(self) -> None:
        """See `IWorkerLife.terminate`."""
        self.is_ending = True
        self.calls.append("terminate")

    def retire(self) -> None:
        """See `IWorkerLife.retire`."""
        self.is_ending = True
        self.calls.append("retire")

    def end_at_once(self) -> None:
        """See `IWorkerLife.end_at_once`."""
        self.calls.append("end")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for turns of the reactor until the condition holds."""
        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0)
        self.fail("it did not come")

    async def test_stop(self) -> None:
        """Asked twice, it begins to end once; then the supervisor's own end ends it at once."""
        self.theirs.send(STOP + b"\n" + STOP + b"\n")
        await self.until(lambda: self.calls)
        self.assertEqual(self.calls, ["terminate"])
        self.theirs.close()
        await self.until(lambda: len(self.calls) > 1)
        self.assertEqual(self.calls, ["terminate", "end"])

    async def test_retire(self) -> None:
        """Asked to retire, it does that."""
        self.theirs.send(RETIRE + b"\n")
        await self.until(lambda: self.calls)
        self.assertEqual(self.calls, ["retire"])

    async def test_the_supervisor_is_gone(self) -> None:
        """It ends as if asked to, and at once where that takes too long."""
        self.theirs.close()
        await self.until(lambda: self.calls)
        self.assertEqual(self.calls, ["terminate"])
        self.clock.advance(LAST)
        self.assertEqual(self.calls, ["terminate", "end"])
        self.flushLoggedErrors()

    async def test_alive(self) -> None:
        """It sends twice within the limit of its silence that its reactor runs, until it is closed."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        theirs.setblocking(False)
        link = SupervisorLink(self.clock, ours.detach(), 10.0)
        link.begin(self)
        self.clock.advance(5.0)
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertEqual(theirs.recv(100), (ALIVE + b"\n") * 2)
        link.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_closed(self) -> None:
        """Once the server has closed it, what the supervisor does means nothing."""
        self.is_ending = True
        self.link.close()
        self.theirs.close()
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertEqual(self.calls, [])
