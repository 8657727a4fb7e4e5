"""Addresses, ports and URLs."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import ListenerUnusable
from harn.listener import endpoint
from harn.listener.endpoint import BACKLOG, Bind, listen
from harn.systemd import passed_descriptor, taken_by_twisted


class BindTests(SynchronousTestCase):
    def test_url(self) -> None:
        """The URL is one that this machine can call: a wildcard is written as loopback, IPv6 in brackets."""
        for host, url in (
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("::1", "http://[::1]:80"),
            ("", "http://127.0.0.1:80"),
            ("0.0.0.0", "http://127.0.0.1:80"),
            ("::", "http://[::1]:80"),
            ("localhost", "http://localhost:80"),
        ):
            self.assertEqual(Bind(host, 80).url(tls=False), url)
        self.assertEqual(Bind("", 1).url(tls=True), "https://127.0.0.1:1")


class FailureTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """Each reason is said with what to do about it."""
        for code, words in (
            (errno.EADDRINUSE, "port 80 on h is in use; choose another with --bind"),
            (errno.EACCES, "port 80 on h is not allowed to this user"),
            (errno.EADDRNOTAVAIL, "h is not an address of this machine"),
            (errno.EINVAL, "cannot listen on h:80"),
        ):

            def failing(*_: object, code: int = code) -> None:
                raise OSError(code, "words")

            self.patch(endpoint, "_address", failing)
            raised = self.assertRaises(ListenerUnusable, listen, None, Bind("h", 80), Factory())
            self.assertIn(words, str(raised))

    def test_no_descriptor_for_the_connections(self) -> None:
        """Where the limit of open files is reached, the error says so, and the port is not left open."""

        def failing(reactor: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(endpoint, "Readers", failing)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            bind = Bind("127.0.0.1", free.getsockname()[1])
        raised = self.assertRaises(ListenerUnusable, listen, None, bind, Factory())
        self.assertIn("Too many open files; raise the limit of open files (ulimit -n", str(raised))
        with socket.socket() as next_one:
            next_one.bind((bind.host, bind.port))

    def test_addresses_that_are_none(self) -> None:
        """An address that does not exist, or is another machine's, is refused with a message that says so."""
        for host, words in (("192.0.2.1", "is not an address of this machine"), ("fe80::1%none", "cannot listen on")):
            raised = self.assertRaises(ListenerUnusable, listen, None, Bind(host, 0), Factory())
            self.assertIn(words, str(raised))

    def test_unfit_descriptors(self) -> None:
        """Only a listening TCP socket can be served; for anything else the error names its kind and what to do."""
        with (
            socket.socket() as idle,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_UNIX) as local,
            open(os.devnull) as file,
        ):
            for given, words in (
                (idle.fileno(), "does not listen"),
                (datagrams.fileno(), "SOCK_DGRAM"),
                (local.fileno(), "AF_UNIX"),
                (file.fileno(), "is not an open socket"),
            ):
                descriptor = os.dup(given)
                raised = self.assertRaises(ListenerUnusable, listen, None, Bind("h", 0), Factory(), None, descriptor)
                self.assertIn(words, str(raised))
                self.assertIn("ListenStream=", str(raised))
        raised = self.assertRaises(ListenerUnusable, listen, None, Bind("h", 0), Factory(), None, 9999)
        self.assertIn("9999 is not an open socket", str(raised))


class PortTests(TestCase):
    async def test_real_port(self) -> None:
        """Port 0 becomes a real one, which no other process can have."""
        opened = listen(reactor, Bind("127.0.0.1", 0), Factory())
        self.addCleanup(opened.port.stopListening)
        self.assertGreater(opened.bind.port, 0)
        self.assertEqual(opened.url, f"http://127.0.0.1:{opened.bind.port}")
        error = self.assertRaises(ListenerUnusable, listen, reactor, opened.bind, Factory())
        self.assertEqual(str(error), f"port {opened.bind.port} on 127.0.0.1 is in use; choose another with --bind")
        self.assertGreaterEqual(BACKLOG, 1024)

    async def test_names_and_families(self) -> None:
        """A name stays in the URL; IPv6 works."""
        for host, url in (("localhost", "http://localhost:{}"), ("::1", "http://[::1]:{}")):
            opened = listen(reactor, Bind(host, 0), Factory())
            self.addCleanup(opened.port.stopListening)
            self.assertEqual(opened.url, url.format(opened.bind.port))


