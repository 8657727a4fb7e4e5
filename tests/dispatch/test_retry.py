"""When a failed delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.retry import allowed_attempts, delay_before
from harn.manifest.model import RetrySpec


class DelayTests(SynchronousTestCase):
    def test_svix(self) -> None:
        """The schedule's numbers, and its last one for every later attempt."""
        retry = RetrySpec(backoff="svix")
        found = [delay_before(attempt, retry, lambda: 0.5) for attempt in range(2, 11)]
        self.assertEqual(found, [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0, 36000.0, 36000.0])

    def test_immediate(self) -> None:
        """No wait at all."""
        self.assertEqual(delay_before(5, RetrySpec(), lambda: 0.5), 0.0)

    def test_exponential_without_jitter(self) -> None:
        """It doubles from the base up to the cap, for any attempt."""
        retry = RetrySpec(backoff="exponential", base=2.0, cap=10.0, jitter=0.0)
        found = [delay_before(attempt, retry, lambda: 0.9) for attempt in (2, 3, 4, 5, 100_000)]
        self.assertEqual(found, [2.0, 4.0, 8.0, 10.0, 10.0])

    @given(
        st.integers(min_value=2, max_value=10_000),
        st.floats(min_value=0.0, max_value=3600.0),
        st.floats(min_value=0.0, max_value=86400.0),
        st.floats(min_value=0.0, max_value=1.0),
        st.floats(min_value=0.0, max_value=1.0, exclude_max=True),
    )
    def test_exponential_stays_in_bounds(
        self, attempt: int, base: float, cap: float, jitter: float, drawn: float
    ) -> None:
        """Whatever is drawn, the delay is at most the full one, and at least what jitter leaves of it."""
        retry = RetrySpec(backoff="exponential", base=base, cap=cap, jitter=jitter)
        full = delay_before(attempt, retry, lambda: 0.0)
        delay = delay_before(attempt, retry, lambda: drawn)
        self.assertLessEqual(full, cap)
        self.assertTrue(full * (1.0 - jitter) <= delay <= full, (full, delay))

    def test_attempts(self) -> None:
        """``max`` attempts in all; 0 means seven."""
        self.assertEqual([allowed_attempts(RetrySpec(max=each)) for each in (0, 1, 9)], [7, 1, 9])
