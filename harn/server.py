"""What a server runs: services that start in order, and end in the reverse order, each within its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger(namespace="harn")

LONGEST_END = 10.0
"""Seconds that one service may take to end: a thread that hangs, on a dead file server for example, delays nothing."""


class Services(MultiService):
    """
    Services that start in the order in which they were added, and end in the reverse order, one after the other.

    One that does not end in time, or fails, does not keep the others.
    """

    def __init__(self, clock: IReactorTime) -> None:
        MultiService.__init__(self)
        self._clock = clock

    def add(self, service: IService) -> None:
        """Add a service; it is started with the others."""
        service.setServiceParent(self)

    def add_closing(self, close: Callable[[], Awaitable[Any] | None]) -> None:
        """Call ``close`` when its turn to end comes; for what needs no start."""
        self.add(Closing(close))

    def startService(self) -> None:
        """Start them, in order."""
        MultiService.startService(self)

    def stopService(self) -> Deferred[None]:
        """End those that run; fires when all have ended, or had `LONGEST_END`."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            if service.running:
                await ended_in_time(self._clock, service.stopService)


class Closing(Service):
    """A service that has only an end."""

    def __init__(self, close: Callable[[], Awaitable[Any] | None]) -> None:
        self._close = close

    def stopService(self) -> Awaitable[Any] | None:
        """Close."""
        Service.stopService(self)
        return self._close()


async def ended_in_time(clock: IReactorTime, end: Callable[[], Awaitable[Any] | None]) -> None:
    """Call ``end`` and wait for it, at most for `LONGEST_END`; what it raises is logged."""

    async def wait() -> None:
        ending = end()
        if ending is not None:
            await ending

    def too_long(result: object, seconds: float) -> Failure:
        return Failure(TimeoutError(seconds))  # whatever cancelling a part makes of it

    try:
        await Deferred.fromCoroutine(wait()).addTimeout(LONGEST_END, clock, too_long)
    except TimeoutError:
        log.error("a part of the server did not end within {seconds:g} s", seconds=LONGEST_END)
    except Exception:
        log.failure("a part of the server failed to end")
