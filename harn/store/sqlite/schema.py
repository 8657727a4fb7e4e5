"""
The whole schema, put together from the ideas' tables; how a database is opened for writing, made, brought up to date.

A migration does no harm to a server with an older schema that still writes to the database, so each step only adds:
columns with a default, which the INSERT of an older server leaves out, and tables, which it does not use. A step that
changes or removes something has to wait until no older server can run: after an upgrade that failed, an older server
may be started again. The database names the oldest schema whose servers can write to it.

Tables and columns are added in one transaction, whose cost does not grow with the rows. Indices and changes of rows,
whose cost does, follow piece by piece, each in its own transaction, so that an older server waits for one piece only. A
migration that was interrupted continues at the next start; the new version is written after the last piece.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from harn.errors import StateDirectoryUnusable
from harn.store.sqlite import claims, deliveries, event_log, generations, jobs, recovery, statistics
from harn.store.sqlite.connection import APPLICATION_ID, OLDEST_WRITER, RESTORE_ADVICE, check_schema, read_number
from harn.store.sqlite.migrations import OLDEST, SCHEMA_VERSION, STEPS

OLDEST_SQLITE = (3, 35, 0)
"""The first with ``RETURNING``."""

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
        recovery.TABLES,
        jobs.TABLES,
        statistics.TABLES,
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
        # Pages are moved by `harn.store.sqlite.retention` alone: FULL would do it at each commit.
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


_PREPARED = "schema_prepared"
"""What ``standing`` keeps, until a migration is done, the version whose tables and columns are there."""
_GROWING = ("CREATE INDEX ", "UPDATE ")
"""How statements begin whose cost grows with the rows."""
SLICE = 50_000
"""Deliveries that one UPDATE changes."""
LONG, PAUSE = 0.05, 0.2
"""After a piece of more than ``LONG`` seconds another server gets ``PAUSE`` seconds to write: SQLite tries each 0.1."""


def migrate(connection: sqlite3.Connection, wanted: int) -> None:
    """
    Run the steps up to the version ``wanted``, outside of a transaction. Blocks, for a second per million deliveries
    and piece; whoever else migrates at the same time does no harm.

    :raises sqlite3.Error: a step failed. If it was one of tables and columns, all is as before; else the version is,
        and the next call continues.
    """
    with _transaction(connection):
        first = version_of(connection) + 1
        for step in range(max(first, _prepared(connection) + 1), wanted + 1):
            for statement in STEPS[step]:
                if not statement.startswith(_GROWING):
                    connection.execute(statement)
        if first <= wanted:
            _note(connection, _PREPARED, wanted)
        (highest,) = connection.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()
    for statement, values in _pieces(range(first, wanted + 1), highest):
        began = time.monotonic()
        with _transaction(connection):
            if version_of(connection) >= wanted:
                return
            connection.execute(statement, values)
        if time.monotonic() - began > LONG:
            time.sleep(PAUSE)
    with _transaction(connection):
        if version_of(connection) < wanted:
            connection.execute(f"PRAGMA user_version = {wanted}")
            connection.execute("DELETE FROM standing WHERE name = ?", (_PREPARED,))
            note_oldest(connection)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the schema."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _pieces(steps: range, highest: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the statements whose cost grows, and their values; each may be run again."""
    for step in steps:
        for statement in STEPS[step]:
            if statement.startswith("CREATE INDEX "):
                yield statement.replace("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS ", 1), ()
            elif statement.startswith(_GROWING):
                for first in range(1, highest + 1, SLICE):
                    yield statement, (first, first + SLICE - 1)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _note(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO standing (name, value) VALUES (?, ?)", (name, b"%d" % value))


def _prepared(connection: sqlite3.Connection) -> int:
    """Return the version up to which tables and columns are there already; 0 if no migration was cut off."""
    return read_number(connection, _PREPARED) or 0


def note_oldest(connection: sqlite3.Connection) -> None:
    """Record in a database of the newest schema which servers can write to it, for servers with an older one."""
    _note(connection, OLDEST_WRITER, OLDEST)
