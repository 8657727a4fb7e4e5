"""The process's limit of open files: raised as far as the system allows, since each slow client costs one."""

from __future__ import annotations

import resource

ENOUGH = 65_536


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
