"""
The start of a daemon, as the command that starts it sees it: it ends with the outcome, not before there is one.

``twistd`` forks, and its first process ends when the daemon runs, before its port or manifest is checked. So that
process forks once more, before any object of the server is made: one becomes the daemon, the other waits at a pipe
until the daemon serves, reports why it does not, or is gone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TextIO

PATIENCE = 1.0
"""Seconds that twistd's own process may take to end after a start that failed."""
READY = b"\0ready\n"
"""What a daemon says last when it serves. No reason has a null byte."""


class StartReport:
    """
    The daemon's end of the pipe.

    :param descriptor: is closed once there is an outcome.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def ready(self) -> None:
        """Report that the server serves; later reports are not for the command."""
        self._write(READY)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def failed(self, why: str) -> None:
        """
        Report why it does not, a reason on each line.

        The pipe stays open until the process has ended, so that the command ends after it, and its pid file is gone.
        """
        text = "".join(f"error: {line}\n" for line in why.replace("\0", "").splitlines())
        self._write(text.encode("utf-8", "backslashreplace"))

    def _write(self, data: bytes) -> None:
        try:
            while data and self._descriptor is not None:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # the command was interrupted: the pipe has no reader
            return


def outcome(descriptor: int, log_file: str, stderr: TextIO | None) -> int:
    """
    Read what a daemon reports to its end; return the command's exit status, 0 or 1, with the reasons on ``stderr``.

    :param log_file: what to name where the daemon ended without a report.
    """
    said, reason = b"", ""
    try:
        while piece := os.read(descriptor, 65536):
            said += piece
    except KeyboardInterrupt:
        reason = "error: interrupted; the server goes on starting in the background\n"
    if said.endswith(READY):
        return 0
    reason = reason or said.decode("utf-8", "replace")
    if stderr is not None:  # it was not closed
        stderr.write(reason or f"error: the server ended before it was ready; see {log_file}\n")
        stderr.flush()
    return 1


def fork_and_wait(log_file: str) -> StartReport:
    """
    Return in a new process, which is to become the daemon. This one waits for its report and exits.

    To be called while there is no thread, and nothing open that two processes must not share.
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
    """Leave the descriptor to the daemon alone: what twistd forks it from waits for it, and must not hold the pipe."""
    this = os.getpid()

    def close() -> None:
        if os.getpid() == this:
            with suppress(OSError):
                os.close(descriptor)

    os.register_at_fork(after_in_parent=close)


def _end(child: int) -> None:
    """End what twistd forked the daemon from: it would wait for ever for a daemon that was killed as it began."""
    for _ in range(int(PATIENCE / 0.05)):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)


def _above_the_standard_ones(descriptor: int) -> int:
    """Move a descriptor: a daemon's 0 to 2 are replaced, and a pipe may get them where they were closed."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved
