"""Durations as people write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.durations import LONGEST, format_duration, parse_duration


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """Each unit, and a fraction."""
        for text, seconds in (
            ("250ms", 0.25),
            ("30s", 30.0),
            ("1.5s", 1.5),
            ("5m", 300.0),
            ("2h", 7200.0),
            ("7d", 604800.0),
            ("1w", 604800.0),
            (" 0s ", 0.0),
        ):
            self.assertAlmostEqual(parse_duration(text), seconds)

    def test_refuses(self) -> None:
        """No unit, no number, signs, digits of other scripts, exponents, and what is over ten years."""
        for text in ("", "5", "s", "-5s", "+5s", "5 s", "5S", "\u0665s", "1e3s", "1.s", ".5s", "5s5m", "600w", "inf s"):
            self.assertRaises(ValueError, parse_duration, text)

    @given(st.integers(min_value=0, max_value=int(LONGEST)))
    def test_whole_seconds_round_trip(self, seconds: int) -> None:
        """Whole seconds are written in a form that reads back as themselves."""
        self.assertEqual(parse_duration(format_duration(float(seconds))), seconds)

    @given(st.floats(min_value=1e-6, max_value=LONGEST))
    def test_any_duration_reads_back(self, seconds: float) -> None:
        """Whatever is written can be read, to the microsecond."""
        self.assertAlmostEqual(parse_duration(format_duration(seconds)), seconds, places=5)

    def test_largest_whole_unit(self) -> None:
        """The largest unit that keeps it whole is chosen."""
        found = [format_duration(each) for each in (0, 0.25, 90, 300, 5400, 86400, 604800)]
        self.assertEqual(found, ["0s", "250ms", "90s", "5m", "90m", "1d", "1w"])
