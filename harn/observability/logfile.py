"""A log file that is put aside when it is full, and that never costs its writer an exception."""

from __future__ import annotations

import os
from io import FileIO

LARGEST = 10 * 1024 * 1024
"""Bytes at which a file is put aside as ``<name>.1``."""


class RotatingFile:
    """Text appended to ``path``; opened, with its directory made, when the first text comes."""

    def __init__(self, path: str, largest: int = LARGEST) -> None:
        self.path = path
        self._largest = largest
        self._file: FileIO | None = None
        self._size = 0

    def write(self, text: str) -> None:
        """Append ``text``; what cannot be written (a full disk, a directory that is gone) is lost, and nothing else."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            if self._file is None:
                self._open()
            if self._size and self._size + len(data) > self._largest:
                self._rotate()
            if self._file is not None:
                self._file.write(data)
                self._size += len(data)
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

    def _rotate(self) -> None:
        self.close()
        os.replace(self.path, self.path + ".1")
        self._open()
