"""The contents of a database, counted; and the origin of a backup, in a table that a server's own does not have."""

from __future__ import annotations

import sqlite3

from harn.store.backup import Contents, Origin
from harn.store.sqlite.settling import NAMES

TABLE = "backup"
"""Of names and values; dropped when the backup is restored."""

_DELIVERIES = "SELECT max(state, ended_as), count(*) FROM deliveries GROUP BY 1"
_DELIVERIES_BEFORE = "SELECT state, count(*) FROM deliveries GROUP BY 1"  # of schemas below 4
_GENERATIONS = "SELECT coalesce(max(number), 0), count(*) FROM generations WHERE adopted_at IS NOT NULL"


def read_contents(connection: sqlite3.Connection) -> Contents:
    """
    Count what a database of harn's holds; reads the whole of some tables.

    :raises sqlite3.Error: it cannot be read.
    """
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    generation, generations = connection.execute(_GENERATIONS).fetchone()
    counted = connection.execute(_DELIVERIES if schema >= 4 else _DELIVERIES_BEFORE).fetchall()
    (records,) = connection.execute("SELECT count(*) FROM log").fetchone()
    newest = connection.execute("SELECT received_at FROM deliveries ORDER BY id DESC LIMIT 1").fetchone()
    return Contents(
        schema=schema,
        generation=generation,
        generations=generations,
        deliveries={NAMES[number]: count for number, count in counted},
        records=records,
        last_received_at=None if newest is None else newest[0],
    )


def write_origin(connection: sqlite3.Connection, origin: Origin) -> None:
    """Write into a copy of a database where it comes from; replaces what an earlier backup noted."""
    connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
    connection.execute(f"CREATE TABLE {TABLE} (name TEXT PRIMARY KEY, value)")
    values = (
        ("made_at", origin.made_at),
        ("harn_version", origin.harn_version),
        ("host", origin.host),
        ("digest_key", origin.digest_key),
    )
    connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?)", values)  # noqa: S608 - a constant


def read_origin(connection: sqlite3.Connection) -> Origin | None:
    """Return where a backup comes from; None for a database that `write_origin` was not called for."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,)).fetchone()
    if found is None:
        return None
    values = dict(connection.execute(f"SELECT name, value FROM {TABLE}").fetchall())  # noqa: S608 - a constant
    return Origin(
        made_at=values["made_at"],
        harn_version=values["harn_version"],
        host=values["host"],
        digest_key=values["digest_key"],
    )


def remove_origin(connection: sqlite3.Connection) -> None:
    """Make a backup a server's own database again."""
    connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
