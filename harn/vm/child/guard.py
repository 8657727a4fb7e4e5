"""
The guard of an interpreter: the process that the server starts, and that starts the interpreter.

It holds no user code and shares no lock with any, so it acts whatever the interpreter does. When the server asks for
it, or is gone, it ends the interpreter; when the interpreter has ended, it ends every process that handlers have
started, detached ones too, and then ends in the same way itself. It is the parent of their orphans, and reaps them.

Without Linux's ``prctl`` orphans are the system's, and only what is in the interpreter's process group is ended.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from typing import NoReturn

from harn.vm.child.descent import children_of
from harn.vm.prctl import adopt_orphans, end_with_parent

DATA, CONTROL, LIFE = 3, 4, 5
"""Descriptors. `LIFE` is a pipe from the server: a byte asks for the end at once; end of file: the server is gone."""
HELD = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
"""Signals that a terminal or a service manager may send to all of the server's processes; the server alone decides."""
FAREWELL = 2.0
"""Seconds that an interpreter has to end by itself once the server is gone."""
LAST_KILLS = 5.0
"""Seconds after which processes that cannot be killed are left to the system."""


def start_guarded() -> None:
    """Return in a new process, which is to be the interpreter; this one guards it and never returns."""
    # A session of its own: no terminal's signals.
    with contextlib.suppress(OSError):
        os.setsid()
    # Handlers that do nothing, and not SIG_IGN, which the programs that a handler starts would inherit.
    for number in HELD:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)  # blocked by the server, as Python would have ended at one
    adopt_orphans()
    guard = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # both do it, so that neither can come too early
        os.close(DATA)
        os.close(CONTROL)
        Guard(child, LIFE).run()
    os.close(LIFE)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != guard:  # it ended before that was in force
        os._exit(0)


class Guard:
    """Waits for the end of one child process, or of the server."""

    def __init__(self, child: int, life: int) -> None:
        self._child = child
        self._life = life
        self._kill_at: float | None = None

    def run(self) -> NoReturn:
        """Guard until the child has ended; then end as it did."""
        awake, waking = os.pipe()
        os.set_blocking(awake, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(awake, select.POLLIN)
        poll.register(self._life, select.POLLIN)
        status = self._reap()
        while status is None:
            for descriptor, _ in poll.poll(self._patience()):
                if descriptor == awake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(awake, 4096)
                else:
                    asked = os.read(self._life, 64)
                    self._kill_at = time.monotonic() + (0.0 if asked else FAREWELL)
                    poll.unregister(self._life)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                os.kill(self._child, signal.SIGKILL)  # not reaped yet, so the number is still its own
                self._kill_at += 1.0
            status = self._reap()
        end_descendants(self._child)
        end_as(status)

    def _patience(self) -> float | None:
        """Give the milliseconds to wait for something to happen."""
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic()) * 1000

    def _reap(self) -> int | None:
        """Reap what has ended; give the child's wait status if it is among them."""
        status = None
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == self._child:
                    status = reaped[1]
        return status


def end_descendants(group: int) -> None:
    """Kill the processes of ``group``, and all other descendants of this process; reap them."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    end = time.monotonic() + LAST_KILLS
    while time.monotonic() < end:
        denied, ended = False, False
        for each in children_of(os.getpid()):  # the children of those that end come up to here
            try:
                os.kill(each, signal.SIGKILL)
                ended = True
            except PermissionError:  # a program of another user
                denied = True
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                ended = True
        except ChildProcessError:
            return
        if denied and not ended:
            return
        time.sleep(0.002)


def end_as(status: int) -> NoReturn:
    """End this process as one did whose wait status is given."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left its own
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.WEXITSTATUS(status))
