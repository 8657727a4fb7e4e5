"""
Pure functions that return the settlement of a delivery after an attempt: its new state and when a retry is due.

Source of the ``svix`` schedule: Svix, "Retry Schedule".
"""

from __future__ import annotations

from harn.dispatch.delivery import Delivery
from harn.errors import (
    AttemptFailed,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    ResultInvalid,
    ResultTooLarge,
)
from harn.manifest.model import RetrySpec
from harn.model.delivery import (
    BINDING_REMOVED,
    DEAD,
    DONE,
    DRAIN_CANCELLED,
    PREDICATE,
    READY,
    REJECTED,
    RETRY_EXHAUSTED,
    SKIPPED,
    WAITING,
    Attempt,
    DeadLetter,
    Settlement,
)
from harn.model.quantities import LONGEST

LONGEST_ERROR = 4096
"""The most characters of an error's text that are stored."""
LONGEST_DETAIL = 8192
"""The most characters that are stored of a failed attempt's traceback, and as many of its output."""

_HANDLER_RAN = (HandlerRaised, HandlerRejected, HandlerRetryAfter, ResultInvalid, ResultTooLarge)
"""Failures that prove that the predicate returned true. A time-out or a crash may have been in the predicate."""


def shortened(text: str) -> str:
    """Return the beginning of an error's text, as it is stored; characters that UTF-8 cannot encode are replaced."""
    return text[:LONGEST_ERROR].encode("utf-8", "replace").decode("utf-8")


def kept_end(text: str) -> str | None:
    """Return the end of a traceback or of output, its most useful part, as it is stored; None if ``text`` is empty."""
    end = text if len(text) <= LONGEST_DETAIL else "... " + text[-LONGEST_DETAIL:]
    return end.encode("utf-8", "replace").decode("utf-8") or None


def succeeded(delivery: Delivery, started_at: float, now: float, result: bytes | None) -> Settlement:
    """
    Settle a delivery whose call returned.

    :param result: the handler's result as JSON; None if the predicate returned false.
    """
    number = delivery.attempts + 1
    version = delivery.binding.version
    return Settlement(
        delivery_id=delivery.delivery_id,
        state=SKIPPED if result is None else DONE,
        version=version,
        attempts=number,
        passed=result is not None,
        attempt=Attempt(
            number=number,
            version=version,
            started_at=started_at,
            completed_at=now,
            outcome="skipped" if result is None else "success",
        ),
        result=result,
        skip_reason=PREDICATE if result is None else None,
    )


def failed(
    delivery: Delivery,
    started_at: float,
    now: float,
    error: AttemptFailed,
    drawn: float,
    *,
    gone: bool = False,
) -> Settlement:
    """
    Settle a delivery whose attempt failed: as waiting for a retry, or as a dead letter.

    :param drawn: a random number from 0 up to 1, for the delay before the next attempt.
    :param gone: whether there is no version that could run a retry.
    """
    number, version = delivery.attempts + 1, delivery.binding.version
    attempt = _failed_attempt(number, version, started_at, now, error)
    # A predicate that returned true is not called again.
    passed = delivery.passed or isinstance(error, _HANDLER_RAN)
    reason = _reason_to_give_up(number, delivery.binding.spec.retry, error, gone=gone)
    state, due_at, dead = READY, None, None
    if reason is not None:
        state = DEAD
        dead = DeadLetter(reason=reason, error_class=error.error_class, error=attempt.error or "")
    elif (delay := _delay_after(number, delivery.binding.spec.retry, error, drawn)) > 0:
        state, due_at = WAITING, now + delay
    return Settlement(
        delivery_id=delivery.delivery_id,
        state=state,
        version=version,
        attempts=number,
        passed=passed,
        due_at=due_at,
        attempt=attempt,
        dead=dead,
    )


def _failed_attempt(number: int, version: int, started_at: float, now: float, error: AttemptFailed) -> Attempt:
    return Attempt(
        number=number,
        version=version,
        started_at=started_at,
        completed_at=now,
        outcome=error.outcome,
        error_class=error.error_class,
        error=shortened(str(error)),
        traceback=kept_end(error.traceback),
        output=kept_end(error.output),
    )


def _reason_to_give_up(number: int, retry: RetrySpec, error: AttemptFailed, *, gone: bool) -> str | None:
    """Return why there is no retry after the attempt ``number``; None if there is one."""
    if isinstance(error, HandlerRejected):
        return REJECTED
    if number >= allowed_attempts(retry):
        return RETRY_EXHAUSTED
    return BINDING_REMOVED if gone else None


