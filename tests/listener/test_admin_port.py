"""A listener of its own for the server's own pages: what is served where, addresses, and sockets of the file system."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from harn.errors import ListenerUnusable
from harn.listener.admin_port import AdminAddress, AdminSocket, IAdminPort, OwnPages, make_admin_port
from harn.listener.endpoint import Bind
from harn.testing.clients import SocketClient, Wire, WireAnswer, request_bytes
from tests.listener.world import KEY, World, signed_post


class DivisionTests(SynchronousTestCase):
    """What each of the two listeners serves."""

    def setUp(self) -> None:
        self.world = World()
        self.world.site.is_divided = True

    def public(self, request: bytes) -> WireAnswer:
        """Send a request to the listener of triggers."""
        return self.world.wire().send(request).answer()

    def own(self, request: bytes) -> WireAnswer:
        """Send a request to the listener of the server's own pages."""
        return Wire(OwnPages(self.world.site)).send(request).answer()

    def test_own_pages(self) -> None:
        """Admin and metrics are on their own listener alone; on the other one the path is unknown, also with a key."""
        for target in ("/admin/generation", "/metrics"):
            request = request_bytes("GET", target, {"X-API-Key": KEY})
            self.assertEqual((self.own(request).status, self.public(request).status), (200, 404), target)

    def test_health(self) -> None:
        """Health and readiness are on both."""
        for target in ("/health", "/healthz", "/readyz"):
            request = request_bytes("GET", target)
            self.assertEqual((self.own(request).status, self.public(request).status), (200, 200), target)

    def test_routes(self) -> None:
        """Routes of triggers are not on the listener of the server's own pages."""
        for target in ("/hooks/gh", "http://harn.test/hooks/gh"):
            self.assertEqual(
                (self.own(signed_post(target)).status, self.public(signed_post(target)).status), (404, 200)
            )

    def test_limit_of_connections(self) -> None:
        """An operator gets in while senders use up all connections."""
        self.world.configure()
        self.world.site.connection_limit.apply(1)
        held = self.world.wire()
        request = request_bytes("GET", "/admin/generation", {"X-API-Key": KEY})
        self.assertEqual((self.own(request).status, held.closing), (200, False))

    def test_undivided(self) -> None:
        """Without such a listener everything is on one."""
        self.world.site.is_divided = False
        request = request_bytes("GET", "/admin/generation", {"X-API-Key": KEY})
        self.assertEqual((self.public(request).status, self.public(signed_post("/hooks/gh")).status), (200, 200))


class PortCase(TestCase):
    """Ports of a real reactor."""

    def setUp(self) -> None:
        self.world = World(clock=reactor)
        self.directory = os.path.realpath(self.mktemp())
        os.mkdir(self.directory)

    async def tearDown(self) -> None:  # type: ignore[override]
        while self.world.site.channels:
            turned: Deferred[None] = Deferred()
            reactor.callLater(0, turned.callback, None)
            await turned
        self.world.site.doStop()
        self.world.site.refusals.close()

    async def ask(self, endpoint: Any, host: str = "localhost") -> int:
        """Return the status of a request to the admin API."""
        client = await endpoint.connect(Factory.forProtocol(SocketClient))
        client.send(request_bytes("GET", "/admin/generation", {"X-API-Key": KEY, "Host": host}))
        (answer,) = await client.until_answers(1)
        client.transport.abortConnection()
        return int(answer.status)


