"""Statistics of a window: what is gathered, and what is shown of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import RouteUnknown
from harn.operations.values import Period
from harn.statistics import window
from harn.statistics.operations import Percentiles, ShowStats, Stats, describe_stats
from harn.statistics.window import Durations, Gathered, newest, slices
from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, Span

HANDLERS = {("gh", 1): "h:old", ("gh", 2): "h:new", ("gh", 3): "h:new"}


class GatheredTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gathered = Gathered()
        ended = (
            AttemptGroup("gh", 1, "failed", 5.0, 10),
            AttemptGroup("gh", 2, "success", 0.1, 89),
            AttemptGroup("gh", 3, "success", 0.2, 1),
            AttemptGroup("gh", 3, "skipped", 0.001, 7),
            AttemptGroup("gh", 4, "retry_after", 0.5, 1),
        )
        self.gathered.add_attempts(ended, (DoneGroup("gh", 2, 1.0, 89), DoneGroup("gh", 3, 60.0, 1)))
        self.gathered.add_accepted((AcceptedGroup("gh", 120, 7),))
        self.gathered.add_accepted((AcceptedGroup("gh", 120, 0),))

    def shown(self, trigger: str | None = None) -> Stats:
        """Return what is shown of the hour before 7200."""
        wanted = ShowStats(window=Period.parse("1h"), trigger=trigger)
        ended = {"gh": 3}, {"gh": 4, "strange": 1}
        return describe_stats(wanted, 7200.0, self.gathered, HANDLERS, ended, ("gh", "idle"), complete=True)

    def test_of_a_trigger(self) -> None:
        """Counts, rates and percentiles are those of all its versions; of each handler those of its versions."""
        gh, idle, strange = self.shown().triggers
        counts = (gh.accepted, gh.accepted_per_minute, gh.succeeded, gh.failed, gh.dead, gh.skipped, gh.refused)
        self.assertEqual(counts, (240, 4.0, 90, 10, 3, 7, 4))
        self.assertEqual(gh.handler_seconds, Percentiles(p50=0.1, p90=0.5, p99=5.0))
        self.assertEqual(gh.accepted_to_done_seconds, Percentiles(p50=1.0, p90=1.0, p99=60.0))
        self.assertEqual([each.handler for each in gh.handlers], ["h:old", "h:new", "v4"])
        new = gh.handlers[1]
        self.assertEqual((new.succeeded, new.failed, new.skipped, new.retry_after), (90, 0, 7, 0))
        self.assertEqual(new.handler_seconds, Percentiles(p50=0.1, p90=0.1, p99=0.2))
        self.assertEqual((idle.id, idle.accepted, idle.handler_seconds, idle.handlers), ("idle", 0, None, ()))
        self.assertEqual((strange.id, strange.refused), ("strange", 1))
        self.assertEqual(self.shown().since, "1970-01-01T01:00:00.000Z")

    def test_of_one(self) -> None:
        """One trigger is shown alone, without events too; one that is not there is refused with the names of others."""
        self.assertEqual([each.id for each in self.shown("idle").triggers], ["idle"])
        wrong = self.assertRaises(RouteUnknown, self.shown, "none")
        self.assertIn("gh, idle", str(wrong))


class DurationTests(SynchronousTestCase):
    @given(st.lists(st.floats(min_value=0, max_value=100), min_size=1), st.floats(min_value=0.01, max_value=1))
    def test_percentile(self, observed: list[float], share: float) -> None:
        """It is one of the durations: so many do not exceed it, and of any lesser one fewer."""
        durations = Durations()
        for each in observed:
            durations.counts[each] += 1
        found = durations.percentile(share)
        assert found is not None
        self.assertGreaterEqual(sum(each <= found for each in observed), share * len(observed))
        self.assertLess(sum(each < found for each in observed), share * len(observed))

    def test_none(self) -> None:
        """Without durations there is no percentile."""
        self.assertIsNone(Durations().percentile(0.5))


class SliceTests(SynchronousTestCase):
    @given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 60))
    def test_slices(self, first: int, last: int, size: int) -> None:
        """The slices of a span have each id once, the newest first, and no more than so many."""
        self.patch(window, "SLICE", size)
        found = list(slices(Span(first, last)))
        self.assertEqual(
            [each for span in found for each in range(span.last, span.first - 1, -1)], list(range(last, first - 1, -1))
        )
        self.assertTrue(all(span.size <= size for span in found))

    def test_bound(self) -> None:
        """No more than the newest rows are read."""
        self.assertEqual(newest(Span(5, 10)), Span(5, 10))
        self.assertEqual(newest(Span(1, window.MOST + 7)), Span(8, window.MOST + 7))
