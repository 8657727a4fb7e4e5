"""Ingest through the whole tree: routing, verification, acceptance, answers, counts, leases."""

from __future__ import annotations

import gzip
import json
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.auth.credentials import sign_request
from harn.connectors.interfaces import Events, IReceiver, Reject, Respond
from harn.errors import SignatureMissing, SignatureStale
from harn.lifecycle import HandshakeCaptured
from harn.manifest.settings import AdmissionSettings
from harn.model.display import REDACTED
from harn.model.event import TriggerEvent, decode_envelope
from harn.testing.clients import Wire, WireAnswer, request_bytes
from harn.triggers.matching import Rules
from tests.listener.world import KEY, SignedReceiver, World, event, signed, signed_post


class IngestCase(SynchronousTestCase):
    """A world, and requests to its trigger."""

    def setUp(self) -> None:
        self.world = World()

    def post(self, data: bytes) -> WireAnswer:
        return self.world.wire().send(data).answer()

    def counts(self) -> tuple[int, int, int]:
        binding = self.world.gh.binding
        counts = self.world.metrics.version(binding.key)
        return counts.received, counts.refused, binding.in_flight

    def assert_quiet(self) -> None:
        """Assert that nothing is held: no lease beyond those of deliveries, no undurable byte, no request in flight."""
        admission = self.world.admission
        self.assertEqual((admission.pending_bytes, admission.pending_events, self.world.site.in_flight), (0, 0, 0))
        self.assertEqual(self.world.gh.route.receiver.holders, 1)


class DoublesTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """The doubles of these tests provide what they stand for."""
        verifyObject(IReceiver, SignedReceiver())


