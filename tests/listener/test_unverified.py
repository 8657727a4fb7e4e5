"""Bodies whose sender is not verified yet: their own bound, who gives way, and what the headers give away before."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import SignatureMissing
from harn.listener.unverified import network_of
from harn.manifest.settings import AdmissionSettings
from harn.model.exchange import InboundRequest
from harn.testing.clients import Wire, request_bytes
from tests.listener.world import KEY, World, signed, signed_post

MEGABYTE = 1024 * 1024


class UnverifiedCase(SynchronousTestCase):
    """A world that reads 100 bytes of unverified bodies at most, of 20 bytes each."""

    def setUp(self) -> None:
        self.world = World()
        self.world.configure(max_body_bytes=20, admission=AdmissionSettings(max_unverified_bytes=100))

    def begin(self, sent: int, peer: str = "192.0.2.1", of: int = 20) -> Wire:
        """Begin to send a body, by a stranger."""
        head = request_bytes("POST", "/hooks/gh", {"Content-Length": str(of)})
        return self.world.wire(peer).send(head + b"x" * sent)

    def deliver(self, peer: str = "192.0.2.99") -> int:
        """Send a signed delivery, in two parts; return its status."""
        data = signed_post("/hooks/gh")
        return self.world.wire(peer).send(data[:-1]).send(data[-1:]).answer().status

    def assert_gave_way(self, *wires: Wire) -> None:
        for wire in wires:
            answer = wire.answer()
            self.assertEqual((answer.status, answer.json()["title"]), (408, "Request timed out"))
            self.assertEqual((answer.headers["retry-after"], answer.headers["connection"]), ("1", "close"))
            self.assertTrue(wire.closing)

    def assert_reads(self, *wires: Wire) -> None:
        for wire in wires:
            self.assertEqual((wire.raw(), wire.closing), (b"", False))


class RoomTests(UnverifiedCase):
    def test_strangers(self) -> None:
        """However many strangers leave their bodies unfinished, every signed delivery is answered 200."""
        strangers = [self.begin(19, f"192.0.2.{number}") for number in range(1, 60)]
        self.assertEqual(self.deliver(), 200)
        for second in range(20):
            self.world.advance(1)
            strangers += [self.begin(19, f"198.51.100.{second * 5 + number}") for number in range(5)]
            self.assertEqual(self.deliver(), 200)
            self.assertLessEqual(self.world.site.unverified.total, 100)
        for wire in strangers:
            wire.drop()
        unverified = self.world.site.unverified
        self.assertEqual((unverified.total, unverified._shares, unverified._reading), (0, {}, {}))
        self.assertEqual((self.world.site.in_flight, self.world.gh.binding.in_flight), (0, len(self.world.submitted)))

    def test_slowest(self) -> None:
        """The one that sent the fewest bytes in a second gives way, not the one that sent the fewest bytes."""
        slow = self.begin(19, "192.0.2.1")
        self.world.advance(8)
        others = [self.begin(19, "192.0.2.2"), self.begin(6, "192.0.2.3")]
        self.world.advance(2)
        young = [self.begin(19, f"192.0.2.{number}") for number in (4, 5, 6)]
        self.assert_gave_way(slow)
        self.assert_reads(*others, *young)

    def test_young(self) -> None:
        """Of those that have only begun, the one that holds most for longest gives way: never a small one."""
        small, large = self.begin(1, "192.0.2.1"), self.begin(19, "192.0.2.2")
        rest = [self.begin(18, f"192.0.2.{number}") for number in range(3, 8)]
        self.assert_gave_way(large)
        self.assert_reads(small, *rest)

    def test_stalled(self) -> None:
        """One that came fast and stands still is slower than one that began slowly and comes on."""
        stalled, steady = self.begin(19, "192.0.2.1"), self.begin(1, "192.0.2.2")
        for _ in range(5):
            self.world.advance(1)
            steady.send(b"xxx")
        rest = [self.begin(19, f"192.0.2.{number}") for number in range(3, 7)]
        self.assert_gave_way(stalled)
        self.assert_reads(steady, *rest)

    def test_stalled_at_once(self) -> None:
        """So it is within the first second."""
        stalled, steady = self.begin(18, "192.0.2.1"), self.begin(10, "192.0.2.2")
        self.world.clock.advance(0.5)
        steady.send(b"x" * 9)
        rest = [self.begin(16, f"192.0.2.{number}") for number in range(3, 7)]
        self.assert_gave_way(stalled)
        self.assert_reads(steady, *rest)

    def test_one_address(self) -> None:
        """One address has three quarters of the room; beyond that its own slowest gives way to its next."""
        other = self.begin(19, "192.0.2.1")
        self.world.advance(1)
        same = [self.begin(19, "192.0.2.2") for _ in range(3)]
        self.assert_reads(other, *same)
        last = self.begin(19, "192.0.2.2")
        self.assert_gave_way(same[0])
        self.assert_reads(other, *same[1:], last)

    def test_network(self) -> None:
        """The addresses of one customer count as one."""
        for host, network in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("fe80::1%eth0", "fe80::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("", ""),
            ("a:b", "a:b"),
        ):
            self.assertEqual(network_of(host), network)

    def test_largest(self) -> None:
        """The bound is never below two of the largest bodies, so that every body that is allowed can be read."""
        self.world.configure(max_body_bytes=1000, admission=AdmissionSettings(max_unverified_bytes=1))
        body = b"x" * 1000
        self.assertEqual(self.world.wire().send(signed_post("/hooks/gh", body)).answer().status, 200)

    def test_nobody_can_give_way(self) -> None:
        """Where those that hold the room are whole and being verified, the next is 503."""
        self.world.configure(max_body_bytes=MEGABYTE, admission=AdmissionSettings(max_unverified_bytes=1))
        body = b"x" * MEGABYTE
        whole = [self.world.wire(f"192.0.2.{number}").send(signed_post("/hooks/gh", body)) for number in (1, 2)]
        late = self.world.wire("192.0.2.3").send(signed_post("/hooks/gh", b"x" * 100)[:-1])
        self.assertEqual((late.answer().status, late.closing), (503, True))
        for run in self.world.threads:
            run()
        self.assertEqual([wire.answer().status for wire in whole], [200, 200])
        self.assertEqual(self.world.site.unverified.total, 0)

    def test_many_large_at_once(self) -> None:
        """Of many large bodies that all come fast, some are read to their end, and the others are 503: none is slow."""
        self.world.configure(max_body_bytes=MEGABYTE, admission=AdmissionSettings(max_unverified_bytes=4 * MEGABYTE))
        data = signed_post("/hooks/gh", b"x" * MEGABYTE)
        wires = [self.world.wire(f"192.0.2.{number}") for number in range(1, 21)]
        for start in range(0, len(data), 100_000):
            self.world.clock.advance(0.25)
            for wire in wires:
                if not wire.closing:
                    wire.send(data[start : start + 100_000])
        while self.world.threads:
            self.world.threads.pop(0)()
        answers = [wire.answer() for wire in wires]
        self.assertEqual({answer.status for answer in answers}, {200, 503})
        self.assertTrue(all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 503))
        self.assertGreaterEqual([answer.status for answer in answers].count(200), 3)
        self.assertEqual((self.world.site.unverified.total, self.world.admission.pending_bytes), (0, 0))

    def test_large_beside_slow_ones(self) -> None:
        """A large body that comes fast takes the room of large ones that come slowly."""
        self.world.configure(max_body_bytes=MEGABYTE, admission=AdmissionSettings(max_unverified_bytes=4 * MEGABYTE))
        slow = [self.begin(900_000, f"192.0.2.{number}", of=MEGABYTE) for number in range(1, 5)]
        self.world.advance(2)
        data = signed_post("/hooks/gh", b"x" * MEGABYTE)
        fast = self.world.wire("192.0.2.9")
        for start in range(0, len(data), 100_000):
            fast.send(data[start : start + 100_000])
        self.world.threads.pop(0)()
        self.assertEqual(fast.answer().status, 200)
        self.assert_gave_way(slow[0])

    def test_verified(self) -> None:
        """What is verified takes no room from what is read, and what is read none from what is verified."""
        self.world.store.writer.held = True
        waiting = [self.world.wire().send(signed_post("/hooks/gh", b"x" * 20)) for _ in range(10)]
        self.assertEqual((self.world.site.unverified.total, self.world.admission.pending_bytes), (0, 200))
        reading = self.begin(19)
        self.assertEqual(self.world.admission.pending_bytes, 200)
        self.world.store.writer.release()
        self.assertEqual({wire.answer().status for wire in waiting}, {200})
        self.assertEqual((self.world.admission.pending_bytes, self.world.admission.pending_events), (0, 0))
        self.assert_reads(reading)

    def test_heads(self) -> None:
        """Heads that do not end count as bodies do, and large ones while their bodies are read."""
        self.world.configure(max_body_bytes=20, admission=AdmissionSettings(max_unverified_bytes=20_000))
        slow = self.world.wire("192.0.2.1").send(b"POST /hooks/gh HTTP/1.1\r\nX-A: " + b"x" * 9000)
        self.world.advance(2)
        large = request_bytes("POST", "/hooks/gh", {"X-A": "x" * 9000, "Content-Length": "20"})
        reading = self.world.wire("192.0.2.2").send(large)
        unverified = self.world.site.unverified
        self.assertTrue(18_000 < unverified.total < 19_000, unverified.total)
        self.assertEqual(self.deliver(), 200)
        last = self.world.wire("192.0.2.3").send(b"POST /hooks/gh HTTP/1.1\r\nX-A: " + b"x" * 3000)
        self.assert_gave_way(slow)
        self.assert_reads(reading, last)
        for wire in (slow, reading, last):
            wire.drop()
        self.assertEqual((unverified.total, unverified._shares, unverified._reading), (0, {}, {}))

    def test_head_that_ends(self) -> None:
        """A head in pieces counts until it ends, and one that is refused no longer counts."""
        self.world.configure()
        data = signed_post("/hooks/gh")
        wire = self.world.wire()
        for start in range(0, len(data) - 1, 10):
            wire.send(data[start : min(start + 10, len(data) - 1)])
        self.assertLess(self.world.site.unverified.total, 20)
        self.assertEqual(wire.send(data[-1:]).answer().status, 200)
        self.world.wire().send(b"POST / HTTP/1.1\r\n").send(b"nonsense\r\n").send(b"\r\n")
        self.assertEqual(self.world.site.unverified.total, 0)

    def test_admin(self) -> None:
        """Bodies for the admin pages count, too: a signature in their headers says nothing before they are whole."""
        headers = {"X-API-Key": KEY, "Content-Length": "1000"}
        slow = self.world.wire("192.0.2.1").send(request_bytes("POST", "/admin/reload", headers) + b"x" * 70)
        self.world.advance(1)
        self.begin(19, "192.0.2.2")
        self.begin(19, "192.0.2.3")
        self.assert_gave_way(slow)


class EarlyTests(SynchronousTestCase):
    """Whose headers carry no signature is 401 before the body is read."""

    def setUp(self) -> None:
        self.world = World()
        self.world.gh.receiver.check_headers = self.check_headers  # type: ignore[attr-defined]

    def check_headers(self, headers: Mapping[str, str]) -> None:
        if "x-signature" not in headers:
            raise SignatureMissing("X-Signature is missing")

    def test_without_a_signature(self) -> None:
        """A small body is discarded and the connection kept; a large one closes it. No lease is taken."""
        wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", {"Content-Length": "7"}))
        answer = wire.answer()
        self.assertEqual((answer.status, answer.json()["title"]), (401, "Signature missing"))
        self.assertEqual(answer.headers["www-authenticate"], "Signature")
        self.assertEqual((self.world.site.in_flight, self.world.site.unverified.total), (0, 0))
        wire.send(b'{"n":1}')
        self.assertEqual(wire.send(signed_post("/hooks/gh")).answer().status, 200)
        large = self.world.wire().send(request_bytes("POST", "/hooks/gh", {"Content-Length": "1000000"}))
        self.assertEqual((large.answer().status, large.closing), (401, True))
        self.assertEqual(self.world.metrics.version("gh@v1").refused, 2)

    def test_headers_are_read_once(self) -> None:
        """Both checks see the same headers, which are made ready once for each request."""
        seen: list[Mapping[str, str]] = []
        receiver = self.world.gh.receiver
        receiver.check_headers = seen.append  # type: ignore[attr-defined]
        verify = receiver.verify

        def noting(inbound: InboundRequest, now: float) -> None:
            seen.append(inbound.headers)
            verify(inbound, now)

        self.patch(receiver, "verify", noting)
        self.assertEqual(self.world.wire().send(signed_post("/hooks/gh")).answer().status, 200)
        self.assertIs(*seen)

    def test_no_rate(self) -> None:
        """It uses up nothing of the trigger's rate."""
        self.world.admission.apply(AdmissionSettings(rate=0.1, burst=1), ("gh",))
        for _ in range(5):
            self.assertEqual(self.world.wire().send(request_bytes("POST", "/hooks/gh")).answer().status, 401)
        self.assertEqual(self.world.wire().send(signed_post("/hooks/gh")).answer().status, 200)

    def test_order(self) -> None:
        """Path, method and size are decided first."""
        for method, target, length, status in (
            ("POST", "/nope", "7", 404),
            ("PUT", "/hooks/gh", "7", 405),
            ("POST", "/hooks/gh", "99999999", 413),
            ("POST", "/hooks/gh", "7", 401),
        ):
            wire = self.world.wire().send(request_bytes(method, target, {"Content-Length": length}))
            self.assertEqual(wire.answer().status, status)

    def test_expect(self) -> None:
        """A client that waits for our word is not asked for its body."""
        headers = {"Content-Length": "7", "Expect": "100-continue"}
        wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", headers))
        self.assertEqual(wire.answer().status, 401)
        headers.update(signed(b'{"n":1}'))
        wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", headers))
        self.assertEqual(wire.raw(), b"HTTP/1.1 100 Continue\r\n\r\n")

    def test_connector_that_fails(self) -> None:
        """Whatever a third party's check raises, it costs this request alone."""
        for error in (ValueError("no"), SystemExit(1)):

            def fail(headers: Mapping[str, str], error: BaseException = error) -> None:
                raise error

            self.world.gh.receiver.check_headers = fail  # type: ignore[attr-defined]
            self.assertEqual(self.world.wire().send(signed_post("/hooks/gh")).answer().status, 500)
            self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual((self.world.site.in_flight, self.world.gh.binding.in_flight), (0, 0))
