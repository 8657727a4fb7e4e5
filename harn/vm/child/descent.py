"""The tree of processes, from Linux's ``/proc``; elsewhere it is empty."""

from __future__ import annotations

import os


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
