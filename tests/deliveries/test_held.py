"""Deliveries whose trigger a pause or an open circuit holds: they are shown as waiting, wherever they are read."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.circuits.records import CircuitRecords
from harn.circuits.service import Circuits
from harn.clocks import rfc3339
from harn.deliveries.change_operations import cancel_many
from harn.deliveries.operations import DeliveryService, ListDeliveries, ShowDelivery, list_deliveries, show_delivery
from harn.errors import HandlerRaised
from harn.lifecycle import Lifecycle
from harn.manifest.model import CircuitSpec, RetrySpec
from harn.model.delivery import READY, RUNNING, WAITING, State
from harn.operations.parameters import Period
from harn.statistics.gauges import Backlogs
from harn.store.deliveries import DeliveryFilter
from harn.store.holds import CIRCUITS, PAUSES, Hold, Holds, RecordedHolds
from harn.testing.clocks import START
from tests.deliveries.jobs_world import JobsWorld
from tests.operations.asking import asked
from tests.triggers.examples import spec


class HeldTests(SynchronousTestCase):
    """A server with the triggers ``gh``, whose circuit opens at one failure, and ``other``."""

    def setUp(self) -> None:
        self.jobs = JobsWorld()
        self.world = world = self.jobs.world
        self.circuits = Circuits(
            world.wall, CircuitRecords(world.store.checkpoints), world.registry, world.dispatcher, world.lifecycle
        )
        world.dispatcher.gates.add(self.circuits)
        self.backlogs = Backlogs(
            *(world.clock, world.wall, world.store.totals, world.dispatcher, world.registry, Lifecycle())
        )

    def adopt(self, opens: str = "wait") -> None:
        """Adopt the triggers."""
        circuit = CircuitSpec(failures=1, reset=60.0, open=opens)
        self.world.adopt(
            {
                "gh": spec("gh", retry=RetrySpec(max=1), circuit=circuit),
                "other": spec("other", retry=RetrySpec(backoff="svix")),
            }
        )
        self.jobs.runner.startService()

    def take(self, *trigger_ids: str) -> None:
        """Accept one delivery of each."""
        for trigger_id in trigger_ids:
            self.world.take(self.world.version(trigger_id))

    def pause(self, trigger_id: str | None, seconds: float | None = None) -> None:
        """Pause a trigger, or the server."""
        self.successResultOf(Deferred.fromCoroutine(self.world.pauses.pause(trigger_id, seconds, "me")))

    def open_circuit(self) -> None:
        """Fail one delivery, so that the circuit of ``gh`` opens for a minute."""
        self.take("gh")
        self.world.call().raises(HandlerRaised("no"))

    def service(self) -> DeliveryService:
        coordinator: Any = type("NoGeneration", (), {"current": None})
        return DeliveryService(reader=self.jobs.reader, coordinator=coordinator)

    def listed(self, **wanted: Any) -> list[tuple[str, str, str | None, str | None]]:
        """Return trigger, state, reason and due time of what a list has, the oldest first, read one by one."""
        found: list[Any] = []
        before: str | None = None
        while True:
            chosen = ListDeliveries(limit=1, before=before, **wanted)
            page = self.successResultOf(asked(list_deliveries, self.service(), chosen))
            found += page.deliveries
            if not page.more:
                break
            before = str(page.before)
        return [(each.trigger_id, each.state, each.reason, each.due_at) for each in reversed(found)]

    def test_paused_trigger(self) -> None:
        """Its deliveries wait, until the pause ends by itself, and those of others run."""
        self.adopt()
        self.pause("gh", 90.0)
        self.take("gh", "other", "gh")
        held = ("gh", "waiting", "paused", rfc3339(START + 90.0))
        runs = ("other", "running", None, None)
        self.assertEqual(self.listed(), [held, runs, held])
        for wanted in ({"state": "waiting"}, {"trigger": "gh", "state": "waiting"}, {"where": "state == 'waiting'"}):
            self.assertEqual(self.listed(**wanted), [held, held], wanted)
        for wanted in ({"state": "ready"}, {"trigger": "gh", "state": "ready"}, {"where": "state == 'ready'"}):
            self.assertEqual(self.listed(**wanted), [], wanted)
        self.assertEqual(self.listed(state="ready,running,waiting"), [held, runs, held])
        self.assertEqual(self.listed(where="reason == 'paused'", since=Period.parse("1h")), [held, held])
        self.world.clock.advance(90.0)
        self.assertEqual(self.listed(state="waiting"), [])
        self.assertEqual([each[:2] for each in self.listed(trigger="gh")], [("gh", "running")] * 2)

    def test_paused_server(self) -> None:
        """What runs continues; of all triggers the rest waits, with no due time, and nothing is ready."""
        self.adopt()
        self.take("other")
        self.pause(None)
        self.take("gh", "other")
        waits = [("gh", "waiting", "paused", None), ("other", "waiting", "paused", None)]
        self.assertEqual(self.listed(state="waiting"), waits)
        self.assertEqual(self.listed(state="ready"), [])
        self.assertEqual(self.listed(trigger="other", state="ready"), [])
        self.assertEqual(self.listed(state="running"), [("other", "running", None, None)])
        self.pause("gh", 10.0)
        self.assertEqual(self.listed(state="waiting"), waits)

    def test_open_circuit(self) -> None:
        """What waits for it is due when it is tried again; where deliveries are refused nothing waits."""
        self.adopt()
        self.open_circuit()
        self.take("gh")
        self.assertEqual(self.listed(state="waiting"), [("gh", "waiting", "circuit_open", rfc3339(START + 60.0))])
        self.adopt("dead_letter")
        self.assertEqual(self.world.dispatcher.gates.holds(START).by_trigger, {})

    def test_retry_that_is_due(self) -> None:
        """A retry waits for its own time first; when that has come, for the pause."""
        self.adopt()
        self.take("other")
        self.world.call().raises(HandlerRaised("no"))
        self.pause("other")
        self.assertEqual([each[:3] for each in self.listed(state="waiting")], [("other", "waiting", "retry")])
        self.world.clock.advance(31.0)
        self.assertEqual(self.listed(state="waiting"), [("other", "waiting", "paused", None)])
        self.assertEqual(self.backlogs.waiting_now(), {"other": 1})

    def test_one_delivery(self) -> None:
        """The whole delivery says the same, and its timeline has the wait with its reason and end."""
        self.adopt()
        self.pause("gh", 90.0)
        self.take("gh")
        (row,) = self.world.rows()
        found = self.successResultOf(asked(show_delivery, self.service(), ShowDelivery(event_id=row.event_id)))
        self.assertEqual((found.state, found.reason, found.due_at), ("waiting", "paused", rfc3339(START + 90.0)))
        last = found.timeline[-1]
        self.assertEqual((last.what, last.reason, last.until), ("waiting", "paused", rfc3339(START + 90.0)))

    def test_many_triggers(self) -> None:
        """A list is the same whether the triggers that are held are read one by one or are too many for that."""
        self.adopt()
        self.pause("gh")
        self.take("gh", "other", "gh")
        holds = self.world.dispatcher.gates.holds(START)
        others = {f"t{number}": Hold("paused") for number in range(200)}
        for by_trigger in (holds.by_trigger, {**others, **holds.by_trigger}):
            held = Holds(at=START, by_trigger=by_trigger)
            for states, count in (((WAITING,), 2), ((READY,), 0), ((READY, RUNNING), 1), ((), 3)):
                self.assertEqual(len(self.part(held, *states)), count, (len(by_trigger), states))

    def part(self, holds: Holds, *states: State) -> tuple[Any, ...]:
        """Return the rows of a list while these holds stand."""
        chosen = DeliveryFilter(states=frozenset(states), holds=holds)
        found = self.successResultOf(self.world.store.lists.part(chosen, None, 100, 100, False))
        return tuple(found.deliveries)

    def test_counts(self) -> None:
        """What is held counts as waiting, and not as ready."""
        self.adopt()
        self.pause("gh")
        self.take("gh", "other", "gh")
        self.assertEqual((+self.backlogs.waiting_now(), +self.backlogs.ready_now()), ({"gh": 2}, {}))
        self.pause(None)
        self.take("other")
        self.assertEqual((+self.backlogs.waiting_now(), +self.backlogs.ready_now()), ({"gh": 2, "other": 1}, {}))

    def test_cancel(self) -> None:
        """A cancel by the state waiting ends deliveries that are held; one by the state ready does not."""
        self.adopt()
        self.pause("gh")
        self.take("gh", "gh")
        for state, matched in (("ready", 0), ("waiting", 2)):
            asking = self.jobs.many(cancel_many, state=state)
            self.jobs.turns()
            self.assertEqual(self.successResultOf(asking).matched, matched, state)
        self.assertEqual(self.world.states(), ["skipped"] * 2)

    def test_without_a_server(self) -> None:
        """What the server recorded holds the same; a circuit that refuses, or whose time has come, does not."""
        self.adopt()
        self.pause("other", 90.0)
        self.open_circuit()
        records = [self.successResultOf(self.world.store.checkpoints.get(name)) for name in (PAUSES, CIRCUITS)]
        recorded = RecordedHolds.of(*records)
        for seconds in (0.0, 59.0):
            self.assertEqual(asdict(recorded.holds(START + seconds)), asdict(self.gates_at(START + seconds)))
        self.assertEqual(list(recorded.holds(START + 60.0).by_trigger), ["other"])
        self.assertEqual(
            RecordedHolds.of(None, {"gh": {**records[1]["gh"], "refuses": True}}).holds(START).by_trigger, {}
        )
        self.pause(None)
        pauses = self.successResultOf(self.world.store.checkpoints.get(PAUSES))
        self.assertEqual(RecordedHolds.of(pauses, records[1]).holds(START).of("gh"), Hold("paused"))
        self.assertEqual(RecordedHolds.of(pauses, None).holds(START).of("other"), Hold("paused"))

    def gates_at(self, now: float) -> Any:
        """Return the holds of the gates, as if they were those at a time."""
        return self.world.dispatcher.gates.holds(now)
