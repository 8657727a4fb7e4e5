"""
Outputs of log text that never block their callers.

A caller's record goes into a bounded buffer; a thread of the output's own writes it. A reader that stopped, a stopped
terminal, a full disk or a dead file server block that thread alone. Records that do not fit into the buffer, or cannot
be written, are dropped and counted; the count is logged once, when the output works again.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias

Item: TypeAlias = bytes | threading.Event | None
"""A record; or, after the records before it are written: an event to set, or None to reopen the file."""
Items: TypeAlias = "SimpleQueue[Item]"

LIMIT = 4 * 1024 * 1024
"""The most bytes that may be buffered for one output."""
PAUSE = 0.005
"""Seconds that the thread sleeps after it has written everything, so that a busy server wakes it less often."""
EXIT_LIMIT = 1.0
"""Seconds that the end of the process waits for unwritten records."""
LONGEST_PARTIAL = 64 * 1024
"""The most bytes without a line end that are kept until their line is complete."""


class WriteFailed(Exception):
    """Data could not be written whole; ``written`` bytes of it were."""

    def __init__(self, written: int) -> None:
        super().__init__(f"{written} bytes were written")
        self.written = written


class Device(Protocol):
    """
    The device of an output; it may block.

    :ivar batch: the most bytes that are written in one call, unless one record is longer.
    """

    batch: int

    def write(self, data: bytes, /) -> None:
        """
        Write all of ``data``.

        :raises WriteFailed: not all of it was written.
        """

    def reopen(self) -> None:
        """Open the file of this name again, if it is a file."""


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write ``data`` to a descriptor, however long it takes.

    :raises WriteFailed: it cannot be written.
    """
    view, written = memoryview(data), 0
    while written < len(data):
        try:
            written += os.write(descriptor, view[written:])
        except BlockingIOError:  # another process that has the same terminal or pipe made it non-blocking
            with suppress(OSError, ValueError):
                select.select((), (descriptor,), (), 1.0)
        except OSError:
            raise WriteFailed(written) from None


class Descriptor:
    """
    A descriptor as a `Device`: standard output or standard error.

    Its flags are not changed, since other processes may share it.
    """

    batch = select.PIPE_BUF  # writes of several processes to one pipe do not mix up to this size

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_torn = False

    def write(self, data: bytes) -> None:
        """Write, on a line of its own."""
        head = b"\n" if self._is_torn else b""
        try:
            write_all(self._number, head + data)
        except WriteFailed as failed:
            written = max(0, failed.written - len(head))
            if failed.written:
                self._is_torn = written > 0 and data[written - 1 : written] != b"\n"
            raise WriteFailed(written) from None
        self._is_torn = False

    def reopen(self) -> None:
        """Do nothing: the descriptor was passed to this process."""


class Notices:
    """Plain notices of what an output could not write; a log writes them in the form of its records."""

    def dropped_notice(self, output: str, dropped: int) -> str:
        """Return the line that says how many records were dropped."""
        return f"{dropped} log records were dropped: they could not be written\n"