class Greeting(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class InheritedTests(TestCase):
    def setUp(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.socket.close)
        self.opened = listen(
            reactor, Bind("192.0.2.1", 1), Factory.forProtocol(Greeting), None, os.dup(self.socket.fileno())
        )
        self.addCleanup(self.opened.port.stopListening)

    def greeting(self) -> bytes:
        with socket.create_connection(self.socket.getsockname(), 10) as client:
            return client.recv(10)

    async def test_served(self) -> None:
        """The socket that was inherited is served, whatever address was asked for, and the real one is returned."""
        self.assertEqual(self.opened.bind, Bind("127.0.0.1", self.socket.getsockname()[1]))
        self.assertFalse(os.get_inheritable(self.opened.descriptor))
        self.assertEqual(await deferToThread(self.greeting), b"hello")

    async def test_stopping_leaves_it_to_others(self) -> None:
        """Stopping closes our descriptor; a process that has the socket, too, continues to accept."""
        await self.opened.port.stopListening()
        client = socket.create_connection(self.socket.getsockname(), 10)
        self.addCleanup(client.close)
        accepted, _ = self.socket.accept()
        accepted.close()

    async def test_pause(self) -> None:
        """Paused, connections wait in the socket's queue; none is refused."""
        self.opened.pause()
        client = socket.create_connection(self.socket.getsockname(), 10)
        self.addCleanup(client.close)
        client.setblocking(False)
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertRaises(BlockingIOError, client.recv, 10)
        client.setblocking(True)
        self.opened.resume()
        self.assertEqual(await deferToThread(client.recv, 10), b"hello")


class Exhausted:
    """A socket of a process that has no descriptor left."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    def accept(self) -> None:
        """Raise."""
        raise OSError(errno.EMFILE, "Too many open files")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class SharedTests(TestCase):
    """A socket of which several processes accept connections, all the time."""

    def setUp(self) -> None:
        """Listen; the test calls the port when the reactor would."""
        self.opened = listen(reactor, Bind("127.0.0.1", 0), Factory.forProtocol(Greeting))
        self.addCleanup(self.opened.port.stopListening)
        self.port = self.opened.port
        self.port.is_shared = True

    def connect(self) -> None:
        """Connect a client."""
        client = socket.create_connection(("127.0.0.1", self.opened.bind.port), 10)
        self.addCleanup(client.close)

    async def test_another_was_faster(self) -> None:
        """Where another process has accepted the connection, this one waits for the next at once, without a rest."""
        self.port.doRead()
        self.assertEqual(self.port.sessionno, 0)
        self.assertIn(self.port, reactor.getReaders())

    async def test_one_a_turn(self) -> None:
        """A burst of connections is accepted one by one, so that others take their share."""
        for _ in range(3):
            self.connect()
        accepted = []
        for _ in range(3):
            self.port.doRead()
            accepted.append(self.port.sessionno)
        self.assertEqual(accepted, [1, 2, 3])


class NoDescriptorTests(SynchronousTestCase):
    """A port of which the test is the reactor; no descriptor is left."""

    def rests(self, *, is_shared: bool) -> None:
        """Check that a port rests, whose connection cannot be accepted, and tries again after that."""
        memory: Any = MemoryReactorClock()
        opened = listen(memory, Bind("127.0.0.1", 0), Factory())
        self.addCleanup(opened.port.stopListening)
        opened.port.is_shared = is_shared
        client = socket.create_connection(("127.0.0.1", opened.bind.port), 10)
        self.addCleanup(client.close)
        opened.port.socket = Exhausted(opened.port.socket)
        opened.port.doRead()
        self.assertNotIn(opened.port, memory.getReaders())
        memory.advance(endpoint.RESTS_FOR)
        self.assertIn(opened.port, memory.getReaders())

    def test_rests(self) -> None:
        """It does not try without a pause."""
        self.rests(is_shared=False)

    def test_rests_where_others_accept(self) -> None:
        """The same holds for a socket of several processes: none of them has accepted the connection."""
        self.rests(is_shared=True)


class ActivationTests(SynchronousTestCase):
    def test_passed(self) -> None:
        """The first socket that was passed to this process is found, named or not, and the variables are gone."""
        mine = {"LISTEN_PID": str(os.getpid()), "OTHER": "x"}
        for more in (
            {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "harn.socket"},
            {"LISTEN_FDS": "1"},
            {"LISTEN_FDS": "2"},
            {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "one"},
            {"LISTEN_FDS": "9" * 30},
        ):
            environ = {**mine, **more}
            self.assertEqual(passed_descriptor(environ), 3, more)
            self.assertEqual(environ, {"OTHER": "x"})

    def test_none_passed(self) -> None:
        """Sockets for another process, none, or nonsense: there is none, and the variables are gone all the same."""
        for environ in (
            {},
            {"LISTEN_FDS": "1"},
            {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
            {"LISTEN_FDS": "-1", "LISTEN_PID": str(os.getpid())},
            {"LISTEN_FDS": "two", "LISTEN_PID": str(os.getpid())},
        ):
            self.assertIsNone(passed_descriptor(environ))
            self.assertEqual(environ, {})

    def test_taken_by_twisted(self) -> None:
        """What Twisted has taken when it was imported is found there, and so is that there was nothing."""
        self.patch(endpoints._SystemdParser, "_sddaemon", ListenFDs([3, 4], ["a", "b"]))
        self.assertEqual(taken_by_twisted(reactor), 3)
        self.patch(endpoints._SystemdParser, "_sddaemon", ListenFDs([]))
        self.assertIsNone(taken_by_twisted(reactor))
