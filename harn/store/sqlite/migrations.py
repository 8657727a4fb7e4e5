"""
Brings a database of an older schema up to date, without harm to a server of that schema that still writes to it.

So each step only adds: columns with a default, which an INSERT that does not know them leaves out, and tables, which it
does not look at. What would change or remove anything waits until no server of before can run. A server of before
may be started again, too, after an upgrade that failed: the database says from which schema on one can write to it.

Tables and columns come in one transaction, whose cost does not grow with the rows. What does grow, indices and changes
of rows, follows piece by piece, each in a transaction of its own, so that a server of before waits for one piece, and
not for all. A migration that was cut off goes on with the next start; the new version is written after the last piece.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STEPS: dict[int, tuple[str, ...]] = {
    # 2: what a generation was made of, so that it can be shown and recalled; values that outlive a restart.
    2: (
        "ALTER TABLE generations ADD COLUMN manifest_digest TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN recalled INTEGER",
        "ALTER TABLE generations ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN summary BLOB NOT NULL DEFAULT x'7b7d'",
        "CREATE TABLE manifests (digest TEXT PRIMARY KEY, data BLOB NOT NULL)",
        "CREATE TABLE standing (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ),
    # 3: whose a claim is, so that a dead letter releases it; crashes of servers while a delivery ran.
    3: (
        "ALTER TABLE deliveries ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE claims ADD COLUMN delivery_id INTEGER",
        "CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL",
    ),
    # 4: deliveries that were skipped, discarded or replayed, which servers of before read as done; lists of deliveries
    # and of dead letters; what a failed attempt raised and printed; totals of triggers.
    4: (
        "ALTER TABLE deliveries ADD COLUMN ended_as INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE deliveries ADD COLUMN skip_reason TEXT",
        "ALTER TABLE deliveries ADD COLUMN died_at REAL",
        "ALTER TABLE deliveries ADD COLUMN replayed_as TEXT",
        "ALTER TABLE attempts ADD COLUMN traceback TEXT",
        "ALTER TABLE attempts ADD COLUMN output TEXT",
        # So far a delivery was done without a result when its predicate had refused it.
        "UPDATE deliveries SET ended_as = 4, skip_reason = 'predicate'"
        " WHERE id BETWEEN ? AND ? AND state = 2 AND result IS NULL",
        "CREATE INDEX deliveries_by_trigger ON deliveries (id / 1024, trigger_id)",
        "CREATE INDEX deliveries_by_kind ON deliveries (id / 1024, kind)",
        "CREATE INDEX deliveries_exceptions ON deliveries (state, ended_as)"
        " WHERE state = 1 OR state = 3 OR ended_as > 0",
        "CREATE INDEX deliveries_failed ON deliveries (trigger_id, state, ended_as) WHERE state = 3 OR ended_as > 4",
        "CREATE INDEX deliveries_dead_groups ON deliveries (trigger_id, reason, error_class, settled_at)"
        " WHERE state = 3",
        # Which dead letter a delivery repeats; jobs of operators.
        "ALTER TABLE claims ADD COLUMN predecessor INTEGER",
        "CREATE INDEX claims_predecessor ON claims (predecessor) WHERE predecessor IS NOT NULL",
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, actor TEXT NOT NULL,"
        " filter BLOB NOT NULL, rate REAL, state TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL,"
        " cursor INTEGER NOT NULL, is_selected INTEGER NOT NULL, matched INTEGER NOT NULL DEFAULT 0,"
        " changed INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX jobs_unfinished ON jobs (id) WHERE ended_at IS NULL",
        "CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL",
        "CREATE TABLE job_items (job_id INTEGER NOT NULL, delivery_id INTEGER NOT NULL,"
        " outcome INTEGER NOT NULL DEFAULT 0, event_id TEXT, replayed_as TEXT, reason TEXT,"
        " PRIMARY KEY (job_id, delivery_id)) WITHOUT ROWID",
        "CREATE INDEX job_items_pending ON job_items (job_id, delivery_id) WHERE outcome = 0",
        "CREATE INDEX deliveries_due ON deliveries (trigger_id, due_at) WHERE state = 1",
        "CREATE TABLE trigger_totals (trigger_id TEXT PRIMARY KEY, accepted INTEGER NOT NULL, refused INTEGER NOT NULL,"
        " last_success REAL, last_failure REAL) WITHOUT ROWID",
        "CREATE TABLE refusals (minute INTEGER NOT NULL, trigger_id TEXT NOT NULL, reason TEXT NOT NULL,"
        " count INTEGER NOT NULL, PRIMARY KEY (minute, trigger_id, reason)) WITHOUT ROWID",
    ),
}
"""For each version of the schema, the statements that make it out of the one before; an UPDATE is of a range of ids."""

OLDEST = 2
"""The oldest schema whose servers can write to a database of the newest: a step that does not only add raises it."""
_NAME = "schema_oldest"
"""What ``standing`` keeps `OLDEST` under."""


_PREPARED = "schema_prepared"
"""What ``standing`` keeps, until a migration is done, the version whose tables and columns are there."""
_GROWING = ("CREATE INDEX ", "UPDATE ")
"""How statements begin whose cost grows with the rows."""
SLICE = 50_000
"""Deliveries that one UPDATE changes."""
LONG, PAUSE = 0.05, 0.2
"""After a piece of more than ``LONG`` seconds another server gets ``PAUSE`` seconds to write: SQLite tries each 0.1."""


def migrate(connection: sqlite3.Connection, wanted: int, sleep: Callable[[float], None] = time.sleep) -> None:
    """
    Run the steps up to the version ``wanted``, outside of a transaction. Blocks, for a second per million deliveries
    and piece; whoever else migrates at the same time does no harm.

    :param sleep: waits so many seconds.
    :raises sqlite3.Error: a step failed. If it was one of tables and columns, all is as before; else the version is,
        and the next call goes on.
    """
    with _transaction(connection):
        first = version_of(connection) + 1
        for step in range(max(first, _prepared(connection) + 1), wanted + 1):
            for statement in _STEPS[step]:
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
            sleep(PAUSE)
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
        for statement in _STEPS[step]:
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
    return _number(connection, _PREPARED) or 0


def note_oldest(connection: sqlite3.Connection) -> None:
    """Record in a database of the newest schema which servers can write to it, for servers with an older one."""
    _note(connection, _NAME, OLDEST)


def oldest_writer(connection: sqlite3.Connection) -> int | None:
    """Return what a newer server noted by `note_oldest`; None when it noted nothing."""
    return _number(connection, _NAME)


def _number(connection: sqlite3.Connection, name: str) -> int | None:
    try:
        row = connection.execute("SELECT value FROM standing WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])
    except (sqlite3.OperationalError, ValueError, TypeError):  # it has no such table, or another
        return None
