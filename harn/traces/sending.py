"""
Sending to the collector: what waits is bounded, and goes out in batches, one after the other, in a thread of its own.

A collector that is down, slow or answers with errors costs its batches, which are counted; nothing else waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.reload.reader import OneThread
from harn.traces.settings import Batching

log = Logger(namespace="harn.traces")

LAST_CHANCE = 3.0
"""Seconds that a server that ends waits for its last batches."""
LAST_CHANCE_LESS = 1.0
"""The same, where the collector has not taken the batches before."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Exporter(Protocol[T_contra]):
    """Sends batches to a collector. Its methods are called in the sender's thread, but for `close` and `reason`."""

    def prepare(self) -> None:
        """Import the SDK, which takes a while; called when the server starts."""

    def reason(self) -> str:
        """Return why the call under way has to try again; empty where that is not known. On any thread."""

    def export(self, items: Sequence[T_contra]) -> str | None:
        """Send a batch, which may take a while; return why the collector has not got it, or None."""

    def close(self) -> None:
        """End a call that waits to try again; on any thread."""


class Sender(Service, Generic[T]):
    """
    Takes what is to be sent, on the reactor thread, and never blocks it.

    :param what: names it in the log: ``spans`` or ``metrics``.
    :param url: where it goes, for the log.
    :param pool: where it is sent; None for a thread of its own, started when it is needed.
    :ivar sent: how many the collector has got.
    :ivar dropped: how many it has not, and never will.
    """

    def __init__(
        self, reactor: Any, exporter: Exporter[T], batching: Batching, what: str, url: str, pool: Any = None
    ) -> None:
        self._reactor = reactor
        self._exporter = exporter
        self._batching = batching
        self._what, self._url = what, url
        self._pool = pool
        self._own: OneThread | None = None
        self._waiting: deque[T] = deque()
        self._timer: IDelayedCall | None = None
        self._in_flight = 0
        self._lost_at: int | None = None
        self._ended: Deferred[None] | None = None
        self.sent = self.dropped = 0

    def startService(self) -> None:
        """Prepare the exporter, in the thread, so that the first batch does not take the time of deliveries."""
        Service.startService(self)
        preparing = deferToThreadPool(self._reactor, self._thread(), self._exporter.prepare)
        preparing.addErrback(lambda failure: log.failure("preparing to send {what} failed", failure, what=self._what))

    def add(self, item: T) -> None:
        """Record an item to send; it is dropped if as many wait as may."""
        waiting = self._waiting
        if self._ended is not None:
            self._drop(1, "the server ends")
            return
        if len(waiting) >= self._batching.most_waiting:
            why = self._exporter.reason()
            self._drop(1, f"more than {self._batching.most_waiting} wait{f', since: {why}' if why else ''}")
            return
        waiting.append(item)
        if self._timer is None and not self._in_flight:
            self._timer = self._reactor.callLater(self._batching.delay, self._send)
        if len(waiting) == self._batching.batch:
            self._send()

    def stopService(self) -> Deferred[None]:
        """Send the items that wait; fires when that is done, or after `LAST_CHANCE`, when the rest is dropped."""
        Service.stopService(self)
        ended: Deferred[None] = Deferred(lambda _: None)
        if self._ended is None:
            self._ended = ended
            self._send()
            self._end_if_done()
        else:
            ended.callback(None)
        patience = LAST_CHANCE if self._lost_at is None else LAST_CHANCE_LESS
        return ended.addTimeout(patience, self._reactor).addErrback(self._too_late).addBoth(self._close)

    def _send(self) -> None:
        """Start the next batch in the thread, unless one is under way."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._in_flight or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batching.batch))]
        self._in_flight = len(batch)
        sending = deferToThreadPool(self._reactor, self._thread(), self._exporter.export, batch)
        sending.addCallbacks(self._exported, self._failed).addErrback(
            lambda failure: log.failure("sending {what} failed", failure, what=self._what)
        )

    def _failed(self, failure: Failure) -> None:
        if self._lost_at is None:
            log.failure("sending {what} failed in an unexpected way", failure, what=self._what)
        self._exported(failure.getErrorMessage() or str(failure.type))

    def _exported(self, why: str | None) -> None:
        """Count a batch, and send the next one immediately where it is full, or the server ends."""
        count, self._in_flight = self._in_flight, 0
        if self._ended is not None and self._ended.called:
            return  # too late: it is counted as dropped
        if why is not None:
            self._drop(count, why)
        else:
            self.sent += count
            if self._lost_at is not None:
                lost, self._lost_at = self.dropped - self._lost_at, None
                log.info("the collector takes {what} again; {lost} were dropped", what=self._what, lost=lost)
        if self._ended is not None or len(self._waiting) >= self._batching.batch:
            self._send()
        elif self._waiting and self._timer is None:
            self._timer = self._reactor.callLater(self._batching.delay, self._send)
        self._end_if_done()

    def _drop(self, count: int, why: str) -> None:
        """Count lost items; the first loss after a success is logged, and no other."""
        if self._lost_at is None:
            self._lost_at = self.dropped
            log.warn(
                "{what} are dropped, deliveries are not affected: {why} ({url}); logged once until some pass again",
                what=self._what,
                why=why,
                url=self._url,
            )
        self.dropped += count

    def _end_if_done(self) -> None:
        if self._ended is not None and not self._ended.called and not self._in_flight and not self._waiting:
            self._ended.callback(None)

    def _too_late(self, failure: Failure) -> None:
        lost = len(self._waiting) + self._in_flight
        self._waiting.clear()
        self.dropped += lost
        log.warn("the server ends, and the collector has not taken {lost} {what}", lost=lost, what=self._what)

    def _close(self, result: Any) -> Any:
        self._exporter.close()
        own, self._own = self._own, None
        if own is not None and not self._in_flight:
            own.stop()
        return result

    def _thread(self) -> Any:
        if self._pool is not None:
            return self._pool
        if self._own is None:
            self._own = OneThread(self._what)
            self._own.start()
        return self._own
