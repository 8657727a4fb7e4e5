"""Addresses that may send to a trigger, and who the sender is behind proxies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.published import ListClocks, PublishedLists, read_published
from harn.model.networks import fault_of_network, fault_of_source, read_address, read_networks, sender_of
from harn.testing.clients import request_bytes
from tests.connectors.tokens import Publisher
from tests.listener.test_ingest import IngestCase
from tests.listener.world import signed


class SenderTests(SynchronousTestCase):
    def test_behind_proxies(self) -> None:
        """Only addresses that trusted proxies added count, from the right; those that the sender wrote do not."""
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


class PublishedCase(IngestCase):
    """A trigger that accepts the addresses that GitHub publishes, and one network."""

    def setUp(self) -> None:
        super().setUp()
        self.publisher = Publisher()
        self.publisher.document = b'{"hooks": ["192.30.252.0/22", "2a0a:a440::/29"], "web": []}'
        self.restart()

    def restart(self) -> None:
        """Serve with lists of a server that starts now."""
        world = self.world
        self.lists = PublishedLists(ListClocks(world.clock, world.wall), self.publisher, world.store.checkpoints)
        world.site.published = self.lists
        world.serve(1, world.trigger("x", "/x", allow_from=("10.0.0.0/8", "github")))
        self.lists.use(["github"])

    def status(self, peer: str) -> int:
        """Return how a request from an address is answered."""
        return self.world.wire(peer).send(request_bytes("POST", "/x", signed(b"{}"), b"{}")).answer().status

    def statuses(self) -> list[int]:
        """Return the answers to the network, to the list, by both families, and to another address."""
        return [self.status(peer) for peer in ("10.0.0.1", "192.30.252.7", "2a0a:a440::1", "203.0.113.9")]


class PublishedTests(PublishedCase):
    def test_fetched(self) -> None:
        """Addresses of the list are accepted once it was fetched; until then they are asked to come again."""
        self.assertEqual(self.statuses(), [200, 503, 503, 503])
        self.lists.startService()
        self.assertEqual(self.statuses(), [200, 200, 200, 403])
        self.assertEqual(self.publisher.fetched, ["https://api.github.com/meta"])

    def test_read_anew(self) -> None:
        """A list is fetched each hour; an address that is gone from it is refused from then on."""
        self.lists.startService()
        self.publisher.document = b'{"hooks": ["140.82.112.0/20"]}'
        self.world.clock.advance(3599)
        self.assertEqual(self.status("192.30.252.7"), 200)
        self.world.clock.advance(1)
        self.assertEqual((self.status("192.30.252.7"), self.status("140.82.112.1")), (403, 200))
        self.assertEqual(len(self.publisher.fetched), 2)

    def test_last_good(self) -> None:
        """A start without network continues with the last good list; one that makes no sense does not replace it."""
        self.lists.startService()
        self.lists.stopService()
        self.publisher.is_away = True
        self.restart()
        self.assertEqual(self.statuses(), [200, 200, 200, 403])
        self.lists.startService()
        self.world.clock.advance(3600)
        self.publisher.is_away = False
        for wrong in (
            b"<html>",
            b'{"hooks": []}',
            b'{"hooks": ["0.0.0.0/0"]}',
            b'{"hooks": ["x"]}',
            b"[" * 100_000,
            b'{"hooks": 7}',
        ):
            self.publisher.document = wrong
            self.world.clock.advance(3600)
            self.assertEqual(self.statuses(), [200, 200, 200, 403])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_tried_again(self) -> None:
        """Without a list it is tried again, after longer and longer waits, an hour at most."""
        self.publisher.is_away = True
        self.lists.startService()
        for _ in range(60 * 24):
            self.world.clock.advance(60)
        self.assertLess(len(self.publisher.fetched), 40)
        self.publisher.is_away = False
        self.world.clock.advance(3600)
        self.assertEqual(self.status("192.30.252.7"), 200)

    def test_fetched_before(self) -> None:
        """A list that a generation to come names is fetched before its first request, once, with no timer left."""
        self.assertEqual(self.lists.warm(["github", "stripe"]), [])  # the one is in use, the other was fetched at once
        self.assertEqual(self.publisher.fetched, ["https://stripe.com/files/ips/ips_webhooks.json"])
        self.assertEqual(self.lists.warm(["stripe"]), [])
        self.assertEqual([call for call in self.world.clock.getDelayedCalls() if "PublishedLists" in str(call)], [])
        self.publisher.document = b'{"WEBHOOKS": ["3.18.12.63"]}'
        self.lists.startService()
        self.lists.use(["stripe"])
        self.assertEqual(len(self.publisher.fetched), 3)
        self.assertIsNotNone(self.lists.networks("stripe"))

    def test_states(self) -> None:
        """Age and last error of each list in use are known."""
        self.publisher.is_away = True
        self.lists.startService()
        (state,) = self.lists.states()
        self.assertEqual((state.name, state.url, state.age), ("github", "https://api.github.com/meta", None))
        self.assertNotEqual(state.error, "")
        self.publisher.is_away = False
        self.world.clock.advance(60)
        self.world.clock.advance(600)
        (state,) = self.lists.states()
        self.assertEqual((state.age, state.error), (600.0, ""))

    def test_stop(self) -> None:
        """Ending ends a fetch under way, and every timer."""
        self.publisher.held = True
        (warming,) = self.lists.warm(["stripe"])
        self.lists.startService()
        self.lists.stopService()
        self.assertTrue(warming.called)
        self.publisher.held = False
        self.assertEqual([call for call in self.world.clock.getDelayedCalls() if "PublishedLists" in str(call)], [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_names(self) -> None:
        """An unknown name is a problem that says which lists there are."""
        fault = fault_of_source("gitlab")
        assert fault is not None
        self.assertIn("github, stripe", fault[1])
        self.assertIsNone(fault_of_source("github"))
        self.assertEqual(read_published(b'{"WEBHOOKS": ["3.18.12.63"]}', "WEBHOOKS"), read_networks(("3.18.12.63",)))


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
