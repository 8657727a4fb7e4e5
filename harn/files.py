"""
Reading whole regular files, without ever blocking on other kinds, and detecting changes made meanwhile. A named pipe
without a writer would block the thread that opens it for ever, and a device may never end. A caller that reads several
files that belong together records them (`noting`), and checks afterwards whether they still are as they were read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define, field
from msgspec import Struct

from harn.clocks import SteadyClock, SteadyTime, WallClock, WallTime

ADVICE = "write a file beside it and move that into its place, or reload when the writing is done"
"""What to do about a file that keeps changing."""


_COARSE_CLOCK = 5
"""``CLOCK_REALTIME_COARSE`` of Linux, with which the kernel stamps files; Python has no name for it."""
_SHORTEST_TICK = 0.001
"""Seconds; a shorter one is not that of a kernel, but of a program that stands in for one."""
_USUAL_DELAY = 0.02
"""Seconds: two ticks of the slowest clock that Linux stamps files with."""


def stamp_delay(device: int) -> float:
    """
    Return the seconds after which the next change of a file is sure to have another time stamp.

    For a file on a block device that are two ticks of this kernel's clock for stamps (``current_time`` in Linux's
    fs/inode.c), 8 ms on most machines. Stamps of other file systems may come from another machine: 20 ms.

    :param device: ``st_dev`` of the file; network file systems and the like have no major number.
    """
    if sys.platform != "linux" or os.major(device) == 0:
        return _USUAL_DELAY
    try:
        tick = time.clock_getres(_COARSE_CLOCK)
    except OSError:
        return _USUAL_DELAY
    return 2 * tick if tick >= _SHORTEST_TICK else _USUAL_DELAY


class NotRegular(OSError):
    """A pipe, a socket or a device: it cannot be read to its end immediately."""


class TooLarge(OSError):
    """More bytes than the caller accepts."""


class Stamp(Struct, frozen=True):
    """A file's status without its content; times in nanoseconds, Unix."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """Convert a result of `os.stat`."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Fresh(Struct, frozen=True):
    """A file that had changed so shortly before it was read that its stamp may not show the next change."""

    digest: bytes
    limit: int


@define
class Noted:
    """
    The files of one reading. Written by the thread that reads; `step` may be read from any.

    :ivar settle: seconds for which a file must have been unchanged when it is read; else it is read once more that much
        later, since stamps are made by a clock that ticks a few milliseconds apart. 0: compare stamps alone. None: the
        `stamp_delay` of each file.
    :ivar clock: of ``step``.
    :ivar wall: the clock of stamps (seconds, Unix).
    :ivar step: the file being read, and since when; None between files.
    """

    settle: float | None = 0.0
    clock: SteadyTime = field(factory=SteadyClock)
    wall: WallTime = field(factory=WallClock)
    step: tuple[str, float] | None = None
    _files: dict[str, Stamp | None] = field(factory=dict, init=False)
    _directories: dict[str, Stamp | None] = field(factory=dict, init=False)
    _fresh: dict[str, _Fresh] = field(factory=dict, init=False)
    _fresh_until: float = field(default=0.0, init=False)
    _looked_at: float = field(default=0.0, init=False)

    def wait(self) -> float:
        """Return the seconds to wait until `changed` is reliable."""
        return max(0.0, self._fresh_until - self.clock.seconds()) if self._fresh else 0.0

    def changed(self, *, listings: bool = False) -> list[str]:
        """
        Return the files that are not as they were read, in order. Blocks: for a thread. Call it after `wait`.

        :param listings: check listed directories too: a file may have been added or removed.
        """
        noted = {**self._files, **(self._directories if listings else {})}
        found = set()
        for path, stamp in noted.items():
            with self.reading(path):
                fresh = self._fresh.get(path)
                if _stamp(path) != stamp or (fresh is not None and _digest(path, fresh.limit) != fresh.digest):
                    found.add(path)
        return sorted(found)

    def note_file(self, path: str, found: os.stat_result | None) -> None:
        """Record a file that is about to be read, or that does not exist."""
        self._looked_at = self.wall.seconds()  # before its content is read, however long this thread waits then
        self._files.setdefault(path, None if found is None else Stamp.of(found))

    def note_content(self, path: str, data: bytes, limit: int) -> None:
        """Record the digest of a file so new that its stamp may miss a change."""
        stamp = self._files.get(path)
        if stamp is None:
            return
        settle = stamp_delay(stamp.device) if self.settle is None else self.settle
        if self._looked_at - stamp.changed / 1e9 < settle:
            self._fresh.setdefault(path, _Fresh(hashlib.sha256(data).digest(), limit))
            self._fresh_until = max(self._fresh_until, self.clock.seconds() + settle)

    def note_directory(self, path: str) -> None:
        """Record a directory that is about to be listed."""
        self._directories.setdefault(path, _stamp(path))

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Set ``step`` to ``path`` meanwhile."""
        self.step = (path, self.clock.seconds())
        try:
            yield
        finally:
            self.step = None


_noted: ContextVar[Noted | None] = ContextVar("noted", default=None)


@contextmanager
def noting(noted: Noted) -> Iterator[Noted]:
    """Record in ``noted`` every file that this thread reads, and every directory that it lists, through this module."""
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """
    Return the bytes of a regular file; links are followed. Blocks: call it in a thread.

    :param limit: bytes; a larger file is refused, most of it unread.
    :raises NotRegular: it is a pipe, a socket or a device.
    :raises TooLarge: it holds more than ``limit`` bytes.
    :raises OSError: it cannot be opened or read; for a directory, `IsADirectoryError`; for a path with a NUL,
        `FileNotFoundError`.
    """
    noted = _noted.get()
    if noted is None:
        return _read(path, limit, None)
    with noted.reading(os.fspath(path)):
        return _read(path, limit, noted)


def list_directory(path: str) -> list[str]:
    """
    Return the names in a directory. Blocks: call it in a thread.

    :raises OSError: it cannot be listed.
    """
    noted = _noted.get()
    if noted is None:
        return os.listdir(path)
    with noted.reading(path):
        noted.note_directory(path)
        return os.listdir(path)


def _read(path: str | os.PathLike[str], limit: int, noted: Noted | None) -> bytes:
    try:
        # A socket cannot be opened at all, so its kind must be checked first.
        _refuse_special(os.stat(path).st_mode, path)
        with open(path, "rb", opener=_open_now) as file:
            found = os.fstat(file.fileno())
            if noted is not None:
                noted.note_file(os.fspath(path), found)
            _refuse_special(found.st_mode, path)
            data = file.read(limit + 1) if found.st_size <= limit else None
    except (OSError, ValueError) as error:
        if noted is not None:
            noted.note_file(os.fspath(path), _found(path))
        if isinstance(error, OSError):
            raise
        raise FileNotFoundError(errno.ENOENT, "no file has a null byte in its name", path) from None
    if data is None or len(data) > limit:
        raise TooLarge(errno.EFBIG, f"it is larger than {_in_words(limit)}", path)
    if noted is not None:
        noted.note_content(os.fspath(path), data, limit)
    return data


def _found(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _stamp(path: str) -> Stamp | None:
    found = _found(path)
    return None if found is None else Stamp.of(found)


def _digest(path: str, limit: int) -> bytes | None:
    try:
        return hashlib.sha256(_read(path, limit, None)).digest()
    except OSError:
        return None


def _open_now(path: str, flags: int) -> int:
    """Open without waiting for a writer at the other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_special(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # for a directory `open` raises a better error
        raise NotRegular(errno.EINVAL, "it is not a regular file", path)


def _in_words(count: int) -> str:
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"
