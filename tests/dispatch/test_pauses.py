"""Pauses: the deliveries that they hold, for how long, and how these begin afterwards."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.operations import describe_pauses
from harn.errors import EventLogUnavailable, HandlerRaised, RouteUnknown
from harn.lifecycle import PauseChanged, StoreChanged
from harn.manifest.model import RetrySpec
from harn.store.holds import PAUSES
from tests.dispatch.world import World, one_trigger
from tests.triggers.examples import spec


class PauseTests(SynchronousTestCase):
    """A trigger, or the server, that is paused."""

    def world(self, **options: Any) -> World:
        """Make a world with two triggers."""
        world = World(**{"max_outstanding": 8, **options})
        world.adopt({"gh": spec("gh", retry=RetrySpec(backoff="svix")), "other": spec("other")})
        return world

    def pause(self, world: World, trigger_id: str | None = "gh", seconds: float | None = None) -> None:
        """Pause a trigger."""
        self.successResultOf(Deferred.fromCoroutine(world.pauses.pause(trigger_id, seconds, "me")))

    def resume(self, world: World, trigger_id: str | None = "gh", rate: float | None = None) -> bool:
        """Resume it."""
        return self.successResultOf(Deferred.fromCoroutine(world.pauses.resume(trigger_id, rate)))

    def running(self, world: World) -> list[str]:
        """Return the triggers whose handlers run."""
        return sorted(running.call.trigger_id for running in world.calls)

    def test_accepted_and_not_begun(self) -> None:
        """What runs continues; what comes is kept, in the store alone, and others are not held; then all of it runs."""
        world = self.world()
        world.take()
        self.pause(world)
        for _ in range(3):
            world.take()
        world.take(world.version("other"))
        self.assertEqual(self.running(world), ["gh", "other"])
        self.assertEqual((world.dispatcher.queued, world.dispatcher.stored(world.version())), (0, 3))
        self.assertTrue(self.resume(world))
        self.assertEqual(self.running(world), ["gh"] * 4 + ["other"])
        self.assertFalse(self.resume(world))

    def test_other_servers(self) -> None:
        """A pause that another server has recorded holds, and so does its end; each keeps those of the others."""
        world = self.world()
        recorded = {"since": world.clock.seconds(), "until": None, "actor": "you", "rate": None}
        self.successResultOf(world.store.checkpoints.put(PAUSES, {"gh": recorded}))
        world.lifecycle.emit(StoreChanged(frozenset([PAUSES])))
        world.take()
        self.assertEqual(self.running(world), [])
        self.successResultOf(world.store.checkpoints.put(PAUSES, {"gh": recorded, "third": recorded}))
        self.assertTrue(self.resume(world))
        self.assertEqual(self.running(world), ["gh"])
        self.assertEqual(list(self.successResultOf(world.store.checkpoints.get(PAUSES))), ["third"])

    def test_a_change_during_a_read(self) -> None:
        """What another server changes while this one reads is read, too; many changes are read together."""
        world = self.world()
        asked: list[Deferred[Any]] = []

        def get(name: str) -> Deferred[Any]:
            asked.append(Deferred())
            return asked[-1]

        self.patch(world.store.checkpoints, "get", get)
        for _ in range(5):
            world.lifecycle.emit(StoreChanged(frozenset([PAUSES])))
        asked[0].callback(None)
        recorded = {"since": world.clock.seconds(), "until": None, "actor": "you", "rate": None}
        asked[1].callback({"gh": recorded})
        world.take()
        self.assertEqual((self.running(world), len(asked)), ([], 2))

    def test_what_waited_in_memory(self) -> None:
        """It is left to the store, and begins first when the trigger is resumed."""
        world = self.world(max_outstanding=1)
        for _ in range(4):
            world.take()
        self.assertGreater(world.dispatcher.queued, 0)
        self.pause(world)
        world.call().returns()
        self.assertEqual((world.calls, world.dispatcher.queued), ([], 0))
        world.take()
        self.resume(world)
        ran = []
        while world.calls:
            ran.append(world.call().call.event_id)
            world.call().returns()
        self.assertEqual(ran, [row.event_id for row in world.rows()[1:]])
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 5, 0))

    def test_retries(self) -> None:
        """A retry that falls due while its trigger is paused begins when that is resumed, on the newest version."""
        world = self.world()
        world.take()
        world.call().raises(HandlerRaised("no"))
        self.pause(world)
        world.clock.advance(60.0)
        self.assertEqual((world.calls, world.states()), ([], ["ready"]))
        world.adopt({"gh": spec("gh", timeout=5.0), "other": spec("other")})
        self.resume(world)
        self.assertEqual((world.call().call.binding, world.call().call.attempt), ("gh@v2", 2))

    def test_ends_by_itself(self) -> None:
        """At its time it ends, and leaves no timer."""
        world = self.world()
        self.pause(world, seconds=3600.0)
        world.take()
        for _ in range(59):
            world.clock.advance(60.0)
        self.assertEqual(world.calls, [])
        world.clock.advance(60.0)
        world.clock.advance(0.0)
        world.call().returns()
        world.clock.advance(60.0)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_the_whole_server(self) -> None:
        """Nothing begins; a trigger that is paused itself stays so when the server is resumed."""
        world = self.world()
        self.pause(world)
        self.pause(world, None)
        world.take()
        world.take(world.version("other"))
        self.assertEqual(world.calls, [])
        self.assertTrue(self.resume(world, None))
        self.assertEqual(self.running(world), ["other"])
        self.resume(world)
        self.assertEqual(self.running(world), ["gh", "other"])

    def test_rate_of_what_was_cancelled(self) -> None:
        """What was held and is cancelled meanwhile leaves no rate to what comes later."""
        world = self.world()
        self.pause(world)
        for _ in range(5):
            world.take()
        self.resume(world, rate=1.0)
        world.call().returns()
        for row in world.rows()[1:]:
            self.assertTrue(self.successResultOf(world.dispatcher.cancel_delivery(row.event_id, row.delivery_id)))
        world.clock.advance(1.0)
        for _ in range(3):
            world.take()
        self.assertEqual(self.running(world), ["gh"] * 3)

    def test_at_a_rate(self) -> None:
        """What was held begins so many a second; when it is through, nothing is held back any more."""
        world = self.world(max_outstanding=100)
        self.pause(world)
        for _ in range(6):
            world.take()
        self.resume(world, rate=2.0)
        begun = []
        for _ in range(7):
            begun.append(len(world.calls))
            world.clock.advance(0.5)
        self.assertEqual(begun, [1, 2, 3, 4, 5, 6, 6])
        for _ in range(3):
            world.take()
        self.assertEqual(len(world.calls), 9)

    def test_over_a_restart(self) -> None:
        """It is in force again before anything begins, and ends at its time."""
        before = self.world()
        self.pause(before, seconds=100.0)
        before.take()
        before.dispatcher.close()
        before.store.close()
        world = World(before.store, before.clock)
        world.adopt({"gh": spec("gh"), "other": spec("other")})
        self.successResultOf(Deferred.fromCoroutine(world.pauses.load()))
        recovery = self.successResultOf(world.store.recovery.recover(world.clock.seconds(), 10))
        world.dispatcher.take_over(recovery.backlog)
        self.assertEqual(world.calls, [])
        world.clock.pump([50.0, 50.0, 1.0])
        self.assertEqual(len(world.calls), 1)

    def test_a_draining_version(self) -> None:
        """It is held as well, and its deadline stands; of a removed trigger all is given up then."""
        world = self.world()
        self.pause(world)
        world.take()
        old = world.version()
        world.adopt({"other": spec("other")})
        self.assertEqual(world.calls, [])
        self.successResultOf(world.dispatcher.move_on(old))
        self.assertEqual((world.states(), world.dead_reasons()), (["dead"], {"binding_removed": 1}))

    def test_announced(self) -> None:
        """Each pause and each resume is an event, with the time at which the pause ends; a refused one has no event."""
        world = self.world()
        seen: list[PauseChanged] = []
        world.lifecycle.subscribe(PauseChanged, seen.append)
        now = world.clock.seconds()
        self.pause(world, None, 60.0)
        self.pause(world)
        self.resume(world, rate=5.0)
        self.resume(world, None)
        self.failureResultOf(Deferred.fromCoroutine(world.pauses.pause("nowhere", None, "me")), RouteUnknown)
        self.assertEqual(
            seen,
            [
                PauseChanged(None, True, now + 60.0),
                PauseChanged("gh", True, None),
                PauseChanged("gh", False),
                PauseChanged(None, False),
            ],
        )

    def test_listed(self) -> None:
        """The server's pause is listed first, then those that end first; what has ended or only paces is not."""
        world = self.world()
        self.pause(world, "other", 600.0)
        self.pause(world, "gh", 60.0)
        self.pause(world, None)
        found = describe_pauses(world.pauses.all(), 2)
        self.assertEqual([each.trigger_id for each in found.pauses], [None, "gh"])
        self.assertEqual((found.total, found.pauses[0].until, found.pauses[0].actor), (3, None, "me"))
        self.resume(world, None)
        self.resume(world, "other", 1.0)
        world.clock.advance(61.0)
        self.assertEqual(describe_pauses(world.pauses.all(), 2).total, 0)

    def test_unknown(self) -> None:
        """A trigger that is not there cannot be paused, nor resumed; the answer names those that are."""
        world = self.world()
        for asked in (world.pauses.pause("no", None, "me"), world.pauses.resume("no", None)):
            failure = self.failureResultOf(Deferred.fromCoroutine(asked), RouteUnknown)
            self.assertIn("gh, other", str(failure.value))

    def test_event_log_away(self) -> None:
        """A pause that cannot be recorded does not begin."""
        world = self.world()
        world.store.fail_writes = True
        asked = Deferred.fromCoroutine(world.pauses.pause("gh", None, "me"))
        self.failureResultOf(asked, EventLogUnavailable)
        world.store.fail_writes = False
        world.take()
        self.assertEqual(len(world.calls), 1)

    def test_suspects(self) -> None:
        """What ran at a crash is held, too."""
        before = World()
        before.adopt(one_trigger())
        before.take()
        before.dispatcher.close()
        world = World(before.store, before.clock)
        world.adopt(one_trigger())
        self.pause(world)
        recovery = self.successResultOf(world.store.recovery.recover(world.clock.seconds(), 10))
        world.dispatcher.take_over(recovery.backlog)
        self.assertEqual((world.calls, [row.crashes for row in world.rows()]), ([], [1]))
        self.resume(world)
        self.assertEqual(len(world.calls), 1)
