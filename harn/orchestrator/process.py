"""
The server's process: its signals, as calls on the reactor thread; its terminal, whose end SIGHUP may report; and the
start of a daemon.

SIGHUP, SIGUSR1 and SIGUSR2 are blocked or caught from the first moment, since their default action ends the process;
the receiver keeps those that arrive before the server is ready. SIGTERM and SIGINT are caught once the reactor runs,
because the reactor sets its own handlers when it starts; a second one ends the process immediately.

When the window of a terminal is closed, the kernel sends SIGHUP. Users expect a program in the foreground to end then;
a server that took the signal for a request to reload would continue unseen, and keep the state directory and the port.
In the background, without a terminal, or where SIGHUP was ignored at the start (``nohup``), SIGHUP asks for a reload
even after the terminal was closed.

The command that starts a daemon ends only once the outcome of the start is known. ``twistd`` forks, and its first
process ends when the daemon runs, before the daemon has checked its port or manifest. So the command's process forks
once more, before any object of the server is made. The child becomes the daemon; the parent waits at a pipe until the
daemon serves, reports why it does not, or has ended.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, TextIO

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface

from harn.observability.outputs import EXIT_LIMIT, outputs
from harn.processes import CAUGHT

ENDED_AT_ONCE = 1
"""Exit status after a second SIGTERM or SIGINT."""
LAST_WORDS = 0.2
"""Seconds for which such an end waits until the log is written."""
INTERVAL = 1.0
"""Seconds between two checks whether the process is still in the foreground."""
DEVICE = "/dev/tty"


def hold_back() -> None:
    """Block the signals of `CAUGHT` until `Signals.install`. Call it before anything that takes time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)


class ISignalReceiver(Interface):
    """The server that signals are sent to."""

    def hang_up() -> None:
        """Called for each SIGHUP."""

    def upgrade() -> None:
        """Called for each SIGUSR2."""

    def terminate() -> None:
        """Called for the first SIGTERM or SIGINT."""


class ILogs(Protocol):
    """The methods of a process's logs that signals use."""

    def reopen(self) -> None:
        """Open the log files again by name; a rotation may have moved the open ones."""

    def flush(self, limit: float) -> object:
        """Wait until everything is written, for at most ``limit`` seconds."""


def end_at_once(status: int) -> None:
    """End the process with ``status``, whatever its threads do; first wait a moment until the log is written."""
    outputs.flush(EXIT_LIMIT)
    os._exit(status)


class Signals:
    """
    Turns signals into calls.

    :param reactor: an `IReactorCore` and `IReactorFromThreads`.
    :param logs: the logs that are reopened for each SIGUSR1, and before each ``hang_up``.
    """

    def __init__(self, reactor: Any, receiver: ISignalReceiver, logs: ILogs = outputs) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._logs = logs
        self._terminating = False
        self._restored = False
        self._previous: dict[int, tuple[Any, Any]] = {}

    def install(self) -> None:
        """Catch the signals of `CAUGHT` now, blocked ones included, and the others as soon as the reactor runs."""
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
            # Not the main thread: a test runs the server, which then gets no signals.
            return

    def _install_termination(self) -> None:
        if self._restored:
            return
        self._catch(signal.SIGTERM, self._on_termination)
        self._catch(signal.SIGINT, self._on_termination)

    def _on_hang_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._logs.reopen)
        self._reactor.callFromThread(self._receiver.hang_up)

    def _on_reopen(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._logs.reopen)

    def _on_upgrade(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._receiver.upgrade)

    def _on_termination(self, number: int, frame: FrameType | None) -> None:
        if self._terminating:
            # The interpreters end when this process, their parent, closes its end of their pipes.
            self._logs.flush(LAST_WORDS)
            os._exit(ENDED_AT_ONCE)
        self._terminating = True
        self._reactor.callFromThread(self._receiver.terminate)


