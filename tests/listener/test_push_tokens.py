"""Routes of agents that sign: requests that wait for keys, tokens that count once, and the protocol's own sender."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harn.connectors.gate import Gate
from harn.connectors.interfaces import CREDENTIALS, VERIFIED_HERE, ConnectorBinding, ConnectorContext
from harn.connectors.providers.a2a_push import A2aPushPlugin
from harn.model.event import decode_envelope
from harn.reload.connections import ConnectorPool, RunningConnector
from harn.testing.clients import WireAnswer, request_bytes
from harn.triggers.routing import shared_route
from tests.connectors.examples import NOW
from tests.connectors.tokens import SETTINGS, Publisher, bearer, token
from tests.listener.world import KEY, World

BODY = b'{"statusUpdate": {"taskId": "t-1", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}}'


class AgentCase(SynchronousTestCase):
    """A world with the trigger ``agent`` on ``/a2a/agent``."""

    def setUp(self) -> None:
        self.world, self.publisher = World(), Publisher("rsa-1")
        self.pool = ConnectorPool(self.world.clock)
        self.agent()

    def agent(self, table: dict[str, Any] = SETTINGS, secret: bytes | None = None) -> None:
        """Serve the trigger with settings, and the agreed token if there is one."""
        running = self.running("agent", table, secret)
        made = self.world.trigger("agent", "/a2a/agent", running.authentication)
        self.world.serve(2, evolve(made, route=evolve(made.route, receiver=self.pool.add("agent", running))))
        self.connector = running.connector

    def running(self, trigger_id: str, table: dict[str, Any] = SETTINGS, secret: bytes | None = None) -> Any:
        """Return the running connector of a trigger on the path."""
        plugin = A2aPushPlugin(self.publisher)
        binding = ConnectorBinding(
            trigger_id=trigger_id,
            provider="a2a-push",
            kind="a2a-push",
            path="/a2a/agent",
            events=(),
            settings=plugin.schema.check(table)[0],
            secrets={} if secret is None else {"token": (secret,)},
        )
        connector = plugin.connector(
            ConnectorContext(clock=self.world.clock, wall=self.world.wall, binding=binding, gate=Gate())
        )
        connector.prepare()
        connector.activate()
        return RunningConnector.of(trigger_id, connector, Gate(), plugin.authentication)

    def token(self, **changed: Any) -> dict[str, str]:
        """Return the headers with a valid token."""
        now = int(self.world.wall.seconds())
        return bearer(token(**{"iat": now, "exp": now + 300, **changed}))

    def post(self, headers: dict[str, str], body: bytes = BODY) -> WireAnswer:
        """Post a notification."""
        return self.world.wire().send(request_bytes("POST", "/a2a/agent", headers, body)).answer()


class TokenTests(AgentCase):
    def test_accepted_once(self) -> None:
        """A signed notification is an event; its token once more is a duplicate, whatever the body is."""
        answer = self.post(self.token())
        self.assertEqual((answer.status, answer.json()["status"]), (200, "accepted"))
        (row,) = self.world.store.rows()
        envelope = decode_envelope(row.envelope)
        self.assertEqual((envelope.kind, envelope.signature_status["state"]), ("a2a.task.input-required", "verified"))
        self.assertEqual(envelope.headers["authorization"], "[redacted]")
        again = self.post(self.token(), b'{"id": "other"}')
        self.assertEqual((again.status, again.json()), (200, {"status": "duplicate_dropped", "trigger_id": "agent"}))
        self.assertEqual(self.post(self.token(jti="j-2")).json()["status"], "accepted")
        self.assertEqual(len(self.world.store.rows()), 2)

    def test_shared_path(self) -> None:
        """On a path of several triggers a token that was used is a duplicate of each."""
        other = self.world.trigger("other", "/a2a/agent", VERIFIED_HERE)
        route = self.world.site.tree.routes["/a2a/agent"]
        shared = shared_route((route, evolve(other.route, receiver=route.receiver)))
        assert shared is not None
        self.world.site.swap(self.world.site.build({"/a2a/agent": shared}), 3)
        self.assertEqual(
            [each["trigger_id"] for each in self.post(self.token()).json()["accepted"]], ["agent", "other"]
        )
        again = {"status": "duplicate_dropped", "accepted": [], "ignored": [], "duplicates": ["agent", "other"]}
        self.assertEqual(self.post(self.token()).json(), again)

    def test_after_a_reload(self) -> None:
        """A token that was used stays a duplicate when a reload adds an earlier trigger, or moves the path."""
        self.post(self.token())
        route = self.world.site.tree.routes["/a2a/agent"]
        earlier = self.world.trigger("adopted", "/a2a/agent", VERIFIED_HERE)
        moved = evolve(earlier.route, receiver=self.pool.add("adopted", self.running("adopted")))
        added = shared_route((moved, route))
        assert added is not None
        for generation, served in enumerate((added, moved), start=3):
            self.world.site.swap(self.world.site.build({"/a2a/agent": served}), generation)
            self.assertEqual(self.post(self.token()).json()["status"], "duplicate_dropped")
        self.assertEqual(len(self.world.store.rows()), 1)

    def test_refused(self) -> None:
        """Only a right token is accepted, and not harn's own key."""
        for headers in ({}, bearer(KEY), {"X-API-Key": KEY}, self.token(iss="x"), bearer(token(exp=NOW - 99))):
            answer = self.post(headers)
            self.assertEqual((answer.status, answer.headers["content-type"]), (401, "application/problem+json"))
        self.assertEqual(self.world.store.rows(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_not_used_up(self) -> None:
        """A token whose event could not be kept, or whose request was refused, may come again."""
        self.assertEqual(self.post(self.token(), b"[]").status, 400)
        self.world.store.fail_writes = True
        self.assertEqual(self.post(self.token()).status, 503)
        self.world.store.fail_writes = False
        self.assertEqual(self.post(self.token()).json()["status"], "accepted")

    def test_waits_for_keys(self) -> None:
        """A request with a key that is new waits until the keys are there; it costs no other request anything."""
        self.world.clock.advance(60)
        self.publisher.held = True
        self.publisher.kids = ("rsa-1", "ec-9")
        wire = self.world.wire().send(request_bytes("POST", "/a2a/agent", self.token(kid="ec-9"), BODY))
        self.assertEqual(self.post(self.token(jti="j-2")).status, 200)
        self.assertEqual(len(self.publisher.waiting), 1)
        self.publisher.waiting[0].callback(self.publisher.published())
        self.assertEqual(wire.answer().json()["status"], "accepted")

    def test_no_keys_yet(self) -> None:
        """Where no key could be fetched so far, the sender is answered 503."""
        self.publisher.is_away = True
        self.agent()
        answer = self.post(self.token())
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "30"))

    def test_agreed_token(self) -> None:
        """With a token that was agreed, alone or beside a signature, a request must have it, and it is not stored."""
        self.agent({}, b"agreed")
        self.assertEqual(self.connector.authentication, VERIFIED_HERE)
        for headers, status in (
            ({"X-A2A-Notification-Token": "agreed"}, 200),
            ({"X-A2A-Token": "agreed"}, 200),
            ({"X-A2A-Notification-Token": "other"}, 401),
            ({"X-API-Key": KEY}, 401),
        ):
            self.assertEqual(self.post(headers).status, status, headers)
        self.assertNotIn("agreed", str([row.envelope for row in self.world.store.rows()]))
        self.agent(SETTINGS, b"agreed")
        self.assertEqual(self.post(self.token()).status, 401)
        self.assertEqual(self.post({**self.token(), "X-A2A-Notification-Token": "agreed"}).status, 200)

    def test_plain(self) -> None:
        """Without either, harn's own credentials are asked for, as usual."""
        self.agent({})
        self.assertEqual(self.connector.authentication, CREDENTIALS)
        self.assertEqual((self.post({}).status, self.post({"X-API-Key": KEY}).status), (401, 200))

    @settings(max_examples=60, deadline=None)
    @given(
        value=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=80)
        | st.sampled_from((token("ec-1"), token(jti=7), "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.")),
        body=st.binary(max_size=60),
    )
    def test_hostile(self, value: str, body: bytes) -> None:
        """Whatever is sent is refused with 401 and leaves nothing, not even a line of an exception in the log."""
        answer = self.post(bearer(value), body)
        self.assertEqual((answer.status, self.world.store.rows()), (401, []))
        self.assertEqual(self.flushLoggedErrors(), [])


