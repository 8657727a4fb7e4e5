"""File descriptors: how many are open, how many there may be, and how many of those connections can take."""

from __future__ import annotations

import os
import resource

MOST_FILES = 65_536
"""Open files that are asked of the system: each slow client costs one."""
RESERVED = 64
"""
Descriptors that connections leave to others, beyond those open when the port is opened: 16 connections that are being
refused; five for each of the interpreters of a reload, of generations that drain, and of a replacement, and ten while
one starts; the event log, the files that a reload reads, the state file, logs that are reopened, outbound connections.
"""
LEAST = 8
"""Connections that there may be, however few descriptors there are."""
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
        return MOST_FILES
    return max(LEAST, limit - opened - RESERVED)


def open_file_limit() -> int:
    """Return the soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files(wanted: int = MOST_FILES) -> int:
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
