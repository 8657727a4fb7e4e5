"""Schedules over changes of summer time, against the rules that the reference documents; and what their checks say."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.schedule import (
    CronSchedule,
    IntervalSchedule,
    check_schedule,
    check_timezone,
    delay_of,
    seconds_of,
)

NEW_YORK = "America/New_York"


def moment(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """Return when clocks of a zone show a time (seconds, Unix)."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def firings(expression: str, zone: str, begin: str, count: int) -> list[str]:
    """Return the next times of a schedule, as its zone shows them, with their offset."""
    schedule, at, found = CronSchedule(expression, zone), moment(begin, zone), []
    for _ in range(count):
        following = schedule.following(at)
        assert following is not None
        at = following
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


class SummerTimeTests(SynchronousTestCase):
    """The two nights in which clocks change."""

    def test_hour_that_comes_twice(self) -> None:
        """A time of day in it is due at the first of both, once; every so many minutes or each hour it continues."""
        self.assertEqual(
            firings("30 1 * * *", NEW_YORK, "2026-10-31T12:00", 2), ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]
        )
        twice = ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-01T01:00-05:00", "2026-11-01T01:30-05:00"]
        for through in ("0,30 * * * *", "*/30 * * * *", "*/30 1 * * *", "0 */30 1 * * *"):
            self.assertEqual(firings(through, NEW_YORK, "2026-11-01T00:45", 4), twice, through)
        for once in ("0,30 1 * * *", "0,30 0-3 * * *", "0 0,30 0-1 * * *"):
            self.assertEqual(firings(once, NEW_YORK, "2026-11-01T00:45", 2), twice[:2], once)
            self.assertNotIn(twice[2], firings(once, NEW_YORK, "2026-11-01T00:45", 3), once)

    def test_hour_that_does_not_come(self) -> None:
        """What is due in it is not due that day."""
        self.assertEqual(
            firings("30 2 * * *", NEW_YORK, "2026-03-07T12:00", 2), ["2026-03-09T02:30-04:00", "2026-03-10T02:30-04:00"]
        )
        self.assertEqual(
            firings("*/30 * * * *", NEW_YORK, "2026-03-08T01:10", 3),
            ["2026-03-08T01:30-05:00", "2026-03-08T03:00-04:00", "2026-03-08T03:30-04:00"],
        )

    def test_second_pass(self) -> None:
        """In the second pass of an hour a time of day comes after it, and the last one was in its first pass."""
        at = moment("2026-11-01T01:15", NEW_YORK, fold=1)
        once = CronSchedule("0,10,20,30,40,50 0-2 * * *", NEW_YORK)
        self.assertEqual(once.following(at), moment("2026-11-01T02:00", NEW_YORK))
        self.assertEqual(once.preceding(at), moment("2026-11-01T01:50", NEW_YORK))
        through = CronSchedule("*/10 * * * *", NEW_YORK)
        self.assertEqual(through.following(at), moment("2026-11-01T01:20", NEW_YORK, fold=1))
        self.assertEqual(through.preceding(at), moment("2026-11-01T01:10", NEW_YORK, fold=1))
        begin = moment("2026-11-01T01:00", NEW_YORK, fold=1)
        self.assertEqual(through.preceding(begin - 1), moment("2026-11-01T01:50", NEW_YORK))
        self.assertEqual(CronSchedule("*/10 * * * *", NEW_YORK).following(begin - 1), begin)

    def test_odd_zones(self) -> None:
        """Half an hour on Lord Howe; the day that Samoa skipped."""
        self.assertEqual(
            firings("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", 2),
            ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
        )
        self.assertEqual(
            firings("0 9 * * *", "Pacific/Apia", "2011-12-29T10:00", 2),
            ["2011-12-31T09:00+14:00", "2012-01-01T09:00+14:00"],
        )

    def test_seconds(self) -> None:
        """A sixth field stands first."""
        schedule, at = CronSchedule("*/20 0 12 * * *", "Europe/Berlin"), moment("2026-06-01T12:00", "Europe/Berlin")
        self.assertEqual(schedule.following(at - 0.5), at)
        self.assertEqual(schedule.following(at), at + 20)
        self.assertEqual(schedule.following(at + 40), at + 86400)


