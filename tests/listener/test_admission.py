"""Token buckets as pure functions, and the admission that keeps them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.dispatcher import Dispatcher
from harn.errors import RateExceeded, Saturated
from harn.listener.admission import Admission, Level, Rate, full, level_at, take
from harn.listener.feature import admission_defaults
from harn.manifest.settings import AdmissionSettings

RATES = st.builds(
    Rate,
    st.floats(0.01, 10_000, allow_nan=False),
    st.floats(1, 10_000, allow_nan=False),
)


class BucketTests(SynchronousTestCase):
    @given(RATES, st.lists(st.floats(-10, 100, allow_nan=False), max_size=60))
    def test_never_more_than_promised(self, rate: Rate, steps: list[float]) -> None:
        """Over any run of the clock, backwards included, no more is let in than a full bucket and what it gained."""
        now = highest = 0.0
        gained = 0.0
        level = full(rate, now)
        admitted = 0
        for step in steps:
            now += step
            gained += max(0.0, step)
            highest = max(highest, now)
            level, wait = take(level, rate, now)
            admitted += wait == 0
            self.assertTrue(-1e-6 <= level.tokens <= rate.burst + 1e-6)
        self.assertLessEqual(admitted, rate.burst + gained * rate.rate + 1e-3)

    @given(RATES, st.floats(0, 1e6, allow_nan=False))
    def test_the_wait_is_enough(self, rate: Rate, tokens: float) -> None:
        """A sender that waits for the time given, and a moment longer, is admitted."""
        level = Level(min(tokens, 0.999), 0.0)
        level, wait = take(level, rate, 0.0)
        self.assertGreater(wait, 0)
        self.assertEqual(take(level, rate, wait * 1.000001 + 1e-9)[1], 0.0)

    def test_smaller_burst_spills(self) -> None:
        """A bucket that shrank holds no more than it can."""
        self.assertEqual(level_at(Level(100, 0), Rate(1, 5), 0).tokens, 5)

    def test_less_than_one_token(self) -> None:
        """A burst below one still admits one request, once it is full."""
        rate = Rate(1, 0.5)
        level, wait = take(full(rate, 0), rate, 0)
        self.assertEqual((wait, take(level, rate, 0)[1]), (0.0, 0.5))

    def test_no_rate_of_nothing(self) -> None:
        """A rate or burst that is not above zero turns the limit off."""
        for rate, burst in ((0, 1), (1, 0), (-1, 1)):
            self.assertRaises(ValueError, Rate, rate, burst)


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock)

    def test_off_unless_configured(self) -> None:
        """Without settings no bucket is kept and any number of requests is let in."""
        for _ in range(10_000):
            self.admission.admit("gh", 10)
        self.assertEqual(self.admission.buckets, 0)

    def test_bounds(self) -> None:
        """Events and bytes that are not durable are bounded; what is released makes room."""
        self.admission.apply(AdmissionSettings(max_pending_events=1, max_pending_bytes=100), ())
        self.admission.admit("gh", 100)
        self.assertRaises(Saturated, self.admission.admit, "gh", 101)
        self.assertRaises(Saturated, self.admission.enter, 101)
        self.admission.enter(100)
        self.assertRaises(Saturated, self.admission.enter, 0)
        refused = self.assertRaises(Saturated, self.admission.admit, "gh", 0)
        self.assertEqual(refused.retry_after, 1)
        self.admission.release(100)
        self.admission.admit("gh", 100)
        self.assertEqual(self.admission.rejected, 4)

    def test_what_deliveries_hold(self) -> None:
        """What memory holds of deliveries counts against the same bound, up to half of it."""
        deliveries = SimpleNamespace(bytes_in_hand=0)
        self.admission = Admission(self.clock, dispatcher=cast("Dispatcher", deliveries))
        self.admission.apply(AdmissionSettings(max_pending_bytes=100), ())
        for held, room in ((0, 100), (30, 70), (50, 50), (1000, 50)):
            deliveries.bytes_in_hand = held
            self.admission.admit("gh", room)
            self.assertRaises(Saturated, self.admission.admit, "gh", room + 1)
            self.assertRaises(Saturated, self.admission.enter, room + 1)
            self.admission.enter(room)
            self.assertRaises(Saturated, self.admission.admit, "gh", 1)
            self.admission.release(room)

    def test_rate_of_each_trigger(self) -> None:
        """Triggers have separate rates; the wait is in whole seconds, at least one."""
        self.admission.apply(AdmissionSettings(rate=10.0, burst=1), ("a", "b"))
        self.admission.admit("a", 0)
        self.assertEqual(self.assertRaises(RateExceeded, self.admission.admit, "a", 0).retry_after, 1)
        self.admission.admit("b", 0)
        self.clock.advance(0.1)
        self.admission.admit("a", 0)

    def test_global_rate(self) -> None:
        """Over the rate of all together the server is saturated."""
        self.admission.apply(AdmissionSettings(global_rate=0.1), ("a", "b"))
        self.admission.admit("a", 0)
        self.assertEqual(self.assertRaises(Saturated, self.admission.admit, "b", 0).retry_after, 10)

    def test_reload_refills_nothing(self) -> None:
        """The same settings again leave an empty bucket empty; a larger burst does not fill it."""
        self.admission.apply(AdmissionSettings(rate=0.1, burst=1), ("a",))
        self.admission.admit("a", 0)
        for burst in (1, 100):
            self.admission.apply(AdmissionSettings(rate=0.1, burst=burst), ("a",))
            self.assertRaises(RateExceeded, self.admission.admit, "a", 0)

    def test_removed_triggers(self) -> None:
        """Buckets of triggers that are gone are dropped; that of all together stays."""
        settings = AdmissionSettings(rate=1.0, burst=1, global_rate=100.0)
        self.admission.apply(settings, ("a", "b"))
        self.admission.admit("a", 0)
        self.admission.admit("b", 0)
        self.admission.apply(settings, ("b",))
        self.assertEqual(self.admission.buckets, 2)
        self.assertRaises(RateExceeded, self.admission.admit, "b", 0)

    def test_from_the_environment(self) -> None:
        """Capacities and refill given at start hold where the manifest says nothing, and only there."""
        admission = Admission(self.clock, global_capacity=3, per_source_capacity=1, refill_per_sec=1)
        admission.admit("a", 0)
        self.assertRaises(RateExceeded, admission.admit, "a", 0)
        admission.admit("b", 0)
        admission.admit("c", 0)
        self.assertRaises(Saturated, admission.admit, "d", 0)
        admission.apply(AdmissionSettings(rate=5.0, burst=5, global_rate=50.0), ("e",))
        self.clock.advance(1)
        for _ in range(5):
            admission.admit("e", 0)
        self.assertRaises(RateExceeded, admission.admit, "e", 0)


class DefaultsTests(SynchronousTestCase):
    """Rates that the environment sets."""

    def test_admission_defaults(self) -> None:
        """Rates of the environment count when they are positive numbers."""
        prefix = "HARN_ORCHESTRATOR_INGEST_"
        environ = {
            f"{prefix}GLOBAL_CAPACITY": "10",
            f"{prefix}PER_SOURCE_CAPACITY": "-1",
            f"{prefix}REFILL_PER_SEC": "x",
        }
        self.assertEqual(admission_defaults(environ), {"global_capacity": 10.0})
