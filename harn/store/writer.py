"""Group commit: what a turn of the reactor asks for is written as one batch, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import EventLogGone, EventLogUnavailable, ServerFenced, StateDirectoryUnusable
from harn.store.batch import PlainUnit, Unit, write_batch
from harn.store.database import Database, Session
from harn.store.worker import Worker, run_in

log = Logger(namespace="harn.store")

MOST_BYTES = 4 * 1024 * 1024
"""Bytes of one batch beyond which the next waits: until it is on disk, the database may hold much of it in memory."""


class Writer:
    """
    Writes units, each batch in one commit.

    Units are collected until the end of the reactor's turn, and further until the batch before them is on disk: no
    timer and no added wait, and under load some thirty units share a commit. Once the batch is on disk, one call in the
    reactor's thread ends all of its units, in the order in which they came.

    A failure of the database fails the batch, never the thread; the next batch tries again, over a new connection
    where the old one may be at fault. Once the database's files were removed or replaced beneath it, or the caller said
    `abandon`, nothing is written any more.

    A database that can be away without an error, on a machine that was stopped for example, has a patience. A batch
    that takes longer stays under way, since it may be written in the end; all else is refused until it has ended.

    :param worker: opens the database, and writes to it.
    :param wall: gives the time by which claims have expired.
    :ivar commits: how many batches were written.
    :ivar available: False while the last batch could not be written.
    """

    def __init__(self, database: Database, worker: Worker, wall: WallTime) -> None:
        self.commits = 0
        self.available = True
        self._database = database
        self._worker = worker
        self._wall = wall
        self._pending: list[Unit] = []
        self._bytes = 0
        self._busy = False
        self._closed = True
        self._idle: Deferred[None] | None = None
        self._session: Session | None = None
        self._incarnation = 0
        self._gone = False
        self._batches = 0
        self._is_writing = self._is_stalled = False
        self._watch: IDelayedCall | None = None

    def open(self, register: Callable[[Any], int]) -> Deferred[int]:
        """
        Start the worker and open the database.

        :param register: writes this server's row, and gives its number.
        :raises StateDirectoryUnusable: it cannot be opened; so says an error of its driver. The worker has ended.
        """
        self._worker.start()

        def begin() -> int:
            session = self._session = self._database.open()
            self._incarnation = session.incarnation = register(session)
            self._database.opened(session)
            return session.incarnation

        async def opening() -> int:
            try:
                incarnation = await run_in(self._worker, begin)
            except BaseException:
                self._worker.post(self._disconnect)
                await self._worker.stop()
                raise
            self._closed = False
            return incarnation

        return Deferred.fromCoroutine(opening())

    def write(self, unit: Unit) -> Deferred[Any]:
        """Write ``unit`` with the batch of this turn; its Deferred fires when it is on disk."""
        deferred = unit.deferred = Deferred()
        self.add(unit)
        return deferred

    def add(self, unit: Unit) -> None:
        """Write ``unit`` with the batch of this turn; end it when it is on disk, or now where that cannot be."""
        if self._closed or self._gone:
            closed = EventLogUnavailable(f"the event log {self._database.name} is closed")
            unit.error = closed if self._closed else self._away()
            unit.end()
            return
        if self._is_stalled:
            unit.error = self._stalled()
            unit.end()
            return
        self._pending.append(unit)
        self._bytes += unit.size
        if not self._busy:
            self._busy = True
            self._worker.soon(self._hand_over)

    def register(self, register: Callable[[Any], int]) -> Deferred[int]:
        """
        Write a new row for this server; what is written later is written under its number, which is returned.

        :param register: writes the row, and gives its number.
        :raises EventLogUnavailable: it cannot be written.
        """
        if self._closed or self._gone:
            return fail(self._away() if self._gone else EventLogUnavailable("the event log is closed"))
        return run_in(self._worker, lambda: self._register(register))

    def settle_log(self) -> Deferred[None]:
        """Move committed pages from the write-ahead log into the database; fires when it was tried."""
        if self._closed or self._gone:
            return fail(self._away() if self._gone else EventLogUnavailable("the event log is closed"))
        return run_in(self._worker, self._settle_log)

    def abandon(self, reason: str) -> None:
        """Write nothing more, what waits included; the first reason is logged and stays."""
        if not self._gone:
            self._gone = True
            self.available = False
            log.error("event log away: {reason}", reason=reason, announce=True)

    def close(self) -> Deferred[None]:
        """Refuse further units, write those that are here, end the thread. Called once, after `open`."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

        async def closing() -> None:
            if self._busy:
                self._idle = Deferred()
                await self._idle
            self._worker.post(self._finish)
            await self._worker.stop()

        return Deferred.fromCoroutine(closing())

    def _away(self) -> EventLogGone:
        return EventLogGone(
            f"the event log {self._database.name} is unavailable until a restart; see the log for the reason"
        )

    def _hand_over(self) -> None:
        units, self._pending = self._pending, []
        if self._bytes > MOST_BYTES:
            self._pending = units[_most(units) :]
            del units[len(units) - len(self._pending) :]
        self._bytes = sum([unit.size for unit in self._pending]) if self._pending else 0
        if units:
            now = self._wall.seconds()
            self._batches += 1
            self._is_writing = True
            if self._watch is None and self._database.patience is not None and not self._closed:
                self._watch = self._worker.later(self._database.patience, self._look, self._batches)
            self._worker.post(lambda: self._write(units, now))
        else:
            self._rest()

    def _rest(self) -> None:
        """Wait for the next unit: a hand-over at the end of its turn is ordered when it comes."""
        self._busy = False
        if self._idle is not None:
            self._idle.callback(None)

    def _look(self, batch: int) -> None:
        """Look whether the batch that was under way then still is."""
        self._watch = None
        patience = self._database.patience
        if not self._is_writing or patience is None or self._closed:
            return
        if self._batches != batch:
            self._watch = self._worker.later(patience, self._look, self._batches)
            return
        self._is_stalled, self.available = True, False
        units, self._pending, self._bytes = self._pending, [], 0
        log.error("event log away: {reason}", reason=str(self._stalled()))
        self._end(units, self._stalled())

    def _stalled(self) -> EventLogUnavailable:
        return EventLogUnavailable(f"the event log {self._database.name} gives no answer")

    def _landed(self, units: list[Unit], failure: EventLogUnavailable | None) -> None:
        self._is_writing = self._is_stalled = False
        if failure is None:
            self.commits += 1
        elif isinstance(failure, EventLogGone):
            self.abandon(str(failure))
        elif self.available:
            log.error("the event log cannot be written: {reason}", reason=str(failure))
        self.available = failure is None and not self._gone
        self._end(units, failure)
        if self._pending:
            # After all other calls of this turn, those that the answers cause included.
            self._worker.soon(self._hand_over)
        else:
            self._rest()  # a single connection does not wait for a turn of the reactor

    @staticmethod
    def _end(units: list[Unit], failure: EventLogUnavailable | None) -> None:
        if failure is not None:
            for unit in units:
                unit.error = type(failure)(str(failure))
        for _, group in groupby(units, type):
            together = list(group)
            together[0].end_all(together)

    # In the writer's thread:

    def _write(self, units: list[Unit], now: float) -> None:
        failure: EventLogUnavailable | None = None
        try:
            if self._gone:
                raise self._away()
            if self._session is None:
                self._session = self._database.reopen(self._incarnation)
            write_batch(self._session, units, now)
            self._incarnation = self._session.incarnation  # a recovery may have changed it
            # After the commit, so that one to files that are gone is not reported as done. Heartbeats are calls.
            self._database.committed(self._session, thorough=PlainUnit in map(type, units))
        except (EventLogGone, ServerFenced) as error:
            failure = error
            with suppress(self._database.error):
                self._undo()  # and no more: what the connection has open can still be saved
        except BaseException as error:
            failure = EventLogUnavailable(f"the event log {self._database.name} cannot be written: {error}")
            self._recover(error)
        self._worker.report(self._landed, units, failure)

    def _register(self, register: Callable[[Any], int]) -> int:
        try:
            if self._session is None:
                self._session = self._database.reopen(self._incarnation)
            session = self._session
            session.incarnation = self._incarnation = register(session)
            self._database.opened(session)
        except BaseException as error:
            self._recover(error)
            raise EventLogUnavailable(f"the event log {self._database.name} cannot be written: {error}") from error
        return self._incarnation

    def _recover(self, error: BaseException) -> None:
        """Undo the transaction, and read the numbers again; else begin the next batch with a new connection."""
        if not isinstance(error, self._database.error | StateDirectoryUnusable | OSError):
            log.failure("a batch failed for an unexpected reason")
        session = self._session
        if session is None:
            return
        session.incarnation = self._incarnation
        try:
            self._undo()
            if session.is_sound_after(error):
                session.read_numbers()
                return
        except self._database.error:
            # The connection cannot be used any more; the next line closes it.
            pass
        self._disconnect()
        self._database.disconnected()

    def _settle_log(self) -> None:
        if self._session is not None:
            with suppress(self._database.error):  # the next commits try again
                self._session.settle_log()

    def _undo(self) -> None:
        if self._session is not None:
            self._session.roll_back()

    def _finish(self) -> None:
        session, self._session = self._session, None
        self._database.close(session)

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(self._database.error):
                session.close()


def _most(units: list[Unit]) -> int:
    """Return how many of the units, from the first, make one batch: at least one, and at most `MOST_BYTES`."""
    size = 0
    for number, unit in enumerate(units):
        size += unit.size
        if number and size > MOST_BYTES:
            return number
    return len(units)
