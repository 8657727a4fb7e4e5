"""The database's three files, known by device and inode, so that their removal beneath the server is noticed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from harn.errors import EventLogGone

SUFFIXES = ("", "-wal", "-shm")
"""Of the database, its write-ahead log, and the index of that, which its connections share."""

_FILE_DESCRIPTORS = "/proc/self/fd"


class DatabaseFiles:
    """
    Compares the files that are there with those that the connection has open.

    Only ever looks at names: to open and close the database in this process would end SQLite's locks on it.
    Used in the writer's thread.

    :param path: of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(os.path.abspath(path))
        self._known: dict[str, tuple[int, int]] = {}
        self._state: tuple[int, int, int] | None = None

    def note(self) -> None:
        """Record the existing files as those of the connection, which has just been opened."""
        self._known = {}
        self._note(SUFFIXES)

    def note_closed(self) -> None:
        """Called when the connection was closed, which may remove the log; the database must stay the same file."""
        self._note(SUFFIXES[1:])

    def _note(self, suffixes: Sequence[str]) -> None:
        self._state = None
        for suffix in suffixes:
            self._known.pop(suffix, None)
            identity = _identity(self._path + suffix)
            if identity is not None:
                self._known[suffix] = identity

    def check_soon(self) -> None:
        """Look at every file at the next `check`."""
        self._state = None

    def check(self) -> None:
        """
        Look whether the files are still there; while nothing was added to their directory or removed from it, at that
        alone, which is one call of the system.

        :raises EventLogGone: one was removed or replaced, or their directory was; says what can be saved, and how.
        :raises OSError: they cannot be looked at.
        """
        state = self._state_of_directory()
        if state is not None and state == self._state:
            return
        gone = [suffix for suffix, identity in self._known.items() if _identity(self._path + suffix) != identity]
        if gone:
            raise EventLogGone(self._report(gone))
        self._state = state

    def _state_of_directory(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _report(self, gone: list[str]) -> str:
        names = ", ".join(os.path.basename(self._path) + suffix for suffix in gone)
        was, it = ("was", "it") if len(gone) == 1 else ("were", "them")
        what = (
            f"{names} in {self._directory} {was} removed or replaced while the server (pid {os.getpid()}) had {it} open"
        )
        if "" not in gone:
            return (
                f"{what}: nothing is accepted until a restart; stop the server with SIGTERM, which writes what the"
                f" removed log holds into {os.path.basename(self._path)}, and start it again"
            )
        return (
            f"{what}: nothing is accepted until a restart; put the files back, or save those that it still has open"
            f"{self._rescue()}, then restart the server"
        )

    def _rescue(self) -> str:
        """Return the commands that copy what this process still has open, where the system shows it."""
        commands: list[str] = []
        for suffix in SUFFIXES[:2]:
            descriptor = _descriptor_of(self._known.get(suffix))
            if descriptor is not None:
                name = os.path.basename(self._path) + suffix
                commands.append(f"cp /proc/{os.getpid()}/fd/{descriptor} {name}")
        return f" ({' && '.join(commands)})" if commands else ""


def _identity(path: str) -> tuple[int, int] | None:
    """
    Return the device and inode of a file; None when there is none.

    :raises OSError: it cannot be looked at.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _descriptor_of(identity: tuple[int, int] | None) -> int | None:
    """Find the descriptor under which this process has a file open; None where the system does not show them."""
    try:
        descriptors = [int(name) for name in os.listdir(_FILE_DESCRIPTORS)]
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            found = os.fstat(descriptor)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == identity:
            return descriptor
    return None
