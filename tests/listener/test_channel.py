"""What is decided when the headers are in, and what is cut off by the clock, byte for byte."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.listener.phases import Limits
from harn.manifest.settings import AdmissionSettings
from harn.testing.clients import Wire, WireAnswer, request_bytes
from tests.listener.world import KEY, World, signed, signed_post

CHUNKED = {"Transfer-Encoding": "chunked"}
CHUNKS = request_bytes("POST", "/hooks/gh", CHUNKED) + b"5\r\nhello\r\n"
EXPECT = {"Expect": "100-continue", "Content-Length": "7"}


class ChannelCase(SynchronousTestCase):
    """A world, and one connection to it."""

    def setUp(self) -> None:
        self.world = World()
        self.wire = self.world.wire()

    def assert_problem(self, answer: WireAnswer, status: int) -> None:
        self.assertEqual((answer.status, answer.json()["status"]), (status, status))
        self.assertEqual(answer.headers["content-type"], "application/problem+json")

    def assert_kept(self, wire: Wire) -> None:
        """Assert that the connection serves another request."""
        self.assertFalse(wire.closing)
        self.assertEqual(wire.send(signed_post("/hooks/gh")).answer().status, 200)

    def assert_nothing_held(self) -> None:
        admission = self.world.admission
        self.assertEqual((admission.pending_bytes, admission.pending_events, self.world.site.in_flight), (0, 0, 0))
        self.assertEqual(self.world.gh.route.receiver.holders, 1)


class DecidedEarlyTests(ChannelCase):
    def test_unknown_path(self) -> None:
        """404 is sent before a byte of the body; a small body is then discarded and the connection kept."""
        self.wire.send(request_bytes("POST", "/nowhere", {"Content-Length": "3"}))
        self.assert_problem(self.wire.answer(), 404)
        self.wire.send(b"abc")
        self.assertEqual(self.wire.raw(), b"")
        self.assert_kept(self.wire)

    def test_wrong_method(self) -> None:
        """405 names the methods there are."""
        for method in ("GET", "PUT", "DELETE", "HEAD", "get", "BREW"):
            answer = self.world.wire().send(request_bytes(method, "/hooks/gh")).answers(heads=method == "HEAD")[0]
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "OPTIONS, POST"), method)

    def test_options(self) -> None:
        """OPTIONS is answered with the methods there are, everywhere, to who may ask."""
        for target, allow in (
            ("/hooks/gh", "OPTIONS, POST"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("/admin/reload", "OPTIONS, POST"),
            ("/admin/generation", "GET, HEAD, OPTIONS"),
            ("*", "GET, HEAD, OPTIONS, POST"),
        ):
            answer = self.world.wire().send(request_bytes("OPTIONS", target, {"X-API-Key": KEY})).answer()
            self.assertEqual((answer.status, answer.headers["allow"], answer.body), (204, allow, b""), target)

    def test_origin(self) -> None:
        """An origin that is not on the list is 403 on every route; no Origin, or one on the list, passes."""
        self.world.configure(allowed_origins=("https://good.test", " "))
        for target in ("/hooks/gh", "/health", "/admin/reload"):
            self.assert_problem(self.wire.send(signed_post(target, Origin="https://evil.test")).answer(), 403)
        self.assertEqual(self.wire.send(signed_post("/hooks/gh", Origin="https://good.test")).answer().status, 200)
        self.assertEqual(self.wire.send(signed_post("/hooks/gh")).answer().status, 200)
        self.world.configure(allowed_origins=("*",))
        self.assertEqual(self.wire.send(signed_post("/hooks/gh", Origin="https://evil.test")).answer().status, 200)

    def test_too_large(self) -> None:
        """A declared length over the limit is 413 at once, and the connection is closed after it."""
        self.wire.send(request_bytes("POST", "/hooks/gh", {"Content-Length": "10485761"}))
        answer = self.wire.answer()
        self.assert_problem(answer, 413)
        self.assertEqual((answer.headers["connection"], self.wire.closing), ("close", True))
        self.wire.send(b"x" * 100_000)
        self.assertFalse(self.wire.aborted)
        self.assertEqual(self.world.gh.binding.in_flight, 0)

    def test_endless_sender_is_cut_off(self) -> None:
        """Who continues sending after the answer is cut off at a size."""
        world = World(Limits(linger_bytes=1000))
        wire = world.wire().send(request_bytes("POST", "/hooks/gh", {"Content-Length": "10485761"}))
        wire.send(b"x" * 1000)
        self.assertFalse(wire.aborted)
        wire.send(b"x")
        self.assertTrue(wire.aborted)

    def test_too_large_in_chunks(self) -> None:
        """A body in chunks is 413 as soon as it is over the limit, and never kept beyond it."""
        self.world.configure(max_body_bytes=100)
        self.wire.send(request_bytes("POST", "/hooks/gh", CHUNKED) + b"32\r\n" + b"x" * 50 + b"\r\n")
        self.assertEqual(self.wire.raw(), b"")
        self.wire.send(b"33\r\n" + b"x" * 51)
        self.assert_problem(self.wire.answer(), 413)
        self.assertTrue(self.wire.closing)
        self.wire.send(b"\r\n0\r\n\r\n")
        self.assertEqual(self.wire.raw(), b"")
        self.assert_nothing_held()

    def test_chunks(self) -> None:
        """A body in chunks within the limit is put together."""
        body = b"hello world"
        self.wire.send(request_bytes("POST", "/hooks/gh", {**CHUNKED, **signed(body)}))
        for piece in (b"5\r\nhello\r\n", b"1\r\n \r\n", b"5\r\nwor", b"ld\r\n0\r\n\r\n"):
            self.wire.send(piece)
        self.assertEqual(self.wire.answer().status, 200)
        self.assertEqual(self.world.gh.receiver.seen[0].body, body)
        self.assert_kept(self.wire)

    def test_go_on(self) -> None:
        """A client that waits for 100 Continue gets it when its request is wanted."""
        body = b'{"n":1}'
        self.wire.send(request_bytes("POST", "/hooks/gh", {**EXPECT, **signed(body)}))
        self.assertEqual(self.wire.raw(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.wire.send(body).answer().status, 200)
        self.assert_kept(self.wire)

    def test_do_not_go_on(self) -> None:
        """A client that waits for 100 Continue gets the final status when its request is not wanted."""
        for target, status in (("/nowhere", 404), ("/admin/reload", 401)):
            wire = self.world.wire().send(request_bytes("POST", target, EXPECT))
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["connection"], wire.closing), (status, "close", True))

    def test_no_room_for_its_head(self) -> None:
        """A client whose large head finds no room is not asked for its body."""
        self.world.site.unverified.bound = 100
        self.wire.send(request_bytes("POST", "/hooks/gh", {**EXPECT, "X-Long": "x" * 9000}))
        self.assert_problem(self.wire.answer(), 503)
        self.assertTrue(self.wire.closing)

    def test_saturated(self) -> None:
        """When too much is not durable yet, 503 with Retry-After comes with the headers."""
        self.world.admission.apply(AdmissionSettings(max_pending_events=1), ())
        self.world.store.writer.held = True
        self.world.wire().send(signed_post("/hooks/gh"))
        answer = self.wire.send(request_bytes("POST", "/hooks/gh", {"Content-Length": "3"})).answer()
        self.assert_problem(answer, 503)
        self.assertEqual(answer.headers["retry-after"], "1")
        self.world.store.writer.release()
        self.assert_kept(self.wire.send(b"abc"))

    def test_saturated_when_verified(self) -> None:
        """A body of unknown length that is verified and finds no room is 503, and the connection is kept."""
        self.world.admission.apply(AdmissionSettings(max_pending_bytes=10), ())
        body = b"x" * 11
        self.wire.send(request_bytes("POST", "/hooks/gh", {**CHUNKED, **signed(body)}) + b"b\r\n" + body)
        self.assertEqual(self.wire.raw(), b"")
        self.assert_problem(self.wire.send(b"\r\n0\r\n\r\n").answer(), 503)
        self.assert_nothing_held()
        self.assertEqual(self.world.store.rows(), [])
        self.assert_kept(self.wire)

    def test_over_its_rate(self) -> None:
        """Over a configured rate it is 429 with whole seconds to wait."""
        self.world.admission.apply(AdmissionSettings(rate=0.1, burst=1), ("gh",))
        self.assertEqual(self.wire.send(signed_post("/hooks/gh")).answer().status, 200)
        answer = self.wire.send(signed_post("/hooks/gh")).answer()
        self.assert_problem(answer, 429)
        self.assertEqual(answer.headers["retry-after"], "10")
        counts = self.world.metrics.version("gh@v1")
        self.assertEqual((counts.received, counts.refused), (2, 1))
        self.world.advance(10)
        self.assert_kept(self.wire)

    def test_targets(self) -> None:
        """Percent-encoding, a query and the absolute form lead to the route; a slash more does not."""
        for target, status in (
            ("/hooks/%67h", 200),
            ("/hooks/gh?x=/y", 200),
            ("http://any.host/hooks/gh", 200),
            ("HTTP://any.host", 404),
            ("http://any.host/health", 405),
            ("/hooks/gh/", 404),
            ("//hooks/gh", 404),
            ("/", 404),
            ("http:", 404),
        ):
            self.assertEqual(self.world.wire().send(signed_post(target)).answer().status, status, target)

    def test_route_beyond_ascii(self) -> None:
        """A non-ASCII path is found as UTF-8, percent-encoded as a target has to be."""
        self.world.serve(1, self.world.trigger("cafe", "/caf\xe9"))
        self.assertEqual(self.wire.send(signed_post("/caf%C3%A9")).answer().status, 200)
        self.assert_problem(self.wire.send(signed_post("/caf\xc3\xa9")).answer(), 400)


class MalformedTests(ChannelCase):
    def test_headers_too_large(self) -> None:
        """Headers of 100 KB, in one line or in many, are 431."""
        for headers in ({"X-Long": "x" * 100_000}, {f"X-{n}": "x" * 1000 for n in range(100)}):
            wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", headers))
            self.assert_problem(wire.answer(), 431)
            self.assertTrue(wire.closing)

    def test_too_many_headers(self) -> None:
        """A great many small headers are 431."""
        self.wire.send(request_bytes("POST", "/hooks/gh", {f"X-{n}": "x" for n in range(201)}))
        self.assert_problem(self.wire.answer(), 431)

    def test_target_too_long(self) -> None:
        """A request line that is too long is 414, whether its end comes or not."""
        for data in (b"POST /" + b"x" * 20_000, b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n"):
            self.assert_problem(self.world.wire().send(data).answer(), 414)

    def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 is answered, and its connection closed."""
        data = signed_post("/hooks/gh").replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = self.wire.send(data).answer()
        self.assertEqual((answer.status, answer.headers["connection"], self.wire.closing), (200, "close", True))

    def test_close_on_demand(self) -> None:
        """``Connection: close`` is obeyed, also in an answer that comes early."""
        for data in (signed_post("/hooks/gh", Connection="close"), request_bytes("GET", "/", {"Connection": "close"})):
            wire = self.world.wire().send(data)
            self.assertEqual(wire.answer().headers["connection"], "close")
            self.assertTrue(wire.closing)