class ControllingTerminal(TimerService):
    """
    Checks regularly whether the process is in the foreground of its terminal: a lost terminal can no longer tell.

    :param descriptor: the file descriptor of the terminal.
    """

    def __init__(self, clock: IReactorTime, descriptor: int) -> None:
        super().__init__(INTERVAL, self.is_lost)  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock
        self._descriptor = descriptor
        self._was_in_foreground = False

    @classmethod
    def of_process(cls, clock: IReactorTime) -> ControllingTerminal | None:
        """Return the terminal of this process; None if there is none, or if the process must outlive its terminal."""
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return None
        try:
            descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(clock, descriptor)

    def is_in_foreground(self) -> bool:
        """
        Return whether the process is in the foreground now.

        :raises OSError: the terminal is gone.
        """
        return os.tcgetpgrp(self._descriptor) == os.getpgrp()

    def is_lost(self) -> bool:
        """Return whether the terminal is gone, and this process was in its foreground at the last check before."""
        try:
            self._was_in_foreground = self.is_in_foreground()
        except OSError:
            return self._was_in_foreground
        return False


PATIENCE = 1.0
"""Seconds that twistd's own process may take to end after a start that failed."""
READY = b"\0ready\n"
"""The end of the report of a daemon that serves. The text of a failure has no null byte."""


class StartReport:
    """
    The daemon's end of the pipe on which it reports the outcome of its start.

    :param descriptor: the file descriptor of the pipe; closed once the daemon serves.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def ready(self) -> None:
        """Report that the server serves. Later reports are not sent to the command."""
        self._write(READY)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def failed(self, why: str) -> None:
        """
        Report why the server does not serve, one reason on each line.

        The pipe stays open until the process has ended, so that the command ends after the pid file was removed.
        """
        text = "".join(f"error: {line}\n" for line in why.replace("\0", "").splitlines())
        self._write(text.encode("utf-8", "backslashreplace"))

    def _write(self, data: bytes) -> None:
        try:
            while data and self._descriptor is not None:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # the command was interrupted, and the pipe has no reader
            return


def outcome(descriptor: int, log_file: str, stderr: TextIO | None) -> int:
    """
    Read the report of a daemon to its end, write the reasons of a failure, and return the command's exit status.

    :param log_file: the file to name if the daemon ended without a report.
    :param stderr: the file to write the reasons to; None if it was closed.
    :return: 0 if the daemon serves, else 1.
    """
    said, reason = b"", ""
    try:
        while piece := os.read(descriptor, 65536):
            said += piece
    except KeyboardInterrupt:
        reason = "error: interrupted; the server still starts in the background\n"
    if said.endswith(READY):
        return 0
    reason = reason or said.decode("utf-8", "replace")
    if stderr is not None:  # standard error was not closed
        stderr.write(reason or f"error: the server ended before it was ready; see {log_file}\n")
        stderr.flush()
    return 1


def fork_and_wait(log_file: str) -> StartReport:
    """
    Return in a new process, which becomes the daemon. The calling process waits for its report and exits.

    Call it before any thread is started, and before anything is opened that two processes must not share.
    """
    reading, writing = map(_above_the_standard_ones, os.pipe())
    child = os.fork()
    if child == 0:
        os.close(reading)
        _close_when_this_process_forks(writing)
        return StartReport(writing)
    os.close(writing)
    status = outcome(reading, log_file, sys.stderr)
    if status:
        _end(child)
    os._exit(status)


def _close_when_this_process_forks(descriptor: int) -> None:
    """Close the descriptor in the process that twistd forks the daemon from: only the daemon may hold the pipe."""
    this = os.getpid()

    def close() -> None:
        if os.getpid() == this:
            with suppress(OSError):
                os.close(descriptor)

    os.register_at_fork(after_in_parent=close)


def _end(child: int) -> None:
    """
    End the process that twistd forked the daemon from; it waits for ever if the daemon was killed early.
    """
    for _ in range(int(PATIENCE / 0.05)):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)


def _above_the_standard_ones(descriptor: int) -> int:
    """Move a descriptor above 2: a daemon's descriptors 0 to 2 are replaced, and a pipe may get one that was closed."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved
