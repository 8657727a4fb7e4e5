"""
Cores and processes: which process runs on which core, and its processor time and memory.

The server (with its children) has core 0 to itself, the load has core 1: so the load takes no time from the server.
Readings come from ``/proc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

SERVER, LOAD = 0, 1
"""Core of the server, core of the load."""

_ALLOWED = os.sched_getaffinity(0)
_TICK = os.sysconf("SC_CLK_TCK")
_KEPT = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Start processes on ``core``: they inherit it. On a machine with a single core, anywhere."""
    before = os.sched_getaffinity(0)
    if core in _ALLOWED:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def keep_off() -> None:
    """Keep this process, which only gives orders, off the server's core."""
    others = _ALLOWED - {SERVER}
    if others:
        os.sched_setaffinity(0, others)


def family(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                waiting.extend(map(int, (task / "children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(each)
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time (user and system) of a process, its descendants, and those that it has waited for."""
    ticks = 0
    for each in family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK


@frozen(kw_only=True)
class Holdings:
    """
    The memory, descriptors and threads of a process and its descendants.

    :ivar resident: MiB, memory that processes share counted for each; ``proportional``: MiB, counted once.
    :ivar own_resident: MiB, of the process alone; so are ``descriptors`` and ``threads``.
    """

    resident: float
    proportional: float
    own_resident: float
    descriptors: int
    threads: int
    children: int


def holdings(pid: int) -> Holdings:
    """Read the present holdings of a process and its descendants."""
    resident = proportional = own = 0.0
    processes = family(pid)
    for each in processes:
        try:
            kept = dict(_KEPT.findall(Path(f"/proc/{each}/smaps_rollup").read_text()))
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident += int(kept["Rss"]) / 1024
        proportional += int(kept["Pss"]) / 1024
        if each == pid:
            own = int(kept["Rss"]) / 1024
    return Holdings(
        resident=resident,
        proportional=proportional,
        own_resident=own,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        children=len(processes) - 1,
    )