class TimeTests(ChannelCase):
    def test_slow_headers(self) -> None:
        """Headers that are not complete in 10 s are 408, however steadily they drip."""
        for piece in b"POST /hoo":
            self.wire.send(bytes([piece]))
            self.world.advance(1)
        self.assertEqual(self.wire.raw(), b"")
        self.world.advance(2)
        self.assert_problem(self.wire.answer(), 408)
        self.assertTrue(self.wire.closing)

    def test_slow_body(self) -> None:
        """A body that is not complete in 30 s is 408 and closes; the lease is given back."""
        self.wire.send(signed_post("/hooks/gh", b"x" * 100)[:-50])
        for _ in range(29):
            self.wire.send(b"x")
            self.world.advance(1)
        self.assertEqual((self.wire.raw(), self.world.gh.binding.in_flight), (b"", 1))
        self.world.advance(2)
        self.assert_problem(self.wire.answer(), 408)
        self.assertEqual((self.wire.closing, self.world.gh.binding.in_flight), (True, 0))
        self.assert_nothing_held()

    def test_slow_body_that_nobody_wants(self) -> None:
        """A rejected request whose body never comes is closed without a second answer."""
        self.wire.send(request_bytes("POST", "/nowhere", {"Content-Length": "3"}))
        self.assertEqual(self.wire.answer().status, 404)
        self.world.advance(32)
        self.assertEqual((self.wire.raw(), self.wire.closing), (b"", True))

    def test_stall(self) -> None:
        """After the reactor stood still for a time, what clients sent meanwhile is read before they count as late."""
        silent = self.world.wire()
        self.wire.send(signed_post("/hooks/gh")[:-1])
        self.world.clock.callLater(99.5, self.wire.send, signed_post("/hooks/gh")[-1:])
        self.world.clock.advance(100)
        self.assertEqual((self.wire.answer().status, self.wire.closing), (200, False))
        self.assertTrue(silent.closing)

    def test_idle(self) -> None:
        """A kept connection stays open for 75 s without a request, then it is closed without a word."""
        self.wire.send(signed_post("/hooks/gh")).answer()
        self.world.advance(74)
        self.assertFalse(self.wire.closing)
        self.world.advance(2)
        self.assertEqual((self.wire.raw(), self.wire.closing), (b"", True))

    def test_a_wall_clock_that_jumps(self) -> None:
        """Set forward or back by an hour, it ends no connection and no request, and gives no client more time."""
        idle = self.world.wire()
        idle.send(signed_post("/hooks/gh")).answer()
        self.wire.send(signed_post("/hooks/gh", b"x" * 100)[:-50])
        for step in (3600.0, -7200.0):
            self.world.wall.step(step)
            self.world.advance(5)
            self.assertEqual((idle.closing, self.wire.closing, self.wire.raw()), (False, False, b""))
            self.assertEqual(idle.send(signed_post("/hooks/gh")).answer().status, 200)
        self.world.advance(22)
        self.assert_problem(self.wire.answer(), 408)
        self.world.advance(55)
        self.assertTrue(idle.closing)

    def test_silent_from_the_start(self) -> None:
        """A connection that never sends a byte is closed."""
        self.world.advance(77)
        self.assertTrue(self.wire.closing)

    def test_our_time_is_not_theirs(self) -> None:
        """While the server works on a request no time of the client's runs."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh"))
        self.world.advance(300)
        self.assertFalse(self.wire.closing)
        self.world.store.writer.release()
        self.assertEqual(self.wire.answer().status, 200)

    def test_does_not_notice_the_end(self) -> None:
        """A client that does not close after we did is cut off."""
        self.wire.send(b"nonsense\r\n\r\n")
        self.world.advance(4)
        self.assertFalse(self.wire.aborted)
        self.world.advance(2)
        self.assertTrue(self.wire.aborted)

    def test_goes_on_sending(self) -> None:
        """A client that still sends after our answer has as long as a body has, and no longer."""
        self.wire.send(request_bytes("POST", "/hooks/gh", {"Content-Length": "10485761"}))
        for _ in range(29):
            self.wire.send(b"x" * 1000)
            self.world.advance(1)
        self.assertFalse(self.wire.aborted)
        self.world.advance(2)
        self.assertTrue(self.wire.aborted)

    def test_does_not_read(self) -> None:
        """A client that leaves a full send buffer unread for a minute is cut off; one that reads is not."""
        self.wire.send(signed_post("/hooks/gh"))
        self.wire.protocol.pauseProducing()
        self.world.advance(50)
        self.wire.protocol.resumeProducing()
        self.world.advance(20)
        self.assertFalse(self.wire.aborted)
        self.wire.protocol.pauseProducing()
        self.world.advance(61)
        self.assertTrue(self.wire.aborted)

    def test_reads_a_long_last_answer(self) -> None:
        """A client with a full buffer yet to read when we close has the time that reading may take."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh", Connection="close"))
        self.wire.protocol.pauseProducing()
        self.world.store.writer.release()
        self.assertTrue(self.wire.closing)
        self.world.advance(58)
        self.assertFalse(self.wire.aborted)
        self.world.advance(3)
        self.assertTrue(self.wire.aborted)

    def test_no_timers_of_their_own(self) -> None:
        """However many connections there are, one timer serves them."""
        for _ in range(20):
            self.world.wire().send(b"POST /")
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)

    def test_timer_ends_with_the_last_connection(self) -> None:
        """When the port is closed the timer continues for the connections that are left, and then ends."""
        self.world.site.doStop()
        self.world.advance(1)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)
        self.wire.drop()
        self.world.advance(2)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class FlowTests(ChannelCase):
    """What is held for one connection while it waits."""

    def test_later_requests(self) -> None:
        """While a request is handled a little of the next ones is kept, and no more is read until it is answered."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh"))
        self.wire.send(signed_post("/hooks/gh", b"x" * 10_000))
        self.assertEqual(self.wire.transport.producerState, "producing")
        self.wire.send(signed_post("/hooks/gh", b"x" * 10_000))
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.world.store.writer.release()
        self.assertEqual([answer.status for answer in self.wire.answers()], [200, 200, 200])
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_unread_answers(self) -> None:
        """While answers wait to be read no further request is begun, nor read; then they are answered in order."""
        self.wire.protocol.pauseProducing()
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.wire.send(signed_post("/hooks/gh") + request_bytes("GET", "/nope"))
        self.wire.send(request_bytes("GET", "/health"))
        self.assertEqual((self.wire.raw(), self.world.site.in_flight), (b"", 0))
        self.wire.protocol.resumeProducing()
        self.assertEqual([answer.status for answer in self.wire.answers()], [200, 404, 200])
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_unread_and_half_closed(self) -> None:
        """A client that ends its side before it reads gets every answer all the same."""
        self.wire.protocol.pauseProducing()
        self.wire.send(signed_post("/hooks/gh") + request_bytes("GET", "/nope") + b"POST /hooks").half_close()
        self.assertFalse(self.wire.closing)
        self.wire.protocol.resumeProducing()
        self.assertEqual([answer.status for answer in self.wire.answers()], [200, 404])
        self.assertTrue(self.wire.closing)

    def test_unread_while_handled(self) -> None:
        """A buffer that is full while a request is handled delays the next one, not its own answer."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh") + request_bytes("GET", "/health"))
        self.wire.protocol.pauseProducing()
        self.world.store.writer.release()
        self.assertEqual(self.wire.answer().status, 200)
        self.wire.protocol.resumeProducing()
        self.assertEqual(self.wire.answer().body, b"ok")

    def test_dropped_while_it_waits(self) -> None:
        """A connection that is lost with requests that wait leaves nothing behind."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh") * 3).drop()
        self.world.store.writer.release()
        self.assert_nothing_held()
        self.assertEqual((len(self.world.store.rows()), self.world.site.channels), (1, set()))


class HalfClosedTests(ChannelCase):
    """The client ends its side, and reads on."""

    def setUp(self) -> None:
        super().setUp()
        self.world.store.writer.held = True

    def test_answered(self) -> None:
        """A request that came whole before the end is answered, and the connection closed with that answer."""
        self.wire.send(signed_post("/hooks/gh")).half_close()
        self.assertFalse(self.wire.closing)
        self.world.store.writer.release()
        answer = self.wire.answer()
        self.assertEqual((answer.status, answer.headers["connection"], self.wire.closing), (200, "close", True))
        self.assert_nothing_held()

    def test_pipelined(self) -> None:
        """So are all that came whole, in order; what began after them is dropped."""
        for rest in (b"", b"\r\n", b"POST /hooks/gh HTTP/1.1\r\nHost: h", signed_post("/hooks/gh")[:-1]):
            for step in (10_000, 1):
                world = World()
                world.store.writer.held = True
                wire = world.wire()
                data = signed_post("/hooks/gh") + request_bytes("GET", "/nope") + signed_post("/hooks/gh") + rest
                for start in range(0, len(data), step):
                    wire.send(data[start : start + step])
                wire.half_close().half_close()  # who reads on after the end finds the end again
                self.assertFalse(wire.closing)
                world.store.writer.release()
                self.assertEqual([answer.status for answer in wire.answers()], [200, 404, 200], rest)
                self.assertTrue(wire.closing, rest)
                wire.drop()
                self.assertEqual((world.site.in_flight, world.admission.pending_bytes), (0, 0), rest)

    def test_pipelined_and_held(self) -> None:
        """A later request that takes its time is waited for, too."""
        self.wire.send(signed_post("/hooks/gh") * 2).half_close()
        self.world.store.writer.run()
        self.world.store.writer.deliver()
        self.assertEqual((self.wire.answer().status, self.wire.closing), (200, False))
        self.world.store.writer.release()
        self.assertEqual((self.wire.answer().status, self.wire.closing), (200, True))

    def test_partial(self) -> None:
        """An end in the middle of a head or a body closes at once, without an answer, and releases what was held."""
        whole = signed_post("/hooks/gh", b"x" * 100)
        for data in (whole[:3], whole[:40], whole[:-1], CHUNKS, CHUNKS + b"0\r\n"):
            wire = self.world.wire().send(data).half_close()
            self.assertEqual((wire.raw(), wire.closing), (b"", True), data)
            wire.drop()
        self.assert_nothing_held()

    def test_partial_and_unwanted(self) -> None:
        """A request that was answered early is not waited for."""
        self.wire.send(request_bytes("POST", "/nowhere", {"Content-Length": "3"})).half_close()
        self.assertEqual((self.wire.answer().status, self.wire.closing), (404, True))

    def test_idle(self) -> None:
        """An idle connection that its client ends is closed at once."""
        self.assertTrue(self.wire.half_close().closing)

    def test_after_our_end(self) -> None:
        """A client that ends after we have is gone."""
        self.wire.send(b"nonsense\r\n\r\n").half_close()
        self.assertEqual((self.wire.answer().status, self.wire.closing), (400, True))


class QuiesceTests(ChannelCase):
    def test_new_requests(self) -> None:
        """Going down, a trigger's route answers 503 with Retry-After and closes; health still answers."""
        busy = self.world.wire()
        busy.send(signed_post("/hooks/gh")[:-1])
        self.successResultOf(World().site.quiesce())
        self.world.site.quiesce()
        answer = self.world.wire().send(signed_post("/hooks/gh")).answer()
        self.assert_problem(answer, 503)
        self.assertEqual((answer.json()["title"], answer.headers["connection"]), ("Shutting down", "close"))
        self.assertIn("retry-after", answer.headers)
        self.assertEqual(self.world.wire().send(request_bytes("GET", "/health")).answer().status, 200)

    def test_in_flight_ends(self) -> None:
        """What was in flight is answered; only when that is read does the wait end."""
        self.world.store.writer.held = True
        busy = self.world.wire().send(signed_post("/hooks/gh"))
        half = self.world.wire().send(signed_post("/hooks/gh")[:-1])
        quiet = self.world.site.quiesce()
        self.assertTrue(self.wire.closing)
        self.assertEqual((busy.closing, half.closing), (False, False))
        half.send(b"}")
        self.world.store.writer.release()
        for wire in (busy, half):
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        self.assertNoResult(quiet)
        for wire in (busy, half, self.wire):
            wire.drop()
        self.successResultOf(quiet)

    def test_idle(self) -> None:
        """Nothing waits for connections that are silent or idle, whether their clients close or not."""
        idle = self.world.wire().send(signed_post("/hooks/gh"))
        idle.answer()
        self.successResultOf(self.world.site.quiesce())
        self.assertEqual(
            [(wire.closing, wire.aborted, wire.raw()) for wire in (self.wire, idle)], [(True, False, b"")] * 2
        )
        self.world.advance(2)
        self.assertTrue(self.wire.aborted)

    def test_unfinished(self) -> None:
        """A request that is not complete has a second more, then it is 503 with Retry-After."""
        partial = [
            self.world.wire().send(data)
            for data in (b"PO", signed_post("/hooks/gh")[:40], signed_post("/hooks/gh")[:-1], CHUNKS)
        ]
        quiet = self.world.site.quiesce()
        self.world.clock.pump([0.25] * 3)
        self.assertEqual([wire.raw() for wire in partial], [b""] * 4)
        self.world.clock.pump([0.25] * 2)
        for wire in partial:
            answer = wire.answer()
            self.assert_problem(answer, 503)
            self.assertEqual((answer.json()["title"], answer.headers["connection"]), ("Shutting down", "close"))
            self.assertIn("retry-after", answer.headers)
            wire.drop()
        self.successResultOf(quiet)
        self.assert_nothing_held()

    def test_unwanted_body(self) -> None:
        """A request that was answered before its body came is closed without another word."""
        self.wire.send(request_bytes("POST", "/nowhere", {"Content-Length": "3"})).answer()
        quiet = self.world.site.quiesce()
        self.world.clock.pump([0.25] * 5)
        self.assertEqual((self.wire.raw(), self.wire.closing), (b"", True))
        self.wire.drop()
        self.successResultOf(quiet)

    def test_our_time(self) -> None:
        """A complete request has the time that it takes us."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh"))
        quiet = self.world.site.quiesce()
        self.world.advance(30)
        self.assertNoResult(quiet)
        self.assertFalse(self.wire.closing)
        self.world.store.writer.release()
        self.assertEqual(self.wire.answer().status, 200)

    def test_client_that_stays(self) -> None:
        """A client that has its answer and never closes holds the server up for a second."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh"))
        quiet = self.world.site.quiesce()
        self.world.store.writer.release()
        self.world.clock.pump([0.25] * 3)
        self.assertNoResult(quiet)
        self.world.clock.pump([0.25] * 2)
        self.assertTrue(self.wire.aborted)
        self.wire.drop()
        self.successResultOf(quiet)

    def test_client_that_reads_slowly(self) -> None:
        """One whose answer is not sent yet has longer, also where it was idle, but not for ever."""
        self.wire.send(signed_post("/hooks/gh"))
        self.wire.protocol.pauseProducing()
        quiet = self.world.site.quiesce()
        self.world.advance(4)
        self.assertNoResult(quiet)
        self.assertFalse(self.wire.aborted)
        self.world.advance(2)
        self.successResultOf(quiet)

    def test_newcomers(self) -> None:
        """Connections that come meanwhile hold up nothing: a silent one, or one that has its 503 and stays."""
        self.world.store.writer.held = True
        self.wire.send(signed_post("/hooks/gh"))
        quiet = self.world.site.quiesce()
        silent, slow = self.world.wire(), self.world.wire().send(b"POST")
        refused = self.world.wire().send(signed_post("/hooks/gh"))
        self.assert_problem(refused.answer(), 503)
        self.world.store.writer.release()
        self.wire.drop()
        self.successResultOf(quiet)
        self.world.advance(2)
        self.assertTrue(silent.closing)
        self.assert_problem(slow.answer(), 503)

    def test_again(self) -> None:
        """Asking twice gives two waits for the same quiet."""
        first, second = self.world.site.quiesce(), self.world.site.quiesce()
        self.wire.drop()
        self.successResultOf(first)
        self.successResultOf(second)


