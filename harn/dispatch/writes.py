"""Writes to the store that must be made, however often the event log is unavailable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.errors import EventLogUnavailable
from harn.waiting import retry

log = Logger(namespace="harn.dispatch")

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between tries while the event log is unavailable."""


class Writes:
    """Writes under way; `close` ends those that wait for another try."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._under_way: set[Deferred[Any]] = set()
        self._open = True

    def __len__(self) -> int:
        return len(self._under_way)

    def insist(self, what: str, write: Callable[[], Awaitable[T]]) -> Deferred[T]:
        """
        Call ``write`` until it succeeds.

        :param what: describes it in the log of failures other than `EventLogUnavailable`.
        :return: fires with its result; never, once this is closed.
        """
        if not self._open:
            return Deferred()

        def failed(error: Exception) -> None:
            if not isinstance(error, EventLogUnavailable):
                log.failure("{what} failed, trying again", what=what)

        trying = Deferred.fromCoroutine(retry(self._clock, write, Exception, lambda attempt: INTERVAL, failed))
        self._under_way.add(trying)
        written: Deferred[T] = Deferred()
        trying.addBoth(self._over, trying).addCallbacks(written.callback, _not_written, errbackArgs=(written,))
        return written

    def _over(self, result: object, trying: Deferred[Any]) -> object:
        self._under_way.discard(trying)
        return result

    def close(self) -> None:
        """Try nothing again: what was not written is found again by the next server."""
        self._open = False
        for trying in list(self._under_way):
            trying.cancel()


def _not_written(failure: Any, written: Deferred[Any]) -> None:
    if not failure.check(CancelledError):
        written.errback(failure)
