"""A thread that does what it is given, in order, and reports back to the reactor."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger(namespace="harn.store")

T = TypeVar("T")


class Worker:
    """
    One thread of our own: not the reactor's pool, whose threads come and go and are shared with name look-ups.

    SQLite's connections belong to the thread that opened them. `start` is called when the reactor runs, never
    earlier: a daemon forks between.
    """

    def __init__(self, name: str, threads: IReactorFromThreads) -> None:
        self._threads = threads
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon thread: what it has not acknowledged, nobody relies on; it must not keep a dying process alive.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._stopped: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, work: Callable[[], None]) -> None:
        """Do ``work`` after what was given before; it reports by itself."""
        self._work.put(work)

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` after what was given before; fire with its result on the reactor's thread."""
        called: Deferred[T] = Deferred()

        def run() -> None:
            try:
                result = work()
            except BaseException:
                self._threads.callFromThread(called.errback, Failure())
            else:
                self._threads.callFromThread(called.callback, result)

        self._work.put(run)
        return called

    def stop(self) -> Deferred[None]:
        """Finish what was given, end the thread; fire when it is gone. Called once."""
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
                log.failure("a store's thread goes on after an error nobody expected")
            # What has been done may hold megabytes; the loop waits without it.
            work = None
        self._threads.callFromThread(self._join)

    def _join(self) -> None:
        self._thread.join()
        self._stopped.callback(None)
