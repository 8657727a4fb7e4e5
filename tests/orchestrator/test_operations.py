"""What an operator asks of a running server: fire, inspect, bindings, generations, recover."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import IExamples, NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.dispatch.operations import Fire, fire
from harn.dispatch.synthetic import PATIENCE, SyntheticEvents, synthetic_kind
from harn.errors import HandlerRejected, HandlerRetryAfter, RouteUnknown
from harn.lifecycle import Lifecycle
from harn.model.delivery import DEAD, WAITING, DeadLetter, Settlement
from harn.model.display import REDACTED
from harn.model.event import TriggerEvent, decode_envelope
from harn.operations.model import Caller, Role
from harn.operations.parameters import Duration
from harn.orchestrator import recovery
from harn.orchestrator.operations import (
    Inspect,
    NoParameters,
    Recover,
    Recovered,
    ServerService,
    inspect,
    list_bindings,
    recover,
)
from harn.orchestrator.record_operations import ReadEvents, read_events
from harn.orchestrator.status import ServerSnapshot, ServerState
from harn.statistics.gauges import Backlogs
from harn.store.event_log import HANDSHAKE_CAPTURED
from harn.testing.manifests import trigger_text
from harn.wire import canonical_json
from tests.operations.asking import asked
from tests.orchestrator.test_state_directory import FACTS
from tests.reload.world import World, fake, github
from tests.triggers.examples import spec


class OperationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        self.world.manifest(fake("a"), github("gh"))
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.operations = self.operations_of(self.world)

    @staticmethod
    def operations_of(world: World) -> ServerService:
        """Make the services of the operations on a server."""
        snapshot = ServerSnapshot(FACTS, ServerState(generation=1, digest="d", pinned=False, bindings=(), counts={}))
        status: Any = SimpleNamespace(snapshot=lambda: snapshot)
        return ServerService(
            store=world.store,
            metrics=world.metrics,
            registry=world.registry,
            dispatcher=world.dispatcher,
            coordinator=world.coordinator,
            recovery=world.recovery,
            backlogs=Backlogs(
                *(world.clock, world.clock, world.store.totals, world.dispatcher, world.registry, Lifecycle())
            ),
            status=status,
            threads=world.server.threads,
        )

    def fire(self, trigger_id: str = "a", payload: Any = None) -> Deferred[Any]:
        world = self.world
        events = SyntheticEvents(
            world.clock, world.clock, world.registry, world.intake, world.dispatcher, world.server[IExamples]
        )
        return asked(fire, events, Fire(trigger=trigger_id, payload=payload))

    def recover(self, world: World, age: str, *, dry_run: bool) -> Recovered:
        wanted = Recover(envelope_age=Duration.parse(age), dry_run=dry_run)
        found: Recovered = self.successResultOf(asked(recover, self.operations_of(world), wanted))
        return found

    def test_fire(self) -> None:
        """A synthetic event goes the whole way, and the answer has its outcome."""
        fired = self.fire(payload={"x": 1})
        self.assertNoResult(fired)
        (running,) = self.world.calls
        self.assertEqual(running.call.body, canonical_json({"x": 1}))
        running.returns(b'{"seen": 1}')
        answer = self.successResultOf(fired)
        self.assertEqual((answer.status, answer.result, answer.error), ("dispatched", {"seen": 1}, None))
        self.assertEqual((answer.binding_id, answer.binding_version), ("a", 1))
        self.assertEqual(self.world.version("a").in_flight, 0)

    def test_fire_that_fails(self) -> None:
        """A handler that rejects, or asks for a later retry, is reported as such."""
        for error, status in ((HandlerRejected("never"), "dlq"), (HandlerRetryAfter("later", 60.0), "waiting")):
            fired = self.fire()
            self.world.calls[0].raises(error)
            answer = self.successResultOf(fired)
            self.assertEqual((answer.status, answer.error), (status, str(error)))
            self.assertEqual(answer.dlq_entry_id, answer.event_id if status == "dlq" else None)

    def test_fire_that_takes_too_long(self) -> None:
        """Who fires waits for the handler's time and a little more; the delivery continues."""
        fired = self.fire()
        self.world.clock.advance(self.world.version("a").spec.timeout + PATIENCE)
        self.assertEqual(self.successResultOf(fired).status, "pending")
        self.world.calls[0].returns()
        self.assertEqual(self.world.metrics.version(self.world.version("a").key).dispatched, 1)

    def test_fire_at_nothing(self) -> None:
        """A trigger that is not in force is refused with the names of those that are."""
        refused = self.failureResultOf(self.fire("none"), RouteUnknown)
        self.assertIn("a, gh", str(refused.value))

    def test_fire_that_is_filtered_or_known(self) -> None:
        """What the trigger's rules keep out is said to be ignored, or a duplicate; nothing runs, nothing is held."""
        rules = ("filter = 'event.headers.none'", "dedupe_key = \"'always the same'\"")
        for rule, statuses in zip(rules, (["ignored"], ["dispatched", "duplicate_dropped"]), strict=True):
            self.world.manifest(fake("a", extra=rule))
            self.assertTrue(self.successResultOf(self.world.reload()).ok)
            for status in statuses:
                fired = self.fire()
                for running in self.world.calls:
                    running.returns()
                self.assertEqual(self.successResultOf(fired).status, status)
                self.world.clock.advance(1.0)
            self.assertEqual(self.world.version("a").in_flight, 0)

    def test_fire_of_a_declared_provider(self) -> None:
        """The synthetic event is the provider's example if the trigger takes its kind; a payload is taken as it is."""
        self.world.environ["HARN_SECRET_STRIPE_WEBHOOK_SECRET"] = "s3cret"
        self.world.manifest(
            trigger_text("any", provider="stripe", events=()),
            trigger_text("paid", provider="stripe", events=("x.paid",)),
        )
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        example = "payment_intent.succeeded"
        for trigger_id, payload, kind, raw in (
            ("any", None, example, "pi_1"),
            ("any", {"id": "mine"}, "webhook", None),
            ("paid", None, "x.paid", None),
        ):
            fired = self.fire(trigger_id, payload)
            (running,) = self.world.calls
            event = TriggerEvent(decode_envelope(running.call.envelope), running.call.body)
            running.returns()
            self.assertEqual(self.successResultOf(fired).status, "dispatched")
            self.assertEqual((event.kind, event.signature_status["state"]), (kind, "unsigned"))
            self.assertEqual((event.provider_payload.get("object") or {}).get("id"), raw)
            self.assertTrue(event.provider_payload["synthetic"])
            self.assertTrue(event.dedupe_key.startswith(f"fire:{trigger_id}:"))

    def test_topics_hide_known_secrets(self) -> None:
        """Secrets are hidden in topics: known ones, and what stands under such a name; the handler has them."""
        headers = {"x-unheard-of": "s-1", "x-other": "s-11", "cookie": "c"}
        route = self.world.table.tree["/triggers/a"]
        bodies = (b"{}", b'{"a": ["s-1", {"access_token": "x", "n": 1}]}', b"text s-1")
        for number, body in enumerate(bodies):
            arrival = Arrival(headers=headers, body=body, received_at=self.world.clock.seconds())
            self.successResultOf(
                self.world.intake.take(route.binding, arrival, [NormalizedEvent(kind="k", dedupe_key=f"d{number}")])
            )
        page = self.successResultOf(
            asked(read_events, self.operations, ReadEvents(topic="trigger.inbox.envelopes", after=0, limit=10))
        )
        shown = {"x-unheard-of": REDACTED, "x-other": "s-11", "cookie": REDACTED}
        events = [record.payload["event"] for record in page.records]
        self.assertEqual([event["headers"] for event in events], [shown] * 3)
        self.assertEqual(
            [event["provider_payload"]["raw"] for event in events[:2]],
            [{}, {"a": [REDACTED, {"access_token": REDACTED, "n": 1}]}],
        )
        self.assertEqual([event["raw_body"] for event in events], ["e30=", REDACTED, REDACTED])
        self.assertEqual([decode_envelope(each.call.envelope).headers for each in self.world.calls], [headers] * 3)
        self.assertEqual([each.call.body for each in self.world.calls], list(bodies))
        page = self.successResultOf(
            asked(read_events, self.operations, ReadEvents(topic="orchestrator.manifest", after=0, limit=10))
        )
        self.assertEqual(page.topic, "orchestrator.manifest")

    def test_secrets_of_handshakes(self) -> None:
        """A secret that a sender has brought is shown to an admin, who sets it, and redacted for others."""
        topic = "connectors.notion.webhook.handshake"
        payload = {"trigger_id": "n", "provider": "notion", "value": "brought"}
        self.successResultOf(self.world.store.event_log.append(topic, HANDSHAKE_CAPTURED, payload))
        wanted = ReadEvents(topic=topic)
        for role, shown in ((Role.ADMIN, "brought"), (Role.OPERATE, REDACTED), (Role.READ, REDACTED)):
            reading: Any = read_events.run(self.operations, Caller(actor="me", role=role), wanted)
            (record,) = self.successResultOf(Deferred.fromCoroutine(reading)).records
            self.assertEqual(record.payload["value"], shown, role)

    def test_synthetic_kind(self) -> None:
        """A synthetic event is of a kind that the trigger matches."""
        patterns = {("issues.opened",): "issues.opened", ("issues.*", "x"): "issues.synthetic", (): "webhook"}
        for events, kind in patterns.items():
            self.assertEqual(synthetic_kind(spec("t", events=events)), kind)

    def test_bindings(self) -> None:
        """Every live and draining version is shown with its load."""
        self.successResultOf(self.world.take("a"))
        self.world.manifest(fake("a", extra="timeout = '3s'"))
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        found = {
            each.binding: each
            for each in self.successResultOf(asked(list_bindings, self.operations, NoParameters())).bindings
        }
        self.assertEqual({key: each.state for key, each in found.items()}, {"a@v2": "active", "a@v1": "draining"})
        self.assertEqual((found["a@v1"].in_flight, found["a@v2"].in_flight), (1, 0))
        self.assertIsNotNone(found["a@v1"].draining_since)

    def test_inspect_and_events(self) -> None:
        """What was dispatched lately is shown, and each topic can be read."""
        for _ in range(2):
            fired = self.fire()
            self.world.calls[0].returns()
            self.successResultOf(fired)
            self.world.clock.advance(1.0)
        shown = self.successResultOf(asked(inspect, self.operations, Inspect()))
        self.assertEqual((len(shown.recent_dispatches), shown.dispatcher.in_flight), (2, 0))
        page = self.successResultOf(
            asked(read_events, self.operations, ReadEvents(topic="trigger.outbox", after=1, limit=10))
        )
        self.assertEqual((len(page.records), page.latest), (1, 2))

    def test_recover(self) -> None:
        """What an earlier server left is listed, and run when it is asked for."""
        self.world.dispatcher.apply(0)
        self.successResultOf(self.world.take("a"))
        world = self.world.restarted()
        self.assertTrue(self.successResultOf(world.start()).ok)
        world.clock.advance(10.0)
        listed = self.recover(world, "0s", dry_run=True)
        self.assertEqual((listed.stranded_envelopes, world.calls), (1, []))
        self.assertEqual(listed.candidates[0].age_seconds, 10.0)
        self.assertEqual(self.recover(world, "60s", dry_run=False).recovered, 0)
        self.assertIs(listed.candidates[0].status, UNSET)
        done = self.recover(world, "0s", dry_run=False)
        self.assertEqual((done.recovered, [each.status for each in done.candidates]), (1, ["dispatched"]))
        world.calls[0].returns()
        self.assertEqual(self.recover(world, "0s", dry_run=True).stranded_envelopes, 0)

    def test_recover_says_what_happened(self) -> None:
        """All of it is counted and taken, the oldest are listed, and each says what really happened to it."""
        self.world.dispatcher.apply(0)
        for _ in range(4):
            self.successResultOf(self.world.take("a"))
        world = self.world.restarted()
        self.assertTrue(self.successResultOf(world.start()).ok)
        world.clock.advance(10.0)
        store = world.store
        dead = DeadLetter(reason="rejected", error_class="rejected", error="no")
        self.patch(recovery, "MOST_LISTED", 3)
        listed = self.recover(world, "0s", dry_run=True)
        self.assertEqual((listed.stranded_envelopes, len(listed.candidates)), (4, 3))
        taking = store.recovery.recover

        def taken(*given: Any) -> Any:
            # Between the list and the taking, one waits for a retry, one dies, and one is another server's again.
            first, second, third = (each.inbox_offset for each in listed.candidates)
            store.deliveries.settle(Settlement(delivery_id=first, state=WAITING, version=1, attempts=1, due_at=1e12))
            store.deliveries.settle(Settlement(delivery_id=second, state=DEAD, version=1, attempts=1, dead=dead))
            self.patch(
                store.deliveries, "states", lambda ids: states(ids).addCallback(lambda found: without(found, third))
            )
            return taking(*given)

        def without(found: Mapping[int, str], delivery_id: int) -> Mapping[int, str]:
            return {each: state for each, state in found.items() if each != delivery_id}

        states = store.deliveries.states
        self.patch(store.recovery, "recover", taken)
        done = self.recover(world, "0s", dry_run=False)
        self.assertEqual([each.status for each in done.candidates], ["waiting", "dlq", "left"])
        self.assertEqual(done.recovered, 3)
