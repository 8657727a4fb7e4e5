"""Which ticks are due at a moment, by catch-up mode, and from when on a start looks for them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.providers.cron import CronSettings
from harn.connectors.schedule import IntervalSchedule
from harn.schedules.ticks import DAY, Owed, TickRecord, TickSpan, begins_at, owed

MINUTELY = IntervalSchedule(60.0)


def found(mode: str, after: float, until: float, on_time_from: float, most: int = 100) -> Owed:
    """Return the ticks that are due of one each minute."""
    return owed(MINUTELY, TickSpan(after=after, until=until, on_time_from=on_time_from), mode, most)


class OwedTests(SynchronousTestCase):
    def test_modes(self) -> None:
        """Of the ticks that were missed none, the last, or each is due; those on time are, in each mode."""
        for mode, ticks, late, passed_over in (
            ("skip", (300.0, 360.0), 0, 60.0),
            ("latest", (240.0, 300.0, 360.0), 1, 60.0),
            ("all", (60.0, 120.0, 180.0, 240.0, 300.0, 360.0), 4, None),
        ):
            self.assertEqual(
                found(mode, 0.0, 370.0, 250.0), Owed(ticks=ticks, late=late, covered=370.0, passed_over=passed_over)
            )

    def test_nothing_missed(self) -> None:
        """A single missed tick is the latest, so nothing is passed over; without a tick only time passes."""
        self.assertEqual(found("latest", 0.0, 70.0, 65.0), Owed(ticks=(60.0,), late=1, covered=70.0))
        for mode in ("skip", "latest", "all"):
            self.assertEqual(found(mode, 60.0, 100.0, 80.0), Owed(covered=100.0))

    def test_in_parts(self) -> None:
        """Of thousands a part is due at first, and the rest after it."""
        first = found("all", 0.0, 600_000.0, 599_000.0)
        self.assertEqual((len(first.ticks), first.late, first.covered), (100, 100, 6000.0))
        self.assertEqual(found("all", first.covered, 600_000.0, 599_000.0).ticks[0], 6060.0)
        self.assertEqual(found("latest", 0.0, 60e6, 59.99999e6).ticks[0], 59.99994e6)

    @settings(max_examples=200, deadline=None)
    @given(
        mode=st.sampled_from(("skip", "latest", "all")),
        steps=st.lists(st.tuples(st.floats(0, 500), st.floats(0, 200)), max_size=20),
        most=st.integers(1, 7),
    )
    def test_each_tick_once(self, mode: str, steps: list[tuple[float, float]], most: int) -> None:
        """However often and late it is asked, each tick is due once at most, in order; with ``all`` exactly once."""
        covered, now, fired = 0.0, 0.0, list[float]()
        for elapsed, late_by in steps:
            now += elapsed
            answer = found(mode, covered, now, now - late_by, most)
            self.assertGreaterEqual(answer.covered, covered)
            self.assertLessEqual(answer.covered, max(now, covered))
            fired += answer.ticks
            covered = answer.covered
        self.assertEqual(fired, sorted(set(fired)))
        if mode == "all":
            self.assertEqual(fired, [60.0 * (index + 1) for index in range(int(covered // 60))])


class BeginningTests(SynchronousTestCase):
    def begins(
        self,
        mode: str,
        covered: float | None,
        since: float = 1000.0,
        schedule: str = "* * * * *",
        fired: float | None = None,
    ) -> float:
        """Return from when on a start at 1000 looks for ticks, after a record of ``* * * * *``."""
        record = (
            None if covered is None else TickRecord(covered=covered, fired=fired, schedule="* * * * *", timezone="UTC")
        )
        return begins_at(record, CronSettings(schedule=schedule, catchup_mode=mode), 1000.0, since)  # type: ignore[arg-type]

    def test_records(self) -> None:
        """What was missed since the record counts, unless it is skipped, or was another schedule's."""
        self.assertEqual(self.begins("skip", 400.0), 1000.0)
        self.assertEqual(self.begins("all", 400.0), 400.0)
        self.assertEqual(self.begins("latest", 400.0), 400.0)
        self.assertEqual(self.begins("all", None), 1000.0)
        self.assertEqual(self.begins("all", 400.0, schedule="0 * * * *"), 1000.0)

    def test_upgrade(self) -> None:
        """A program that takes over counts from when it started: the one before it fires until then."""
        self.assertEqual(self.begins("skip", 400.0, since=990.0), 990.0)
        self.assertEqual(self.begins("skip", 995.0, since=990.0), 995.0)

    def test_clock_set_back(self) -> None:
        """What has fired does not fire again; a clock that was days ahead does not silence a schedule."""
        self.assertEqual(self.begins("all", 5000.0, fired=5000.0), 5000.0)
        self.assertEqual(self.begins("skip", 5000.0, fired=5000.0), 5000.0)
        self.assertEqual(self.begins("all", 1000.0 + 2 * DAY, fired=1000.0 + 2 * DAY), 1000.0)
        self.assertEqual(self.begins("all", 5000.0), 1000.0)
        self.assertEqual(self.begins("all", 5000.0, fired=900.0), 1000.0)

    def test_damaged(self) -> None:
        """A record of another shape counts as none."""
        self.assertIsNone(TickRecord.read({"covered": "x"}))
        self.assertIsNone(TickRecord.read(None))
