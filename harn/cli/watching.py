"""Looking at a server again and again: the waits between two looks, and which failures are only a restart."""

from __future__ import annotations

import os
import select
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from harn.cli.client import AnswerTimedOut, RequestRefused, ServerUnreachable
from harn.cli.place import NoServer
from harn.errors import HarnError

END_KEYS = ("q", "Q", "\x03")
"""Keys that end a display; the last is Ctrl-C."""


class Wait(Protocol):
    """The time between two looks."""

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the user has ended the looking meanwhile."""


class Sleep:
    """A wait that the user ends with Ctrl-C alone."""

    def wait(self, seconds: float) -> bool:
        """See `Wait.wait`."""
        time.sleep(seconds)
        return False


class Keys:
    """A wait that one of `END_KEYS` ends, where keys can be pressed; a context manager, which reads them one by one."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            import termios
            import tty

            self._descriptor = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> bool:
        """See `Wait.wait`."""
        if self._descriptor is None:
            return Sleep().wait(seconds)
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return bool(ready) and os.read(self._descriptor, 1).decode("latin-1") in END_KEYS


def may_come_back(error: HarnError) -> bool:
    """Return whether a server, or what stands before it, answers like this while it is restarted."""
    if isinstance(error, RequestRefused):
        return error.status >= 500
    return isinstance(error, ServerUnreachable | AnswerTimedOut | NoServer)
