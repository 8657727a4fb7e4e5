"""File descriptors: the number of open ones, their limit, and the number that connections may use."""

from __future__ import annotations

import os
import resource

MOST_FILES = 65_536
"""The limit of open files that is requested of the system: each connection needs one."""
RESERVED = 64
"""
Descriptors reserved for other uses than connections, in addition to those open when the port is opened: 16 for
connections that are being refused; five for each interpreter of a reload, of a draining generation or of a replacement,
and ten while one starts; the event log, files read by a reload, the state file, reopened logs, outbound connections.
"""
LEAST = 8
"""The least number of connections allowed, however few descriptors there are."""
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
    Return the number of connections that a limit of open files allows.

    :param opened: the number of open descriptors, without those of connections.
    """
    if limit == resource.RLIM_INFINITY:
        return MOST_FILES
    return max(LEAST, limit - opened - RESERVED)


def open_file_limit() -> int:
    """Return the soft limit of open files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files(wanted: int = MOST_FILES) -> int:
    """Raise the soft limit towards ``wanted``, never above the hard limit; return the new soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        return soft
    return allowed
