"""
The process's limit of open files: raised as far as the system allows, since each slow client costs one, and how many of
them connections may take.
"""

from __future__ import annotations

import os
import resource
from importlib import import_module

ENOUGH = 65_536
RESERVED = 64
"""
Descriptors that connections leave to others, beyond those open when the port is opened: 16 connections that are turned
away; five for each of the interpreters of a reload, of generations that drain, and of a replacement, and ten while one
starts; the event log, the files that a reload reads, the state file, logs that are opened anew, outbound connections.
"""
LEAST = 8
"""Connections that there may be, however few descriptors there are."""
LATE = ("harn.observability.exposition", "encodings.idna")
"""Modules that would be imported when somebody first needs them."""
_TABLES = ("/proc/self/fd", "/dev/fd")
_USUAL = 48


def open_files() -> int:
    """Return how many descriptors are open."""
    for table in _TABLES:
        try:
            return len(os.listdir(table))
        except OSError:
            continue
    return _USUAL


def connections_within(limit: int, opened: int) -> int:
    """
    Return how many connections a limit of open files leaves room for.

    :param opened: how many are open, without connections.
    """
    if limit == resource.RLIM_INFINITY:
        return ENOUGH
    return max(LEAST, limit - opened - RESERVED)


def raise_open_files(wanted: int = ENOUGH) -> int:
    """Raise the soft limit towards ``wanted``, never above the hard one; give what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        return soft
    return allowed


def open_file_limit() -> int:
    """Return the soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def import_early() -> None:
    """Import `LATE`, while there are descriptors to read modules with. Called in a thread: it takes a while."""
    for name in LATE:
        import_module(name)
