"""
Signals that a terminal or a service manager sends to a whole process group, and a process that was just started. Until
a new program has installed its handlers, such a signal ends it. So it is started with them blocked: a signal that comes
meanwhile is pending until the program is ready for it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

CAUGHT = frozenset((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
"""Signals that a server catches, and that would end a process that has just begun."""


@contextmanager
def signals_blocked(numbers: Iterable[int]) -> Iterator[None]:
    """Start child processes meanwhile with these signals blocked; the child unblocks them when it is ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
