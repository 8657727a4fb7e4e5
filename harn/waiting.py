"""Waiting for work without owning it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def shield(work: Awaitable[T], failed_late: Callable[[Failure], object]) -> Deferred[T]:
    """
    Return a Deferred that fires with the outcome of ``work``; cancelling it does not cancel the work.

    :param failed_late: called with the failure of work that nobody waits for any more.
    """
    waiting: Deferred[T] = Deferred()
    running: Deferred[T] = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]  # an awaitable of ours is one of the two

    def succeeded(result: T) -> None:
        if not waiting.called:
            waiting.callback(result)

    def failed(failure: Failure) -> None:
        if waiting.called:
            failed_late(failure)
        else:
            waiting.errback(failure)

    running.addCallbacks(succeeded, failed)
    return waiting
