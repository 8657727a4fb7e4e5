"""
The terminal in whose foreground a server was started.

When its window is closed, the kernel sends SIGHUP. A program in the foreground ends then, as expected; a server that
took the signal for a reload would continue unseen, with the state directory and the port. In the background, without a
terminal, or where SIGHUP was ignored at the start (``nohup``), SIGHUP is a reload even after it was closed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime

INTERVAL = 1.0
"""Seconds between two looks whether the process is still in the foreground."""
DEVICE = "/dev/tty"


class Terminal(TimerService):
    """
    Notes whether the process is in the foreground of its terminal, which cannot be asked once the terminal is gone.

    :param in_foreground: returns whether it is now; raises `OSError` when the terminal is gone.
    """

    def __init__(self, clock: IReactorTime, in_foreground: Callable[[], bool]) -> None:
        super().__init__(INTERVAL, self.is_lost)  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock
        self._in_foreground = in_foreground
        self._was_in_foreground = False

    @classmethod
    def of_process(cls, clock: IReactorTime) -> Terminal | None:
        """Return the terminal of this process; None if it has none, or must outlive it."""
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return None
        try:
            descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(clock, lambda: os.tcgetpgrp(descriptor) == os.getpgrp())

    def is_lost(self) -> bool:
        """Return whether the terminal is gone, and this process was in its foreground when it was there last."""
        try:
            self._was_in_foreground = self._in_foreground()
        except OSError:
            return self._was_in_foreground
        return False
