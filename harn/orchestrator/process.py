"""
Settings of this process: the interpreter's switch interval, the limit of open files, the garbage collector.

The garbage collector: a full collection walks every object of the live generation, and stops every request meanwhile.
So after start-up, and after adopts that brought many new bindings, what is alive then is frozen: no collection looks at
it again. It is freed by its reference count, which is why generations hold no cycles. Garbage is collected first.

It is not frozen after every adopt: what is frozen while it is in use for a moment, and in a cycle (a request that Klein
serves, the last task of a pool's thread), is never freed. A reload that changes one trigger adds less to a collection's
work than such a loss would cost.
"""

from __future__ import annotations

import gc
import resource
import sys
from importlib import import_module

from twisted.internet.interfaces import IReactorTime

from harn.listener.descriptors import MOST_FILES
from harn.reload.events import Adopted

SWITCH_INTERVAL = 0.0005
"""
Seconds that a thread may keep the interpreter's lock while the reactor waits for it. A reload computes in a thread;
with Python's own interval (5 ms) a request may wait that long each time it wakes up meanwhile.
"""


LATE = ("harn.observability.exposition", "encodings.idna")
"""Modules that would otherwise be imported on first use."""


def set_switch_interval() -> None:
    """Make threads hand the interpreter's lock over sooner."""
    sys.setswitchinterval(SWITCH_INTERVAL)


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


def import_early() -> None:
    """Import `LATE`, while there are descriptors to read modules with. Called in a thread: it takes a while."""
    for name in LATE:
        import_module(name)


FREEZE_AFTER = 500
"""New bindings since the last time for which freezing pays."""


def freeze() -> None:
    """Collect what is garbage, and let no later collection look at what is not."""
    gc.collect()
    gc.freeze()


class Freezer:
    """Freezes in a turn of its own, once for all adopts that came before it; the first time for any."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_due = False
        self._fresh = FREEZE_AFTER

    def adopted(self, event: Adopted) -> None:
        """Freeze when the turn that adopted has ended, if that pays."""
        plan = event.candidate.plan
        self._fresh += len(plan.added) + len(plan.modified)
        if self._fresh >= FREEZE_AFTER and not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._freeze)

    def _freeze(self) -> None:
        self._is_due = False
        self._fresh = 0
        freeze()
