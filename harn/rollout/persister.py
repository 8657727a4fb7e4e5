"""
Writes the state that the next server needs into the store; only the latest state of each name is written.

A failed write is retried until it succeeds, a newer write of the same name replaces it, or the server stops.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import Interface, implementer

from harn.errors import EventLogUnavailable, ShuttingDown
from harn.reload.pipeline import NOTING
from harn.store.checkpoints import ICheckpoints

log = Logger(namespace="harn.reload")

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""The first and the longest pause (seconds) before a failed write is retried; each pause doubles the last."""


class IWrite(Interface):
    """A write to the store that is retried until it succeeds."""

    def write() -> Awaitable[None]:
        """
        Write the present value, not the one of the time at which the write was queued.

        :raises EventLogUnavailable: the store cannot be written.
        """


class IRecorded(Interface):
    """The owner of a value that the next server needs after a restart."""

    def record() -> Any:
        """Return the present value in a form that JSON can encode; None to store that there is no value."""


class Persister:
    """Runs writes one at a time, in the order in which they were queued, and retries those that fail."""

    def __init__(self, clock: IReactorTime, checkpoints: ICheckpoints) -> None:
        self.clock = clock
        self.checkpoints = checkpoints
        self._writes: dict[str, IWrite] = {}
        self._waiting: list[Deferred[None]] = []
        self._is_working = False
        self._pausing: Deferred[None] | None = None
        self._closed = False

    def keep(self, name: str, write: IWrite) -> Deferred[None]:
        """
        Queue a write, in place of an earlier write of the same name that has not succeeded yet.

        :return: a Deferred that fires when the value is in the store. It fails if the first try fails, although the
            write is retried.
        :raises EventLogUnavailable: (as a failure) the store cannot be written.
        :raises ShuttingDown: (as a failure) `close` was called.
        """
        if self._closed:
            return fail(ShuttingDown("the server is shutting down; ask again", retry_after=5))
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self.keep_soon(name, write)
        return waiting

    def keep_soon(self, name: str, write: IWrite) -> None:
        """Queue a write without a Deferred to wait for."""
        if self._closed:
            return
        self._writes.pop(name, None)
        self._writes[name] = write
        if self._pausing is not None:
            self._pausing.cancel()
        elif not self._is_working:
            self._is_working = True
            Deferred.fromCoroutine(self._work()).addErrback(lambda failure: log.failure("keeping failed", failure))

    def close(self) -> None:
        """Stop writing; the next server continues from the state in the store."""
        self._closed = True
        if self._pausing is not None:
            self._pausing.cancel()

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        try:
            while self._writes and not self._closed:
                waiting, self._waiting = self._waiting, []
                error = await self._write_all()
                for each in waiting:
                    if error is None:
                        each.callback(None)
                    else:
                        each.errback(error)
                if not isinstance(error, EventLogUnavailable):
                    pause = FIRST_PAUSE
                elif not self._waiting and not self._closed:
                    log.warn("the state of rollouts cannot be written, trying again: {why}", why=str(error))
                    await self._pause(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
        finally:
            self._is_working = False
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.errback(ShuttingDown("the server is shutting down; ask again", retry_after=5))

    async def _write_all(self) -> Exception | None:
        """
        Run the queued writes in order until one fails; return its error, or None if all succeeded.

        The writes after the failed one stay queued. The failed one stays queued if the store could not be written; it
        is dropped after any other error.
        """
        writes, self._writes = self._writes, {}
        for name, write in tuple(writes.items()):
            try:
                await write.write()
            except EventLogUnavailable as error:
                self._writes = {**writes, **self._writes}
                return error
            except Exception as error:
                log.failure("saving {name} failed", name=name)
                self._writes = {**{left: writes[left] for left in writes if left != name}, **self._writes}
                return error
            del writes[name]
        return None

    async def _pause(self, seconds: float) -> None:
        self._pausing = deferLater(self.clock, seconds)
        try:
            await self._pausing
        except CancelledError:
            pass  # a new write was queued, or the server stops
        finally:
            self._pausing = None


@implementer(IWrite)
class PersistedValue:
    """
    One named value that the next server needs after a restart.

    :param name: the name of its checkpoint in the store.
    :param owner: returns the present value when it is written.
    """

    def __init__(self, persister: Persister, name: str, owner: IRecorded) -> None:
        self._persister = persister
        self._name = name
        self._owner = owner

    def save_soon(self) -> None:
        """Queue a write of the present value, and do not wait for it."""
        self._persister.keep_soon(self._name, self)

    async def save(self) -> None:
        """
        Write the present value, and wait until it is in the store.

        :raises EventLogUnavailable: the store cannot be written, or did not answer in time; the write is retried
            all the same.
        """
        try:
            await self._persister.keep(self._name, self).addTimeout(NOTING, self._persister.clock)
        except TimeoutError:
            raise EventLogUnavailable(f"the store did not answer within {NOTING:g} s; try again") from None

    async def write(self) -> None:
        """See `IWrite.write`."""
        await self._persister.checkpoints.put(self._name, self._owner.record())
