"""The tables of a store, and the two sides of a copy: how each dialect reads and writes the rows of a table."""

# The text of a statement is made from the tables below and from constants; it never contains a value.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from harn.store.database import Numbers
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint
from harn.store.postgres.database import COPYING
from harn.store.postgres.session import PostgresSession
from harn.store.sqlite.connection import Session as SQLiteSession

SLICE = 500
"""Rows that are read or written in one statement."""

Row = tuple[Any, ...]
STANDING = "standing"
"""The name of the table that holds single values by name."""


class TableOf(Struct, frozen=True):
    """
    A table of a store.

    :ivar keys: the number of columns, from the first on, that are the primary key.
    :ivar columns: the name and the PostgreSQL type of each column.
    """

    name: str
    keys: int
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> str:
        """The names of all columns, as a statement lists them."""
        return ", ".join(name for name, _ in self.columns)

    @property
    def key(self) -> str:
        """The names of the key's columns, as a statement lists them."""
        return ", ".join(name for name, _ in self.columns[: self.keys])


def _table(name: str, keys: int, columns: str) -> TableOf:
    pairs = (each.strip().partition(" ") for each in columns.split(","))
    return TableOf(name, keys, tuple((column, kind or "text") for column, _, kind in pairs))


_B, _F = " bigint", " float8"
TABLES = (
    _table(
        "generations",
        1,
        f"number{_B}, digest, bundle_id, source, actor, adopted_at{_F}, removed bytea, manifest_digest,"
        f" recalled{_B}, reason, summary bytea",
    ),
    _table("binding_versions", 2, f"trigger_id, version integer, fingerprint, generation{_B}, bundle_id, spec bytea"),
    _table("bundles", 1, "bundle_id, data bytea"),
    _table("manifests", 1, "digest, data bytea"),
    _table("standing", 1, "name, value bytea"),
    _table("claims", 2, f"scope, key bytea, expires_at{_F}, delivery_id{_B}, predecessor{_B}"),
    _table("events", 1, f"id{_B}, envelope bytea, body bytea"),
    _table(
        "deliveries",
        1,
        f"id{_B}, event_id, trigger_id, version integer, provider, kind, owner{_B}, received_at{_F}, replay_of,"
        f" state smallint, attempts integer, passed boolean, due_at{_F}, settled_at{_F}, dead_number{_B}, reason,"
        f" error_class, error, result bytea, crashes integer, ended_as smallint, skip_reason, died_at{_F}, replayed_as",
    ),
    _table(
        "attempts",
        1,
        f"id{_B}, delivery_id{_B}, number integer, version integer, started_at{_F}, completed_at{_F}, outcome,"
        " error_class, error, traceback, output",
    ),
    _table("log", 1, f"number{_B}, topic, kind, occurred_at{_F}, headers bytea, payload bytea"),
    _table(
        "jobs",
        1,
        f"id{_B}, operation, actor, filter bytea, rate{_F}, state, created_at{_F}, ended_at{_F}, cursor{_B},"
        f" is_selected boolean, matched{_B}, changed{_B}, skipped{_B}",
    ),
    _table("job_items", 2, f"job_id{_B}, delivery_id{_B}, outcome smallint, event_id, replayed_as, reason"),
    _table("trigger_totals", 1, f"trigger_id, accepted{_B}, refused{_B}, last_success{_F}, last_failure{_F}"),
    _table("refusals", 3, f"minute{_B}, trigger_id, reason, count{_B}"),
    _table("servers", 1, f"incarnation{_B}, pid integer, host, started_at{_F}, seen_at{_F}"),
)
_MARKS = (COPYING, "schema_oldest", "schema_prepared", "events_measured")
"""Names in ``standing`` whose values describe one database only, and are not copied."""


class Side(Protocol):
    """
    One of the two stores. The values in its rows have the Python types that PostgreSQL's column types give.

    :ivar name: the name of the store in messages.
    """

    name: str

    def rows(self, table: TableOf, after: Row | None) -> Iterator[Row]:
        """Yield the rows of a table in the order of its key; only those after the key ``after``, if that is given."""

    def count(self, table: TableOf) -> int:
        """Count the rows of a table."""

    def last(self, table: TableOf) -> Row | None:
        """Return the highest key of a table; None if the table is empty."""

    def write(self, table: TableOf, rows: Sequence[Row]) -> None:
        """Insert rows in one transaction."""

    def mark(self) -> str | None:
        """Return the name of the store from which a copy into this one is under way; None if no copy is."""

    def set_mark(self, source: str | None) -> None:
        """Record that a copy from ``source`` is under way; None records that the copy is complete."""

    def numbers(self) -> Numbers:
        """Return the numbers that were given last."""

    def set_numbers(self, numbers: Numbers) -> None:
        """Record the numbers that were given last."""


