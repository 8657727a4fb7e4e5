"""Tries again, a second later, what the event log could not do: one timer for everything that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.errors import EventLogUnavailable

log = Logger(namespace="harn.dispatch")

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between tries while the event log is unavailable."""


class SecondTries:
    """Calls the added functions, all together and in order, after the interval."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: list[Callable[[], object]] = []
        self._timer: IDelayedCall | None = None
        self._open = True

    def add(self, call: Callable[[], object]) -> None:
        """Call it at the next try; after `close` never."""
        if not self._open:
            return
        self._calls.append(call)
        if self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self._fire)

    async def insist(self, what: str, work: Callable[[], Deferred[T]]) -> T:
        """Retry ``work`` until the event log is available; ``what`` describes it in the log of other failures."""
        while True:
            try:
                return await work()
            except EventLogUnavailable:
                pass
            except Exception:
                log.failure("{what} failed, trying again", what=what)
            again: Deferred[None] = Deferred()
            self.add(partial(again.callback, None))
            await again

    def close(self) -> None:
        """Remove everything: what was not written is found again by the next server."""
        self._open = False
        self._calls.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        calls, self._calls = self._calls, []
        for call in calls:
            call()