class RetireTests(ChannelCase):
    """Another process takes the new connections; these are served to their end, and none is refused."""

    def setUp(self) -> None:
        super().setUp()
        self.half = self.world.wire().send(signed_post("/hooks/gh")[:-1])
        self.served_out = self.world.site.retire(5.0)

    def assert_last(self, wire: Any, status: int = 200) -> None:
        """See that a connection got a whole answer, which says that it is the last, and was closed after it."""
        answer = wire.answer()
        self.assertEqual((answer.status, answer.headers["connection"]), (status, "close"))
        self.assertTrue(wire.closing)

    def test_requests(self) -> None:
        """A request under way and one on an idle connection are answered in full; the connection ends with that."""
        self.half.send(b"}")
        self.assert_last(self.half)
        self.wire.send(signed_post("/hooks/gh"))
        self.assert_last(self.wire)
        self.assertEqual(len(self.world.store.rows()), 2)
        self.assertNoResult(self.served_out)
        self.half.drop()
        self.wire.drop()
        self.successResultOf(self.served_out)

    def test_ready(self) -> None:
        """It is as ready as before: no client should be sent elsewhere."""
        self.wire.send(request_bytes("GET", "/readyz"))
        self.assert_last(self.wire)

    def test_refusals(self) -> None:
        """An error is an answer, too."""
        self.wire.send(request_bytes("GET", "/nowhere"))
        self.assert_last(self.wire, 404)

    def test_idle(self) -> None:
        """An idle connection may wait for one more request, and is then closed in good order."""
        self.world.advance(4)
        self.assertFalse(self.wire.closing)
        self.world.advance(1)
        self.assertEqual((self.wire.closing, self.wire.aborted), (True, False))
        self.world.advance(2)
        self.assertTrue(self.wire.aborted)
        self.assertFalse(self.half.closing)

    def test_answered_before(self) -> None:
        """A connection whose last answer was already sent, without that word, waits as long as the idle ones."""
        world = World()
        early = world.wire().send(request_bytes("POST", "/nowhere", {}, b"12")[:-1])
        self.assertEqual(early.answer().status, 404)
        world.site.retire(5.0)
        early.send(b"2")
        self.assertFalse(early.closing)
        world.advance(5)
        self.assertFalse(early.closing)
        world.advance(2)
        self.assertTrue(early.closing)

    def test_nobody(self) -> None:
        """Without a connection it is over at once; two may wait for it."""
        site = World().site
        self.successResultOf(site.retire(5.0))
        self.successResultOf(site.retire(5.0))

    def test_server_that_ends_then(self) -> None:
        """Going down afterwards closes what is left."""
        self.world.site.quiesce()
        self.assertTrue(self.wire.closing)
