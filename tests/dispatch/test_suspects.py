"""Deliveries that ran when a server crashed: how many run at once, what runs beside them, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.bodies import RunningBodies
from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.gates import Gates
from harn.dispatch.queue import Room
from harn.dispatch.queues import Queues
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.suspects import ALONE_FROM, LONGEST_HOLD, LONGEST_WAIT, MOST_AT_ONCE
from harn.dispatch.timers import Wakeups, Woken
from harn.lifecycle import Lifecycle
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.registry import Registry
from tests.triggers.examples import spec, version


class SuspectsTests(SynchronousTestCase):
    """Through the scheduler, beside whose queues they wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = 0
        lifecycle = Lifecycle()
        lifecycle.subscribe(Woken, lambda event: self.woken())
        self.registry = Registry(lifecycle)
        self.registry.adopt({"gh": version(1)}, [], 0.0)
        store = PumpedStore(self.clock)
        store.open()
        wakeups = Wakeups(self.clock, self.clock, lifecycle)
        self.queues = Queues(self.registry, Room(1000, 1000), Gates(), wakeups)
        self.scheduler = Scheduler(self.clock, self.registry, self.queues, RunningBodies(store.deliveries), wakeups)
        self.scheduler.max_outstanding = 1000
        self.queue = self.queues.of("gh", 1)

    def woken(self) -> None:
        """Count."""
        self.scheduler.look_again()
        self.calls += 1

    def push(self, *ids: int, crashes: int = 0, first: bool = False) -> None:
        """Make deliveries wait."""
        for delivery_id in ids:
            delivery = Delivery(delivery_id, self.queue, f"e{delivery_id}", b"", b"", 0.0, None)
            delivery.crashes = crashes
            self.queue.hold(delivery)
            self.scheduler.add(delivery, first=first)

    def begin(self) -> list[int]:
        """Begin all that may begin; give their ids."""
        begun = []
        while (delivery := self.scheduler.next()) is not None:
            delivery.become(Phase.RUNNING)
            self.scheduler.begun(delivery)
            begun.append(delivery.delivery_id)
        return begun

    def end(self, *ids: int) -> list[int]:
        """End these; give what begins then."""
        for delivery_id in ids:
            self.scheduler.ended(self.scheduler.running[delivery_id])
        return self.begin()

    def test_few_at_once(self) -> None:
        """Of those that have seen a crash or two so many run at once, before all others; each end makes room."""
        self.push(100, 101)
        self.push(*range(20), crashes=1)
        first = list(range(MOST_AT_ONCE))
        self.assertEqual(self.begin(), [*first, 100, 101])
        self.assertEqual(self.end(100), [])
        self.assertEqual(self.end(3, 5), [MOST_AT_ONCE, MOST_AT_ONCE + 1])
        self.assertEqual(self.queue.count, 20 - MOST_AT_ONCE - 2)

    def test_alone(self) -> None:
        """From the third crash on each runs alone, one at a time, behind all others, in order."""
        self.push(1, 2, crashes=ALONE_FROM)
        self.push(3, crashes=ALONE_FROM - 1)
        self.push(4)
        self.assertEqual(self.begin(), [3, 4])
        self.assertEqual(self.end(3), [])
        self.assertEqual(self.end(4), [1])
        self.push(5)
        self.push(6, crashes=1)
        self.assertEqual(self.begin(), [])
        self.assertEqual(self.end(1), [6, 5])
        self.assertEqual(self.end(5, 6), [2])
        self.assertEqual(self.end(2), [])
        self.assertEqual(self.queue.count, 0)

    def test_one_that_runs_for_long(self) -> None:
        """One that runs alone holds up the others for as long as a handler may run by default; the next waits on."""
        self.push(1, 2, crashes=ALONE_FROM)
        self.assertEqual(self.begin(), [1])
        self.push(3)
        self.clock.advance(LONGEST_HOLD - 1)
        self.assertEqual((self.begin(), self.calls), ([], 0))
        self.clock.advance(1)
        self.assertEqual((self.begin(), self.calls), ([3], 1))
        self.clock.advance(10 * LONGEST_WAIT)
        self.push(4)
        self.assertEqual((self.begin(), self.end(3, 4)), ([4], []))
        self.assertEqual(self.end(1), [2])

    def test_others_that_never_end(self) -> None:
        """While others come without pause, one waits so long; then nothing is begun before it has run."""
        self.push(1)
        self.begin()
        self.push(2, crashes=ALONE_FROM)
        self.push(3)
        self.assertEqual(self.begin(), [3])
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual(self.calls, 1)
        self.push(4)
        self.assertEqual(self.end(1), [])
        self.assertEqual(self.end(3), [2])
        self.assertEqual(self.end(2), [4])

    def test_another_that_runs_for_long(self) -> None:
        """Not even for that are the others held up for longer: then it runs beside what has not ended."""
        self.push(1)
        self.begin()
        self.push(2, crashes=ALONE_FROM)
        self.push(3)
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual(self.begin(), [])
        self.clock.advance(LONGEST_HOLD)
        self.assertEqual((self.begin(), self.calls), ([2], 2))
        self.clock.advance(LONGEST_HOLD)
        self.assertEqual((self.begin(), self.calls), ([3], 3))

    def test_interrupted(self) -> None:
        """One that is given back goes before the others of its kind."""
        self.push(1, 2, crashes=ALONE_FROM)
        self.push(3, 4, crashes=1)
        self.push(8, crashes=ALONE_FROM, first=True)
        self.push(9, crashes=1, first=True)
        self.assertEqual(self.begin(), [9, 3, 4])
        self.assertEqual(self.end(9, 3, 4), [8])

    def test_unloaded(self) -> None:
        """What is left to the store is gone from wherever it waited."""
        self.push(1, crashes=ALONE_FROM)
        self.push(2, crashes=1)
        self.push(3)
        taken = self.scheduler.unload(self.queue)
        self.assertEqual(sorted(delivery.delivery_id for delivery in taken), [1, 2, 3])
        self.assertEqual((self.begin(), self.queue.count), ([], 0))

    def test_a_trigger_that_may_begin_nothing(self) -> None:
        """One whose trigger runs as many as it may keeps no other from beginning, however long it waits."""
        self.registry.adopt({"gh": version(1), "other": version(1, spec("other"))}, [], 0.0)
        self.push(1)
        self.begin()
        self.queue.share.limit = 1
        self.push(2, crashes=ALONE_FROM)
        self.push(3, crashes=1)
        self.clock.advance(LONGEST_WAIT + LONGEST_HOLD)
        self.queue = self.queues.of("other", 1)
        self.push(4, crashes=1)
        self.push(5)
        self.assertEqual(self.begin(), [4, 5])
