"""The old program of an upgrade, as the new one that takes its place sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import EventLogUnavailable, ShuttingDown, StateDirectoryUnusable
from harn.orchestrator.parts import Parts
from harn.store.lock import StateDirectoryLock
from harn.upgrade.handover import MAIN, SERVES, TAKEN, YOURS, Inheritance, Pair

log = Logger(namespace="harn")

PATIENCE = 2.0
"""Seconds in which the old program tells the service manager of us, or never."""
SECOND_TRY = 1.0
"""Seconds until deliveries are taken over that could not be, since the event log was away."""


class Predecessor:
    """
    The old program: serves until we could, then ends what it has; the rest is ours when it is gone.

    :ivar is_gone: whether its process has ended, in whatever way.
    """

    def __init__(self, reactor: Any, inheritance: Inheritance) -> None:
        """Listen to nothing yet. ``reactor`` is an ``IReactorSocket`` and ``IReactorTime``."""
        self.is_gone = False
        self._inheritance = inheritance
        self._reactor = reactor
        self._pair: Pair | None = None
        self._yours: Deferred[None] = Deferred()
        self._main: Deferred[None] = Deferred()
        self._gone: Deferred[None] = Deferred()
        self._tasks: list[Deferred[None]] = []  # two at most
        self._closed = False

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._inheritance.pid

    def inherit(self, lock: StateDirectoryLock) -> None:
        """
        Hold the state directory together with it, and listen to it.

        :raises StateDirectoryUnusable: the lock that we inherited is another's.
        :raises HandoverFailed: what we inherited is no end of a pair.
        """
        lock.inherit(self._inheritance.lock, self._inheritance.directory)
        self._pair = Pair.on(self._reactor, self._inheritance.pair, self._heard, self._lost)

    async def relieve(
        self, parts: Parts, lock: StateDirectoryLock, limit: int, serve: Callable[[], None]
    ) -> tuple[str, int]:
        """
        Serve in its place; give the URL, and how many deliveries of still earlier servers were taken over.

        :param limit: see `Parts.recover`.
        :param serve: called in the step in which this program takes over: be ready for requests.
        """
        assert self._pair is not None
        url = await parts.open_port(self._inheritance.listening)
        listening = parts.listening
        assert listening is not None
        listening.pause()
        self._pair.say(SERVES)
        await self._yours
        await parts.coordinator.take_over(serve)
        listening.resume()
        self._pair.say(TAKEN)
        # From here on there is no other server: what can be done later is no reason to fail.
        recovered = 0
        try:
            lock.claim()
        except StateDirectoryUnusable as error:
            log.warn("the lock still names the old program: {why}", why=str(error))
        try:
            parts.publisher.take_state()
            await parts.coordinator.note_serving()
            await parts.publisher.save_state()
            recovered = await self._recover(parts, limit)
        except (CancelledError, ShuttingDown):
            raise  # the server ends
        except Exception as error:
            if not isinstance(error, EventLogUnavailable):
                log.failure("taking over from the old program is not complete, and is tried again")
            self._begin(parts, limit)
        # What we say is heard only once the service manager knows of us, which the old program tells it.
        await self._main.addTimeout(PATIENCE, self._reactor, onTimeoutCancel=lambda *_: None)
        return url, recovered

    def take_over(self, parts: Parts, limit: int) -> None:
        """Go on with what it leaves, once it is gone: deliveries, and what start hooks could not have before."""

        def go_on(_: object) -> None:
            if not self._closed:
                parts.interpreters.try_hooks_again()
            self._begin(parts, limit)

        self._gone.addCallback(go_on)

    def _begin(self, parts: Parts, limit: int) -> None:
        """Take over what there is to take over, as soon as that can be done."""
        if not self._closed:
            task = Deferred.fromCoroutine(self._take_over(parts, limit))
            self._tasks.append(task)
            task.addErrback(self._not_taken_over)

    async def _recover(self, parts: Parts, limit: int) -> int:
        incarnation = self._inheritance.incarnation
        return await (parts.recover(limit, gone=incarnation) if self.is_gone else parts.recover(limit, incarnation))

    def close(self) -> None:
        """Listen no more, and take nothing over."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._pair is not None:
            self._pair.close()

    async def _take_over(self, parts: Parts, limit: int) -> None:
        while True:
            try:
                await self._recover(parts, limit)
            except EventLogUnavailable as error:
                log.warn("what the old program left is not taken over yet: {why}", why=str(error))
                await deferLater(self._reactor, SECOND_TRY)
            else:
                return

    @staticmethod
    def _not_taken_over(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("taking over from the old program failed", failure)

    def _heard(self, word: bytes) -> None:
        if word == YOURS and not self._yours.called:
            self._yours.callback(None)
        elif word == MAIN and not self._main.called:
            self._main.callback(None)

    def _lost(self) -> None:
        self.is_gone = True
        if not self._yours.called:
            log.warn("the old program (pid {pid}) ended, or gave up the upgrade, before it handed over", pid=self.pid)
            self._yours.callback(None)
        if not self._main.called:
            self._main.callback(None)
        if not self._gone.called:
            self._gone.callback(None)
