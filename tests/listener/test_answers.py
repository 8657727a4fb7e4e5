"""Answers of several triggers on one path, fixed answers, and answers by handlers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from attrs import evolve

from harn.connectors.interfaces import Events, Respond
from harn.lifecycle import Appended, RequestRefused, Settled, SettledDelivery
from harn.manifest.respond import RespondSpec
from harn.model.delivery import DeadLetter, Settlement, State
from harn.model.response import Response
from harn.testing.clients import WireAnswer
from harn.triggers.routing import Ramp, shared_route
from tests.listener.test_ingest import IngestCase
from tests.listener.world import Trigger, event, signed_post

BY_HANDLER = RespondSpec(by_handler=True)


class SharedPathTests(IngestCase):
    """Three triggers on one path."""

    def setUp(self) -> None:
        super().setUp()
        self.all = self.world.trigger("a", "/in")
        self.opened = self.world.trigger("b", "/in", events=("issues.opened",))
        self.deduped = self.world.trigger("c", "/in", version=3, dedupe_key="event.dedupe_key")
        self.share(self.deduped, self.all, self.opened)

    def share(self, *triggers: Trigger) -> None:
        route = shared_route(each.route for each in triggers)
        assert route is not None
        self.world.site.swap(self.world.site.build({"/in": route}), 1)

    def kinds(self, *kinds: str) -> None:
        self.all.receiver.answer = self.events(*kinds)

    def events(self, *kinds: str) -> Events:
        return Events(tuple(event(kind=kind, dedupe_key=f"{kind}-{number}") for number, kind in enumerate(kinds)))

    def sent(self) -> Any:
        answer = self.post(signed_post("/in"))
        self.assertEqual(answer.status, 200)
        return json.loads(answer.body)

    def test_each_applies_its_own_rules(self) -> None:
        """Each trigger decides by its own rules; the answer lists what each did, by id."""
        self.kinds("push")
        answer = self.sent()
        rows = self.world.store.rows()
        self.assertEqual([(row.trigger_id, row.version) for row in rows], [("a", 1), ("c", 3)])
        expected = [
            {"trigger_id": row.trigger_id, "event_id": row.event_id, "binding": f"{row.trigger_id}@v{row.version}"}
            for row in rows
        ]
        self.assertEqual(answer, {"status": "accepted", "accepted": expected, "ignored": ["b"], "duplicates": []})
        self.assertEqual([binding.id for binding in self.world.submitted], ["a", "c"])
        again = self.sent()
        self.assertEqual(([each["trigger_id"] for each in again["accepted"]], again["duplicates"]), (["a"], ["c"]))

    def test_nothing_accepted(self) -> None:
        """Where no trigger takes it, the status says so."""
        self.share(self.opened, self.deduped)
        self.opened.receiver.answer = self.events("push")
        self.sent()
        self.assertEqual(
            self.sent(), {"status": "duplicate_dropped", "accepted": [], "ignored": ["b"], "duplicates": ["c"]}
        )

    def test_one_durable_unit(self) -> None:
        """The deliveries of all triggers are accepted in one unit."""
        self.kinds("issues.opened")
        units: list[str] = []
        self.world.lifecycle.subscribe(Appended, lambda event: units.append(event.topic))
        self.sent()
        self.assertEqual((len(units), len(self.world.store.rows())), (1, 3))

    def test_counted_for_each(self) -> None:
        """A request is received by each trigger, and refused for each; no lease remains."""
        refused: list[str] = []
        self.world.lifecycle.subscribe(RequestRefused, lambda event: refused.append(event.trigger_id))
        self.kinds("push")
        self.sent()
        self.assertEqual(self.post(signed_post("/in", b"{}").replace(b"{}", b"[]")).status, 401)
        self.assertEqual(refused, ["a", "b", "c"])
        for trigger in (self.all, self.opened, self.deduped):
            self.assertEqual(self.world.metrics.version(trigger.binding.key).received, 2)
            self.assertEqual(trigger.route.receiver.holders, 1)
        self.assertEqual([each.binding.in_flight for each in (self.all, self.opened, self.deduped)], [1, 0, 1])


class FixedAnswerTests(IngestCase):
    """``respond = { ... }``."""

    def test_always_the_same(self) -> None:
        """Accepted or duplicate, the answer is the fixed one; the answer to a handshake is still the connector's."""
        spec = RespondSpec(status=202, body="<ok/>", content_type="text/xml")
        trigger = self.world.trigger("x", "/x", respond=spec, dedupe_key="event.dedupe_key")
        self.world.serve(1, trigger)
        for _ in range(2):
            answer = self.post(signed_post("/x"))
            self.assertEqual((answer.status, answer.body), (202, b"<ok/>"))
            self.assertEqual(answer.headers["content-type"], "text/xml")
        self.assertEqual(len(self.world.store.rows()), 1)
        trigger.receiver.answer = Respond(status=200, body=b"challenge", content_type="text/plain")
        self.assertEqual(self.post(signed_post("/x")).body, b"challenge")

    def test_of_the_chosen_version(self) -> None:
        """While a change of ``respond`` is rolled out, each event has the answer of the version that takes it."""
        before, after = (
            self.world.trigger("x", "/x", version=number, respond=RespondSpec(body=f"v{number}")) for number in (1, 2)
        )
        for share, body in ((0.0, b"v1"), (1.0, b"v2")):
            ramp = Ramp(before.binding, after.binding, share)
            self.world.serve(1, evolve(after, route=evolve(after.route, ramp=ramp)))
            self.assertEqual(self.post(signed_post("/x")).body, body)


