"""A log file that is rotated when it is full, and reopened when it was moved: the device of an output."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from io import FileIO

from harn.clocks import SteadyClock, SteadyTime
from harn.observability.outputs import WriteFailed, write_all

LARGEST = 10 * 1024 * 1024
"""Size in bytes at which a file is rotated to ``<name>.1``."""
UNSEEN = 4096
"""Bytes written to a file before the next check whether it still has its name."""
INTERVAL = 1.0
"""Seconds after which this is checked, however little was written."""
BATCH = 64 * 1024


class RotatingFile:
    """
    Bytes appended to ``path``; the file is opened, and its directory made, at the first write.

    Two processes may write to it for a while, as in an upgrade in place: the one that finds it full rotates it, and the
    other follows. It also follows when another program moves or removes the file.
    """

    batch = BATCH

    def __init__(
        self,
        path: str,
        largest: int = LARGEST,
        *,
        keep: int | None = 1,
        mode: int = 0o600,
        clock: SteadyTime | None = None,
    ) -> None:
        """
        Open nothing yet: see `open`, or the first write.

        :param keep: number of full files that are kept: ``<name>.1``, the newest, and so on; None for all.
        :param mode: of a new file, as far as the umask allows.
        :param clock: the system's if None.
        """
        self.path = path
        self._largest = largest
        self._keep = keep
        self._mode = mode
        self._clock: SteadyTime = clock or SteadyClock()
        self._file: FileIO | None = None
        self._size = 0
        self._unseen = 0
        self._seen_at = 0.0
        self._is_torn = False

    def write(self, data: bytes) -> None:
        """
        Append ``data``, on a line of its own.

        :raises WriteFailed: not all of it was written; the next write opens the file again.
        """
        head = b"\n" if self._is_torn else b""
        written = 0
        try:
            file = self._ready(len(data))
            write_all(file.fileno(), head + data)
            written = len(head) + len(data)
            self._is_torn = False
        except WriteFailed as failed:
            written = failed.written
            part = max(0, written - len(head))
            if written:
                self._is_torn = part > 0 and data[part - 1 : part] != b"\n"
            self.close()
            raise WriteFailed(part) from None
        except OSError:
            self.close()
            raise WriteFailed(0) from None
        finally:
            self._size += written
            self._unseen += written

    def reopen(self) -> None:
        """Continue with the file that has the name now; if that cannot be opened, with the previous one."""
        with suppress(OSError):
            if self._file is not None:
                self._follow()

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _ready(self, coming: int) -> FileIO:
        """Return the file, opened and with room for ``coming`` bytes."""
        if self._file is None:
            self.open()
        elif self._unseen >= UNSEEN or self._clock.seconds() >= self._seen_at + INTERVAL:
            self._follow()
        if self._size and self._size + coming > self._largest:
            self._rotate(coming)
        assert self._file is not None
        return self._file

    def open(self) -> None:
        """
        Open the file of this name, instead of the one that was open.

        :raises OSError: it cannot be opened; the previous one stays open.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        # Unbuffered, so that a record is in the file when a crash follows it.
        file = FileIO(self.path, "ab", opener=lambda path, flags: os.open(path, flags, self._mode))
        self.close()
        self._file = file
        self._size = file.tell()
        self._unseen, self._seen_at = 0, self._clock.seconds()

    def _follow(self) -> None:
        """Continue with the file that has the name now, including what others have written to it."""
        assert self._file is not None
        ours = os.fstat(self._file.fileno())
        try:
            is_named = os.path.samestat(ours, os.stat(self.path))
        except FileNotFoundError:
            is_named = False
        if is_named:
            self._size, self._unseen, self._seen_at = ours.st_size, 0, self._clock.seconds()
        else:
            self.open()

    def _rotate(self, coming: int) -> None:
        """Rotate the file, unless another process has done that already."""
        assert self._file is not None
        with suppress(OSError):  # released with the file; without locks two processes may rotate at the same time
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)
        full = self._file
        self._follow()
        if self._file is full and self._size + coming > self._largest:
            self._put_aside()
            self.open()
        elif self._file is full:
            with suppress(OSError):
                fcntl.flock(full.fileno(), fcntl.LOCK_UN)

    def _put_aside(self) -> None:
        """Rename the file to ``<name>.1``, and those before it to the next number."""
        number = 1
        while os.path.exists(f"{self.path}.{number}") and (self._keep is None or number < self._keep):
            number += 1
        for each in range(number, 1, -1):
            os.replace(f"{self.path}.{each - 1}", f"{self.path}.{each}")
        os.replace(self.path, f"{self.path}.1")
