"""Process attributes set by Linux's ``prctl``; elsewhere each function does nothing, and returns False."""

from __future__ import annotations

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
