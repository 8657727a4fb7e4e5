"""Routes with our own credentials: who may post, and that a signature counts once."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.auth.credentials import sign_request
from harn.connectors.interfaces import CREDENTIALS
from harn.testing.clients import WireAnswer, request_bytes
from tests.listener.world import KEY, World


class PushTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def post(self, headers: dict[str, str], body: bytes = b'{"n":1}', target: str = "/a2a/push") -> WireAnswer:
        return self.world.wire().send(request_bytes("POST", target, headers, body)).answer()

    def sign(self, target: str = "/a2a/push", body: bytes = b'{"n":1}') -> dict[str, str]:
        return {"Authorization": sign_request(b"hmac-secret", "POST", target, body, self.world.wall.seconds())}

    def test_keys(self) -> None:
        """A key is accepted in either header; a wrong one, and none, are 401 with the schemes there are."""
        for headers, status in (
            ({"Authorization": f"Bearer {KEY}"}, 200),
            ({"X-API-Key": KEY}, 200),
            ({"X-API-Key": "wrong"}, 401),
            ({}, 401),
        ):
            answer = self.post(headers)
            self.assertEqual(answer.status, status, headers)
            if status == 401:
                self.assertIn("Bearer", answer.headers["www-authenticate"])
        counts = self.world.metrics.version("push@v1")
        self.assertEqual((counts.received, counts.refused), (4, 2))

    def test_turned_away_before_the_body(self) -> None:
        """Who has no credentials is not read from: 401 comes with the headers, and no lease was taken."""
        wire = self.world.wire().send(request_bytes("POST", "/a2a/push", {"Content-Length": "1000000"}))
        self.assertEqual((wire.answer().status, wire.closing), (401, True))
        self.assertEqual(self.world.push.binding.in_flight, 0)

    def test_signature_counts_once(self) -> None:
        """A signed request is accepted once; the same again is 401 and keeps nothing."""
        headers = self.sign()
        self.assertEqual(self.post(headers).status, 200)
        answer = self.post(headers)
        self.assertEqual((answer.status, answer.json()["title"]), (401, "Signature used before"))
        self.assertEqual(len(self.world.store.rows()), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_freshness_is_of_the_time_of_day(self) -> None:
        """A signature is fresh by the wall clock as it is now; what was fresh before it was set is not any more."""
        headers = self.sign()
        self.world.wall.step(3600.0)
        self.assertEqual((self.post(headers).status, self.world.push.binding.in_flight), (401, 0))
        self.assertEqual(self.post(self.sign()).status, 200)

    def test_signature_over_other_bytes(self) -> None:
        """A signature over another body is 401, once the body is there."""
        answer = self.post(self.sign(body=b"other"))
        self.assertEqual((answer.status, answer.json()["title"]), (401, "Signature wrong"))
        self.assertEqual(self.world.metrics.version("push@v1").refused, 1)

    def test_signature_not_used_up_when_nothing_was_kept(self) -> None:
        """A signature whose event could not be written may come again."""
        headers = self.sign()
        self.world.store.fail_writes = True
        self.assertEqual(self.post(headers).status, 503)
        self.world.store.fail_writes = False
        self.assertEqual(self.post(headers).status, 200)

    def test_any_path(self) -> None:
        """A route is found by its path whatever that is made of, and however it is encoded."""
        paths = ("/a", "/a//b", "/a b/\N{LATIN SMALL LETTER E WITH ACUTE}", "/a/b/")
        triggers = [self.world.trigger(f"t{number}", path, CREDENTIALS) for number, path in enumerate(paths)]
        for each in triggers:
            each.receiver.verify = lambda inbound, now: None
        self.world.serve(2, *triggers)
        for target in ("/a", "/a//b", "/a%20b/%C3%A9", "/a/b/", "/a/b%2F"):
            self.assertEqual(self.post({"X-API-Key": KEY}, target=target).status, 200, target)
        self.assertEqual(self.post({"X-API-Key": KEY}, target="/a/b").status, 404)

    def test_reload_under_way(self) -> None:
        """A request whose headers were in before a reload is answered by the tree that it began with."""
        data = request_bytes("POST", "/a2a/push", {"X-API-Key": KEY}, b'{"n":1}')
        wire = self.world.wire().send(data[:-3])
        self.world.serve(2)
        answer = wire.send(data[-3:]).answer()
        self.assertEqual((answer.status, answer.headers["harn-generation"]), (200, "1"))
        self.assertEqual(self.post({"X-API-Key": KEY}).status, 404)

    def test_client_that_has_gone(self) -> None:
        """A client that disconnects before its event is on disk is not an error: the event is accepted."""
        self.world.store.writer.held = True
        wire = self.world.wire().send(request_bytes("POST", "/a2a/push", {"X-API-Key": KEY}, b'{"n":1}'))
        wire.drop()
        self.world.store.writer.release()
        self.assertEqual((len(self.world.store.rows()), self.world.push.binding.in_flight), (1, 1))
        self.assertEqual(self.flushLoggedErrors(), [])
