"""
Orphans that end as children of the server: as process 1 of a container it is the parent of those that have lost theirs.

Twisted reaps the processes that it started, and a guard those of handlers (`harn.vm.child.guard`). The rest are
processes of others, such as a command of ``docker exec`` that left some running.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from contextlib import suppress

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.internet.process import reapProcessHandlers
from twisted.logger import Logger

from harn.vm.linux import adopts_orphans, children_of, is_ended

log = Logger(namespace="harn")

INTERVAL = 5.0
"""Seconds between two looks; what has ended and was not reaped at two of them is an orphan."""


def is_parent_of_orphans() -> bool:
    """Return whether this process is given those that have lost their parent."""
    return os.getpid() == 1 or adopts_orphans()


class OrphanReaper(TimerService):
    """
    Reaps orphans, but never a process that Twisted waits for, nor one that other code is about to reap.

    :param find_ended: numbers the children of this process that have ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        find_ended: Callable[[], list[int]] | None = None,
        awaited: Container[int] = reapProcessHandlers,
        reap: Callable[[int], None] | None = None,
    ) -> None:
        TimerService.__init__(self, INTERVAL, self.look)
        self.clock: IReactorTime = clock
        self._find_ended = _ended_children if find_ended is None else find_ended
        self._awaited = awaited
        self._reap = _reap if reap is None else reap
        self._seen: set[int] = set()

    def look(self) -> None:
        """Reap what had ended at the last look too."""
        ended = {each for each in self._find_ended() if each not in self._awaited}
        orphans = ended & self._seen
        self._seen = ended - orphans
        for each in orphans:
            self._reap(each)
        if orphans:
            log.debug("{count} orphans were reaped", count=len(orphans))


def _ended_children() -> list[int]:
    return [each for each in children_of(os.getpid()) if is_ended(each)]


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
