"""Addresses, ports and URLs."""

from __future__ import annotations

import errno

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import ListenerUnusable
from harn.listener.endpoint import BACKLOG, Bind, listen


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


class StubReactor:
    """Fails to listen, in the way it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> None:
        raise self.error


class FailureTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """Each reason is said with what to do about it."""
        for code, words in (
            (errno.EADDRINUSE, "port 80 on h is in use; choose another with --bind"),
            (errno.EACCES, "port 80 on h is not allowed to this user"),
            (errno.EADDRNOTAVAIL, "h is no address of this machine"),
            (errno.EINVAL, "cannot listen on h:80"),
        ):
            for error in (CannotListenError("h", 80, OSError(code, "words")), OSError(code, "words")):
                raised = self.assertRaises(ListenerUnusable, listen, StubReactor(error), Bind("h", 80), Factory())
                self.assertIn(words, str(raised))


class PortTests(TestCase):
    async def test_real_port(self) -> None:
        """Port 0 becomes a real one, which nobody else can have."""
        opened = listen(reactor, Bind("127.0.0.1", 0), Factory())
        self.addCleanup(opened.port.stopListening)
        self.assertGreater(opened.bind.port, 0)
        self.assertEqual(opened.url, f"http://127.0.0.1:{opened.bind.port}")
        error = self.assertRaises(ListenerUnusable, listen, reactor, opened.bind, Factory())
        self.assertEqual(str(error), f"port {opened.bind.port} on 127.0.0.1 is in use; choose another with --bind")
        self.assertGreaterEqual(BACKLOG, 1024)