class SenderTests(AgentCase):
    """The push sender of the protocol's own library."""

    def sent(self, **configuration: Any) -> list[tuple[dict[str, str], bytes]]:
        """Return the requests that the library sends for an update of a task."""
        try:
            import httpx
            from a2a.server.tasks.base_push_notification_sender import BasePushNotificationSender
            from a2a.types import a2a_pb2
        except ImportError:
            raise SkipTest("a2a-sdk is not installed") from None
        seen: list[tuple[dict[str, str], bytes]] = []

        def answer(request: Any) -> Any:
            seen.append((dict(request.headers), request.content))
            return httpx.Response(200)

        class Store:
            """Gives the one configuration."""

            async def get_info_for_dispatch(self, task_id: str) -> list[Any]:
                """Return it."""
                made = a2a_pb2.TaskPushNotificationConfig(url="https://harn.test/a2a/agent", **configuration)
                return [made]

        async def send() -> None:
            async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
                sender = BasePushNotificationSender(client, Store())  # type: ignore[arg-type]
                task = a2a_pb2.Task(id="t-1", status=a2a_pb2.TaskStatus(state="TASK_STATE_COMPLETED"))
                await sender.send_notification("t-1", task)
                update = a2a_pb2.TaskStatusUpdateEvent(
                    task_id="t-1", status=a2a_pb2.TaskStatus(state="TASK_STATE_WORKING")
                )
                await sender.send_notification("t-1", update)

        asyncio.run(send())
        return seen

    def kinds(self, requests: list[tuple[dict[str, str], bytes]]) -> list[str]:
        """Post these requests, and return the kinds of the events."""
        for headers, body in requests:
            wanted = {
                name: value
                for name, value in headers.items()
                if name not in ("host", "content-length", "connection", "accept-encoding")
            }
            self.assertEqual(self.post(wanted, body).status, 200, headers)
            json.loads(body)
        return [decode_envelope(row.envelope).kind for row in self.world.store.rows()]

    def test_agreed_token(self) -> None:
        """What the library sends with a configured token is accepted, and read."""
        self.agent({}, b"agreed")
        self.assertEqual(self.kinds(self.sent(token="agreed")), ["a2a.task.completed", "a2a.task.working"])

    def test_bearer(self) -> None:
        """What it sends with credentials of the scheme Bearer is verified as a token."""
        text = self.token()["authorization"].partition(" ")[2]
        first, second = self.sent(authentication={"scheme": "Bearer", "credentials": text})
        self.assertEqual(self.kinds([first]), ["a2a.task.completed"])
        self.assertEqual(
            self.post({"authorization": second[0]["authorization"]}, second[1]).json()["status"], "duplicate_dropped"
        )
