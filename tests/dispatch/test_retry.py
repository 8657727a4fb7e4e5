"""When a failed delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.settlements import allowed_attempts, delay_before, full_delay
from harn.manifest.model import BACKOFFS, RetrySpec

SECONDS = st.floats(min_value=0.001, max_value=86400.0)
JITTER = st.none() | st.floats(min_value=0.0, max_value=1.0)
ATTEMPT = st.integers(min_value=2, max_value=100_000)
BY_BACKOFF = st.builds(
    RetrySpec, backoff=st.sampled_from(BACKOFFS), base=SECONDS, cap=st.floats(86400.0, 864000.0), jitter=JITTER
)
BY_SCHEDULE = st.builds(RetrySpec, schedule=st.lists(SECONDS, min_size=1, max_size=9).map(tuple), jitter=JITTER)


def delays(retry: RetrySpec, *attempts: int) -> list[float]:
    """Return the waits before these attempts where the least random number is drawn."""
    return [delay_before(each, retry, 0.0) for each in attempts]


class DelayTests(SynchronousTestCase):
    """The wait before an attempt."""

    def test_svix(self) -> None:
        """The schedule's numbers, and its last one for every later attempt; nothing of them is random."""
        retry = RetrySpec(backoff="svix")
        found = [delay_before(attempt, retry, 0.5) for attempt in range(2, 11)]
        self.assertEqual(found, [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0, 36000.0, 36000.0])

    def test_immediate(self) -> None:
        """No wait at all."""
        self.assertEqual(delay_before(5, RetrySpec(), 0.5), 0.0)

    def test_exponential_without_jitter(self) -> None:
        """It doubles from the base up to the cap, for any attempt."""
        retry = RetrySpec(backoff="exponential", base=2.0, cap=10.0, jitter=0.0)
        found = [delay_before(attempt, retry, 0.9) for attempt in (2, 3, 4, 5, 100_000)]
        self.assertEqual(found, [2.0, 4.0, 8.0, 10.0, 10.0])

    def test_linear(self) -> None:
        """It grows by the base, from the base up to the cap; nothing of it is random unless that is said."""
        retry = RetrySpec(backoff="linear", base=2.0, cap=7.0)
        found = [delay_before(attempt, retry, 0.9) for attempt in (2, 3, 4, 5, 100_000)]
        self.assertEqual(found, [2.0, 4.0, 6.0, 7.0, 7.0])

    def test_schedule(self) -> None:
        """The waits as they are written, the last one for every later attempt."""
        retry = RetrySpec(schedule=(5.0, 60.0, 600.0))
        self.assertEqual(delays(retry, 2, 3, 4, 5, 100), [5.0, 60.0, 600.0, 600.0, 600.0])
        self.assertEqual(delays(RetrySpec(schedule=(600.0, 5.0)), 2, 3, 4), [600.0, 5.0, 5.0])

    def test_jitter(self) -> None:
        """Half of an exponential wait is random by default, and of every other the share that is written."""
        exponential = RetrySpec(backoff="exponential", base=8.0)
        self.assertEqual(delay_before(2, exponential, 0.5), 6.0)
        for retry in (
            RetrySpec(backoff="svix", jitter=0.2),
            RetrySpec(backoff="linear", base=5.0, jitter=0.2),
            RetrySpec(schedule=(5.0,), jitter=0.2),
        ):
            self.assertEqual(delay_before(2, retry, 0.5), 4.5, retry)

    @given(ATTEMPT, BY_BACKOFF | BY_SCHEDULE, st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
    def test_stays_in_bounds(self, attempt: int, retry: RetrySpec, drawn: float) -> None:
        """Whatever is drawn, the wait is at most the full one, and at least what jitter leaves of that."""
        full = full_delay(attempt, retry)
        wait = delay_before(attempt, retry, drawn)
        self.assertTrue(full * (1.0 - retry.share_of_jitter) <= wait <= full, (full, wait))
        self.assertEqual(delays(retry, attempt), [full])
        longest = max(retry.schedule) if retry.schedule else 36000.0 if retry.backoff == "svix" else retry.cap
        self.assertLessEqual(full, longest)

    @given(ATTEMPT, BY_BACKOFF)
    def test_never_shorter_than_the_wait_before(self, attempt: int, retry: RetrySpec) -> None:
        """Without jitter no backoff waits less before a later attempt."""
        self.assertLessEqual(full_delay(attempt, retry), full_delay(attempt + 1, retry))

    @given(SECONDS, st.floats(min_value=0.001, max_value=86400.0))
    def test_first_wait(self, base: float, cap: float) -> None:
        """The first wait of a growing backoff is its base, or its cap where that is shorter."""
        for backoff in ("exponential", "linear"):
            self.assertEqual(full_delay(2, RetrySpec(backoff=backoff, base=base, cap=cap)), min(base, cap))

    @given(BY_SCHEDULE)
    def test_order_of_a_schedule(self, retry: RetrySpec) -> None:
        """The waits come in the order of the schedule, one for each attempt from the second on."""
        count = len(retry.schedule)
        self.assertEqual(tuple(full_delay(each, retry) for each in range(2, count + 2)), retry.schedule)
        self.assertEqual(full_delay(count + 50, retry), retry.schedule[-1])

    def test_attempts(self) -> None:
        """``max`` attempts in all, also with a schedule; 0 means seven."""
        self.assertEqual([allowed_attempts(RetrySpec(max=each)) for each in (0, 1, 9)], [7, 1, 9])
        self.assertEqual(allowed_attempts(RetrySpec(schedule=(1.0, 2.0))), 7)