class HandlerAnswerTests(IngestCase):
    """``respond = "handler"``."""

    def setUp(self) -> None:
        super().setUp()
        self.trigger = self.world.trigger("x", "/x", respond=BY_HANDLER, respond_within=3.0)
        self.world.serve(1, self.trigger)
        self.wire = self.world.wire()

    def ask(self) -> None:
        """Send a request; it is not answered yet, and its event is on disk."""
        self.wire.send(signed_post("/x"))
        self.assertEqual(self.wire.raw(), b"")
        self.assertEqual(len(self.world.store.rows()), 1)

    def settle(self, state: State, result: Any = None, dead: DeadLetter | None = None) -> None:
        """Report the outcome of an attempt."""
        row = self.world.store.rows()[0]
        encoded = None if state is not State.DONE else msgspec.json.encode(result)
        settlement = Settlement(delivery_id=1, state=state, version=1, attempts=1, result=encoded, dead=dead)
        settled = SettledDelivery("x", "test", "x@v1", row.event_id, row.envelope, False, settlement)
        self.world.lifecycle.emit(Settled.of([settled]))

    def answer(self) -> WireAnswer:
        answer: WireAnswer = self.wire.answer()
        self.assertLessEqual(len(self.world.clock.getDelayedCalls()), 1, "the site's own timer")
        self.assertEqual(self.trigger.route.receiver.holders, 1)
        return answer

    def test_waiting_is_not_pending(self) -> None:
        """A request that waits for its handler does not count as undurable: it keeps no other out."""
        self.ask()
        self.assertEqual((self.world.admission.pending_events, self.world.admission.pending_bytes), (0, 0))
        self.settle(State.DONE, "done")
        self.answer()
        self.assertEqual((self.world.admission.pending_events, self.world.admission.pending_bytes), (0, 0))

    def test_response(self) -> None:
        """The handler's answer is the answer: status, body, headers; a status of 500 is not counted as a refusal."""
        refused: list[int] = []
        self.world.lifecycle.subscribe(RequestRefused, lambda event: refused.append(event.status))
        self.ask()
        given = Response(500, "<no/>", {"Content-Type": "text/xml", "X-Why": "caf\u00e9"})
        self.settle(State.DONE, given.to_result())
        answer = self.answer()
        self.assertEqual((answer.status, answer.body, answer.headers["content-type"]), (500, b"<no/>", "text/xml"))
        self.assertEqual((answer.headers["x-why"], refused), ("caf\u00e9", []))

    def test_changed_answer(self) -> None:
        """An answer that a handler made impossible to send fails its attempt: no header can be split."""
        for name, value in (("status", 99), ("headers", {"X-A": "a\r\nSet-Cookie: b"}), ("headers", {"Date": "now"})):
            given = Response(200, "x")
            setattr(given, name, value)
            self.assertRaises(ValueError, given.to_result)

    def test_other_results(self) -> None:
        """Bytes and JSON have their content types; any other result is sent as JSON, and of none the usual answer."""
        for result, body, content_type in (
            (Response(200, b"\x00\xff").to_result(), b"\x00\xff", "application/octet-stream"),
            (Response(200, {"a": 1}).to_result(), b'{"a":1}', "application/json"),
            ({"text": "hi"}, b'{"text":"hi"}', "application/json"),
            ("hi", b'"hi"', "application/json"),
            (0, b"0", "application/json"),
            (None, None, "application/json"),
        ):
            self.setUp()
            self.ask()
            self.settle(State.DONE, result)
            answer = self.answer()
            self.assertEqual((answer.status, answer.headers["content-type"]), (200, content_type))
            if body is None:
                self.assertEqual(json.loads(answer.body)["status"], "accepted")
            else:
                self.assertEqual(answer.body, body)

    def test_time_over(self) -> None:
        """After its time the request is answered 202 with the usual body, and a later result changes nothing."""
        self.ask()
        self.world.clock.advance(2.9)
        self.assertEqual(self.wire.raw(), b"")
        self.world.clock.advance(0.2)
        answer = self.answer()
        document = json.loads(answer.body)
        self.assertEqual((answer.status, document["status"], document["binding"]), (202, "accepted", "x@v1"))
        self.settle(State.DONE, {"late": True})

    def test_failures(self) -> None:
        """An attempt that will be repeated leaves the request waiting; a dead letter is answered 202 at once."""
        self.ask()
        self.settle(State.WAITING)
        self.assertEqual(self.wire.raw(), b"")
        self.settle(State.DEAD, dead=DeadLetter(reason="handler_error", error_class="E", error="x"))
        self.assertEqual(self.answer().status, 202)

    def test_predicate_said_no(self) -> None:
        """Of an event that the predicate skips the answer is the usual one."""
        self.ask()
        self.settle(State.SKIPPED)
        self.assertEqual(self.answer().status, 200)

    def test_not_accepted(self) -> None:
        """What is not accepted has no handler, and is answered at once."""
        self.trigger.receiver.answer = Respond(status=200, body=b"pong", content_type="text/plain")
        self.assertEqual(self.post(signed_post("/x")).body, b"pong")
        self.assertLessEqual(len(self.world.clock.getDelayedCalls()), 1, "the site's own timer")