class AddressTests(PortCase):
    def port(self, number: int = 0, **more: bool) -> AdminAddress:
        """Return a port that is closed after the test."""
        port = AdminAddress(reactor, Bind("127.0.0.1", number), self.world.site, **more)
        self.addCleanup(lambda: maybeDeferred(port.close))
        return port

    async def test_serves(self) -> None:
        """Nothing is accepted before it begins; then it serves, and its URL has the real port."""
        port = self.port()
        verifyObject(IAdminPort, port)
        port.open(None)
        number = int(port.url.rpartition(":")[2])
        with socket.socket() as early:
            self.assertNotEqual(early.connect_ex(("127.0.0.1", number)), 0)
        port.resume()
        self.assertEqual(await self.ask(TCP4ClientEndpoint(reactor, "127.0.0.1", number)), 200)
        self.assertTrue(self.world.site.own_hosts.is_local)

    async def test_taken(self) -> None:
        """A port that another server has is refused with the option; a program that takes over may share it."""
        first = self.port()
        first.open(None)
        first.resume()
        number = int(first.url.rpartition(":")[2])
        self.assertIn("--admin-bind", str(self.assertRaises(ListenerUnusable, self.port(number).open, None)))
        new = self.port(number, takes_over=True)
        new.open(None)
        await maybeDeferred(first.close)
        new.resume()
        self.assertEqual(await self.ask(TCP4ClientEndpoint(reactor, "127.0.0.1", number)), 200)


class SocketTests(PortCase):
    def setUp(self) -> None:
        super().setUp()
        # A path of a socket has at most some hundred bytes: name it from the directory.
        self.path = os.path.relpath(os.path.join(self.directory, "admin.sock"))

    def port(self, **more: bool) -> AdminSocket:
        """Return a socket that is closed after the test."""
        port = AdminSocket(reactor, self.path, self.world.site, **more)
        self.addCleanup(lambda: maybeDeferred(port.close))
        return port

    def names(self) -> list[str]:
        """Return the names in the directory."""
        return os.listdir(self.directory)

    def make_file(self) -> None:
        """Put an empty file at the path."""
        with open(self.path, "x", encoding="ascii"):
            pass

    async def test_any_host(self) -> None:
        """No browser opens a socket of the file system, so a request may name any host, wherever the triggers are."""
        self.world.site.listens_on("127.0.0.1")
        port = self.port()
        port.open(None)
        port.resume()
        self.assertEqual(await self.ask(UNIXClientEndpoint(reactor, self.path), "harn.example.org"), 200)

    async def test_serves(self) -> None:
        """Only the owner may use it; it has its name once it serves, and is removed at the end."""
        port = self.port()
        verifyObject(IAdminPort, port)
        port.open(None)
        self.assertNotIn("admin.sock", self.names())
        port.resume()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(await self.ask(UNIXClientEndpoint(reactor, self.path)), 200)
        await maybeDeferred(port.close)
        self.assertEqual(self.names(), [])

    async def test_taken(self) -> None:
        """A file, and a socket on which a program listens, are left alone; a socket of a dead one is replaced."""
        self.make_file()
        self.assertIn("is not a socket", str(self.assertRaises(ListenerUnusable, self.port().open, None)))
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            self.assertIn("another program", str(self.assertRaises(ListenerUnusable, self.port().open, None)))
        port = self.port()
        port.open(None)
        port.resume()
        self.assertEqual(await self.ask(UNIXClientEndpoint(reactor, self.path)), 200)

    async def test_upgrade(self) -> None:
        """A new program's socket takes the place of the old one's, whose end does not remove it."""
        old, new = self.port(), self.port(takes_over=True)
        old.open(None)
        old.resume()
        new.open(None)
        new.resume()
        await maybeDeferred(old.close)
        self.assertEqual(await self.ask(UNIXClientEndpoint(reactor, self.path)), 200)

    def test_directory(self) -> None:
        """A directory that is missing is named with what to do."""
        port = AdminSocket(reactor, os.path.join(self.directory, "no", "x.sock"), self.world.site)
        self.assertIn("may write to", str(self.assertRaises(ListenerUnusable, port.open, None)))


class MakeTests(SynchronousTestCase):
    def test_make(self) -> None:
        """The option's form decides; without it nothing is divided."""
        site = World().site
        self.assertIsNone(make_admin_port(None, None, site, takes_over=False))
        self.assertFalse(site.is_divided)
        self.assertIsInstance(make_admin_port(None, "/run/x", site, takes_over=False), AdminSocket)
        self.assertIsInstance(make_admin_port(None, ("127.0.0.1", 1), site, takes_over=False), AdminAddress)
        self.assertTrue(site.is_divided)
