"""
The threads of a store: each runs work in order and reports back to the reactor; one of them reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import EventLogUnavailable, StateDirectoryUnusable

if TYPE_CHECKING:
    from harn.store.database import Database

log = Logger(namespace="harn.store")

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[[], None]
"""What a worker runs; it reports its result itself."""
Answer = Callable[..., object]
"""What takes a result, in the reactor's thread."""


class Worker(Protocol):
    """
    Runs work in order, away from the code that asks for it.

    `ThreadWorker` is the server's; a test may bring one that runs the work in the calling thread.
    """

    def start(self) -> None:
        """Begin to run what was posted; called when the reactor runs, never earlier: a daemon forks between."""

    def post(self, work: Work) -> None:
        """Run ``work`` after what was posted before; it reports its result itself."""

    def report(self, function: Answer, *args: Any) -> None:
        """Call ``function`` in the reactor's thread. Called by work that runs."""

    def soon(self, function: Work) -> None:
        """Call ``function`` at the end of the reactor's turn. Called in the reactor's thread."""

    def later(self, seconds: float, function: Answer, *args: Any) -> IDelayedCall:
        """Call ``function`` in the reactor's thread after so many seconds. Called there."""

    def stop(self) -> Deferred[None]:
        """Finish the work that was posted, then end; fire when that is done. Called once."""


class Workers(Protocol):
    """Makes the workers of a store: `ThreadWorkers` a server's, another those of a test."""

    def worker(self, name: str) -> Worker:
        """Make one; three at each time that a store is opened: for writes, for reads, for notes of what runs."""


def run_in(worker: Worker, work: Callable[[], T]) -> Deferred[T]:
    """Run ``work`` after what was posted before; fire with its result in the reactor's thread."""
    called: Deferred[T] = Deferred()

    def run() -> None:
        try:
            result = work()
        except BaseException:
            worker.report(called.errback, Failure())
        else:
            worker.report(called.callback, result)

    worker.post(run)
    return called


class ThreadWorker:
    """
    One thread of our own: not the reactor's pool, whose threads come and go and are shared with name look-ups.

    A connection belongs to the thread that opened it.

    :param reactor: an `IReactorTime` and `IReactorFromThreads`.
    """

    def __init__(self, name: str, reactor: Any) -> None:
        self._reactor = reactor
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        # A daemon thread: it must not keep a dying process alive, and no caller relies on work that was not reported.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._stopped: Deferred[None] = Deferred()

    def start(self) -> None:
        """See `Worker.start`."""
        self._thread.start()

    def post(self, work: Work) -> None:
        """See `Worker.post`."""
        self._work.put(work)

    def report(self, function: Answer, *args: Any) -> None:
        """See `Worker.report`."""
        self._reactor.callFromThread(function, *args)

    def soon(self, function: Work) -> None:
        """See `Worker.soon`."""
        self._reactor.callLater(0, function)

    def later(self, seconds: float, function: Answer, *args: Any) -> IDelayedCall:
        """See `Worker.later`."""
        call: IDelayedCall = self._reactor.callLater(seconds, function, *args)
        return call

    def stop(self) -> Deferred[None]:
        """See `Worker.stop`."""
        self._work.put(None)
        return self._stopped

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                break
            try:
                work()
            except BaseException:
                log.failure("a store's thread continues after an unexpected error")
            # What has been done may hold megabytes; the loop waits without it.
            work = None
        self._reactor.callFromThread(self._join)

    def _join(self) -> None:
        self._thread.join()
        self._stopped.callback(None)


class ThreadWorkers:
    """
    Makes workers with a thread each.

    :param reactor: an `IReactorTime` and `IReactorFromThreads`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def worker(self, name: str) -> ThreadWorker:
        """See `Workers.worker`."""
        return ThreadWorker(name, self._reactor)


class EventLogUnreadable(EventLogUnavailable):
    """The event log cannot be read now; a caller may ask again."""


class Reader:
    """
    Runs queries over a connection that cannot write; they see the last commit, and wait for none.

    Where a database may give no answer, a read that has run for `Database.longest_read` is looked at, and ended when it
    still runs after as long again.
    """

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker
        self._connection: Any = None
        self._closed = True
        self._asked = self._answered = 0
        self._running = self._ended = self._refused = 0  # numbers of reads, as they were asked for
        self._watch: IDelayedCall | None = None

    def open(self) -> None:
        """Start the thread; the connection is made at the first read."""
        self._worker.start()
        self._closed = False

    def read(self, query: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        Run ``query`` with the connection and ``args``, all of it on one state of the database.

        :raises EventLogUnreadable: the database cannot be read.
        :raises EventLogUnavailable: it is closed.
        """
        if self._closed:
            return fail(EventLogUnavailable(f"the event log {self._database.name} is closed"))
        self._asked += 1
        number = self._asked

        def run() -> T:
            with self._snapshot(number) as connection:
                return query(connection, *args, **kwargs)

        found = run_in(self._worker, run)
        if self._database.longest_read is not None:
            if self._watch is None:
                self._watch = self._worker.later(self._database.longest_read, self._look, number)
            found.addBoth(self._answer)
        return found

    def close(self) -> Deferred[None]:
        """Refuse further reads, finish those that are here, end the thread. Called once, after `open`."""
        self._closed = True
        self._worker.post(self._disconnect)
        return self._worker.stop()

    def _answer(self, result: Any) -> Any:
        self._answered += 1
        if self._answered == self._asked and self._watch is not None:
            self._watch.cancel()
            self._watch = None
        return result

    def _look(self, number: int) -> None:
        """End the read that runs, if it ran before, too."""
        running, connection = self._running, self._connection
        if running and running == number and connection is not None:
            self._ended = number
            connection.abort()
        longest = self._database.longest_read
        assert longest is not None
        self._watch = self._worker.later(longest, self._look, running)

    # In the reader's thread:

    @contextmanager
    def _snapshot(self, number: int) -> Iterator[Any]:
        try:
            if self._connection is None:
                self._connect(number)
            self._running = number
            with self._database.snapshot(self._connection) as connection:
                yield connection
        except (self._database.error, StateDirectoryUnusable) as error:
            self._disconnect()
            why = str(error)
            if self._ended == number:
                why = f"it gave no answer within {self._database.longest_read:g} s"
            raise EventLogUnreadable(f"the event log {self._database.name} cannot be read: {why}") from error
        finally:
            self._running = 0

    def _connect(self, number: int) -> None:
        """Make the connection; reads that were asked for while that failed fail, too."""
        if number <= self._refused:
            raise StateDirectoryUnusable("it could not be reached")
        try:
            self._connection = self._database.connect_reader()
        except (self._database.error, StateDirectoryUnusable):
            self._refused = self._asked
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._database.error):
                connection.close()
