"""The whole schema, put together from the ideas' tables, and how a database is opened for writing, or made."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import suppress
from urllib.parse import quote

from harn.errors import StateDirectoryUnusable
from harn.store.sqlite import checkpoints, claims, deliveries, event_log, generations, jobs, recovery, totals
from harn.store.sqlite.connection import APPLICATION_ID, RESTORE_ADVICE, SCHEMA_VERSION, check_schema
from harn.store.sqlite.migrations import migrate, note_oldest

OLDEST_SQLITE = (3, 33, 0)
"""The first with ``UPDATE ... FROM``."""

_NUMBERS = """
-- The highest numbers ever given, kept where retention took the rows that had them.
CREATE TABLE numbers (
    name TEXT PRIMARY KEY,
    highest INTEGER NOT NULL
) WITHOUT ROWID;
"""

SCHEMA = "".join(
    (
        deliveries.TABLES,
        claims.TABLES,
        event_log.TABLES,
        _NUMBERS,
        generations.TABLES,
        checkpoints.TABLES,
        recovery.TABLES,
        jobs.TABLES,
        totals.TABLES,
    )
)


_INDICES = re.compile(r"^CREATE (UNIQUE |)INDEX (.+?);\n", re.MULTILINE | re.DOTALL)
_TABLES = frozenset(("deliveries", "events", "attempts", "claims", "log", "numbers", "generations", "servers"))
"""Tables that a database of any schema has."""


class EventLogMissing(StateDirectoryUnusable):
    """The database is not there, or has none of our tables; the message says which."""


def connect_writer(path: str, *, create: bool, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    """
    Open the database for writing; one of an older schema is brought up to date.

    :param create: make it if it is missing or empty.
    :param synchronous: ``FULL`` (a commit is on disk when it returns), or for measurements ``NORMAL`` or ``OFF``.
    :param busy_timeout: seconds to wait for another process's lock.
    :raises EventLogMissing: it is missing or empty, and is not to be made.
    :raises StateDirectoryUnusable: it belongs to another program, its schema is too new, or it cannot be in WAL mode.
    :raises sqlite3.Error: it cannot be opened or read.
    """
    if not create and not os.path.exists(path):
        raise EventLogMissing(f"there is no event log at {path}")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise StateDirectoryUnusable(f"SQLite {sqlite3.sqlite_version} is too old; harn needs {needed} or newer")
    if create:
        _make_private(path)
    # The cache of prepared statements holds a multi-row INSERT of each size (`harn.store.sqlite.rows`).
    uri = f"file:{quote(path)}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None, cached_statements=256)
    try:
        _configure(connection, path, synchronous)
        _ensure_schema(connection, path, create)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: str) -> None:
    """Make the file, if it is missing, for its owner alone; SQLite gives the two beside it the same mode."""
    # What cannot be made, SQLite says better.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.close(descriptor)


def rebuild_indices(connection: sqlite3.Connection) -> None:
    """Build each index of this version's schema again from its table, those that are missing too."""
    for unique, rest in _INDICES.findall(SCHEMA):
        connection.execute(f"CREATE {unique}INDEX IF NOT EXISTS {rest}")
    connection.execute("REINDEX")


def close_untouched(connection: sqlite3.Connection, path: str) -> None:
    """Close, and leave the write-ahead log as it is: only a connection that can write moves it, when it is the last."""
    try:
        reader = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
        try:
            reader.execute("PRAGMA user_version").fetchone()
            connection.close()
        finally:
            reader.close()
    except sqlite3.Error:
        connection.close()


def _configure(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if not pages:
        # Pages are moved by `harn.store.sqlite.shrinking` alone: FULL would do it at each commit.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StateDirectoryUnusable(
            f"{path}: SQLite cannot use a write-ahead log here (journal mode {mode}); "
            "put the state directory on a local file system"
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # SQLite moves the log into the database each 1,000 pages (a longer interval was measured as slower); a log that
    # one large transaction made longer than this is cut back.
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA temp_store = MEMORY")
    # In KiB. Some builds take 16 MiB, which the first thousands of deliveries fill; what is hot are the last pages.
    connection.execute("PRAGMA cache_size = -2048")
    # Some builds overwrite with zeros all that is deleted; retention would write as much as it removes.
    connection.execute("PRAGMA secure_delete = FAST")


def _ensure_schema(connection: sqlite3.Connection, path: str, create: bool) -> None:
    version = check_schema(connection, path)
    missing = _TABLES - {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if (version is None and not create) or (version is not None and missing == _TABLES):
        raise EventLogMissing(f"the event log {path} is empty: none of our tables is in it")
    if version is not None and missing:
        raise StateDirectoryUnusable(
            f"the event log {path} has lost tables ({', '.join(sorted(missing))}); {RESTORE_ADVICE}"
        )
    if version is not None and version >= SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        version = check_schema(connection, path)
        if version is None:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            note_oldest(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if version is not None and version < SCHEMA_VERSION:
        migrate(connection, SCHEMA_VERSION)
