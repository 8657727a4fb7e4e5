"""Waiting for work without owning it, and trying work again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

T = TypeVar("T")


class ReactorThreads:
    """The threads of a reactor's pool."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        """Call a function off the reactor thread; the Deferred of its result fires on the reactor thread."""
        called: Deferred[T] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)
        return called


def shield(work: Awaitable[T], failed_late: Callable[[Failure], object]) -> Deferred[T]:
    """
    Return a Deferred that fires with the outcome of ``work``; cancelling it does not cancel the work.

    :param failed_late: called with the failure of work whose waiting was cancelled.
    """
    waiting: Deferred[T] = Deferred()
    running: Deferred[T] = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]  # an awaitable is one of the two here

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


def limited(work: Deferred[T], seconds: float, clock: IReactorTime) -> Deferred[T]:
    """
    Return ``work``, which is cancelled after so many seconds and fails with `TimeoutError` then.

    Whatever error cancelling makes of it: endpoints and HTTP clients have errors of their own for that.
    """
    return work.addTimeout(seconds, clock, lambda result, after: Failure(TimeoutError(after)))


async def retry(
    clock: IReactorTime,
    work: Callable[[], Awaitable[T]],
    failures: type[Exception] | tuple[type[Exception], ...],
    *,
    pause: float,
    longest: float | None = None,
) -> T:
    """
    Return the result of ``work``, called again until it succeeds.

    :param failures: the errors after which it is called again; others are raised.
    :param pause: seconds before the second call. With ``longest`` each further pause is twice as long, up to that.
    """
    while True:
        try:
            return await work()
        except failures:
            pass
        await deferLater(clock, pause)
        pause = pause if longest is None else min(2.0 * pause, longest)


def ask(question: Callable[[], Any]) -> Deferred[tuple[Any]]:
    """
    Call third-party code; fire with a tuple of its result, or of a Failure of whatever it raised.

    So an error of that code, `CancelledError` and `SystemExit` included, is never mistaken for one of the caller. When
    the Deferred is cancelled, so is the call, but it is not waited for.
    """
    answering = maybeDeferred(question)
    cut: list[bool] = []

    def cut_off(_: object) -> None:
        cut.append(True)
        answering.cancel()

    waiting: Deferred[tuple[Any]] = Deferred(cut_off)

    def answered(outcome: Any) -> None:
        if not cut:
            waiting.callback((outcome,))

    answering.addBoth(answered)
    return waiting
