"""
The settlement of a delivery after one attempt, to make durable; and when the next attempt is, if there is one. Pure.

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
"""Characters of an error's text that are kept."""
LONGEST_DETAIL = 8192
"""Characters of a failed attempt's traceback that are kept, and of its output."""

_HANDLER_RAN = (HandlerRaised, HandlerRejected, HandlerRetryAfter, ResultInvalid, ResultTooLarge)
"""Failures that prove that the predicate had said yes. A time-out or a death may have been the predicate's own."""


def shortened(text: str) -> str:
    """Cut an error's text to what is kept of it; what has no form in UTF-8 is replaced."""
    return text[:LONGEST_ERROR].encode("utf-8", "replace").decode("utf-8")


def kept_end(text: str) -> str | None:
    """Return the end of a traceback or of output, its most useful part, to keep; None if there is nothing."""
    end = text if len(text) <= LONGEST_DETAIL else "... " + text[-LONGEST_DETAIL:]
    return end.encode("utf-8", "replace").decode("utf-8") or None


def succeeded(delivery: Delivery, started_at: float, now: float, result: bytes | None) -> Settlement:
    """
    Settle a delivery whose call returned.

    :param result: the handler's result as JSON; None when the predicate said no.
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
    Settle a delivery whose attempt failed: the next attempt's time, or the dead letters and why.

    :param drawn: a random number from 0 up to 1, for the delay before the next attempt.
    :param gone: no version is left that a further attempt could run on.
    """
    number, version = delivery.attempts + 1, delivery.binding.version
    attempt = _failed_attempt(number, version, started_at, now, error)
    # A predicate that said yes is not asked again.
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
    """Return why no attempt follows the one of this number; None if one does."""
    if isinstance(error, HandlerRejected):
        return REJECTED
    if number >= allowed_attempts(retry):
        return RETRY_EXHAUSTED
    return BINDING_REMOVED if gone else None


def _delay_after(number: int, retry: RetrySpec, error: AttemptFailed, drawn: float) -> float:
    """Return the seconds until the attempt that follows: as the handler asks, or else as the trigger's retry says."""
    if isinstance(error, HandlerRetryAfter) and error.seconds is not None:
        return min(error.seconds, LONGEST)
    return delay_before(number + 1, retry, drawn)


def removed(delivery_id: int, trigger_id: str, version: int, attempts: int, *, passed: bool) -> Settlement:
    """Settle a delivery that has no version left to run on."""
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
    """Settle a delivery that ends without an attempt, for one of `harn.model.delivery.SKIP_REASONS`."""
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
    Settle a delivery of a version whose drain was cancelled. That does not count as an attempt.

    :param running: its handler was cut off.
    """
    when = "while it ran; it may have taken effect" if running else "before it was begun"
    return refused(delivery, cancelled_letter(delivery.binding.key, when))


def cancelled_letter(binding: str, when: str) -> DeadLetter:
    """Return that the drain of a version was cancelled, and when in the delivery's life that was."""
    return DeadLetter(
        reason=DRAIN_CANCELLED,
        error_class=DRAIN_CANCELLED,
        error=f"an operator cancelled the drain of {binding} {when}",
    )


DEFAULT_ATTEMPTS = 7
SVIX = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before attempt 1, 2, ...; the last one repeats."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


def allowed_attempts(retry: RetrySpec) -> int:
    """Return the number of attempts in all; 0 in the manifest means the default."""
    return retry.max or DEFAULT_ATTEMPTS


def delay_before(attempt: int, retry: RetrySpec, drawn: float) -> float:
    """
    Return the wait before an attempt: the full one, less what is drawn of its jittered share.

    :param attempt: its number, 2 or more.
    :param drawn: a random number from 0 up to 1.
    :return: seconds.
    """
    return full_delay(attempt, retry) * (1.0 - retry.share_of_jitter * drawn)


def full_delay(attempt: int, retry: RetrySpec) -> float:
    """
    Return the longest wait before an attempt, in seconds.

    :param attempt: its number, 2 or more.
    """
    if retry.schedule:
        return retry.schedule[min(attempt - 1, len(retry.schedule)) - 1]
    if retry.backoff == "svix":
        return SVIX[min(attempt, len(SVIX)) - 1]
    if retry.backoff == "linear":
        return min(retry.cap, retry.base * (attempt - 1))
    if retry.backoff == "exponential":
        # 2 ** 63 seconds are more than any cap; a larger exponent only costs time.
        return min(retry.cap, retry.base * 2.0 ** min(attempt - 2, 63))
    return 0.0


def pause_after(interruptions: int) -> float:
    """
    Return the seconds before a call that was interrupted is made again: immediately after the first.

    :param interruptions: how many there were before this one. A destination that refuses everything must not spin the
        reactor.
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(interruptions - 1, 10)) if interruptions else 0.0