def _delay_after(number: int, retry: RetrySpec, error: AttemptFailed, drawn: float) -> float:
    """Return the seconds until the retry: as the handler asked, or else by the trigger's retry settings."""
    if isinstance(error, HandlerRetryAfter) and error.seconds is not None:
        return min(error.seconds, LONGEST)
    return delay_before(number + 1, retry, drawn)


def removed(delivery_id: int, trigger_id: str, version: int, attempts: int, *, passed: bool) -> Settlement:
    """Settle a delivery as a dead letter, because no version can run it."""
    return Settlement(
        delivery_id=delivery_id,
        state=DEAD,
        version=version,
        attempts=attempts,
        passed=passed,
        dead=DeadLetter(
            reason=BINDING_REMOVED,
            error_class=BINDING_REMOVED,
            error=f"trigger {trigger_id!r} was removed before the delivery could be handled",
        ),
    )


def skipped(delivery: Delivery, reason: str) -> Settlement:
    """Settle a delivery as skipped, for one of the reasons in `harn.model.delivery.SKIP_REASONS`."""
    return Settlement(
        delivery_id=delivery.delivery_id,
        state=SKIPPED,
        version=delivery.binding.version,
        attempts=delivery.attempts,
        passed=delivery.passed,
        skip_reason=reason,
    )


def refused(delivery: Delivery, dead: DeadLetter) -> Settlement:
    """Settle a delivery as a dead letter without an attempt, for example one that a gate refuses."""
    return Settlement(
        delivery_id=delivery.delivery_id,
        state=DEAD,
        version=delivery.binding.version,
        attempts=delivery.attempts,
        passed=delivery.passed,
        dead=dead,
    )


def cancelled(delivery: Delivery, *, running: bool = False) -> Settlement:
    """
    Settle a delivery as a dead letter because the drain of its version was cancelled; this counts no attempt.

    :param running: whether the call of its handler was interrupted.
    """
    when = "while it ran; it may have taken effect" if running else "before it was begun"
    return refused(delivery, cancelled_letter(delivery.binding.key, when))


def cancelled_letter(binding: str, when: str) -> DeadLetter:
    """
    Return the dead letter of a delivery whose version's drain was cancelled.

    :param when: a clause that says when in the delivery's life that was, for example ``before it was begun``.
    """
    return DeadLetter(
        reason=DRAIN_CANCELLED,
        error_class=DRAIN_CANCELLED,
        error=f"an operator cancelled the drain of {binding} {when}",
    )


DEFAULT_ATTEMPTS = 7
SVIX = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before attempt 1, 2 and so on; the last value repeats."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


def allowed_attempts(retry: RetrySpec) -> int:
    """Return the most attempts of a delivery; 0 in the manifest means the default."""
    return retry.max or DEFAULT_ATTEMPTS


def delay_before(attempt: int, retry: RetrySpec, drawn: float) -> float:
    """
    Return the delay before an attempt: the full delay less a random part of its jitter.

    :param attempt: its number, 2 or more.
    :param drawn: a random number from 0 up to 1.
    :return: seconds.
    """
    return full_delay(attempt, retry) * (1.0 - retry.share_of_jitter * drawn)


def full_delay(attempt: int, retry: RetrySpec) -> float:
    """
    Return the longest delay before an attempt, in seconds.

    :param attempt: its number, 2 or more.
    """
    if retry.schedule:
        return retry.schedule[min(attempt - 1, len(retry.schedule)) - 1]
    if retry.backoff == "svix":
        return SVIX[min(attempt, len(SVIX)) - 1]
    if retry.backoff == "linear":
        return min(retry.cap, retry.base * (attempt - 1))
    if retry.backoff == "exponential":
        # 2 ** 63 seconds exceed every cap; a larger exponent would only take time.
        return min(retry.cap, retry.base * 2.0 ** min(attempt - 2, 63))
    return 0.0


def pause_after(interruptions: int) -> float:
    """
    Return the seconds before an interrupted call is made again: none after the first interruption.

    The pause grows, so that a destination that refuses every call does not keep the reactor busy.

    :param interruptions: how many interruptions of this delivery there were before this one.
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(interruptions - 1, 10)) if interruptions else 0.0
