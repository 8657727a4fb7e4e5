"""
The threads on which plain handlers run: made when needed, reused, limited in number; none of them delays exit.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[bool], None]
"""Runs on a thread; called with whether it had to wait for one."""


class DeadlinePassed(BaseException):
    """Raised in a thread whose call's time has run out; the user's ``except Exception`` does not catch it."""


class Threads:
    """Runs jobs, at most ``limit`` at the same time; the others wait in turn."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[tuple[Job, bool]] = SimpleQueue()
        self._running = 0  # threads that exist
        self._busy = 0  # jobs submitted and not finished
        self._counting = allocate_lock()

    def submit(self, job: Job) -> bool:
        """
        Run ``job`` on a thread; called on the loop's thread.

        :return: false when it has to wait for another job to end.
        """
        with self._counting:
            queued = self._busy >= self._limit
            self._busy += 1
        if self._running < min(self._busy, self._limit):
            self._running += 1
            start_new_thread(self._work, ())
        self._jobs.put((job, queued))
        return not queued

    def _work(self) -> None:
        while True:
            try:
                job, queued = self._jobs.get()
                try:
                    job(queued)
                finally:
                    del job
                    with self._counting:
                        self._busy -= 1
            except BaseException:  # noqa: S112 - jobs handle their own errors; a late DeadlinePassed may be raised here
                continue


def interrupt(thread: int) -> None:
    """Raise `DeadlinePassed` in a thread, once; it takes effect when Python code runs there next."""
    from ctypes import c_ulong, py_object, pythonapi

    pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread), py_object(DeadlinePassed))


def withdraw_interrupt(thread: int) -> None:
    """Clear the exception that `interrupt` raised in a thread, if it has not taken effect."""
    from ctypes import c_ulong, pythonapi

    pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread), None)
