"""
The database of a store: how connections to it are opened, and what is checked around each commit.

Its three files are known by device and inode, so that their removal beneath the server is noticed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from twisted.logger import Logger

from harn.errors import EventLogGone, StateDirectoryUnusable
from harn.store.database import Arrays
from harn.store.running import RunningNote, RunningNotes
from harn.store.sqlite.connection import ARRAYS, Session, connect_reader, snapshot
from harn.store.sqlite.mark import HighWaterMark
from harn.store.sqlite.schema import EventLogMissing, close_untouched, connect_writer
from harn.store.worker import Worker

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


log = Logger(namespace="harn.store")


class DatabaseFile:
    """
    One SQLite file, its write-ahead log, and the files beside it.

    :param path: of the database file; its directory exists.
    :param synchronous: SQLite's setting; anything but ``FULL`` is for measurements.
    :param busy_timeout: seconds that a write waits for another process's lock on the database.
    :param evidence: paths of files that exist once a server has run: beside one, a database that is missing or empty
        is an error, not a beginning.
    """

    arrays: Arrays = ARRAYS
    error: type[Exception] = sqlite3.Error
    longest_read: float | None = None
    patience: float | None = None

    def __init__(
        self, path: str, *, synchronous: str = "FULL", busy_timeout: float = 5.0, evidence: Sequence[str] = ()
    ) -> None:
        self.location: str | None = path
        self.name = path
        self.is_exclusive = True
        self._path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._evidence = tuple(evidence)
        self._files = DatabaseFiles(path)
        self._mark = HighWaterMark(path)
        self._server = 0  # the number that this start was given, whichever it continues under

    def open(self) -> Session:
        """See `harn.store.database.Database.open`."""
        noted = self._mark.read()
        told_by = [path for path in (self._mark.path, *self._evidence) if os.path.exists(path)]
        try:
            session = Session(self._connect(create=not told_by), 0)
        except EventLogMissing as error:
            raise StateDirectoryUnusable(
                f"{error}, though a server has run here; put it back, with its -wal if there was one; or move the whole"
                " state directory away and restore a backup into an empty one (harn orchestrator restore FILE"
                " --state-dir DIRECTORY); or, to begin with an empty event log, remove"
                f" {' and '.join(told_by or [self._path])}"
            ) from None
        try:
            self._mark.check(noted, session)
        except BaseException:
            close_untouched(session.connection, self._path)
            raise
        return session

    def opened(self, session: Session) -> None:
        """See `harn.store.database.Database.opened`."""
        self._files.note()
        self._server = session.incarnation
        self._mark.write(session.numbers, self._server)

    def reopen(self, incarnation: int) -> Session:
        """See `harn.store.database.Database.reopen`."""
        self._files.check()
        session = Session(self._connect(create=False), incarnation)
        self._files.check()
        self._files.note()
        return session

    def committed(self, session: Session, *, thorough: bool) -> None:
        """See `harn.store.database.Database.committed`."""
        if thorough:
            self._files.check_soon()
        self._files.check()
        self._mark.write(session.numbers, self._server)

    def disconnected(self) -> None:
        """See `harn.store.database.Database.disconnected`."""
        with suppress(OSError):
            self._files.note_closed()

    def close(self, session: Session | None) -> None:
        """See `harn.store.database.Database.close`."""
        if session is not None:
            with suppress(sqlite3.Error):
                # A server that takes over must not wait for this.
                session.connection.execute("PRAGMA busy_timeout = 0")
                session.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            with suppress(sqlite3.Error):
                session.connection.close()
        self._mark.close()
        with suppress(OSError):
            left = os.stat(self._path + "-wal").st_size
            if left:
                log.info(
                    "another process has the event log open: {path}-wal holds {left} bytes of it; copy both",
                    path=self._path,
                    left=left,
                )

    def connect_reader(self) -> sqlite3.Connection:
        """See `harn.store.database.Database.connect_reader`."""
        return connect_reader(self._path)

    def snapshot(self, connection: Any) -> AbstractContextManager[Any]:
        """See `harn.store.database.Database.snapshot`."""
        return snapshot(connection)

    def notes(self, worker: Worker) -> RunningNotes:
        """See `harn.store.database.Database.notes`."""
        return RunningNote(os.path.dirname(os.path.abspath(self._path)), worker)

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        return connect_writer(self._path, create=create, synchronous=self._synchronous, busy_timeout=self._busy_timeout)
