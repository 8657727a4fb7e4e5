"""Addresses that may send to a trigger, and who the sender is behind proxies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.model.networks import fault_of_network, read_address, read_networks, sender_of
from harn.testing.clients import request_bytes
from tests.listener.test_ingest import IngestCase
from tests.listener.world import signed


class SenderTests(SynchronousTestCase):
    def test_behind_proxies(self) -> None:
        """Only what trusted proxies say counts, from the right; what the sender wrote itself does not."""
        proxies = read_networks(("10.0.0.0/8", "fd00::/8"))
        for peer, forwarded, expected in (
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("::ffff:10.0.0.1", '"[2001:db8::7]:4711"', "2001:db8::7"),
            ("fd00::1%eth0", "198.51.100.1:80", "198.51.100.1"),
            ("10.0.0.1", "unknown", None),
            ("10.0.0.1", "198.51.100.1, ", None),
            ("", "198.51.100.1", None),
        ):
            found = sender_of(peer, forwarded, proxies)
            self.assertEqual(None if found is None else str(found), expected, (peer, forwarded))

    def test_texts(self) -> None:
        """A network with bits beyond its length is refused; any text is read as an address or as none."""
        self.assertIsNone(fault_of_network("10.0.0.0/8"))
        self.assertIsNone(fault_of_network("2001:db8::1"))
        for wrong in ("10.0.0.1/8", "example.com", "10.0.0.0/33"):
            self.assertIsNotNone(fault_of_network(wrong))
        for text in ("", "[", "[]", ":", "::::", "%", "1.2.3", "\xff", "1" * 5000):
            self.assertIsNone(read_address(text))


class AllowFromTests(IngestCase):
    def test_allowed_and_not(self) -> None:
        """Requests from other addresses get 403 before their body is read; behind a trusted proxy its word counts."""
        trigger = self.world.trigger("x", "/x", allow_from=("198.51.100.0/24",))
        self.world.serve(1, trigger)
        self.world.configure(trusted_proxies=("10.0.0.0/8",))
        for peer, forwarded, status in (
            ("198.51.100.7", None, 200),
            ("203.0.113.9", None, 403),
            ("203.0.113.9", "198.51.100.7", 403),
            ("10.0.0.1", "198.51.100.7", 200),
            ("10.0.0.1", None, 403),
        ):
            more = {} if forwarded is None else {"X-Forwarded-For": forwarded}
            data = request_bytes("POST", "/x", {**signed(b"{}"), **more}, b"{}")
            self.assertEqual(self.world.wire(peer).send(data).answer().status, status, (peer, forwarded))
        self.assertEqual(len(self.world.store.rows()), 2)
        self.assertEqual(self.world.metrics.version(trigger.binding.key).refused, 3)
