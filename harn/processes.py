"""
Processes, as the kernel sees them: signals held back from one that begins, attributes set by ``prctl``, their tree.

A terminal or a service manager sends signals to a whole process group, and a process that was just started is in it.
Until a new program has installed its handlers, such a signal ends it. So it is started with them blocked: a signal that
comes meanwhile is pending until the program is ready for it.

``prctl`` and ``/proc`` are Linux's own. Elsewhere each function on attributes does nothing and returns False, and the
tree is empty.
"""

from __future__ import annotations

import os
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


_PDEATHSIG, _GET_DUMPABLE, _SET_DUMPABLE = 1, 3, 4
_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37


def _prctl(option: int, argument: int) -> int:
    import ctypes  # imported here, since most commands do not need it

    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return -1
    nothing = ctypes.c_ulong(0)
    return int(call(option, ctypes.c_ulong(argument), nothing, nothing, nothing))


def end_with_parent(signal: int) -> bool:
    """
    Send ``signal`` to this process when the thread that started it ends; child processes do not inherit this.

    A parent that is gone already sends nothing: compare `os.getppid` afterwards.
    """
    return _prctl(_PDEATHSIG, signal) == 0


def adopt_orphans() -> bool:
    """Make this process the parent of every descendant whose own parent ends, instead of process 1."""
    return _prctl(_SET_CHILD_SUBREAPER, 1) == 0


def adopts_orphans() -> bool:
    """Return whether `adopt_orphans` was called in this process."""
    import ctypes

    found = ctypes.c_int(0)
    return _prctl(_GET_CHILD_SUBREAPER, ctypes.addressof(found)) == 0 and found.value == 1


def close_memory() -> bool:
    """Close this process's memory and environment to its user's other processes; it leaves no core dump either."""
    return _prctl(_SET_DUMPABLE, 0) == 0


def is_memory_closed() -> bool:
    """Return whether `close_memory` is in effect."""
    return _prctl(_GET_DUMPABLE, 0) == 0


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children, including dead ones that were not reaped."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    except OSError:
        return [] if os.path.exists("/proc/thread-self/children") else _search(pid)
    return found


def _search(pid: int) -> list[int]:
    """Return the same where the kernel keeps no list: read every process's parent."""
    try:
        running = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [each for each in running if parent_and_start(each)[0] == pid]


def parent_and_start(pid: int) -> tuple[int, int]:
    """Return a process's parent, and when it started in the kernel's ticks; zeros if unknown."""
    fields = _status(pid)
    return (int(fields[1]), int(fields[19])) if len(fields) > 19 else (0, 0)


def is_ended(pid: int) -> bool:
    """Return whether a process has ended, and waits to be reaped by its parent."""
    return _status(pid)[:1] == [b"Z"]


def _status(pid: int) -> list[bytes]:
    """Return the fields of the kernel's description after the name: state, parent, ...; empty if unavailable."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def descendants_of(pid: int) -> list[int]:
    """Return the ids of a process's children, their children and so on, each behind its parent."""
    found: list[int] = []
    todo = [pid]
    while todo:
        children = children_of(todo.pop())
        found += children
        todo += children
    return found
