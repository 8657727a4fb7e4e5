"""On a ramp: each event is accepted, run and retried by the version that its key chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.decisions import Arrival, decide
from harn.dispatch.intake import Taken
from harn.errors import EventLogUnavailable
from harn.manifest.model import RetrySpec, TriggerSpec
from harn.model.event import decode_envelope
from harn.testing.clocks import START
from harn.triggers.binding import DRAINING, BindingVersion
from harn.triggers.routing import Ramp, bucket
from tests.dispatch.world import World, happened
from tests.triggers.examples import definition, spec

KEYS = [str(number) for number in range(40)]
HALF = 0.5
TO_STABLE = [key for key in KEYS if bucket("gh", key) >= HALF]
TO_FRESH = [key for key in KEYS if bucket("gh", key) < HALF]


class RampWorld(World):
    """A world in which ``gh`` is on a ramp from v1 to v2; ``stable`` and ``fresh`` are settings of their specs."""

    def __init__(self, stable: dict[str, Any], fresh: dict[str, Any], share: float = HALF, **options: Any) -> None:
        super().__init__(**options)
        self.adopt({"gh": spec(**{"dedupe_key": "event.dedupe_key", **stable})})
        self.stable = self.version()
        self.fresh = self.begun(spec(**{"dedupe_key": "event.dedupe_key", "timeout": 5.0, **fresh}))
        self.ramp = Ramp(self.stable, self.fresh, share)
        self.registry.adopt({"gh": self.fresh}, [], START, {"gh": self.ramp})

    def begun(self, of: TriggerSpec) -> BindingVersion:
        """Make the next version, in the interpreter of all."""
        number = self.numbers["gh"] = self.numbers["gh"] + 1
        made = BindingVersion(definition(of), number, "sha256:bundle")
        assert self.stable.destination is not None
        made.destination = self.stable.destination.retain()
        return made

    def arrive(self, *events: NormalizedEvent, body: bytes = b"{}") -> Deferred[Taken]:
        """Accept events as a request on the ramp's route does."""
        for held in self.ramp.versions:
            held.lease()
        arrival = Arrival(headers={"x-id": "h-1"}, body=body, received_at=self.clock.seconds())

        def over(result: Any) -> Any:
            for held in self.ramp.versions:
                held.release()
            return result

        return self.intake.take(self.fresh, arrival, events, ramp=self.ramp).addBoth(over)

    def arrive_each(self, keys: Sequence[str]) -> list[str]:
        """Accept an event for each key, in a request of its own; give the versions that took them."""
        found: list[str] = []
        for key in keys:
            self.arrive(happened(dedupe_key=key)).addCallback(lambda taken: found.extend(taken.bindings))
        return found

    def end(self, winner: BindingVersion) -> None:
        """End the ramp."""
        self.registry.end_ramp("gh", winner, {"gh": winner}, self.clock.seconds())

    def counts(self) -> list[tuple[int, int]]:
        """Return requests received and leases held, of the stable and of the fresh version."""
        return [(self.counted(each).received, each.in_flight) for each in (self.stable, self.fresh)]

    def ran(self) -> list[str]:
        """Run everything; return the versions in order."""
        found = []
        while self.calls:
            found.append(self.calls[0].call.binding)
            self.calls[0].returns()
        return found


