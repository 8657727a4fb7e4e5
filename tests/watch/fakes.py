"""A stand-in for watchdog's observer."""

from __future__ import annotations

import errno
from typing import Any


class FakeObserver:
    """
    Schedules, and sends nothing by itself.

    :ivar directories: that are followed; ``scheduled``: every one that ever was, in order.
    :ivar refuses: follow nothing more, as a system does that has no watches left.
    """

    def __init__(self) -> None:
        self.directories: set[str] = set()
        self.scheduled: list[str] = []
        self.started = self.stopped = False
        self.refuses = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped = True

    def join(self) -> None:
        """Do nothing: there is no thread."""

    def schedule(self, handler: Any, directory: str, recursive: bool) -> str:
        if self.refuses:
            raise OSError(errno.ENOSPC, "no watches left")
        self.directories.add(directory)
        self.scheduled.append(directory)
        return directory

    def unschedule(self, directory: str) -> None:
        self.directories.remove(directory)
