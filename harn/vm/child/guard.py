"""
The guard of an interpreter: the process that the server starts, and that starts the interpreter.

It holds no user code and shares no lock with any, so it works whatever the interpreter does. When the server requests
it, or is gone, it ends the interpreter; when the interpreter has ended, it ends every process that handlers have
started, detached ones too, and then ends with the same status. It is the parent of their orphans, and reaps them.

Without Linux's ``prctl`` orphans are left to the system, and only the interpreter's process group is ended.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from typing import NoReturn

from harn.processes import adopt_orphans, children_of, end_with_parent

DATA, CONTROL, LIFE = 3, 4, 5
"""Descriptors. `LIFE` is a pipe from the server: a byte requests the end; end of file: the server is gone."""
HELD = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
"""
Signals that a terminal or a service manager may send to all of the server's processes; only the server handles them.
"""
FAREWELL = 2.0
"""Seconds that an interpreter has to end without being killed once the server is gone."""
LAST_KILLS = 5.0
"""Seconds after which processes that cannot be killed are left to the system."""


def start_guarded() -> None:
    """Continue in a new process, the interpreter; this process guards it and never returns."""
    # A session of its own, so that a terminal's signals do not reach it.
    with contextlib.suppress(OSError):
        os.setsid()
    # Handlers that do nothing, instead of SIG_IGN, which the programs that a handler starts would inherit.
    for number in HELD:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)  # the server blocked them until there are handlers
    adopt_orphans()
    guard = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # both do it, so that neither can come too early
        os.close(DATA)
        os.close(CONTROL)
        ProcessGuard(child, LIFE).run()
    os.close(LIFE)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != guard:  # it ended before that was in effect
        os._exit(0)


class ProcessGuard:
    """Waits for the end of one child process, or of the server."""

    def __init__(self, child: int, life: int) -> None:
        self._child = child
        self._life = life
        self._kill_at: float | None = None

    def run(self) -> NoReturn:
        """Guard the child until it has ended; then end with its status."""
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
        """Return the milliseconds to wait for the next event."""
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic()) * 1000

    def _reap(self) -> int | None:
        """Reap ended processes; return the child's wait status if it is among them."""
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
        for each in children_of(os.getpid()):  # the orphans of ended processes become children of this one
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
    """End this process with another's wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left its core dump already
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.WEXITSTATUS(status))