ZONES = st.sampled_from(
    (NEW_YORK, "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "UTC")
)
FIELD = st.sampled_from(("*", "*/7", "0", "30", "1-3"))
HOUR = st.sampled_from(("*", "*/2", "1", "2", "0-3"))
EXPRESSIONS = st.tuples(
    FIELD, HOUR, st.sampled_from(("*", "1", "25-31")), st.just("*"), st.sampled_from(("*", "0"))
).map(" ".join)
# Around the changes of 2026 in these zones.
MOMENTS = st.sampled_from(
    ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01", "2026-02-15")
).flatmap(lambda day: st.floats(-200_000, 200_000).map(lambda seconds: moment(day) + seconds))


class ScheduleProperties(SynchronousTestCase):
    """Any schedule at any moment."""

    @settings(max_examples=60, deadline=None)
    @given(expression=EXPRESSIONS, zone=ZONES, begin=MOMENTS)
    @example(expression="*/7 * * * *", zone=NEW_YORK, begin=moment("2026-11-01T01:55", NEW_YORK, fold=1))
    @example(expression="*/7 * * * *", zone=NEW_YORK, begin=moment("2026-11-01T01:55", NEW_YORK))
    @example(expression="1-3 1 * * *", zone=NEW_YORK, begin=moment("2026-11-01T00:55", NEW_YORK))
    def test_strictly_increasing(self, expression: str, zone: str, begin: float) -> None:
        """
        Each next time is later, and they are those minutes whose local time the schedule means, of a local time that
        comes twice the first unless minute or hour begins with ``*``; `preceding` finds the same times.
        """
        schedule, times = CronSchedule(expression, zone), [begin]
        for _ in range(30):
            following = schedule.following(times[-1])
            assert following is not None
            times.append(following)
        for before, after in pairwise(times):
            self.assertLess(before, after)
        self.assertEqual(schedule.preceding(times[-1]), times[-1])
        self.assertEqual(schedule.preceding(times[-1] - 0.5), times[-2])
        through = "*" in (expression.split()[0][0], expression.split()[1][0])
        minute, until = (int(begin) // 60 + 1) * 60, min(times[-1], begin + 86400)
        while minute <= until:  # by the fields themselves
            shown = datetime.fromtimestamp(minute, ZoneInfo(zone))
            is_due = self.means(expression, shown) and (through or not shown.fold)
            self.assertEqual(minute in times, is_due, shown)
            minute += 60

    def means(self, expression: str, local: datetime) -> bool:
        """Return whether a schedule of this test's fields means a local minute."""
        minute, hour, day, _, weekday = expression.split()
        days = [matches(day, local.day, 1), matches(weekday, (local.weekday() + 1) % 7, 0)]
        is_day = all(days) if "*" in (day, weekday) else any(days)
        return is_day and matches(minute, local.minute, 0) and matches(hour, local.hour, 0)

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(alphabet="0123456789*,-/#LWMONJAN @?\n٣", max_size=30) | st.text(max_size=20))
    def test_any_text(self, text: str) -> None:
        """A text is a schedule that has a next time, or a problem that says so; a zone, or a problem."""
        if not check_schedule(text):
            self.assertIsNotNone(CronSchedule(text).following(0.0))
        if not check_timezone(text):
            ZoneInfo(text)


def matches(field: str, value: int, low: int) -> bool:
    """Return whether a field of these tests has a value."""
    if field.startswith("*"):
        return (value - low) % int(field[2:] or 1) == 0
    first, _, last = field.partition("-")
    return int(first) <= value <= int(last or first)


class CheckTests(SynchronousTestCase):
    """What the checks say."""

    def test_schedules(self) -> None:
        """Each mistake is named, with what to write."""
        for text, said in (
            ("* * * *", "five or six fields, got 4"),
            ("61 * * * *", "wrong minute"),
            ("0 0 31 2 *", "wrong day-of-month"),
            ("@daily", "not supported"),
            ("9" * 300, "at most 200 characters"),
            ("9" * 150 + " * * * *", "wrong minute"),
            ("0 0 30 2 *", "wrong day-of-month"),
        ):
            (problem,) = check_schedule(text)
            self.assertIn(said, problem.message)
            self.assertTrue(problem.hint)
        self.assertEqual(check_schedule("@daily")[0].hint, 'write "0 0 * * *"')
        for text in ("*/5 * * * *", "0 9 * jan-mar MON-FRI", "0 0 L * *", "0 0 29 2 *", "15,45 30 8 * * 1#2"):
            self.assertEqual(check_schedule(text), [])

    def test_zones(self) -> None:
        """Only names of the IANA are zones: an offset has no rules, and ``localtime`` is another one everywhere."""
        for name in ("UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "EST5EDT"):
            self.assertEqual(check_timezone(name), [])
        for name, hint in (
            ("+02:00", "offsets have no rules"),
            ("UTC-5", "offsets have no rules"),
            ("europe/berlin", 'did you mean "Europe/Berlin"'),
            ("Europe/Berlim", 'did you mean "Europe/Berlin"'),
            ("localtime", "IANA name"),
            ("../../etc/passwd", "IANA name"),
            ("/etc/localtime", "IANA name"),
            ("Europe", ""),
            ("", ""),
        ):
            (problem,) = check_timezone(name)
            self.assertIn(hint, problem.hint)

    def test_intervals(self) -> None:
        """An interval counts from 1970, so it continues over a restart; its least length is checked."""
        every = IntervalSchedule(60.0)
        self.assertEqual((every.following(59.9), every.following(60.0), every.preceding(60.0)), (60.0, 120.0, 60.0))
        self.assertEqual(seconds_of("1m", "every"), (60.0, []))
        self.assertEqual(seconds_of("10ms", "every", 1.0)[1][0].message, 'must be at least 1s, got "10ms"')
        self.assertEqual(seconds_of("soon", "every")[1][0].key, "every")

    def test_delay(self) -> None:
        """The delay of a trigger is always the same, below the jitter, and another trigger has another."""
        delays = {delay_of(f"t{number}", 30.0) for number in range(50)}
        self.assertEqual(len(delays), 50)
        self.assertTrue(all(0 <= each < 30 for each in delays))
        self.assertEqual(delay_of("t1", 30.0), delay_of("t1", 30.0))
        self.assertEqual(delay_of("t1", 0.0), 0.0)
