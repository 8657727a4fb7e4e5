"""The store's background services: heartbeat and retention."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.errors import EventLogUnavailable
from harn.store.recovery import HeartbeatService
from harn.store.retention import PAGES, PAUSE, IRetention, IRetentionRules, RetentionPolicy, RetentionService
from harn.testing.clocks import SteppedWall
from harn.testing.stores.pumped import PumpedStore

POLICY = RetentionPolicy(events=10.0, dead=10.0)


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = PumpedStore(self.clock)
        self.successResultOf(self.store.open())
        self.service = HeartbeatService(self.clock, self.store, interval=5.0)

    def test_ends_a_time_of_unavailability(self) -> None:
        """A store that was unavailable is found to be back at the next heartbeat, without any other call."""
        self.service.startService()
        self.store.fail_writes = True
        self.clock.advance(5)
        self.assertFalse(self.store.available())
        self.store.fail_writes = False
        self.clock.advance(5)
        self.assertTrue(self.store.available())
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_writes_the_time_of_day(self) -> None:
        """What is written is the wall clock's time; the interval is not touched by a step of it."""
        beats = []
        self.store.heartbeat = lambda now: succeed(beats.append(now))
        wall = SteppedWall(self.clock, ahead=1000.0)
        service = HeartbeatService(self.clock, self.store, interval=5.0, wall=wall)
        service.startService()
        wall.step(-600.0)
        self.clock.advance(5)
        self.assertEqual(beats, [1000.0, 405.0])
        service.stopService()

    def test_survives_errors_of_ours(self) -> None:
        """An unexpected error is logged, and the next heartbeat is given."""
        beats = []

        def heartbeat(now: float) -> Deferred[None]:
            beats.append(now)
            return fail(ValueError("surprise"))

        self.store.heartbeat = heartbeat
        self.service.startService()
        self.clock.advance(5)
        self.assertEqual(beats, [0.0, 5.0])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.service.stopService()


@implementer(IRetention)
class TrimmedStore:
    """Has so many slices to trim; each call takes one."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[RetentionPolicy, float]] = []
        self.free = 0
        self.given_back: list[int | str] = []

    def shrink(self, pages: int) -> Deferred[int]:
        given = min(pages, self.free)
        self.free -= given
        self.given_back.append(given)
        return succeed(given)

    def settle_log(self) -> Deferred[None]:
        self.given_back.append("log")
        return succeed(None)

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        self.asked.append((policy, now))
        answer = self.answers.pop(0) if self.answers else 0
        return answer if isinstance(answer, Deferred) else succeed(answer)


@implementer(IRetentionRules)
class Rules:
    """Has one policy, which a test may replace."""

    def __init__(self, policy: RetentionPolicy) -> None:
        self.now = policy

    def policy(self) -> RetentionPolicy:
        return self.now


class RetentionTests(SynchronousTestCase):
    def start(self, *answers: Any) -> None:
        self.clock = Clock()
        self.store = TrimmedStore(*answers)
        self.rules = Rules(POLICY)
        self.service = RetentionService(self.clock, self.store, self.rules, interval=60.0)
        self.service.startService()

    def test_trims_until_nothing_is_left(self) -> None:
        """A sweep continues, with a pause between slices, until one removes nothing; the next comes in its time."""
        self.start(200, 7)
        self.assertEqual(len(self.store.asked), 1)
        self.clock.pump([PAUSE] * 10)
        self.assertEqual(len(self.store.asked), 3)
        self.clock.advance(60)
        self.assertEqual(len(self.store.asked), 4)

    def test_gives_back_what_trimming_freed(self) -> None:
        """After the last slice, free pages go back to the file system, a few at a time and with pauses between."""
        self.start(200)
        self.store.free = 2 * PAGES + 1
        self.clock.advance(PAUSE)
        self.assertEqual(self.store.given_back, [PAGES])
        self.clock.pump([PAUSE] * 10)
        self.assertEqual(self.store.given_back, [PAGES, PAGES, 1, 0, "log"])

    def test_age_is_of_the_time_of_day(self) -> None:
        """The age of rows is measured by the wall clock; sweeps come in the interval's time."""
        self.clock = Clock()
        self.store = TrimmedStore()
        wall = SteppedWall(self.clock, ahead=1000.0)
        RetentionService(self.clock, self.store, Rules(POLICY), interval=60.0, wall=wall).startService()
        wall.step(3600.0)
        self.clock.advance(60)
        self.assertEqual([now for _, now in self.store.asked], [1000.0, 4660.0])

    def test_asks_for_the_policy_each_time(self) -> None:
        """A policy that a reload changed holds from the next slice on."""
        self.start(200)
        changed = self.rules.now = RetentionPolicy(events=1.0, dead=1.0)
        self.clock.advance(PAUSE)
        self.assertEqual([policy for policy, _ in self.store.asked], [POLICY, changed])

    def test_store_that_is_away_costs_a_turn(self) -> None:
        """A sweep that fails ends; the next one comes in its time."""
        self.start(fail(EventLogUnavailable("away")))
        self.assertEqual(len(self.store.asked), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.store.asked), 2)

    def test_error_of_ours_costs_a_turn(self) -> None:
        """An unexpected error is logged, and the service continues."""
        self.start(fail(ValueError("surprise")))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.store.asked), 2)

    def test_stop_waits_for_the_slice_under_way(self) -> None:
        """Stopping waits for the slice that was begun, and begins no other."""
        slice_: Deferred[int] = Deferred()
        self.start(slice_)
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        slice_.callback(200)
        assert stopped is not None
        self.successResultOf(stopped)
        self.assertEqual(len(self.store.asked), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
