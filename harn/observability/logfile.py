"""A log file that is put aside when it is full, and that never costs its writer an exception."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from io import FileIO

LARGEST = 10 * 1024 * 1024
"""Bytes at which a file is put aside as ``<name>.1``."""
UNSEEN = 4096
"""Bytes that may go into a file before a look whether it still has its name."""


class RotatingFile:
    """
    Text appended to ``path``; opened, with its directory made, when the first text comes.

    Two processes may write to it for a while, as in an upgrade in place: whoever finds it full puts it aside, and the
    other follows.
    """

    def __init__(self, path: str, largest: int = LARGEST) -> None:
        self.path = path
        self._largest = largest
        self._file: FileIO | None = None
        self._size = 0
        self._unseen = 0

    def write(self, text: str) -> None:
        """Append ``text``; what cannot be written (a full disk, a directory that is gone) is lost, and nothing else."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            if self._file is None:
                self._open()
            elif self._unseen >= UNSEEN:
                self._follow()
            if self._size and self._size + len(data) > self._largest:
                self._rotate(len(data))
            if self._file is not None:
                self._file.write(data)
                self._size += len(data)
                self._unseen += len(data)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file; the next text opens it again."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                return

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        # Unbuffered, so that a record is in the file when a crash follows it.
        self._file = FileIO(self.path, "ab")
        self._size = self._file.tell()
        self._unseen = 0

    def _follow(self) -> None:
        """Go on with the file that has the name now, and with what others have written to it."""
        assert self._file is not None
        ours = os.fstat(self._file.fileno())
        try:
            is_named = os.path.samestat(ours, os.stat(self.path))
        except FileNotFoundError:
            is_named = False
        if is_named:
            self._size, self._unseen = ours.st_size, 0
        else:
            self.close()
            self._open()

    def _rotate(self, coming: int) -> None:
        """Put the file aside, unless another process has done that by now."""
        assert self._file is not None
        with suppress(OSError):  # let go of with the file; where there are no locks, two must not come in one moment
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)
        full = self._file
        self._follow()
        if self._file is full and self._size + coming > self._largest:
            os.replace(self.path, self.path + ".1")
            self.close()
            self._open()
        elif self._file is full:
            with suppress(OSError):
                fcntl.flock(full.fileno(), fcntl.LOCK_UN)
