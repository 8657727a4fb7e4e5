"""Deliveries that ran when a server crashed: how many run at once, what runs beside them, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.delivery import Delivery
from harn.dispatch.second_tries import SecondTries
from harn.dispatch.suspects import ALONE_FROM, LONGEST_HOLD, LONGEST_WAIT, MOST_AT_ONCE
from harn.dispatch.window import Window
from harn.testing.stores.pumped import PumpedStore
from tests.triggers.examples import version


class SuspectsTests(SynchronousTestCase):
    """Through the window, in which they wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = 0
        store = PumpedStore(self.clock)
        store.open()
        self.window = Window(self.clock, store.deliveries, lambda row: None, self.go_on, SecondTries(self.clock))
        self.running: list[int] = []

    def go_on(self) -> None:
        """Count."""
        self.calls += 1

    def push(self, *ids: int, crashes: int = 0) -> None:
        """Let deliveries wait."""
        for delivery_id in ids:
            delivery = Delivery(delivery_id, version(1), f"e{delivery_id}", b"", b"", 0.0, None)
            delivery.crashes = crashes
            self.window.push(delivery)

    def begin(self) -> list[int]:
        """Begin all that may begin; give their ids."""
        begun = []
        while (delivery := self.window.pop(self.running)) is not None:
            self.running.append(delivery.delivery_id)
            begun.append(delivery.delivery_id)
        return begun

    def end(self, *ids: int) -> list[int]:
        """End these; give what begins then."""
        self.running = [delivery_id for delivery_id in self.running if delivery_id not in ids]
        return self.begin()

    def test_few_at_once(self) -> None:
        """Of those that have seen a crash or two so many run at once, before all others; each end makes room."""
        self.push(100, 101)
        self.push(*range(20), crashes=1)
        first = list(range(MOST_AT_ONCE))
        self.assertEqual(self.begin(), [*first, 100, 101])
        self.assertEqual(self.end(100), [])
        self.assertEqual(self.end(3, 5), [MOST_AT_ONCE, MOST_AT_ONCE + 1])
        self.assertEqual(len(self.window), 20 - MOST_AT_ONCE - 2)

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
        self.assertEqual((len(self.window), self.clock.getDelayedCalls()), (0, []))

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
        for delivery_id, crashes in ((8, ALONE_FROM), (9, 1)):
            delivery = Delivery(delivery_id, version(1), "e", b"", b"", 0.0, None)
            delivery.crashes = crashes
            self.window.push_first(delivery)
        self.assertEqual(self.begin(), [9, 3, 4])
        self.assertEqual(self.end(9, 3, 4), [8])

    def test_removed(self) -> None:
        """What a drain takes out is gone, from wherever it waited."""
        self.push(1, crashes=ALONE_FROM)
        self.push(2, crashes=1)
        self.push(3)
        taken = self.window.remove(lambda delivery: delivery.delivery_id != 3)
        self.assertEqual(sorted(delivery.delivery_id for delivery in taken), [1, 2])
        self.assertEqual((self.begin(), self.clock.getDelayedCalls()), ([3], []))

    def test_close(self) -> None:
        """A closed window plans nothing more."""
        self.push(1)
        self.begin()
        self.push(2, crashes=ALONE_FROM)
        self.window.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
