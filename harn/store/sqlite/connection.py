"""
Connections: those that read, with the check of a database's application id and schema version; and the writer's, with
the numbers that it gives, and how it writes many rows in one statement.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from harn.errors import StateDirectoryUnusable
from harn.store.database import Arrays, Numbers
from harn.store.sqlite.migrations import SCHEMA_VERSION

P = ParamSpec("P")
T = TypeVar("T")

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
    """Run statements within one transaction, so that all of them see one state."""
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


def unreadable(path: str, error: Exception) -> str:
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


MOST_ROWS = 32
"""Rows of one statement. Each number of rows is a prepared statement of its own, some 30 KB at this size."""

LARGE = 16 * 1024
"""
Bytes of a body, or of a result, above which it is written by a statement of its own.

SQLite copies what is bound to a statement, and Python keeps each prepared statement, one for each number of rows, with
what was bound to it last.
"""

blob = bytearray
"""
Makes a copy of bytes that is bound to a statement as it is.

Python's ``sqlite3`` looks for an adapter of each value that is not exactly an int, float, str or bytearray; for bytes,
None and True that takes more than a microsecond. So statements of which thousands of rows come each second are given
blobs and ints, and leave out columns that are empty.
"""

_NUMBERS = """
SELECT name, max(highest) FROM (
    SELECT name, highest FROM numbers
    UNION ALL SELECT 'delivery', max(id) FROM deliveries
    UNION ALL SELECT 'attempt', max(id) FROM attempts
    UNION ALL SELECT 'dead', max(dead_number) FROM deliveries WHERE dead_number IS NOT NULL
    UNION ALL SELECT 'record', max(number) FROM log
) GROUP BY name
"""

_KEEP_NUMBERS = (
    "INSERT INTO numbers (name, highest) VALUES {} ON CONFLICT (name) DO UPDATE SET highest = excluded.highest"
)

_ABOUT_THE_UNIT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
_CONNECTION_IS_SOUND = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_HAS_RELEASED = "SELECT 1 FROM claims WHERE expires_at < 0 LIMIT 1"


class JsonArrays:
    """See `harn.store.database.Arrays`: SQLite takes many values apart with ``json_each``."""

    def of(self, values: Collection[Any]) -> str:
        """See `Arrays.of`."""
        return json.dumps(list(values))

    def pairs(self, versions: Collection[tuple[str, int]]) -> tuple[Any, ...]:
        """See `Arrays.pairs`: one array of arrays."""
        return (json.dumps(list(versions)),)


ARRAYS = JsonArrays()


class Session:
    """
    One connection that writes; the transaction around a unit is the caller's.

    Numbers are counted here rather than asked of SQLite for each row. They are read again after a transaction that
    failed, and when another process wrote: while a server takes over from another, the two share the database.

    :param incarnation: the ``owner`` of accepted deliveries; 0 until this server is registered.
    :ivar has_released: False while no dead letter has released a claim; to save a statement for each batch.
    """

    error: type[Exception] = sqlite3.Error

    def __init__(self, connection: sqlite3.Connection, incarnation: int) -> None:
        self.arrays: Arrays = ARRAYS
        self.connection = connection
        self.incarnation = incarnation
        self.numbers = Numbers(delivery=0, attempt=0, dead=0, record=0)
        self.has_released = False
        self._seen: int | None = None
        self.read_numbers()

    def begin(self) -> None:
        """
        Begin a transaction as the only writer, with the right numbers.

        :raises sqlite3.OperationalError: another process held the database for longer than the busy timeout.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        # It changes when another connection has committed, and only then.
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version != self._seen:
            self.read_numbers()
            self._seen = version

    def commit(self) -> None:
        """See `harn.store.database.Session.commit`."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """See `harn.store.database.Session.roll_back`."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def begin_unit(self) -> None:
        """See `harn.store.database.Session.begin_unit`."""
        self.connection.execute("SAVEPOINT unit")

    def undo_unit(self) -> None:
        """See `harn.store.database.Session.undo_unit`."""
        self.connection.execute("ROLLBACK TO unit")

    def end_unit(self) -> None:
        """See `harn.store.database.Session.end_unit`."""
        self.connection.execute("RELEASE unit")

    def settle_log(self) -> None:
        """See `harn.store.database.Session.settle_log`."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def is_about_unit(self, error: Exception) -> bool:
        """See `harn.store.database.Session.is_about_unit`."""
        return isinstance(error, _ABOUT_THE_UNIT)

    def is_sound_after(self, error: BaseException) -> bool:
        """See `harn.store.database.Session.is_sound_after`."""
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CONNECTION_IS_SOUND

    def close(self) -> None:
        """See `harn.store.database.Session.close`."""
        self.connection.close()

    def read_numbers(self) -> None:
        """Read the latest numbers from the database."""
        found = dict(self.connection.execute(_NUMBERS).fetchall())
        self.numbers = Numbers(**{name: highest or 0 for name, highest in found.items()})
        self.has_released = self.connection.execute(_HAS_RELEASED).fetchone() is not None

    def keep_numbers(self) -> None:
        """See `harn.store.database.Session.keep_numbers`."""
        numbers = self.numbers
        rows = (
            ("delivery", numbers.delivery),
            ("attempt", numbers.attempt),
            ("dead", numbers.dead),
            ("record", numbers.record),
        )
        self.write_rows(_KEEP_NUMBERS, rows)

    def write_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """See `harn.store.database.Session.write_rows`: the rows take the place of ``{}`` after ``VALUES``."""
        if not rows:
            return 0
        head, _, tail = statement.partition("{}")
        return self.execute_rows(head, len(rows[0]), [value for row in rows for value in row], tail)

    def notify(self, topic: str) -> None:
        """See `harn.store.database.Session.notify`: one server uses the database."""

    def release_claims(self, statement: str, values: Sequence[Any]) -> None:
        """See `harn.store.database.Session.release_claims`."""
        self.connection.execute(statement, values)
        self.has_released = True

    def execute_rows(
        self, head: str, width: int, values: Sequence[Any], tail: str = "", tail_values: Sequence[Any] = ()
    ) -> int:
        """
        Run ``head``, a ``VALUES`` list, ``tail``.

        Each call of SQLite releases Python's interpreter lock and has to win it back from a busy reactor thread, so a
        batch is written with few calls rather than one for each row.

        :param width: values in a row.
        :param values: those of all rows, one after the other.
        :return: how many rows of the database were changed.
        """
        most = MOST_ROWS * width
        execute = self.connection.execute
        if len(values) <= most:
            statement = _statement(head, width, len(values) // width, tail)
            return execute(statement, [*values, *tail_values] if tail_values else values).rowcount
        changed = 0
        for start in range(0, len(values), most):
            part = values[start : start + most]
            statement = _statement(head, width, len(part) // width, tail)
            changed += execute(statement, [*part, *tail_values]).rowcount
        return changed


@cache
def _statement(head: str, width: int, rows: int, tail: str) -> str:
    row = "(" + ", ".join("?" * width) + ")"
    return head + ", ".join([row] * rows) + tail
