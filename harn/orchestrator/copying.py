"""
Copies of a whole store into an empty one of the same or another dialect, table by table, compared afterwards.

Rows are copied in the order of their keys, in transactions of a few hundred rows. An interrupted copy continues after
the last row that the target has. The target carries a mark until it has been compared with the source, and no server
starts on a store with that mark.
"""

# The text of a statement is made from the tables below and from constants; it never contains a value.

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from itertools import zip_longest

from msgspec import Struct

from harn.errors import StateDirectoryUnusable, StoreError
from harn.orchestrator.copied_tables import SLICE, STANDING, TABLES, PostgresSide, Row, Side, SQLiteSide, TableOf
from harn.orchestrator.stores import DATABASE, NOTE
from harn.store.lock import StateDirectoryLock
from harn.store.postgres.address import Address, unreachable
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint, driver
from harn.store.postgres.offline import connect_checked
from harn.store.postgres.schema import migrate
from harn.store.postgres.tools import living_servers
from harn.store.sqlite.connection import connect_reader, unreadable
from harn.store.sqlite.schema import connect_writer

MOST_BYTES = 8 << 20
"""Bytes of values after which a transaction ends, even if it has fewer than `SLICE` rows."""
SUFFIX = ".copy"
"""The suffix of an SQLite file's name until the copy in it is complete."""

Show = Callable[[str, int, int], None]
"""Shows progress: the name of a table, the number of its rows that are copied, and the number of all its rows."""


class StoreCopied(Struct, frozen=True):
    """
    A complete copy.

    :ivar source: the state directory, or the location in PostgreSQL, of the store that was copied.
    :ivar target: the state directory, or the location in PostgreSQL, of the copy.
    :ivar tables: the number of rows by table.
    """

    source: str
    target: str
    tables: dict[str, int]


def copy_store(source: PostgresEndpoint | str, target: PostgresEndpoint | str, now: float, show: Show) -> StoreCopied:
    """
    Copy a store, and compare the copy with its source. Blocks.

    :param source: a state directory, or the endpoint of a PostgreSQL database.
    :param target: a state directory, or the endpoint of a PostgreSQL database.
    :param now: seconds, Unix.
    :raises StateDirectoryUnusable: a store cannot be used or is in use by a server, or the target is not empty.
    :raises StoreError: the copy differs from its source.
    """
    with ExitStack() as stack:
        try:
            before = _open_source(stack, source, now)
            after = _open_target(stack, target, now)
            _begin(before, after)
            counts = {table.name: _copy(before, after, table, show) for table in TABLES}
            after.set_numbers(before.numbers())
            compare(before, after, show)
            after.set_mark(None)
        except sqlite3.Error as error:
            raise StateDirectoryUnusable(unreadable("of the copy", error)) from error
        except Exception as error:
            if isinstance(error, StoreError) or not _is_of_driver(error):
                raise
            raise StateDirectoryUnusable(unreachable(_place_of(target), error)) from error
    _publish(target)
    return StoreCopied(before.name, after.name, counts)


def _is_of_driver(error: Exception) -> bool:
    return type(error).__module__.startswith("psycopg") and isinstance(error, driver().Error)


def _begin(source: Side, target: Side) -> None:
    """
    Mark the target as an incomplete copy of the source.

    :raises StateDirectoryUnusable: both are one store, or the target holds anything but part of a copy of this source.
    """
    if source.name == target.name:
        raise StateDirectoryUnusable(f"source and target are one store: {source.name}")
    mark = target.mark()
    if mark is None:
        filled = [table.name for table in TABLES if table.name != STANDING and target.last(table) is not None]
        if filled:
            raise StateDirectoryUnusable(
                f"the target {target.name} is not empty ({', '.join(filled[:3])}); a copy goes into an empty store only"
            )
        target.set_mark(source.name)
    elif mark != source.name:
        raise StateDirectoryUnusable(f"the target {target.name} holds part of a copy of {mark}; empty it first")


def _copy(source: Side, target: Side, table: TableOf, show: Show) -> int:
    total = source.count(table)
    done = target.count(table)
    pending: list[Row] = []
    size = 0
    # This table is small, and the target has rows of its own in it: all rows are written again.
    after = None if table.name == STANDING else target.last(table)
    for row in source.rows(table, after):
        pending.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(pending) >= SLICE or size >= MOST_BYTES:
            target.write(table, pending)
            done += len(pending)
            pending, size = [], 0
            show(table.name, done, total)
    if pending:
        target.write(table, pending)
    show(table.name, total, total)
    return total


def compare(source: Side, target: Side, show: Show) -> None:
    """
    Compare every row of both stores.

    :raises StoreError: a row differs, is missing, or is in the target only; the message names the row.
    """
    for table in TABLES:
        place = 0
        for place, (ours, theirs) in enumerate(zip_longest(source.rows(table, None), target.rows(table, None)), 1):
            if ours != theirs:
                which = (ours or theirs or ())[: table.keys]
                raise StoreError(
                    f"the copy differs from its source in {table.name} at row {place} ({', '.join(map(str, which))});"
                    f" empty {target.name} and copy again, with no server on either"
                )
        show(f"{table.name} compared", place, place)


def _place_of(store: PostgresEndpoint | str) -> str:
    return store if isinstance(store, str) else store.address.location


def _publish(target: PostgresEndpoint | str) -> None:
    """Rename a complete SQLite file to its final name."""
    if isinstance(target, str):
        os.replace(os.path.join(target, DATABASE + SUFFIX), os.path.join(target, DATABASE))
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(target, NOTE))  # the store is in the state directory now


def _open_source(stack: ExitStack, source: PostgresEndpoint | str, now: float) -> Side:
    if isinstance(source, PostgresEndpoint):
        connection = stack.enter_context(closing(connect_checked(source)))
        _refuse_used(connection, source.address, now)
        return PostgresSide(source, connection)
    path = os.path.join(source, DATABASE)
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; FROM must be a state directory or a URL")
    _lock(stack, source)
    return SQLiteSide(path, stack.enter_context(closing(connect_reader(path))))


def _open_target(stack: ExitStack, target: PostgresEndpoint | str, now: float) -> Side:
    if isinstance(target, PostgresEndpoint):
        connection = stack.enter_context(closing(target.connect()))
        migrate(connection)
        _refuse_used(connection, target.address, now)
        return PostgresSide(target, connection)
    _lock(stack, target)
    path = os.path.join(target, DATABASE)
    if os.path.exists(path):
        raise StateDirectoryUnusable(f"{path} exists already; a copy goes into an empty store only")
    part = connect_writer(path + SUFFIX, create=True, synchronous="FULL", busy_timeout=5.0)
    return SQLiteSide(path, stack.enter_context(closing(_Merging(part))).connection)


class _Merging:
    """An SQLite connection that leaves only the database file when it is closed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        """Move the write-ahead log into the database file, and close the connection."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.connection.close()


def _lock(stack: ExitStack, state_dir: str) -> None:
    lock = StateDirectoryLock(os.path.abspath(state_dir))
    lock.acquire()
    stack.callback(lock.release)


def _refuse_used(connection: PostgresConnection, address: Address, now: float) -> None:
    living = living_servers(connection, now)
    if living:
        raise StateDirectoryUnusable(
            f"a server uses {address.location} ({', '.join(living)}); stop it, or, if it has crashed, try again in a"
            " quarter of a minute"
        )
