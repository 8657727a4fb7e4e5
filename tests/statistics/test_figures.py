"""Statistics of a window: what is gathered, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.errors import RouteUnknown
from harn.operations.parameters import Period
from harn.statistics import figures
from harn.statistics.figures import LONGEST, DurationCounts, Gathered, Slice, parts, spread
from harn.statistics.operations import Ended, Percentiles, ShowStats, StatisticsService, Stats, describe_stats
from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, IdRange, IStatistics

T = TypeVar("T")

ATTEMPTS, DELIVERIES = IdRange(1, 108), IdRange(1, 240)

HANDLERS = {("gh", 1): "h:old", ("gh", 2): "h:new", ("gh", 3): "h:new"}


class GatheredTests(SynchronousTestCase):
    def gathered(self, attempts: IdRange = ATTEMPTS, deliveries: IdRange = DELIVERIES) -> Gathered:
        """Return the figures of a window with so many attempts and deliveries: 108 and 240 of them."""
        ended = (
            AttemptGroup("gh", 1, "failed", 5.0, 10),
            AttemptGroup("gh", 2, "success", 0.1, 89),
            AttemptGroup("gh", 3, "success", 0.2, 1),
            AttemptGroup("gh", 3, "skipped", 0.001, 7),
            AttemptGroup("gh", 4, "retry_after", 0.5, 1),
        )
        found = Gathered(attempts, deliveries)
        done = (DoneGroup("gh", 2, 1.0, 89), DoneGroup("gh", 3, 60.0, 1))
        found.add_attempts(Slice(0.0, True, ATTEMPTS), ended, done)
        found.add_accepted(Slice(0.0, False, IdRange(121, 240)), (AcceptedGroup("gh", 120, 7),))
        found.add_accepted(Slice(0.5, False, IdRange(1, 120)), (AcceptedGroup("gh", 120, 0),))
        return found

    def shown(self, trigger: str | None = None, gathered: Gathered | None = None) -> Stats:
        """Return the statistics of the hour before 7200."""
        wanted = ShowStats(window=Period.parse("1h"), trigger=trigger)
        ended = Ended({"gh": 3}, {"gh": 4, "strange": 1})
        return describe_stats(wanted, 7200.0, gathered or self.gathered(), HANDLERS, ended, ("gh", "idle"))

    def test_sample(self) -> None:
        """Of a sample counts and rates are estimates, percentiles are its own; what is counted whole stays."""
        found = self.shown(gathered=self.gathered(IdRange(1, 1080), IdRange(1, 480)))
        (gh, *_) = found.triggers
        counts = (gh.accepted, gh.accepted_per_minute, gh.succeeded, gh.failed, gh.dead, gh.skipped, gh.refused)
        self.assertEqual(counts, (480, 8.0, 900, 100, 3, 14, 4))
        self.assertEqual(gh.handler_seconds, Percentiles(p50=0.1, p90=0.5, p99=5.0))
        new = gh.handlers[1]
        self.assertEqual((new.succeeded, new.skipped, gh.handlers[2].retry_after), (900, 70, 10))
        self.assertEqual((found.complete, found.read_share), (False, 0.1))

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
        found = self.shown()
        self.assertEqual((found.since, found.complete, found.read_share), ("1970-01-01T01:00:00.000Z", True, 1.0))

    def test_of_one(self) -> None:
        """One trigger is shown alone, without events too; one that is not there is refused with the names of others."""
        self.assertEqual([each.id for each in self.shown("idle").triggers], ["idle"])
        wrong = self.assertRaises(RouteUnknown, self.shown, "none")
        self.assertIn("gh, idle", str(wrong))


class DurationTests(SynchronousTestCase):
    @given(st.lists(st.floats(min_value=0, max_value=100), min_size=1), st.floats(min_value=0.01, max_value=1))
    def test_percentile(self, observed: list[float], share: float) -> None:
        """It is one of the durations: so many do not exceed it, and of any lesser one fewer."""
        durations = DurationCounts()
        for each in observed:
            durations.counts[each] += 1
        found = durations.percentile(share)
        assert found is not None
        self.assertGreaterEqual(sum(each <= found for each in observed), share * len(observed))
        self.assertLess(sum(each < found for each in observed), share * len(observed))

    def test_none(self) -> None:
        """Without durations there is no percentile."""
        self.assertIsNone(DurationCounts().percentile(0.5))


class PartTests(SynchronousTestCase):
    @given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 60))
    def test_parts(self, first: int, last: int, size: int) -> None:
        """The slices of a span have each id once, and no more than so many."""
        self.patch(figures, "SLICE", size)
        found = list(parts(IdRange(first, last), of_attempts=True))
        ids = [each for part in found for each in range(part.span.first, part.span.last + 1)]
        self.assertEqual(sorted(ids), list(range(first, last + 1)))
        self.assertTrue(all(part.span.size <= size for part in found))

    @given(st.integers(1, 400), st.integers(1, 400))
    def test_even(self, count: int, taken: int) -> None:
        """Whatever number of places is taken, none of the gaps between them is much longer than others would be."""
        self.assertEqual(sorted(spread(count)), list(range(count)))
        places = sorted(islice(spread(count), taken))
        gaps = [after - before for before, after in pairwise([*places, places[0] + count])]
        self.assertLessEqual(max(gaps), 4 * count / len(places))

    def test_side_by_side(self) -> None:
        """Attempts and deliveries are read side by side, so that of both as much is read when the time has come."""
        self.patch(figures, "SLICE", 10)
        found = list(Gathered(IdRange(1, 40), IdRange(1, 80)).parts())
        self.assertEqual([part.of_attempts for part in found[:6]], [False, True, False, False, True, False])
        self.assertEqual(sorted({part.share for part in found if part.of_attempts}), [0.0, 0.25, 0.5, 0.75])


@implementer(IStatistics)
class SlowStatistics:
    """
    A store with 100 slices of attempts and of deliveries, each read of which takes an eighth of the allowed time.

    :ivar reads: how many there were.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.reads = 0

    def attempts_since(self, since: float) -> Deferred[IdRange]:
        """See `IStatistics.attempts_since`."""
        return succeed(IdRange(1, 100 * figures.SLICE))

    deliveries_since = attempts_since

    def attempts(self, span: IdRange, since: float) -> Deferred[tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]]:
        """See `IStatistics.attempts`."""
        return self._read(([AttemptGroup("gh", 1, "success", 0.1, span.size)], []))

    def accepted(self, span: IdRange, since: float) -> Deferred[Sequence[AcceptedGroup]]:
        """See `IStatistics.accepted`."""
        return self._read([AcceptedGroup("gh", span.size, 0)])

    def died(self, since: float) -> Deferred[Mapping[str, int]]:
        """See `IStatistics.died`."""
        return succeed({})

    refused = died

    def handlers(self, versions: object) -> Deferred[Mapping[tuple[str, int], str]]:
        """See `IStatistics.handlers`."""
        return succeed({})

    def _read(self, found: T) -> Deferred[T]:
        self.reads += 1
        self.clock.advance(LONGEST / 8)
        return succeed(found)


class Unused:
    """Totals without anything to add."""

    async def flush(self) -> None:
        """Add nothing."""


class TimeTests(SynchronousTestCase):
    def test_bound(self) -> None:
        """Reading ends after the longest time; the answer says how much was read, and estimates the rest."""
        clock = Clock()
        store, unused = SlowStatistics(clock), cast("Any", Unused())
        registry = cast("Any", SimpleNamespace(active={}))
        service = StatisticsService(
            clock=clock, wall=clock, store=store, totals=unused, backlogs=unused, registry=registry, metrics=unused
        )
        found = self.successResultOf(Deferred.fromCoroutine(service.stats(ShowStats())))
        self.assertEqual((store.reads, found.read_share, found.complete), (8, 0.04, False))
        (gh,) = found.triggers
        self.assertEqual((gh.accepted, gh.succeeded), (100 * figures.SLICE, 100 * figures.SLICE))