class AcceptingTests(SynchronousTestCase):
    def test_share_is_read_at_the_choice(self) -> None:
        """A share that rises takes effect with the next event, and a duplicate is one on either version."""
        world = RampWorld({}, {}, share=0.0)
        self.assertEqual(world.arrive_each(["a"]), ["gh@v1"])
        world.ramp.share = 1.0
        taken = self.successResultOf(world.arrive(happened(dedupe_key="a"), happened(dedupe_key="b")))
        self.assertEqual((taken.duplicates, taken.bindings), (1, ("gh@v2",)))
        self.assertEqual(world.counts(), [(1, 1), (1, 1)])

    def test_one_request_two_versions(self) -> None:
        """The events of one request may go to both, each of which counts it once; in one unit, in their order."""
        world = RampWorld({}, {})
        keys = [TO_FRESH[0], TO_STABLE[0], TO_FRESH[1], TO_STABLE[0]]
        taken = self.successResultOf(world.arrive(*(happened(dedupe_key=key) for key in keys)))
        self.assertEqual((taken.bindings, taken.duplicates), (("gh@v2", "gh@v1", "gh@v2"), 1))
        self.assertEqual(taken.event_ids, tuple(row.event_id for row in world.rows()))
        self.assertEqual(world.counts(), [(1, 1), (1, 2)])
        self.assertEqual(len({decode_envelope(row.envelope).trace_id for row in world.rows()}), 1)

    def test_key_of_the_stable_version(self) -> None:
        """What is alike to the stable version's dedupe key goes to one version; the rest is the chosen one's rules."""
        rules = {"dedupe_key": "event.provider_payload.user", "filter": "event.provider_payload.on"}
        world = RampWorld({**rules, "retry": RetrySpec(retention_days=9)}, {"filter": None})
        fields: dict[str, Any] = {"lifted": {"user": ["user"], "on": ["on"]}}
        for user, version in ((TO_STABLE[0], 1), (TO_FRESH[0], 2)):
            for number in range(3):
                event = happened(dedupe_key=f"{user}-{number}", **fields)
                body = b'{"user": "%s", "on": %s}' % (user.encode(), b"true" if number else b"false")
                self.successResultOf(world.arrive(event, body=body))
            self.assertEqual({row.version for row in world.rows()[-1:]}, {version})
        # Of the stable version's three the first is filtered out and the others have one key; the fresh keeps all.
        self.assertEqual([row.version for row in world.rows()], [1, 2, 2, 2])
        self.assertEqual([world.counted(each).received for each in world.ramp.versions], [3, 3])
        stats = world.metrics.trigger("gh", "github")
        self.assertEqual((stats.filtered, stats.deduped, stats.accepted), (1, 1, 4))

    def test_key_that_cannot_be_evaluated(self) -> None:
        """The provider's own key chooses then; on the stable version the event is a dead letter as usual."""
        world = RampWorld({"dedupe_key": "abs(event.kind)"}, {})
        self.assertEqual(world.arrive_each([TO_STABLE[0], TO_FRESH[0]]), ["gh@v1", "gh@v2"])
        self.assertEqual((world.states(), world.dead_reasons()), (["dead", "ready"], {"filter_error": 1}))
        self.assertEqual(
            (world.counted(world.stable).dead, world.counted(world.fresh).dead, world.counts()),
            (1, 0, [(1, 0), (1, 1)]),
        )

    def test_event_log_away(self) -> None:
        """Nothing is kept, and each version gets its own leases back."""
        world = RampWorld({}, {})
        world.store.fail_writes = True
        events = [happened(dedupe_key=key) for key in (TO_FRESH[0], TO_STABLE[0], TO_FRESH[1])]
        self.failureResultOf(world.arrive(*events), EventLogUnavailable)
        self.assertEqual(world.counts(), [(1, 0), (1, 0)])

    def test_an_event_that_cannot_be_encoded(self) -> None:
        """It counts on the newest version, and no lease is left."""
        world = RampWorld({}, {})
        self.failureResultOf(world.arrive(happened(payload={"a": object()})), TypeError)
        self.assertEqual(world.counts(), [(0, 0), (1, 0)])

    def test_ignored_events_are_somebodys(self) -> None:
        """An event that its version does not want counts as received there."""
        world = RampWorld({"events": ("push",)}, {"events": ("push",)}, share=0.0)
        taken = self.successResultOf(world.arrive(happened()))
        self.assertEqual((taken.ignored, taken.bindings, world.counts()), (1, (), [(1, 0), (0, 0)]))

    def test_provider_of_the_envelope(self) -> None:
        """It is the newest version's: its receiver made the event, whichever version gets it."""
        world = RampWorld({"provider": "old"}, {"provider": "new"}, share=0.0)
        world.arrive_each(["a"])
        self.assertEqual([(row.version, row.provider) for row in world.rows()], [(1, "new")])

    def test_without_a_ramp(self) -> None:
        """Every event is for the caller's version, which counted its request itself."""
        world = World()
        world.adopt({"gh": spec()})
        arrival = Arrival(headers={}, body=b"", received_at=START)
        decided = decide(world.version(), arrival, [happened(), happened("push")])
        self.assertEqual((decided.holders, decided.reached), ((world.version(),) * 2, frozenset()))
        taken = self.successResultOf(world.take())
        self.assertEqual((taken.bindings, world.counted().received), (("gh@v1",), 0))


class EndingTests(SynchronousTestCase):
    def test_a_choice_outlives_its_ramp(self) -> None:
        """What was decided on a ramp that ended before the commit is the loser's, which ends when that is done."""
        for winner in (0, 1):
            world = RampWorld({}, {})
            loser = world.ramp.versions[1 - winner]
            world.store.writer.held = True
            taking = world.arrive(happened(dedupe_key=(TO_FRESH if winner == 0 else TO_STABLE)[0]))
            world.end(world.ramp.versions[winner])
            self.assertEqual((loser.state, loser.in_flight), (DRAINING, 2))
            world.store.writer.release()
            self.assertEqual(self.successResultOf(taking).bindings, (loser.key,))
            self.assertEqual((world.ran(), world.ended), ([loser.key], [loser.key]))

    def test_aborted_while_the_store_is_slow(self) -> None:
        """Rows that still name the aborted version run on the stable one, and its leases come out even."""
        world = RampWorld({}, {}, max_outstanding=1, max_deliveries=2)
        world.arrive_each(KEYS)
        world.end(world.stable)
        world.store.writer.held = True
        moving = world.dispatcher.move_on(world.fresh)
        self.assertNoResult(moving)
        for _ in KEYS:
            for running in world.calls:
                running.returns()
        world.store.writer.release()
        world.ran()
        self.successResultOf(moving)
        self.assertEqual(set(world.states()), {"done"})
        self.assertEqual((world.stable.in_flight, world.dispatcher.stored(world.stable)), (0, 0))
        self.assertEqual((world.fresh.in_flight, world.ended), (0, ["gh@v2"]))
