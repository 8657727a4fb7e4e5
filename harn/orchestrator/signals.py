"""
Signals, as calls on the reactor thread.

SIGHUP, SIGUSR1 and SIGUSR2 are held back or caught from the first moment, since their default action ends the process;
what comes before the server is ready is the server's to keep. SIGTERM and SIGINT are taken over once the reactor runs,
which sets its own then; a second one ends the process at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from harn.observability.outputs import outputs
from harn.signals import CAUGHT

ENDED_AT_ONCE = 1
"""Exit status after a second SIGTERM or SIGINT."""
LAST_WORDS = 0.2
"""Seconds that the log has then to be written."""


def hold_back() -> None:
    """Block the signals of `CAUGHT` until `Signals.install`. To be called before anything that takes time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)


class Signals:
    """
    Turns signals into calls.

    :param reactor: an `IReactorCore` and `IReactorFromThreads`.
    :param hang_up: called for each SIGHUP; ``upgrade`` for each SIGUSR2; ``terminate`` for the first SIGTERM or SIGINT.
    :param reopen: called for each SIGUSR1, and before each ``hang_up``.
    """

    def __init__(
        self,
        reactor: Any,
        hang_up: Callable[[], None],
        terminate: Callable[[], None],
        upgrade: Callable[[], None],
        reopen: Callable[[], None] = outputs.reopen,
    ) -> None:
        self._reactor = reactor
        self._hang_up = hang_up
        self._upgrade = upgrade
        self._reopen = reopen
        self._terminate = terminate
        self._terminating = False
        self._restored = False
        self._previous: dict[int, tuple[Any, Any]] = {}

    def install(self) -> None:
        """Catch the signals of `CAUGHT` now, also those held back, and the others as soon as the reactor runs."""
        self._catch(signal.SIGHUP, self._on_hang_up)
        self._catch(signal.SIGUSR1, self._on_reopen)
        self._catch(signal.SIGUSR2, self._on_upgrade)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        self._reactor.callWhenRunning(self._install_termination)

    def restore(self) -> None:
        """Restore the previous handlers."""
        self._restored = True
        for number, (handler, previous) in self._previous.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def _catch(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        try:
            self._previous[number] = (handler, signal.signal(number, handler))
        except ValueError:
            # Not the main thread: a test runs the server, and no signal is meant for it.
            return

    def _install_termination(self) -> None:
        if self._restored:
            return
        self._catch(signal.SIGTERM, self._on_termination)
        self._catch(signal.SIGINT, self._on_termination)

    def _on_hang_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reopen)
        self._reactor.callFromThread(self._hang_up)

    def _on_reopen(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reopen)

    def _on_upgrade(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._upgrade)

    def _on_termination(self, number: int, frame: FrameType | None) -> None:
        if self._terminating:
            # The interpreters end when their parent's end of the pipe closes.
            outputs.flush(LAST_WORDS)
            os._exit(ENDED_AT_ONCE)
        self._terminating = True
        self._reactor.callFromThread(self._terminate)
