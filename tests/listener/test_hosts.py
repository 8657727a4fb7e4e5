"""Hosts and origins of requests to the server's own pages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import OriginRefused
from harn.listener.hosts import OwnHosts, is_loopback, name_of
from harn.testing.clients import WireAnswer, request_bytes
from tests.listener.world import KEY, World, signed_post

LOCAL = OwnHosts(is_local=True, allowed=frozenset(("harn.example.org",)))


class HostTests(SynchronousTestCase):
    """The headers by themselves."""

    def test_names(self) -> None:
        """A header's port and brackets do not count."""
        for header, name in (
            ("LocalHost:8080", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:8080", "::1"),
            ("harn.test", "harn.test"),
        ):
            self.assertEqual(name_of(header), name)

    def test_loopback(self) -> None:
        """Names and addresses that lead to this machine alone, and others that only look so."""
        for name in ("localhost", "a.localhost", "localhost.", "127.0.0.1", "127.8.9.1", "::1"):
            self.assertTrue(is_loopback(name), name)
        for name in ("localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1", "0.0.0.0", "", "evil.test"):
            self.assertFalse(is_loopback(name), name)

    def test_host(self) -> None:
        """On a loopback address a name of another site is refused; elsewhere any is accepted."""
        for host in ("127.0.0.1:8080", "localhost", "harn.example.org", None, "harn:8080", "a.localhost", ""):
            LOCAL.check(host, None)
        for host in ("10.0.0.1", "[fe80::1%25eth0]:80", "::ffff:10.0.0.1", "127.1", "harn."):
            LOCAL.check(host, None)
        for host in (
            "evil.test",
            "evil.test:8080",
            "evil.test.",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "a.b:1:2",
        ):
            self.assertRaises(OriginRefused, LOCAL.check, host, None)
            OwnHosts().check(host, None)

    def test_origin(self) -> None:
        """The origin must be that of the host, or have an allowed name."""
        for host, origin in (
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost", "http://localhost:80"),
            ("localhost:443", "https://localhost"),
            ("127.0.0.1:8080", "https://harn.example.org"),
        ):
            LOCAL.check(host, origin)
        for host, origin in (
            ("127.0.0.1:8080", "http://evil.test"),
            ("127.0.0.1:8080", "http://127.0.0.1:9090"),
            ("127.0.0.1:8080", "null"),
            ("127.0.0.1:8080", "file://127.0.0.1:8080"),
            ("127.0.0.1:8080", "http://["),
            ("", "http://"),
        ):
            self.assertRaises(OriginRefused, LOCAL.check, host, origin)


class PageTests(SynchronousTestCase):
    """Requests through the whole tree."""

    def setUp(self) -> None:
        self.world = World()

    def ask(self, method: str, target: str, **headers: str) -> WireAnswer:
        """Send a request with credentials."""
        named = {"X-API-Key": KEY, **headers}
        return self.world.wire().send(request_bytes(method, target, named)).answer()

    def test_rebinding(self) -> None:
        """On a loopback address admin and metrics refuse names of other sites; health, readiness and routes do not."""
        self.world.site.listens_on("127.0.0.1")
        for target in ("/admin/generation", "/metrics"):
            self.assertEqual(self.ask("GET", target, Host="127.0.0.1:8080").status, 200, target)
            answer = self.ask("GET", target, Host="evil.test")
            self.assertEqual((answer.status, answer.json()["title"]), (403, "Origin not allowed"), target)
        for target in ("/health", "/readyz"):
            self.assertEqual(self.ask("GET", target, Host="evil.test").status, 200, target)
        self.assertEqual(
            self.world.wire().send(signed_post("/hooks/gh", Host="hooks.example.org")).answer().status, 200
        )
        self.world.configure(admin_hosts=("Harn.Example.org",))
        self.assertEqual(self.ask("GET", "/admin/generation", Host="harn.example.org").status, 200)
        self.world.site.listens_on("192.0.2.7")
        self.assertEqual(self.ask("GET", "/admin/generation", Host="evil.test").status, 200)

    def test_origin(self) -> None:
        """A page of another site is refused, also with credentials; a refusal is in the audit log."""
        for target in ("/admin/generation", "/metrics"):
            answer = self.ask("GET", target, Host="harn.test", Origin="https://evil.test")
            self.assertEqual((answer.status, answer.json()["title"]), (403, "Origin not allowed"))
            self.assertEqual(self.ask("GET", target, Host="harn.test", Origin="http://harn.test").status, 200)
        ((_, kind, payload),) = self.world.recorded
        self.assertEqual((kind, "evil.test" in payload["error"]), ("admin.refused", True))
        self.assertEqual(self.world.reloader.asked, [])
