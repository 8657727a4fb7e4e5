"""Requests as they are reported while traces are on."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Answered
from harn.model.event import decode_envelope
from harn.testing.clients import request_bytes
from tests.listener.world import KEY, World, signed_post


class AnsweredTests(SynchronousTestCase):
    """`TracedIngest` and `TracedPush`."""

    def setUp(self) -> None:
        self.world = World(is_traced=True)
        self.events: list[Answered] = []
        self.world.lifecycle.subscribe(Answered, self.events.append)

    def test_accepted(self) -> None:
        """It says how long it took, how it was answered, and what the first event is."""
        wire = self.world.wire()
        whole = signed_post("/hooks/gh", b"{}")
        wire.send(whole[:-1])
        self.world.clock.advance(0.5)
        wire.send(whole[-1:])
        self.assertEqual(wire.answer().status, 200)
        (event,) = self.events
        self.assertEqual((event.trigger_id, event.path, event.status, event.size), ("gh", "/hooks/gh", 200, 2))
        self.assertEqual((event.ended_at, event.ended_at - event.began_at), (self.world.wall.seconds(), 0.5))
        self.assertEqual((event.method, event.is_verified), ("POST", True))
        self.assertEqual(decode_envelope(event.envelope).id, self.world.store.rows()[0].event_id)

    def test_refused(self) -> None:
        """One that proves nothing has no event, whether its headers or its body show that."""
        unsigned = request_bytes("POST", "/hooks/gh", {}, b"{}")
        forged = signed_post("/hooks/gh", b"{}").replace(b"{}", b"[]")
        for data in (unsigned, forged):
            self.assertEqual(self.world.wire().send(data).answer().status, 401)
        seen = [(each.status, each.is_verified, each.envelope) for each in self.events]
        self.assertEqual(seen, [(401, False, b"")] * 2)

    def test_shared_path(self) -> None:
        """Each trigger that has an event of it is reported."""
        other = self.world.trigger("other", "/hooks/gh")
        gh = evolve(self.world.gh, route=evolve(self.world.gh.route, others=(other.route,)))
        self.world.serve(2, gh)
        self.assertEqual(self.world.wire().send(signed_post("/hooks/gh", b"{}")).answer().status, 200)
        self.assertEqual([each.trigger_id for each in self.events], ["gh", "other"])
        self.assertEqual(len({decode_envelope(each.envelope).id for each in self.events}), 2)

    def test_credentials(self) -> None:
        """Routes of the server's own credentials are reported, too."""
        for key, status in ((KEY, 200), ("wrong", 401)):
            data = request_bytes("POST", "/a2a/push", {"Authorization": f"Bearer {key}"}, b"{}")
            self.assertEqual(self.world.wire().send(data).answer().status, status)
        self.assertEqual([(each.trigger_id, each.status) for each in self.events], [("push", 200), ("push", 401)])

    def test_client_gone(self) -> None:
        """A client that disconnects before its body is complete has no status."""
        wire = self.world.wire()
        wire.send(signed_post("/hooks/gh", b"{}")[:-1])
        wire.drop()
        self.assertEqual([(each.status, each.is_verified) for each in self.events], [(None, False)])
