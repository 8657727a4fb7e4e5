"""Ingest on a route with a ramp: who answers, who is counted, and what is held meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import PUBLIC, Events, Reject, Respond
from harn.testing.clients import WireAnswer, request_bytes
from harn.triggers.routing import Ramp, Route, bucket
from tests.listener.world import Trigger, World, event, signed, signed_post

HALF = 0.5
TO_STABLE = next(key for key in map(str, range(100)) if bucket("gh", key) >= HALF)
TO_FRESH = next(key for key in map(str, range(100)) if bucket("gh", key) < HALF)


class RampCase(SynchronousTestCase):
    """A world in which ``gh`` is on a ramp from v1 to v2."""

    def setUp(self) -> None:
        self.world = World()
        self.stable = self.world.gh.binding
        self.fresh_trigger = self.world.trigger("gh", "/hooks/gh", version=2)
        self.fresh = self.fresh_trigger.binding
        self.ramp = Ramp(self.stable, self.fresh, HALF)
        self.serve(self.ramp)

    def serve(self, ramp: Ramp | None, authentication: str = PUBLIC) -> None:
        """Serve a route with this ramp."""
        made = self.fresh_trigger
        self.route = Route(
            path="/hooks/gh",
            binding=made.binding,
            receiver=made.route.receiver,
            authentication=authentication,
            ramp=ramp,
        )
        self.world.serve(2, Trigger(made.binding, made.receiver, self.route))

    def post(self, key: str, body: bytes = b"{}") -> WireAnswer:
        """Post an event with this key."""
        return self.world.wire().send(signed_post("/hooks/gh", body, X_Delivery=key)).answer()

    def counts(self) -> list[tuple[int, int, int]]:
        """Return requests received and refused, and leases held, of the stable and of the fresh version."""
        return [
            (
                self.world.metrics.version(each.key).received,
                self.world.metrics.version(each.key).refused,
                each.in_flight,
            )
            for each in (self.stable, self.fresh)
        ]

    def assert_quiet(self) -> None:
        """Assert that nothing of a request is held any more."""
        admission = self.world.admission
        self.assertEqual((admission.pending_bytes, admission.pending_events, self.world.site.in_flight), (0, 0, 0))
        self.assertEqual(self.route.receiver.holders, 1)


class ChoiceTests(RampCase):
    def test_binding_of_the_answer(self) -> None:
        """The answer names the version that took the event, which the store and the counts agree with."""
        for key, version in ((TO_STABLE, 1), (TO_FRESH, 2), (TO_FRESH, 2)):
            answer = self.post(key)
            self.assertEqual((answer.status, answer.json()["binding"]), (200, f"gh@v{version}"))
            self.assertEqual(self.world.store.rows()[-1].version, version)
            self.assertEqual(self.world.submitted[-1].version, version)
        self.assertEqual(self.counts(), [(1, 0, 1), (2, 0, 2)])
        self.assertEqual(self.world.metrics.trigger("gh", "test").received, 3)
        self.assert_quiet()

    def test_both_are_held_until_the_answer(self) -> None:
        """From the headers on either may still be chosen; the delivery's own lease is the chosen one's."""
        self.world.store.writer.held = True
        data = signed_post("/hooks/gh", X_Delivery=TO_FRESH)
        wire = self.world.wire().send(data[:-1])
        self.assertEqual(self.counts(), [(0, 0, 1), (0, 0, 1)])
        wire.send(data[-1:])
        self.assertEqual(self.counts(), [(0, 0, 1), (1, 0, 2)])
        self.world.store.writer.release()
        self.assertEqual((wire.answer().json()["binding"], self.counts()), ("gh@v2", [(0, 0, 0), (1, 0, 1)]))
        self.assert_quiet()

    def test_a_request_keeps_its_ramp(self) -> None:
        """One whose headers were in before the ramp's end is still given to the version that its key chooses."""
        data = signed_post("/hooks/gh", X_Delivery=TO_STABLE)
        wire = self.world.wire().send(data[:-1])
        self.serve(None)
        self.assertEqual(wire.send(data[-1:]).answer().json()["binding"], "gh@v1")
        self.assertEqual(self.post(TO_STABLE).json()["binding"], "gh@v2")
        self.assertEqual(self.counts(), [(1, 0, 1), (1, 0, 1)])

    def test_in_a_thread(self) -> None:
        """A big body's key is looked at in the thread, as the share is then; both versions are held meanwhile."""
        body = b"x" * (256 * 1024 + 1)
        wire = self.world.wire()
        data = signed_post("/hooks/gh", body, X_Delivery=TO_STABLE)
        for start in range(0, len(data), 65536):
            wire.send(data[start : start + 65536])
        self.assertEqual((self.counts(), len(self.world.threads)), ([(0, 0, 1), (0, 0, 1)], 1))
        self.ramp.share = 1.0
        self.world.threads[0]()
        self.assertEqual((wire.answer().json()["binding"], self.counts()), ("gh@v2", [(0, 0, 0), (1, 0, 1)]))
        self.assert_quiet()

    def test_an_immediate_response(self) -> None:
        """A connector's own answer is sent as it is; its events go where their keys say."""
        self.fresh_trigger.receiver.answer = Respond(
            status=202, body=b"", content_type="text/plain", events=(event(TO_STABLE),)
        )
        self.assertEqual((self.post("").status, self.counts()), (202, [(1, 0, 1), (0, 0, 0)]))