class AnswerTests(IngestCase):
    def test_accepted_through_treq(self) -> None:
        """A signed POST through a real HTTP client is accepted, and its answer says which event and binding."""
        body = b'{"action":"opened"}'
        client = self.world.client()
        response = self.successResultOf(client.post("/hooks/gh", data=body, headers=signed(body)))
        document = self.successResultOf(treq.json_content(response))
        stored = self.world.store.rows()[0]
        self.assertEqual(response.code, 200)
        self.assertEqual(
            document,
            {"status": "accepted", "event_id": stored.event_id, "trigger_id": "gh", "binding": "gh@v1"},
        )
        self.assertEqual(stored.body, body)
        self.assertEqual(response.headers.getRawHeaders("Harn-Generation"), ["1"])

    def test_headers_of_an_answer(self) -> None:
        """An answer is JSON, names its length, the time and the generation, and keeps the connection."""
        answer = self.post(signed_post("/hooks/gh"))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["harn-generation"], "1")
        self.assertEqual(answer.headers["date"], "Tue, 14 Nov 2023 22:13:20 GMT")
        self.assertNotIn("connection", answer.headers)

    def test_an_answer_that_is_not_of_bytes(self) -> None:
        """A connector whose answer cannot be sent fails this request with 500; nothing is held for it."""
        answer: Any = Respond(status=200, body="text", content_type="text/plain")  # type: ignore[arg-type]
        self.world.gh.receiver.answer = answer
        self.assertEqual(self.post(signed_post("/hooks/gh")).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(self.world.gh.binding.in_flight, 0)
        self.assert_quiet()

    def test_handshake_that_brings_a_secret(self) -> None:
        """The secret that a handshake brings is reported, and is not in the answer."""
        captured: list[HandshakeCaptured] = []
        self.world.lifecycle.subscribe(HandshakeCaptured, captured.append)
        self.world.gh.receiver.answer = Respond(status=200, body=b"{}", content_type="x/y", captured="s3cret")
        self.assertEqual(self.post(signed_post("/hooks/gh")).body, b"{}")
        self.assertEqual(captured, [HandshakeCaptured("gh", "test", "s3cret")])

    def test_answered_only_when_durable(self) -> None:
        """200 is said when the inbox has the event, not before."""
        self.world.store.writer.held = True
        wire = self.world.wire().send(signed_post("/hooks/gh"))
        self.assertEqual(wire.raw(), b"")
        self.world.store.writer.release()
        self.assertEqual(wire.answer().status, 200)

    def test_what_the_connector_sees(self) -> None:
        """Headers have lower-case names and are joined; path and query are apart; the body is as received."""
        body = b"\xff\x00raw"
        data = request_bytes("POST", "/hooks/gh?a=1&b=%20", {**signed(body), "X-Multi": "one"}, body)
        self.post(data.replace(b"X-Multi: one\r\n", b"X-Multi: one\r\nx-multi: tw\xf6\r\n"))
        inbound = self.world.gh.receiver.seen[0]
        self.assertEqual((inbound.method, inbound.path, inbound.query), ("POST", "/hooks/gh", "a=1&b=%20"))
        self.assertEqual(inbound.headers["x-multi"], "one, tw\xf6")
        self.assertEqual(inbound.body, body)

    def headers_kept(self) -> dict[str, str]:
        """Return the headers of the last event that was kept."""
        return decode_envelope(self.world.store.rows()[-1].envelope).headers

    def test_credential_of_the_sender(self) -> None:
        """A header that is the trigger's secret itself reaches the connector, and is not stored."""
        receiver: Any = self.world.gh.receiver
        receiver.credential_headers = ("x-acme",)
        self.assertEqual(self.post(signed_post("/hooks/gh", X_Acme="t0k", X_More="m")).status, 200)
        kept = decode_envelope(self.world.store.rows()[-1].envelope).headers
        self.assertEqual((kept["x-acme"], kept["x-more"]), (REDACTED, "m"))
        self.assertEqual(receiver.seen[-1].headers["x-acme"], "t0k")

    def test_lines_of_refusals(self) -> None:
        """A request that is refused finally has the connector's lines, by its headers already; no other has."""
        receiver: Any = self.world.gh.receiver
        receiver.final_headers = b"X-Final: 1\r\n"
        post = request_bytes("POST", "/hooks/gh", {}, b"{}")
        self.assertEqual(self.post(post).headers["x-final"], "1")

        def refuse(headers: Any) -> None:
            raise SignatureMissing("missing")

        receiver.check_headers = refuse
        answer = self.post(post)
        self.assertEqual((answer.status, answer.headers["x-final"]), (401, "1"))
        self.world.site.quiescing = True
        answer = self.post(signed_post("/hooks/gh"))
        self.assertEqual((answer.status, "x-final" in answer.headers), (503, False))

    def test_headers_are_kept_as_they_came(self) -> None:
        """What a sender gives in its headers is for expressions and handlers, whatever the names are."""
        given = {
            "Cookie": "session=abc",
            "Authorization": "Bearer xyz",
            "X-Api-Key": "theirs",
            "Idempotency-Key": "o-1",
        }
        self.post(request_bytes("POST", "/hooks/gh", {**signed(b"{}"), **given}, b"{}"))
        kept = self.headers_kept()
        self.assertEqual({name: kept[name.lower()] for name in given}, given)

    def test_our_credentials_are_not_kept(self) -> None:
        """Our own keys and signatures are stored with no event, wherever they are sent; connectors see them."""
        signature = sign_request(b"hmac-secret", "POST", "/a2a/push", b"{}", self.world.clock.seconds())
        for target, given in (
            ("/hooks/gh", {"X-Api-Key": KEY, "Authorization": "Bearer theirs"}),
            ("/a2a/push", {"Authorization": f"Bearer {KEY}"}),
            ("/a2a/push", {"Authorization": signature}),
        ):
            self.assertEqual(self.post(request_bytes("POST", target, {**signed(b"{}"), **given}, b"{}")).status, 200)
            kept = self.headers_kept()
            for name, value in given.items():
                self.assertEqual(kept[name.lower()], value if "theirs" in value else REDACTED)
        self.assertEqual(self.world.gh.receiver.seen[0].headers["x-api-key"], KEY)

    def test_duplicate(self) -> None:
        """The second delivery of one dedupe key is dropped, and the answer with 200 says so."""
        keyed = self.world.trigger("keyed", "/hooks/keyed", dedupe_key="event.dedupe_key")
        self.world.serve(2, keyed)
        self.post(signed_post("/hooks/keyed"))
        answer = self.post(signed_post("/hooks/keyed"))
        self.assertEqual((answer.status, answer.json()), (200, {"status": "duplicate_dropped", "trigger_id": "keyed"}))
        self.assertEqual(answer.headers["harn-generation"], "2")

    def test_ignored(self) -> None:
        """An event that matches nothing is answered with 200 and not stored."""
        picky = self.world.trigger("picky", "/hooks/picky", events=("other.*",))
        self.world.serve(1, picky)
        answer = self.post(signed_post("/hooks/picky"))
        self.assertEqual((answer.status, answer.json()), (200, {"status": "ignored", "trigger_id": "picky"}))
        self.assertEqual(self.world.store.rows(), [])

    def test_nothing_to_do(self) -> None:
        """A connector that finds no event in a request has it answered as ignored."""
        self.world.gh.receiver.answer = Events(())
        self.assertEqual(self.post(signed_post("/hooks/gh")).json(), {"status": "ignored", "trigger_id": "gh"})

    def test_several_events(self) -> None:
        """Several events of one request are one durable unit, and the answer counts them."""
        many = self.world.trigger("many", "/many", events=("thing.*",), dedupe_key="event.dedupe_key")
        many.receiver.answer = Events((event("a"), event("b"), event("a"), event("c", "other")))
        self.world.serve(1, many)
        document = self.post(signed_post("/many")).json()
        self.assertEqual(len(document.pop("event_ids")), 2)
        self.assertEqual(
            document,
            {
                "status": "accepted",
                "events_accepted": 2,
                "duplicates_dropped": 1,
                "ignored": 1,
                "trigger_id": "many",
            },
        )
        self.assertEqual((len(self.world.store.rows()), self.world.store.commits), (2, 1))

    def test_names_are_escaped(self) -> None:
        """A trigger id with a quote in it makes no broken JSON."""
        odd = self.world.trigger('o"d', "/odd")
        self.world.serve(1, odd)
        self.assertEqual(self.post(signed_post("/odd")).json()["trigger_id"], 'o"d')

    def test_immediate_response_after_its_events(self) -> None:
        """A connector's own answer is sent as it is, once its events are durable."""
        self.world.gh.receiver.answer = Respond(
            status=202, body=b"hello", content_type="text/plain\r\nX-Evil: 1", events=(event(),)
        )
        self.world.store.writer.held = True
        wire = self.world.wire().send(signed_post("/hooks/gh"))
        self.assertEqual(wire.raw(), b"")
        self.world.store.writer.release()
        answer = wire.answer()
        self.assertEqual((answer.status, answer.body), (202, b"hello"))
        self.assertNotIn("x-evil", answer.headers)

    def test_rejected_by_the_connector(self) -> None:
        """A connector's rejection is a problem document with its status; nothing is kept, and it counts as refused."""
        self.world.gh.receiver.answer = Reject(status=422, detail="not like this")
        answer = self.post(signed_post("/hooks/gh"))
        self.assertEqual((answer.status, answer.json()["detail"]), (422, "not like this"))
        self.assertEqual((self.world.store.rows(), self.counts()), ([], (1, 1, 0)))


class RefusalTests(IngestCase):
    def assert_problem(self, answer: WireAnswer, status: int, detail: str) -> None:
        document = answer.json()
        self.assertEqual((answer.status, document["status"]), (status, status))
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        self.assertEqual(answer.headers["harn-generation"], "1")
        self.assertIn(detail, document["detail"])
        self.assertTrue(document["title"])

    def test_altered_body(self) -> None:
        """A body that does not match its signature gives 401 and keeps nothing."""
        answer = self.post(request_bytes("POST", "/hooks/gh", signed(b"other"), b"{}"))
        self.assert_problem(answer, 401, "X-Signature is wrong")
        self.assertIn("www-authenticate", answer.headers)
        self.assertEqual(self.world.store.rows(), [])

    def test_missing_signature(self) -> None:
        """No signature gives 401 and says which header."""
        self.assert_problem(self.post(request_bytes("POST", "/hooks/gh", {}, b"{}")), 401, "X-Signature is missing")

    def test_stale(self) -> None:
        """Any class of rejected credentials is 401."""

        def stale(inbound: object) -> None:
            raise SignatureStale("too old")

        self.world.gh.receiver.answer = stale
        self.assert_problem(self.post(signed_post("/hooks/gh")), 401, "too old")

    def test_malformed_payload(self) -> None:
        """What the provider's format does not allow is 400."""
        self.assert_problem(self.post(signed_post("/hooks/gh", b"")), 400, "empty")

    def test_event_log_away(self) -> None:
        """When nothing can be written the answer is 503 with Retry-After, without the store's own words."""
        self.world.store.fail_writes = True
        answer = self.post(signed_post("/hooks/gh"))
        self.assert_problem(answer, 503, "send the request again")
        self.assertEqual(answer.headers["retry-after"], "5")
        self.assertNotIn(b"full", answer.body)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assert_quiet()

    def test_connector_raises(self) -> None:
        """A connector that raises anything at all costs that request: 500, logged, and the next one is served."""

        class Panic(BaseException):
            """What a library in another language raises."""

        for error in (KeyError("boom"), Panic("boom")):

            def broken(inbound: object, error: BaseException = error) -> None:
                raise error

            self.world.gh.receiver.answer = broken
            answer = self.post(signed_post("/hooks/gh"))
            self.assert_problem(answer, 500, "its log has the reason")
            self.assertNotIn(b"boom", answer.body)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
        self.assertEqual(self.counts(), (2, 2, 0))
        self.world.gh.receiver.answer = None
        self.assertEqual(self.post(signed_post("/hooks/gh")).status, 200)

    def test_connector_gives_nonsense(self) -> None:
        """A connector whose normalize returns another type than those of harn has failed."""
        self.world.gh.receiver.answer = "nonsense"
        self.assert_problem(self.post(signed_post("/hooks/gh")), 500, "its log has the reason")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_payload_that_cannot_be_stored(self) -> None:
        """A connector's payload that has no JSON form is 500, logged, and leaves no lease behind."""
        broken = event()
        broken.payload["what"] = object()
        self.world.gh.receiver.answer = Events((broken,))
        self.assert_problem(self.post(signed_post("/hooks/gh")), 500, "its log has the reason")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(self.counts(), (1, 1, 0))
        self.assert_quiet()


class CountsTests(IngestCase):
    def test_two_failures_and_a_success(self) -> None:
        """Two requests that fail authentication and one that succeeds: three received, two refused."""
        self.post(request_bytes("POST", "/hooks/gh", {}, b"{}"))
        self.post(request_bytes("POST", "/hooks/gh", signed(b"x"), b"{}"))
        self.post(signed_post("/hooks/gh"))
        self.assertEqual(self.counts()[:2], (3, 2))
        stats = self.world.metrics.trigger("gh", "test")
        self.assertEqual((stats.received, stats.refusals), (3, {"unauthorized": 2}))

    def test_lease_until_answered(self) -> None:
        """The request's lease is held until its answer; then the delivery's own remains."""
        self.world.store.writer.held = True
        self.world.wire().send(signed_post("/hooks/gh"))
        self.assertEqual((self.world.gh.binding.in_flight, self.world.gh.route.receiver.holders), (2, 2))
        self.world.store.writer.release()
        self.assertEqual(self.world.gh.binding.in_flight, 1)
        self.assertEqual(len(self.world.submitted), 1)
        self.assert_quiet()

    def test_metrics(self) -> None:
        """Each answer counts once, under its route's path; strangers' paths are never labels."""
        self.post(signed_post("/hooks/gh"))
        self.post(request_bytes("POST", "/hooks/gh", {}, b"{}"))
        self.post(request_bytes("GET", "/hooks/gh"))
        self.post(request_bytes("POST", "/nowhere/1"))
        endpoints = self.world.metrics.endpoints()
        self.assertEqual(endpoints["/hooks/gh"].requests, {("POST", 200): 1, ("POST", 401): 1, ("GET", 405): 1})
        self.assertEqual(endpoints[self.world.site.unknown_endpoint].requests, {("POST", 404): 1})


class LostClientTests(IngestCase):
    def test_gone_while_accepting(self) -> None:
        """A client that goes away while its event is written loses its answer, and nothing else is lost or logged."""
        self.world.store.writer.held = True
        wire = self.world.wire().send(signed_post("/hooks/gh"))
        wire.drop()
        self.assertEqual(self.world.gh.binding.in_flight, 2)
        self.world.store.writer.release()
        self.assertEqual(len(self.world.submitted), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assert_quiet()

    def test_gone_before_the_body(self) -> None:
        """A client that goes away with its body unfinished leaves no lease behind."""
        wire = self.world.wire().send(signed_post("/hooks/gh")[:-2])
        self.assertEqual(self.world.gh.binding.in_flight, 1)
        wire.drop()
        self.assertEqual(self.counts(), (1, 0, 0))
        self.assert_quiet()


class LargeBodyTests(IngestCase):
    def test_examined_in_a_thread(self) -> None:
        """A body above 256 KiB is verified and normalized in a thread, the lease held meanwhile."""
        body = b"x" * (256 * 1024 + 1)
        wire = self.world.wire()
        data = signed_post("/hooks/gh", body)
        for start in range(0, len(data), 65536):
            wire.send(data[start : start + 65536])
        self.assertEqual((wire.raw(), len(self.world.threads)), (b"", 1))
        self.assertEqual(self.world.gh.binding.in_flight, 1)
        self.world.threads[0]()
        self.assertEqual(wire.answer().status, 200)
        self.assertEqual(self.world.gh.receiver.seen[0].body, body)
        self.assert_quiet()

    def test_rules_in_a_thread(self) -> None:
        """Filter and dedupe key of such a body are evaluated there, too: nothing of it is parsed on the reactor."""
        asked: list[bytes] = []
        examined: list[Any] = []

        class Look:
            def search(self, event: TriggerEvent) -> bool:
                asked.append(event.raw_body)
                return True

        self.world.gh.binding.rules = Rules((), Look(), None)

        def examine(function: Any, *given: Any) -> Deferred[Any]:
            examined.append(function(*given))
            return Deferred()

        self.patch(self.world, "call", examine)
        body = b"x" * (256 * 1024 + 1)
        self.world.wire().send(signed_post("/hooks/gh", body)).drop()
        self.assertEqual((asked, len(examined)), ([body], 1))
        self.assertEqual([new.body for new in examined[0].decided.deliveries], [body])

    def test_few_at_once(self) -> None:
        """Two such bodies are examined at once; the next one waits, also for those that are refused."""
        body = b"x" * (256 * 1024 + 1)
        bad = request_bytes("POST", "/hooks/gh", signed(b"y"), body)
        wires = [self.world.wire().send(data) for data in (bad, signed_post("/hooks/gh", body), bad, bad)]
        for number in range(4):
            self.assertEqual(len(self.world.threads), min(4, number + 2))
            self.world.threads[number]()
        self.assertEqual([wire.answer().status for wire in wires], [401, 200, 401, 401])
        self.assert_quiet()

    def test_refused_in_a_thread(self) -> None:
        """What fails in the thread is answered as what fails outside of one."""
        body = b"x" * (256 * 1024 + 1)
        wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", signed(b"y"), body))
        self.world.threads[0]()
        self.assertEqual(wire.answer().status, 401)
        self.assert_quiet()

    def test_at_the_limit(self) -> None:
        """A body of exactly the limit is taken, one byte more is 413 before it is sent."""
        self.world.configure(max_body_bytes=100)
        self.assertEqual(self.post(signed_post("/hooks/gh", b"x" * 100)).status, 200)
        head = request_bytes("POST", "/hooks/gh", {"Content-Length": "101"})
        answer = self.post(head)
        self.assertEqual((answer.status, json.loads(answer.body)["title"]), (413, "Body too large"))


class CodedBodyTests(IngestCase):
    """Bodies with a content coding."""

    def post_coded(self, body: bytes, coding: str, signature_of: bytes | None = None) -> WireAnswer:
        """Post a body that is encoded already; run what was handed to a thread."""
        headers = {**signed(body if signature_of is None else signature_of), "Content-Encoding": coding}
        wire = self.world.wire().send(request_bytes("POST", "/hooks/gh", headers, body))
        for run in self.world.threads:
            run()
        self.world.threads.clear()
        return wire.answer()

    def test_decoded_after_the_signature(self) -> None:
        """The signature is of what was received; connector, rules and handler have the body without its coding."""
        body = b'{"n":1}'
        self.assertEqual(self.post_coded(gzip.compress(body), "gzip").status, 200)
        self.assertEqual(self.world.gh.receiver.seen[0].body, body)
        self.assertEqual(self.world.store.rows()[0].body, body)
        self.assertEqual(self.post_coded(gzip.compress(body), "gzip", signature_of=body).status, 401)
        self.assertEqual(self.world.admission.pending_bytes, 0)

    def test_refused(self) -> None:
        """An unknown coding is 415 and says what we take; a garbled body is 400, one that grows too large 413."""
        self.world.site.max_body_bytes = 1000
        for body, coding, status in (
            (b"{}", "zstd", 415),
            (b"{}", "gzip", 400),
            (gzip.compress(b"{}")[:-1], "gzip", 400),
            (gzip.compress(bytes(1001)), "gzip", 413),
        ):
            answer = self.post_coded(body, coding)
            self.assertEqual(answer.status, status, coding)
            if status == 415:
                self.assertEqual(answer.headers["accept-encoding"], "gzip, deflate, br")
        self.assertEqual(self.world.store.rows(), [])
        refusals = self.world.metrics.trigger("gh", "test").refusals
        self.assertEqual(refusals, {"encoding": 1, "malformed": 2, "too_large": 1})
        self.assert_quiet()

    def test_counted_as_what_it_becomes(self) -> None:
        """The bytes by which decoding grows a body count as undurable; beyond the bound it is 503, all released."""
        self.world.admission.apply(AdmissionSettings(max_pending_bytes=5000), ())
        self.assertEqual(self.post_coded(gzip.compress(bytes(4000)), "gzip").status, 200)
        self.assertEqual(self.post_coded(gzip.compress(bytes(6000)), "gzip").status, 503)
        self.assertEqual(len(self.world.store.rows()), 1)
        self.assert_quiet()


class ReloadTests(IngestCase):
    def test_in_flight_stays_on_its_version(self) -> None:
        """A request whose headers were in before the swap ends on the old version, also on a removed route."""
        wire = self.world.wire()
        data = signed_post("/hooks/gh")
        wire.send(data[:-1])
        following = self.world.trigger("gh", "/hooks/gh", version=2)
        self.world.serve(2, following)
        wire.send(data[-1:])
        answer = wire.answer()
        self.assertEqual((answer.json()["binding"], answer.headers["harn-generation"]), ("gh@v1", "1"))

    def test_kept_connection_sees_the_new_routes(self) -> None:
        """On a kept-alive connection the next request meets the routes of the new generation."""
        wire = self.world.wire().send(signed_post("/hooks/gh"))
        self.assertEqual(wire.answer().json()["binding"], "gh@v1")
        self.world.serve(2, self.world.trigger("gh", "/hooks/gh", version=2))
        self.assertEqual(wire.send(signed_post("/hooks/gh")).answer().json()["binding"], "gh@v2")
        self.world.serve(3)
        self.assertEqual(wire.send(signed_post("/hooks/gh")).answer().status, 404)

    def test_old_receiver_closes_after_its_last_request(self) -> None:
        """A receiver that its generation has released is closed once the request that leased it has ended."""
        old = self.world.gh
        self.world.store.writer.held = True
        self.world.wire().send(signed_post("/hooks/gh"))
        self.world.serve(2)
        old.route.receiver.release()
        self.assertEqual(old.receiver.closed, 0)
        self.world.store.writer.release()
        self.assertEqual(old.receiver.closed, 1)


class PipeliningTests(IngestCase):
    def test_answers_in_order(self) -> None:
        """Requests sent without waiting are answered one after the other, in their order."""
        self.world.store.writer.held = True
        wire: Wire = self.world.wire()
        wire.send(signed_post("/hooks/gh") + signed_post("/hooks/gh") + request_bytes("GET", "/nowhere"))
        self.assertEqual(wire.raw(), b"")
        self.world.store.writer.release()
        self.assertEqual([answer.status for answer in wire.answers()], [200, 200, 404])
