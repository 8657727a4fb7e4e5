"""
Output of handlers: ``sys.stdout`` and ``sys.stderr`` that attribute each line to the call which printed it.

Neither ever blocks: output beyond the limit of a call, or of the process as a whole, is dropped, with a note.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from harn.vm.child.calls import CURRENT
from harn.vm.child.forks import is_copy, write_raw

if TYPE_CHECKING:
    from harn.vm.child.session import ChildSession

LONGEST_LINE = 8192
BURST = 1024 * 1024
"""Characters that a process may print at once."""
RATE = 128 * 1024
"""Characters a second that it may print continuously."""


class Allowance:
    """The amount that may be printed now: ``BURST``, refilled at ``RATE``."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._left = float(BURST)
        self._at = now()
        self._dropped = 0

    def take(self, size: int) -> int:
        """
        Request to print ``size`` characters.

        :return: -1: refused; else accepted, and so many characters were dropped since the last accepted request.
        """
        now = self._now()
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

    def __init__(self, name: str, descriptor: int, session: ChildSession, allowance: Allowance) -> None:
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
            dropped = self._allowance.take(len(line))
            if dropped < 0:
                continue
            if dropped:
                self._session.printed(None, "warn", "log", f"{dropped} characters of output were dropped")
            self._session.printed(call, self._level, self._name, line)
        return len(piece)


def capture_output(session: ChildSession) -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``."""
    allowance = Allowance()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = CallStream(name, descriptor, session, allowance)
        # A raw stream serves where a buffered one is expected, as with python -u.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
