"""
The service manager that started the server: the listening socket that it passes, notifications to it, its watchdog.

Sockets are passed as in ``sd_listen_fds(3)``. Notifications are those of ``sd_notify(3)``: datagrams of
``NAME=value`` lines to the socket in ``NOTIFY_SOCKET``; without that variable nothing is sent, and none can fail.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.systemd import ListenFDs

log = Logger(namespace="harn")

PASSED_COUNT, PASSED_PID, PASSED_NAMES = "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"
MOST_PASSED = 1024
"""Sockets that anybody passes."""


def passed_descriptor(environ: MutableMapping[str, str]) -> int | None:
    """
    Return the descriptor of the first socket that was passed to this process, None when none was.

    To be asked before ``twisted.internet.endpoints`` is imported, which takes the variables (see `taken_by_twisted`).
    They are taken out of ``environ`` here, too: they are this process's alone.
    """
    found = {name: environ.pop(name) for name in (PASSED_COUNT, PASSED_PID, PASSED_NAMES) if name in environ}
    text = found.get(PASSED_COUNT, "")
    count = min(MOST_PASSED, int(text)) if text.isascii() and text.isdecimal() else 0
    # Not every service manager names the sockets that it passes, and Twisted takes none without a name for each.
    found.update({PASSED_COUNT: str(count), PASSED_NAMES: ":".join(["unknown"] * count)})
    descriptors = ListenFDs.fromEnvironment(found).inheritedDescriptors()
    if not descriptors:
        return None
    if len(descriptors) > 1:
        log.warn(
            "{count} sockets were passed; only the first, descriptor {descriptor}, is served",
            count=len(descriptors),
            descriptor=descriptors[0],
        )
    return descriptors[0]


def taken_by_twisted(reactor: Any) -> int | None:
    """Return the first socket that was passed, after Twisted has taken the variables; None when none was."""
    # Here, since it takes them when it is imported.
    from twisted.internet.endpoints import serverFromString

    try:
        endpoint: Any = serverFromString(reactor, "systemd:domain=INET:index=0")
    except IndexError:
        return None
    descriptor: int = endpoint.fileno
    return descriptor


SOCKET = "NOTIFY_SOCKET"
WATCHDOG_INTERVAL = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
SECOND_TRY = 0.05
"""Seconds until a message is sent again for which the receiver had no room."""
MOST_WAITING = 64
"""Messages kept for a receiver without room; the oldest go first, since the newest says how things are."""
LONGEST_STATUS = 500
"""Characters."""


class ServiceManager:
    """
    The service manager. Reloads are reported to it only between `ready` and `stopping`.

    :param clock: the reactor, whose time is CLOCK_MONOTONIC; see `harn.clocks.use_monotonic_time`.
    :ivar address: the receiver's socket: a path, or ``@`` and an abstract name; None when there is no receiver.
    """

    def __init__(self, clock: IReactorTime, address: str | None) -> None:
        self.address = address
        self._clock = clock
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._second_try: IDelayedCall | None = None
        self._serves = False
        self._silent = address is None
        self._has_failed = False

    @classmethod
    def of(cls, clock: IReactorTime, environ: Mapping[str, str]) -> ServiceManager:
        """
        Return the one that the environment names. An address of a kind that we do not know is logged and left out.
        """
        address = environ.get(SOCKET) or None
        if address is not None and address[0] not in "/@":
            log.warn("{name}={address} is neither a path nor @NAME; nothing is notified", name=SOCKET, address=address)
            address = None
        return cls(clock, address)

    # The messages

    def ready(self, status: str) -> None:
        """Notify that the server serves."""
        self._serves = True
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """Notify that a reload has begun; `reloaded` must follow."""
        if self._serves:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.seconds() * 1e6)}")

    def reloaded(self, status: str | None) -> None:
        """Notify that the reload has ended, however it ended; ``status`` is None if it ended without a report."""
        if self._serves:
            self._tell("READY=1", *(() if status is None else (_status(status),)))

    def status(self, text: str) -> None:
        """Send a status line."""
        self._tell(_status(text))

    def stopping(self) -> None:
        """Notify that the server goes down, unless it never was ready."""
        if self._serves:
            self._serves = False
            self._tell("STOPPING=1", _status("stopping"))

    def main_pid(self, pid: int) -> None:
        """Notify that another process is the service from now on. Only that one sends notifications then."""
        self._tell(f"MAINPID={pid}")
        self._serves = False
        self._silent = True

    def alive(self) -> None:
        """Notify that the reactor runs."""
        self._tell("WATCHDOG=1")

    # Sending

    def close(self) -> None:
        """Send nothing more."""
        self._silent = True
        self._waiting.clear()
        if self._second_try is not None:
            self._second_try.cancel()
            self._second_try = None

    def _tell(self, *lines: str) -> None:
        if not self._silent:
            self._waiting.append("\n".join(lines).encode("utf-8", "replace"))
            if self._second_try is None:
                self._send()

    def _send_again(self) -> None:
        self._second_try = None
        self._send()

    def _send(self) -> None:
        """Send the messages that wait, in order."""
        assert self.address is not None
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                while self._waiting:
                    sender.sendto(self._waiting[0], address)
                    self._waiting.popleft()
        except BlockingIOError:
            self._second_try = self._clock.callLater(SECOND_TRY, self._send_again)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the address
            self._waiting.clear()
            if not self._has_failed:
                self._has_failed = True
                log.warn("cannot notify {address}: {error}", address=self.address, error=str(error))


class Watchdog(TimerService):
    """Says at twice the rate that the service manager asks for that the reactor turns; one that hangs says nothing."""

    def __init__(self, clock: IReactorTime, service_manager: ServiceManager, limit: float) -> None:
        """:param limit: seconds of silence after which the service manager acts."""
        TimerService.__init__(self, limit / 2.0, service_manager.alive)
        self.clock: IReactorTime = clock

    @classmethod
    def of(
        cls, clock: IReactorTime, service_manager: ServiceManager, environ: Mapping[str, str], pid: int | None = None
    ) -> Watchdog | None:
        """Return the one that the environment asks this process for, or None."""
        limit = silence_limit(environ, pid)
        return cls(clock, service_manager, limit) if limit else None


def silence_limit(environ: Mapping[str, str], pid: int | None = None) -> float:
    """Return the seconds of silence after which the service manager acts; 0 where it watches no process of this id."""
    meant = environ.get(WATCHDOG_PID)
    if meant and meant != str(os.getpid() if pid is None else pid):
        return 0.0
    text = environ.get(WATCHDOG_INTERVAL, "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() else 0.0


def shortened(text: str, limit: int) -> str:
    """Make one line of ``text``, of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _status(text: str) -> str:
    # On one line: what follows a line's end would be a message of its own.
    return f"STATUS={shortened(text, LONGEST_STATUS)}"
