"""Addresses, ports and URLs."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import ListenerUnusable
from harn.listener.endpoint import BACKLOG, Bind, listen, parse_bind


class BindTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """An address, a bracketed address of IPv6, a name, or a port alone."""
        for text, host, port, url in (
            ("127.0.0.1:8080", "127.0.0.1", 8080, "http://127.0.0.1:8080"),
            ("[::1]:0", "::1", 0, "http://[::1]:0"),
            (":8080", "", 8080, "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0", 80, "http://127.0.0.1:80"),
            ("[::]:80", "::", 80, "http://[::1]:80"),
            (" localhost:1 ", "localhost", 1, "http://localhost:1"),
        ):
            bind = parse_bind(text)
            self.assertEqual((bind.host, bind.port, bind.url(tls=False)), (host, port, url))
        self.assertEqual(parse_bind(":1").url(tls=True), "https://127.0.0.1:1")

    def test_refused(self) -> None:
        """Anything else is refused with the form to write."""
        for text in ("8080", "127.0.0.1", "::1:80", "h:70000", "h:-1", "h:", "[zz]:1", "[::1", "a b:1", "http://h:1"):
            error = self.assertRaises(ValueError, parse_bind, text)
            self.assertIn("is no address", str(error))

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Whatever the text, the outcome is an address that reads back as itself, or a ValueError."""
        try:
            bind = parse_bind(text)
        except ValueError:
            return
        self.assertEqual(parse_bind(str(bind)), bind)


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
        opened = listen(reactor, parse_bind("127.0.0.1:0"), Factory())
        self.addCleanup(opened.port.stopListening)
        self.assertGreater(opened.bind.port, 0)
        self.assertEqual(opened.url, f"http://127.0.0.1:{opened.bind.port}")
        error = self.assertRaises(ListenerUnusable, listen, reactor, opened.bind, Factory())
        self.assertEqual(str(error), f"port {opened.bind.port} on 127.0.0.1 is in use; choose another with --bind")
        self.assertGreaterEqual(BACKLOG, 1024)