class RefusalTests(RampCase):
    def test_before_the_choice(self) -> None:
        """What is refused before there is an event counts on the newest version, once, whatever refuses it."""

        def broken(inbound: object) -> None:
            raise KeyError("boom")

        answers: list[Callable[[], object]] = [
            lambda: self.world.wire().send(request_bytes("POST", "/hooks/gh", signed(b"other"), b"{}")),
            lambda: self.answering(Reject(status=422, detail="no")),
            lambda: self.answering(Events(())),
            lambda: self.answering(broken),
        ]
        for count, ask in enumerate(answers, 1):
            ask()
            received = self.world.metrics.version("gh@v2").received
            self.assertEqual((self.counts()[0], received, self.fresh.in_flight), ((0, 0, 0), count, 0))
        self.assertEqual(self.world.metrics.version("gh@v2").refused, 3)  # a request without an event is not a failure
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assert_quiet()

    def answering(self, answer: object) -> None:
        """Post while the connector gives this."""
        self.fresh_trigger.receiver.answer = answer
        self.post(TO_STABLE)

    def test_at_the_headers(self) -> None:
        """One that is not let in counts on the newest version, and holds nothing."""
        self.world.site.quiesce()
        self.assertEqual(self.post(TO_STABLE).status, 503)
        self.assertEqual(self.counts(), [(0, 0, 0), (1, 1, 0)])

    def test_client_gone_before_the_body(self) -> None:
        """Both leases are given back, and the request counts on the newest version."""
        wire = self.world.wire().send(signed_post("/hooks/gh", X_Delivery=TO_STABLE)[:-1])
        wire.drop()
        self.assertEqual(self.counts(), [(0, 0, 0), (1, 0, 0)])
        self.assert_quiet()

    def test_client_gone_after_the_choice(self) -> None:
        """Its event is accepted all the same, and counted once."""
        self.world.store.writer.held = True
        wire = self.world.wire().send(signed_post("/hooks/gh", X_Delivery=TO_STABLE))
        wire.drop()
        self.world.store.writer.release()
        self.assertEqual(self.counts(), [(1, 0, 1), (0, 0, 0)])
        self.assert_quiet()

    def test_event_log_away(self) -> None:
        """What fails after the choice is the chosen version's failure."""
        self.world.store.fail_writes = True
        self.assertEqual(self.post(TO_STABLE).status, 503)
        self.assertEqual(self.counts(), [(1, 1, 0), (0, 0, 0)])
        self.assert_quiet()
