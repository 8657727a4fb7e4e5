"""Tests of `harn.model.quantities`."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.quantities import (
    LONGEST,
    FailureLimit,
    format_duration,
    format_share,
    parse_clear_share,
    parse_duration,
    parse_share,
)


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


PERCENT = st.decimals(0, 100, places=4)


class ShareTests(SynchronousTestCase):
    """From text to a share, and back."""

    def test_reads(self) -> None:
        """The sign may be left out, and white space may stand around."""
        for text, share in (("10%", 0.1), ("10", 0.1), (" 12.5 % ", 0.125), ("0%", 0.0), ("100%", 1.0), ("007%", 0.07)):
            self.assertEqual(parse_share(text), share)

    def test_refuses(self) -> None:
        """A value that is not a number of percent from 0 to 100 is refused with an example."""
        wrong = ("", "%", "-1%", "101%", "100.01%", "1e1", "10%%", ".5", "5.", "0x1", "٣%", "ten", "nan", "9" * 5000)
        for text in (*wrong, "0." + "1" * 5000, "10 percent"):
            error = self.assertRaises(ValueError, parse_share, text)
            self.assertIn('write a percentage from 0 to 100, for example "10%"', str(error))

    @given(PERCENT)
    def test_there_and_back(self, percent: object) -> None:
        """A share is written as it was read."""
        share = parse_share(f"{percent}%")
        self.assertEqual(parse_share(format_share(share)), share)

    @given(PERCENT, st.booleans())
    def test_clear(self, percent: Decimal, has_sign: bool) -> None:
        """Of a number under 1 the sign may not be left out: half of those who write 0.1 mean a tenth."""
        text = f"{percent}%" if has_sign else f"{percent}"
        if has_sign or percent == 0 or percent >= 1:
            self.assertEqual(parse_clear_share(text), parse_share(text))
        else:
            self.assertIn(f'"{text}%"', str(self.assertRaises(ValueError, parse_clear_share, text)))

    @given(st.text(max_size=12))
    def test_total(self, text: str) -> None:
        """Any text is a share from 0 to 1, or a ValueError."""
        try:
            share = parse_share(text)
        except ValueError:
            return
        self.assertTrue(0 <= share <= 1)

    def test_format(self) -> None:
        """No more digits than there are."""
        for share, text in ((0.1, "10%"), (0.125, "12.5%"), (0.0, "0%"), (1.0, "100%"), (1 / 3, "33.3333%")):
            self.assertEqual(format_share(share), text)


class FailureLimitTests(SynchronousTestCase):
    """`FailureLimit`."""

    def test_enough_to_judge(self) -> None:
        """Failures below the minimum never exceed the limit; at the limit all is well, above it is not."""
        limit = FailureLimit(rate=0.2, minimum=20)
        self.assertFalse(limit.is_exceeded(19, 19))
        self.assertFalse(limit.is_exceeded(20, 4))
        self.assertTrue(limit.is_exceeded(20, 5))
        self.assertFalse(FailureLimit(rate=0.0, minimum=0).is_exceeded(0, 0))
        self.assertTrue(FailureLimit(rate=0.0, minimum=1).is_exceeded(1, 1))
        self.assertFalse(FailureLimit(rate=1.0, minimum=1).is_exceeded(5, 5))

    @given(st.integers(0, 100), st.integers(1, 1000))
    def test_exact(self, percent: int, hundreds: int) -> None:
        """So many failures as the limit allows are allowed, and one more is not, whatever floats make of it."""
        limit = FailureLimit(rate=parse_share(f"{percent}%"), minimum=1)
        self.assertFalse(limit.is_exceeded(hundreds * 100, percent * hundreds))
        self.assertTrue(limit.is_exceeded(hundreds * 100, percent * hundreds + 1) or percent == 100)

    @given(st.floats(0, 1), st.integers(0, 50), st.integers(0, 200), st.integers(0, 200))
    def test_monotone(self, rate: float, minimum: int, attempts: int, failures: int) -> None:
        """One more failure never makes too many into few enough."""
        limit = FailureLimit(rate=rate, minimum=minimum)
        if limit.is_exceeded(attempts, failures):
            self.assertTrue(limit.is_exceeded(attempts, failures + 1))
            self.assertGreaterEqual(attempts, minimum)
