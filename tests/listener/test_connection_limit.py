"""More connections than there may be: who is closed, who is answered 503, and a port that does not spin."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.listener import connection_limit
from harn.listener.connection_limit import SURPLUS
from harn.listener.endpoint import Bind, listen
from harn.manifest.settings import AdmissionSettings
from harn.testing.clients import Wire, request_bytes
from tests.listener.world import KEY, World, signed_post


class LimitCase(SynchronousTestCase):
    """A world that has room for three connections."""

    def setUp(self) -> None:
        self.world = World()
        self.world.configure(admission=AdmissionSettings(max_connections=3))
        self.limit = self.world.site.connection_limit

    def assert_served(self, wire: Wire) -> None:
        self.assertEqual((wire.send(signed_post("/hooks/gh")).answer().status, wire.closing), (200, False))

    def assert_refused(self, wire: Wire) -> None:
        answer = wire.answer()
        self.assertEqual((answer.status, answer.json()["title"]), (503, "Saturated"))
        self.assertEqual((answer.headers["retry-after"], answer.headers["connection"]), ("1", "close"))
        self.assertTrue(wire.closing)


class ClosedTests(LimitCase):
    """What waits longest is closed for a new connection."""

    def test_longest_idle(self) -> None:
        """The idle connection that was used least recently is closed without a word; the new one is served."""
        first, second, third = self.world.wire(), self.world.wire(), self.world.wire()
        self.world.advance(2)
        self.assert_served(first)
        self.world.advance(1)
        self.assert_served(second)
        self.world.advance(2)
        self.assert_served(self.world.wire())
        self.assertEqual((third.closing, third.raw()), (True, b""))
        third.drop()
        self.assert_served(self.world.wire())
        self.assertEqual((first.closing, first.raw(), second.closing), (True, b"", False))

    def test_used_meanwhile(self) -> None:
        """One that was found idle and is used since then is not closed."""
        wires = []
        for _ in range(3):
            wires.append(self.world.wire())
            self.world.advance(2)
        self.world.wire()
        self.assertTrue(wires[0].closing)
        wires[0].drop()
        self.assert_served(wires[1])
        self.world.wire()
        self.assertEqual((wires[1].closing, wires[2].closing), (False, True))

    def test_silent_before_used(self) -> None:
        """One that never said a word goes before one that was used, after a quarter of a second."""
        used = self.world.wire()
        self.assert_served(used)
        self.world.advance(2)
        silent = [self.world.wire(), self.world.wire()]
        self.world.clock.advance(0.3)
        self.world.wire()
        self.assertEqual((used.closing, [wire.closing for wire in silent].count(True)), (False, 1))

    def test_many(self) -> None:
        """Some are chosen at a time; when those are used up, others are."""
        self.patch(connection_limit, "_AT_ONCE", 2)
        wires = [self.world.wire() for _ in range(3)]
        self.world.advance(2)
        for _ in range(3):
            self.assert_served(self.world.wire())
        self.assertEqual([wire.closing for wire in wires], [True] * 3)

    def test_order(self) -> None:
        """First who has an answer and does not close, then the idle, then a head without end, then such a body."""
        body = self.world.wire().send(signed_post("/hooks/gh")[:-1])
        head = self.world.wire().send(b"POST /")
        answered = self.world.wire().send(request_bytes("GET", "/nope", {"Connection": "close"}))
        self.world.advance(3)
        idle = self.world.wire()
        self.assertTrue(answered.aborted)
        answered.drop()
        self.world.advance(3)
        self.assert_served(self.world.wire())
        self.assertEqual((idle.closing, head.closing, body.closing), (True, False, False))
        idle.drop()
        self.world.wire()
        self.assert_refused(head)
        self.assertFalse(body.closing)
        head.drop()
        self.world.wire()
        self.assert_refused(body)
        self.assertEqual((self.world.site.in_flight, self.world.admission.pending_bytes), (0, 0))


class RefusedTests(LimitCase):
    """Where every connection is busy, a new connection is answered 503."""

    def setUp(self) -> None:
        super().setUp()
        self.world.store.writer.held = True
        self.busy = [self.world.wire().send(signed_post("/hooks/gh")) for _ in range(3)]
        self.world.advance(10)

    def test_busy(self) -> None:
        """A busy connection is never closed for another; the new one gets 503 for its request, and is closed."""
        for data in (signed_post("/hooks/gh"), request_bytes("GET", "/admin/generation", {"X-API-Key": KEY})):
            self.assert_refused(self.world.wire().send(data))
        self.world.store.writer.release()
        self.assertEqual([wire.answer().status for wire in self.busy], [200, 200, 200])

    def test_pages(self) -> None:
        """A probe of liveness is answered, once for each connection."""
        wire = self.world.wire().send(request_bytes("GET", "/health"))
        answer = wire.answer()
        self.assertEqual((answer.status, answer.headers["connection"], wire.closing), (200, "close", True))

    def test_silent(self) -> None:
        """A client that sends nothing, or no complete request, is answered after a second."""
        wires = [self.world.wire(), self.world.wire().send(b"POST")]
        self.world.clock.advance(0.5)
        self.assertEqual([wire.raw() for wire in wires], [b"", b""])
        self.world.advance(2)
        for wire in wires:
            self.assert_refused(wire)

    def test_relieved(self) -> None:
        """When more wait to be accepted, a silent surplus connection is answered at once, an answered one closed."""
        wires = [self.world.wire() for _ in range(3)]
        answered = self.world.wire().send(signed_post("/hooks/gh"))
        self.assert_refused(answered)
        self.world.clock.advance(0.1)
        self.limit.relieve()
        self.assertEqual([wire.closing for wire in wires], [False] * 3)
        self.world.clock.advance(0.3)
        self.limit.relieve()
        for wire in wires:
            self.assert_refused(wire)
        self.assertTrue(answered.aborted)
        self.assertEqual([wire.closing for wire in self.busy], [False] * 3)

    def test_room_again(self) -> None:
        """When one ends, the next is served."""
        self.busy[0].drop()
        self.world.store.writer.release()
        self.assert_served(self.world.wire())

    def test_room(self) -> None:
        """A few more are accepted than the limit, so that they can be answered; the rest have to wait."""
        self.assertEqual(self.limit.room, SURPLUS)
        self.world.wire()
        self.assertEqual(self.limit.room, SURPLUS - 1)

    def test_less_than_configured(self) -> None:
        """The limit of open files may allow less, never more."""
        self.limit.allow(2)
        self.assertEqual((self.limit.most, self.limit.room), (2, SURPLUS - 1))
        self.limit.allow(100)
        self.assertEqual(self.limit.most, 3)


class PortTests(TestCase):
    """The port, with real sockets."""

    def setUp(self) -> None:
        self.accepted: list[Protocol] = []
        self.limit = 2
        self.relieved = 0
        accepted = self.accepted

        class Kept(Protocol):
            def connectionMade(self) -> None:
                accepted.append(self)

        self.opened = listen(reactor, Bind("127.0.0.1", 0), Factory.forProtocol(Kept), limit=self)

    async def tearDown(self) -> None:  # type: ignore[override]
        for each in self.accepted:
            each.transport.abortConnection()  # type: ignore[union-attr]
        await self.opened.port.stopListening()
        await self.pause()

    @property
    def room(self) -> int:
        return self.limit - len(self.accepted)

    def relieve(self) -> None:
        self.relieved += 1

    def pause(self) -> Deferred[None]:
        return deferLater(reactor, 0)

    def connect(self) -> None:
        client = socket.create_connection(("127.0.0.1", self.opened.bind.port), 10)
        self.addCleanup(client.close)

    async def until_accepted(self, count: int) -> None:
        while len(self.accepted) < count:
            await self.pause()

    async def test_no_room(self) -> None:
        """As many are accepted as there is room for; the port rests, and takes the others when there is room again."""
        for _ in range(5):
            self.connect()
        await self.until_accepted(2)
        while self.opened.port in reactor.getReaders():
            await self.pause()
        self.assertEqual(len(self.accepted), 2)
        self.assertTrue(1 <= self.relieved <= 3)
        self.limit = 5
        await self.until_accepted(5)

    async def test_no_descriptors(self) -> None:
        """When nothing can be accepted though clients wait, the port rests instead of trying again and again."""
        asked: list[int] = []
        real: Any = self.opened.port.socket

        class Empty:
            def accept(self) -> None:
                asked.append(1)
                raise OSError(errno.ENFILE, "too many open files in system")

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        self.opened.port.socket = Empty()
        self.connect()
        while not asked:
            await self.pause()
        self.assertNotIn(self.opened.port, reactor.getReaders())
        self.opened.port.socket = real
        await self.until_accepted(1)
        self.assertLess(len(asked), 5)

    async def test_paused_while_it_rests(self) -> None:
        """A port that is left to another process stays so when its rest has ended."""
        self.limit = 0
        self.connect()
        while self.opened.port in reactor.getReaders():
            await self.pause()
        self.opened.pause()
        self.limit = 5
        while "_rested" in str(reactor.getDelayedCalls()):
            await self.pause()
        self.assertNotIn(self.opened.port, reactor.getReaders())
        self.opened.resume()
        await self.until_accepted(1)
