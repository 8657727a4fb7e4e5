"""Reading a state directory's event log when no server runs: plain calls, no lock, no thread, no reactor."""

from __future__ import annotations

import os
import sqlite3
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.store.sqlite.connection import RESTORE_ADVICE, connect_reader, read_whole
from harn.store.sqlite.executor import reads

P = ParamSpec("P")
T = TypeVar("T")


def open_readonly(path: str) -> OfflineStore:
    """
    Open the event log at ``path``; a write-ahead log that a crash left is read, too, and is left as it is.

    :raises StateDirectoryUnusable: there is none, it is another program's, or cannot be read; the message says which.
    """
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
    try:
        return OfflineStore(path, connect_reader(path))
    except sqlite3.Error as error:
        raise StateDirectoryUnusable(unreadable(path, error)) from error


def unreadable(path: str, error: sqlite3.Error) -> str:
    """Return why ``path`` cannot be used, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        advice = f"it is damaged, or something else: {RESTORE_ADVICE}"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        advice = "another process holds it; end that, and try again"
    elif code == sqlite3.SQLITE_FULL:
        advice = "make room on its disk"
    else:
        advice = "check that it and its directory can be read and written by this user"
    return f"the event log {path} cannot be used: {error}; {advice}"


class OfflineStore:
    """A store opened by `open_readonly`; also a context manager."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def ask(self, operation: reads[Any, P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Run one reading method, for example ``SQLiteGenerations.history``, and return its result.

        :raises EventLogUnavailable: the database cannot be read.
        """
        try:
            return read_whole(self._connection, lambda connection: operation.query(None, connection, *args, **kwargs))
        except sqlite3.Error as error:
            raise EventLogUnavailable(f"the event log {self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
