"""The schema of the SQLite store, and how a connection to it is opened and checked."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote

from harn.errors import StateDirectoryUnusable
from harn.store.sqlite.migrations import migrate, note_oldest, oldest_writer

T = TypeVar("T")

SCHEMA_VERSION = 3
"""A new one needs a step in `harn.store.sqlite.migrations`, too."""

APPLICATION_ID = 0x6861726E
"""``harn`` in ASCII, so that nobody takes another program's database for ours."""

OLDEST_SQLITE = (3, 33, 0)
"""The first with ``UPDATE ... FROM``."""


class EventLogMissing(StateDirectoryUnusable):
    """The database is not there, or has none of our tables; the message says which."""


READY, WAITING, DONE, DEAD = range(4)
"""``deliveries.state``. The SQL below names these numbers: a partial index is used only by a query that does, too."""

SCHEMA = """
-- An event's bytes, one row for each delivery, under its id. Apart from `deliveries`, because an UPDATE in SQLite
-- writes the whole row anew. Never updated.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL
);

-- Where each accepted delivery stands. `state`: 0 ready, 1 waiting, 2 done, 3 dead. `owner`: the server that runs it.
-- `crashes`: of servers while it ran. `recoveries`: what servers of schema 2 counted; nothing reads it.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner INTEGER NOT NULL,
    received_at REAL NOT NULL,
    replay_of TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    passed INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    due_at REAL,
    settled_at REAL,
    dead_number INTEGER,
    reason TEXT,
    error_class TEXT,
    error TEXT,
    result BLOB,
    crashes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_event ON deliveries (event_id);
-- What is not finished is found through these three, which stay as small as it is, however many rows are done.
CREATE INDEX deliveries_ready ON deliveries (owner) WHERE state = 0;
CREATE INDEX deliveries_waiting ON deliveries (owner, due_at) WHERE state = 1;
CREATE INDEX deliveries_unfinished ON deliveries (trigger_id, version, state) WHERE state < 2;
-- What is finished, for retention.
CREATE INDEX deliveries_finished ON deliveries (state, settled_at) WHERE state >= 2;
CREATE UNIQUE INDEX deliveries_dead ON deliveries (dead_number) WHERE dead_number IS NOT NULL;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    started_at REAL NOT NULL,
    completed_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    error_class TEXT,
    error TEXT
);
CREATE INDEX attempts_delivery ON attempts (delivery_id);

-- `delivery_id`: whose it is; it goes when that becomes a dead letter. None: it stays until it expires.
CREATE TABLE claims (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    expires_at REAL NOT NULL,
    delivery_id INTEGER,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL;

CREATE TABLE log (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    kind TEXT NOT NULL,
    occurred_at REAL NOT NULL,
    headers BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX log_topic ON log (topic);

-- The highest numbers ever given, kept where retention took the rows that had them.
CREATE TABLE numbers (
    name TEXT PRIMARY KEY,
    highest INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    bundle_id TEXT NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    adopted_at REAL,
    removed BLOB NOT NULL,
    manifest_digest TEXT NOT NULL DEFAULT '',
    recalled INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    summary BLOB NOT NULL DEFAULT x'7b7d'
);
CREATE TABLE binding_versions (
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    generation INTEGER NOT NULL,
    bundle_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    PRIMARY KEY (trigger_id, version)
);
CREATE INDEX binding_versions_generation ON binding_versions (generation);
CREATE TABLE bundles (
    bundle_id TEXT PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL
);
-- Values by name, as JSON, that outlive a restart.
CREATE TABLE standing (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE servers (
    incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL
);
"""


def connect_writer(path: str, *, create: bool, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
    """
    Open the database for writing; one of an older schema is brought up to date.

    :param create: make it if it is missing or empty.
    :param synchronous: ``FULL`` (a commit is on disk when it returns), or for measurements ``NORMAL`` or ``OFF``.
    :param busy_timeout: seconds to wait for another process's lock.
    :raises EventLogMissing: it is missing or empty, and is not to be made.
    :raises StateDirectoryUnusable: it is not ours, too new for us, or cannot be in WAL mode here.
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


def connect_reader(path: str) -> sqlite3.Connection:
    """
    Open an existing database for reading; a write through the connection fails, and the file is never made.

    :raises StateDirectoryUnusable: it is not ours, too new for us, or older than we are.
    :raises sqlite3.Error: it cannot be opened or read.
    """
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    try:
        version = _check_schema(connection, path)
        if version is not None and version < SCHEMA_VERSION:
            raise StateDirectoryUnusable(
                f"{path} was written by an older harn (schema {version}, this one reads {SCHEMA_VERSION}); "
                "start a server on its state directory once, which brings it up to date"
            )
    except BaseException:
        connection.close()
        raise
    return connection


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


def read_whole(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    """Run ``query`` within one transaction, so that all of its statements see one state."""
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        connection.execute("ROLLBACK")


def _configure(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
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
    # No auto_vacuum: freed pages are used again, so that the file stays at the largest size its retention needed; to
    # move pages for a smaller file would cost each commit.


def _ensure_schema(connection: sqlite3.Connection, path: str, create: bool) -> None:
    version = _check_schema(connection, path)
    if version is None and not create:
        raise EventLogMissing(f"the event log {path} is empty: none of our tables is in it")
    if version is not None and version >= SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        version = _check_schema(connection, path)
        if version is None:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            note_oldest(connection)
        elif version < SCHEMA_VERSION:
            migrate(connection, version, SCHEMA_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_schema(connection: sqlite3.Connection, path: str) -> int | None:
    """Give the schema's version; an empty database has none yet."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and version == 0:
        return None
    if application != APPLICATION_ID:
        raise StateDirectoryUnusable(f"{path} is a database of another program; move it away, or choose another place")
    if version > SCHEMA_VERSION and not _can_write_newer(connection):
        raise StateDirectoryUnusable(
            f"{path} was written by a newer harn (schema {version}, this one knows {SCHEMA_VERSION}); "
            "run that version again, or choose another state directory"
        )
    return int(version)


def _can_write_newer(connection: sqlite3.Connection) -> bool:
    """Tell whether a newer schema only adds to ours: an upgrade that failed may have brought it."""
    oldest = oldest_writer(connection)
    return oldest is not None and oldest <= SCHEMA_VERSION