class SQLiteSide:
    """A store in a file; see `Side`."""

    def __init__(self, name: str, connection: sqlite3.Connection) -> None:
        self.name = name
        self._connection = connection

    def rows(self, table: TableOf, after: Row | None) -> Iterator[Row]:
        """See `Side.rows`."""
        where = "" if after is None else f" WHERE ({table.key}) > ({', '.join('?' * table.keys)})"
        statement = f"SELECT {table.names} FROM {table.name}{where} ORDER BY {table.key}"
        kinds = [kind for _, kind in table.columns]
        cursor = self._connection.execute(statement, () if after is None else _plain(table, after))
        for row in cursor:
            if table.name == STANDING and row[0] in _MARKS:
                continue
            yield tuple(map(_typed, row, kinds))

    def count(self, table: TableOf) -> int:
        """See `Side.count`."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])

    def last(self, table: TableOf) -> Row | None:
        """See `Side.last`."""
        order = ", ".join(f"{name} DESC" for name, _ in table.columns[: table.keys])
        row = self._connection.execute(f"SELECT {table.key} FROM {table.name} ORDER BY {order} LIMIT 1").fetchone()
        kinds = [kind for _, kind in table.columns]
        return None if row is None else tuple(map(_typed, row, kinds))

    def write(self, table: TableOf, rows: Sequence[Row]) -> None:
        """See `Side.write`."""
        values = ", ".join("?" * len(table.columns))
        self._connection.execute("BEGIN IMMEDIATE")
        verb = "INSERT OR REPLACE" if table.name == STANDING else "INSERT"
        statement = f"{verb} INTO {table.name} ({table.names}) VALUES ({values})"
        self._connection.executemany(statement, [_plain(table, row) for row in rows])
        self._connection.execute("COMMIT")

    def mark(self) -> str | None:
        """See `Side.mark`."""
        row = self._connection.execute("SELECT value FROM standing WHERE name = ?", (COPYING,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=str)

    def set_mark(self, source: str | None) -> None:
        """See `Side.set_mark`."""
        self._connection.execute("DELETE FROM standing WHERE name = ?", (COPYING,))
        if source is not None:
            values = (COPYING, msgspec.json.encode(source))
            self._connection.execute("INSERT INTO standing (name, value) VALUES (?, ?)", values)

    def numbers(self) -> Numbers:
        """See `Side.numbers`."""
        return SQLiteSession(self._connection, 0).numbers

    def set_numbers(self, numbers: Numbers) -> None:
        """See `Side.set_numbers`."""
        session = SQLiteSession(self._connection, 0)
        session.begin()
        session.numbers = numbers
        session.keep_numbers()
        session.commit()


def _typed(value: Any, kind: str) -> Any:
    """Return a value from SQLite as a value of PostgreSQL's type ``kind``."""
    if value is None:
        return None
    if kind == "boolean":
        return bool(value)
    if kind == "bytea":
        return value.encode() if isinstance(value, str) else bytes(value)
    if kind == "float8":
        return float(value)
    return value.replace("\0", "\ufffd") if kind == "text" else value


def _plain(table: TableOf, row: Row) -> Row:
    """Return a row as SQLite stores it: its dedupe keys are texts."""
    if table.name == "claims":
        return (row[0], row[1].decode(), *row[2:])
    return row


class PostgresSide:
    """A store on PostgreSQL; see `Side`."""

    def __init__(self, endpoint: PostgresEndpoint, connection: PostgresConnection) -> None:
        self.name = endpoint.address.location
        self._connection = connection
        self._endpoint = endpoint

    def rows(self, table: TableOf, after: Row | None) -> Iterator[Row]:
        """See `Side.rows`."""
        key = table.columns[: table.keys]
        places = ", ".join(f"${number}::{kind}{_order(kind)}" for number, (_, kind) in enumerate(key, 1))
        names = ", ".join(name + _order(kind) for name, kind in key)
        where = "" if after is None else f" WHERE ({names}) > ({places})"
        statement = f"DECLARE copied CURSOR FOR SELECT {table.names} FROM {table.name}{where} ORDER BY {names}"
        with closing(self._endpoint.connect()) as connection, connection.snapshot():  # unaffected by writes meanwhile
            connection.execute_once(statement, () if after is None else after)
            most = 20 if table.name == "events" else SLICE
            while rows := connection.execute(f"FETCH {most} FROM copied").fetchall():
                yield from (row for row in rows if table.name != STANDING or row[0] not in _MARKS)

    def count(self, table: TableOf) -> int:
        """See `Side.count`."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])

    def last(self, table: TableOf) -> Row | None:
        """See `Side.last`."""
        order = ", ".join(f"{name}{_order(kind)} DESC" for name, kind in table.columns[: table.keys])
        row: Row | None = self._connection.execute(
            f"SELECT {table.key} FROM {table.name} ORDER BY {order} LIMIT 1"
        ).fetchone()
        return row

    def write(self, table: TableOf, rows: Sequence[Row]) -> None:
        """See `Side.write`."""
        arrays = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(table.columns, 1))
        statement = f"INSERT INTO {table.name} ({table.names}) SELECT * FROM unnest({arrays})"
        if table.name == STANDING:
            statement += " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self._connection.execute(statement, [list(each) for each in zip(*rows, strict=True)])

    def mark(self) -> str | None:
        """See `Side.mark`."""
        row = self._connection.execute("SELECT value FROM standing WHERE name = $1::text", (COPYING,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=str)

    def set_mark(self, source: str | None) -> None:
        """See `Side.set_mark`."""
        self._connection.execute("DELETE FROM standing WHERE name = $1::text", (COPYING,))
        if source is not None:
            values = (COPYING, msgspec.json.encode(source))
            self._connection.execute("INSERT INTO standing (name, value) VALUES ($1::text, $2::bytea)", values)

    def numbers(self) -> Numbers:
        """See `Side.numbers`."""
        return PostgresSession(self._connection, 0, self._endpoint).numbers

    def set_numbers(self, numbers: Numbers) -> None:
        """See `Side.set_numbers`."""
        session = PostgresSession(self._connection, 0, self._endpoint)
        session.begin()
        session.numbers = numbers
        session.commit()
        self._connection.run("UPDATE servers SET ended_at = seen_at")  # no server uses the source
        for table, column in (("servers", "incarnation"), ("jobs", "id")):
            self._connection.run(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), greatest(1, max({column})))"
                f" FROM {table} HAVING max({column}) IS NOT NULL"
            )


def _order(kind: str) -> str:
    """Return the clause that makes PostgreSQL compare texts as SQLite does."""
    return ' COLLATE "C"' if kind == "text" else ""
