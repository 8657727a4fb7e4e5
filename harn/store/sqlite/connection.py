"""Connections that read, and the check of a database's application id and schema version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from harn.errors import StateDirectoryUnusable
from harn.store.sqlite.migrations import oldest_writer

T = TypeVar("T")

SCHEMA_VERSION = 4
"""A new one needs a step in `harn.store.sqlite.migrations`, too."""

APPLICATION_ID = 0x6861726E
"""``harn`` in ASCII, so that another program's database is not mistaken for an event log."""


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


def read_whole(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    """Run ``query`` within one transaction, so that all of its statements see one state."""
    connection.execute("BEGIN")
    try:
        return query(connection)
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
    oldest = oldest_writer(connection)
    return oldest is not None and oldest <= SCHEMA_VERSION