class Output:
    """
    Text for one device, written by a thread that starts with the first text.

    May be called from any thread, from a signal handler, and while the collector runs; after a fork it starts again.

    :ivar name: ``stdout``, ``stderr`` or ``file``.
    :ivar dropped: records that were dropped since the process began.
    :ivar notices: writes how many records were dropped, as a record.
    """

    def __init__(self, name: str, device: Device, limit: int = LIMIT) -> None:
        self.name = name
        self.dropped = 0
        self.notices = Notices()
        self._device = device
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._items: Items = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self._unsaid = 0
        self._is_full = False
        self._is_failing = False

    # For callers: these do not block

    def write(self, text: str) -> int:
        """Add one record."""
        self.put(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def put(self, data: bytes) -> None:
        """Add one record as bytes."""
        if not data:
            return
        if self._process != os.getpid():  # a fork has no such thread, and its lock may be held for ever
            self._begin()
        with self._lock:
            if self._is_full:
                self._is_full = self._waiting > self._limit // 2  # so that each stop of the reader is reported once
            if self._is_full or self._waiting + len(data) > self._limit:
                self._is_full = True
                self._drop(1)
            else:
                if self._unsaid and not self._is_failing:
                    self._take(self._encoded_notice(self._unsaid_now()))
                self._take(data)
        self._start()

    def reopen(self) -> None:
        """Make the thread reopen the file."""
        if self._process == os.getpid():
            self._items.put(None)
            self._start()

    def mark(self) -> threading.Event:
        """Return an event that is set when every earlier record is written or dropped."""
        written = threading.Event()
        if self._process != os.getpid() or self._thread is None:
            written.set()
        else:
            self._items.put(written)
        return written

    def _take(self, data: bytes) -> None:
        self._waiting += len(data)
        self._items.put(data)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._unsaid += count

    def _unsaid_now(self) -> int:
        """Return how many dropped records are still to be reported, and reset the count."""
        with self._lock:
            count, self._unsaid = self._unsaid, 0
        return count

    def _encoded_notice(self, count: int) -> bytes:
        return self.notices.dropped_notice(self.name, count).encode("utf-8", "backslashreplace")

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._items,), name=f"log-{self.name}", daemon=True
                )
                with suppress(RuntimeError):  # the interpreter is at its end
                    self._thread.start()

    # On the thread

    def _run(self, items: Items) -> None:
        """Write records as they come, those that wait in one batch."""
        while True:
            self._work_off(items, items.get())
            if items.empty():
                if self._unsaid and not self._is_failing:
                    self._say_dropped()
                time.sleep(PAUSE)

    def _work_off(self, items: Items, item: Item) -> None:
        """Handle one item that is not a record, or a record with those that follow it."""
        batch: list[bytes] = []
        size = 0
        while isinstance(item, bytes):
            if batch and size + len(item) > self._device.batch:
                self._write(batch)
                batch, size = [], 0
            batch.append(item)
            size += len(item)
            try:
                item = items.get_nowait()
            except Empty:
                self._write(batch)
                return
        if batch:
            self._write(batch)
        if item is None:
            with suppress(OSError):
                self._device.reopen()
        else:
            item.set()

    def _write(self, batch: list[bytes]) -> None:
        written = 0
        try:
            if not self._is_failing or self._say_dropped():
                self._device.write(b"".join(batch))
                self._is_failing = False
                written = len(batch)
        except WriteFailed as failed:
            self._is_failing = True
            written = count_whole(batch, failed.written)
        finally:
            with self._lock:
                self._waiting -= sum(map(len, batch))
                self._drop(len(batch) - written)

    def _say_dropped(self) -> bool:
        """Write how many records were dropped; return whether that succeeded."""
        count = self._unsaid_now()
        if count:
            try:
                self._device.write(self._encoded_notice(count))
            except WriteFailed:
                with self._lock:
                    self._unsaid += count
                return False
        return True


def count_whole(batch: Iterable[bytes], written: int) -> int:
    """Return how many records of a batch are whole if ``written`` bytes of it were written."""
    count = 0
    for record in batch:
        written -= len(record)
        if written < 0:
            break
        count += 1
    return count


class LineStream(io.RawIOBase):
    """
    The raw end of ``sys.stdout`` or ``sys.stderr``: each line becomes a record of an output.

    So nothing that prints blocks: warnings, tracebacks of threads and at exit, handlers of an inline interpreter.
    """

    def __init__(self, output: Output, descriptor: int) -> None:
        self.name = f"<{output.name}>"
        self._output = output
        self._descriptor = descriptor
        self._partial = b""

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that the output writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether that is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: object) -> int:
        """Pass on complete lines, and keep the rest."""
        piece = bytes(data)  # type: ignore[call-overload] # anything with the buffer protocol
        whole, newline, rest = (self._partial + piece).rpartition(b"\n")
        self._partial = rest
        self._output.put(whole + newline)
        if len(rest) > LONGEST_PARTIAL:
            self.flush()
        return len(piece)

    def flush(self) -> None:
        """Pass on an unfinished line, too; never block."""
        rest, self._partial = self._partial, b""
        self._output.put(rest)


def text_stream(output: Output, descriptor: int) -> io.TextIOWrapper:
    """Return a replacement of ``sys.stdout`` or ``sys.stderr``."""
    raw = LineStream(output, descriptor)
    # A raw stream serves where a buffered one is expected, as with python -u.
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


class Outputs:
    """The outputs of one process, by name."""

    def __init__(self) -> None:
        self._outputs: dict[str, Output] = {}

    def open(self, name: str, device: Device) -> Output:
        """Make an output, replacing one of the same name."""
        output = self._outputs[name] = Output(name, device)
        return output

    def reopen(self) -> None:
        """Reopen the log files."""
        for output in self._outputs.values():
            output.reopen()

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds in all until everything is written; return whether it is."""
        ends_at = time.monotonic() + timeout
        marks = [output.mark() for output in self._outputs.values()]
        return all(mark.wait(max(0.0, ends_at - time.monotonic())) for mark in marks)

    def dropped(self) -> dict[str, int]:
        """Return how many records each output dropped since the process began."""
        return {name: output.dropped for name, output in self._outputs.items()}


outputs = Outputs()
"""The outputs of this process."""
