"""
Output of handlers: what they print, and their records of ``logging``, each with the ids of its call.

``sys.stdout`` and ``sys.stderr`` attribute each line to the call which printed it. Neither ever blocks: output beyond
the limit of a call, or of the process as a whole, is dropped, with a note. Each record becomes a record of the server's
log, at its level.
"""

from __future__ import annotations

import io
import logging
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from harn.vm.child.calls import CURRENT
from harn.vm.child.forks import is_copy, write_raw

if TYPE_CHECKING:
    from harn.vm.child.session import ChildSession


LONGEST_LINE = 8192
BURST = 1024 * 1024
"""Characters that a process may print in one burst."""
RATE = 128 * 1024
"""Characters a second that it may print continuously."""


class OutputAllowance:
    """The amount that may be printed now: ``BURST``, refilled at ``RATE``."""

    def __init__(self, now: float) -> None:
        """Begin; ``now``: seconds of any clock that never goes back."""
        self._left = float(BURST)
        self._at = now
        self._dropped = 0

    def take(self, size: int, now: float) -> int:
        """
        Request to print ``size`` characters.

        :param now: seconds of the same clock.
        :return: -1: refused; else accepted, and so many characters were dropped since the last accepted request.
        """
        self._left = min(BURST, self._left + (now - self._at) * RATE)
        self._at = now
        if size > self._left:
            self._dropped += size
            return -1
        self._left -= size
        dropped, self._dropped = self._dropped, 0
        return dropped


class CallStream(io.RawIOBase):
    """The raw end of a stream: splits output into lines, separately for each call."""

    def __init__(self, name: str, descriptor: int, session: ChildSession, allowance: OutputAllowance) -> None:
        self._name = name
        self._level = "info" if name == "stdout" else "warn"
        self._descriptor = descriptor
        self._session = session
        self._allowance = allowance
        self._partial = {name: ""}

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that C code prints to; its lines are logged too, without ids."""
        return self._descriptor

    def write(self, data: object) -> int:
        """Accept UTF-8; print complete lines, keep the rest for its call."""
        piece = bytes(data)  # type: ignore[call-overload] # anything with the buffer protocol
        if is_copy():
            write_raw(self._descriptor, piece)
            return len(piece)
        call = CURRENT.get()
        partial = self._partial if call is None else call.partial
        text = partial.get(self._name, "") + piece.decode("utf-8", "replace")
        *lines, rest = text.split("\n")
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
            rest = ""
        partial[self._name] = rest
        for line in lines:
            line = line.rstrip("\r")
            if not line:
                continue
            dropped = self._allowance.take(len(line), monotonic())
            if dropped < 0:
                continue
            if dropped:
                self._session.printed(None, "warn", "log", f"{dropped} characters of output were dropped")
            self._session.printed(call, self._level, self._name, line)
        return len(piece)


def capture_output(session: ChildSession) -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``."""
    allowance = OutputAllowance(monotonic())
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = CallStream(name, descriptor, session, allowance)
        # A raw stream serves where a buffered one is expected, as with python -u.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


_USUAL = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
"""Attributes of any record; what a handler adds with ``extra`` is beside them."""
_FORMAT = logging.Formatter()
_set = [logging.INFO]
"""The level that `set_level` set last."""


def level_of(number: int) -> str:
    """Return the level of the server's log for a level of ``logging``."""
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


class SessionHandler(logging.Handler):
    """
    Passes records to the server, with the ids of the call whose code logs.

    :ivar session: gets those of no call; None: they are shown as if this handler were not there, since the process is
        the server itself.
    """

    def __init__(self, session: ChildSession | None) -> None:
        super().__init__()
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record: message, traceback, logger, and the fields of ``extra``."""
        call = CURRENT.get()
        session = self.session if call is None else call.session
        if session is None:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + _FORMAT.formatException(record.exc_info)
            if record.stack_info:
                text += "\n" + record.stack_info
        except Exception as error:  # of an argument that does not fit the message, for example
            text = f"{record.msg!r} with {len(record.args or ())} arguments cannot be logged: {type(error).__name__}"
        extra: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _USUAL}
        session.log(call, level_of(record.levelno), text, {"logger": record.name, **extra})


def capture_records(session: ChildSession | None) -> None:
    """Send the records of all loggers of this process to the server; see `SessionHandler` and `set_level`."""
    root = logging.getLogger()
    root.addHandler(SessionHandler(session))
    root.setLevel(_set[0])


def set_level(level: str) -> None:
    """
    Drop records below what the server logs, unless the handlers' own code has set the level.

    :param level: of the server's log; ``debug`` lets everything through, all others let ``info`` through.
    """
    root = logging.getLogger()
    if root.level == _set[0]:
        _set[0] = logging.DEBUG if level == "debug" else logging.INFO
        root.setLevel(_set[0])
