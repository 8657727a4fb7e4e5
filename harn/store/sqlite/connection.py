"""
Connections that read, and the check of a database's application id and schema version.

Commands read a state directory's event log with `open_readonly` when no server runs: plain calls, no lock, no thread,
no reactor.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from urllib.parse import quote

from harn.errors import EventLogUnavailable, StateDirectoryUnusable

if TYPE_CHECKING:
    from harn.store.sqlite.executor import reads

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA_VERSION = 4
"""A new one needs a step in `harn.store.sqlite.schema`, too."""

APPLICATION_ID = 0x6861726E
"""``harn`` in ASCII, so that another program's database is not mistaken for an event log."""

OLDEST_WRITER = "schema_oldest"
"""Under this name ``standing`` keeps the oldest schema whose servers can write to the database."""

RESTORE_ADVICE = (
    "stop the server if one runs, move the whole state directory away, and restore the last good backup into an empty"
    " one: harn orchestrator restore FILE --state-dir DIRECTORY"
)
"""What to do about a database that cannot be relied on."""


def connect_reader(path: str) -> sqlite3.Connection:
    """
    Open an existing database for reading; a write through the connection fails, and the file is never made.

    :raises StateDirectoryUnusable: it belongs to another program, or its schema is newer or older than this one's.
    :raises sqlite3.Error: it cannot be opened or read.
    """
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    try:
        version = check_schema(connection, path)
        if version is not None and version < SCHEMA_VERSION:
            raise StateDirectoryUnusable(
                f"{path} was written by an older harn (schema {version}, this one reads {SCHEMA_VERSION}); "
                "start a server on its state directory once, which brings it up to date"
            )
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run what reads within one transaction, so that all of its statements see one state."""
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")


def check_schema(connection: sqlite3.Connection, path: str) -> int | None:
    """Return the schema's version; an empty database has none yet."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and version == 0:
        return None
    if application != APPLICATION_ID:
        raise StateDirectoryUnusable(f"{path} is a database of another program; move it away, or choose another place")
    if version > SCHEMA_VERSION and not _can_write_newer(connection):
        raise StateDirectoryUnusable(
            f"{path} was written by a newer harn (schema {version}, this one supports {SCHEMA_VERSION}); "
            "run that version again, or choose another state directory"
        )
    return int(version)


def _can_write_newer(connection: sqlite3.Connection) -> bool:
    """Return whether a newer schema only adds to this one: an upgrade that failed may have brought it."""
    oldest = read_number(connection, OLDEST_WRITER)
    return oldest is not None and oldest <= SCHEMA_VERSION


def read_number(connection: sqlite3.Connection, name: str) -> int | None:
    """Return a number that ``standing`` keeps, read without knowing the schema; None where there is none."""
    try:
        row = connection.execute("SELECT value FROM standing WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])
    except (sqlite3.OperationalError, ValueError, TypeError):  # it has no such table, or another
        return None


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
            with snapshot(self._connection) as connection:
                return operation.query(None, connection, *args, **kwargs)
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
