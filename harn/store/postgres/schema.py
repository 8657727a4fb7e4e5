"""
The whole schema, put together from the ideas' tables; how it is made, looked at and brought up to date.

Steps are numbered. One process runs them at a time, in a transaction each, under an advisory lock. A server makes the
tables of an empty schema, and migrates nothing by itself: `harn store migrate` does, when an operator says so.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from harn.errors import StateDirectoryUnusable
from harn.store.postgres import claims, deliveries, event_log, generations, jobs, recovery, statistics
from harn.store.postgres.connection import PostgresConnection, quoted
from harn.store.postgres.session import MIGRATIONS, SEQUENCES, lock_key

OLDEST = 1
"""The oldest schema whose servers can write to a database of the newest: a step that does not only add raises it."""

_VERSION = """
-- One row. `oldest`: servers of this schema and of newer ones can write to the database.
CREATE TABLE schema_version (version integer NOT NULL, oldest integer NOT NULL);
"""

SCHEMA = "".join(
    (
        _VERSION,
        SEQUENCES,
        deliveries.TABLES,
        claims.TABLES,
        event_log.TABLES,
        generations.TABLES,
        recovery.TABLES,
        jobs.TABLES,
        statistics.TABLES,
    )
)
"""For a new database: the newest version."""

_STEPS: dict[int, str] = {}
"""For each version of the schema above 1, the statements that make it out of the previous one."""
SCHEMA_VERSION = 1 + len(_STEPS)
"""The version of `SCHEMA`: that of the last step."""

_IS_THERE = "SELECT to_regclass($1) IS NOT NULL"


class FoundSchema(Struct, frozen=True):
    """The version of the schema of a database, and the oldest whose servers can write to it; 0 where there is none."""

    version: int
    oldest: int = 0


def find_schema(connection: PostgresConnection) -> FoundSchema:
    """Return which schema a database has."""
    table = f"{quoted(connection.schema)}.schema_version"
    (is_there,) = connection.execute(_IS_THERE, (table,)).fetchone()
    if not is_there:
        return FoundSchema(0)
    row = connection.execute("SELECT version, oldest FROM schema_version").fetchone()
    return FoundSchema(0) if row is None else FoundSchema(*row)


def check_schema(found: FoundSchema, location: str) -> None:
    """
    Refuse a schema that this program can neither read nor write.

    :raises StateDirectoryUnusable: it is missing, older or newer; says what to do.
    """
    if not found.version:
        raise StateDirectoryUnusable(
            f"{location} has no tables of harn's; a server that starts on it makes them, as does: harn store migrate"
        )
    if found.version < SCHEMA_VERSION:
        raise StateDirectoryUnusable(
            f"{location} was written by an older harn (schema {found.version}, this one needs {SCHEMA_VERSION});"
            " make a backup (pg_dump), then run: harn store migrate"
        )
    if found.version > SCHEMA_VERSION and found.oldest > SCHEMA_VERSION:
        raise StateDirectoryUnusable(
            f"{location} was written by a newer harn (schema {found.version}, this one supports {SCHEMA_VERSION});"
            " run that version again, or name another database"
        )


def migrate(connection: PostgresConnection) -> tuple[int, int]:
    """
    Make the tables where there are none, or bring them up to date; return the versions before and after. Blocks.

    :raises StateDirectoryUnusable: a newer harn wrote them.
    :raises psycopg.Error: a step failed; those before it are done, and the next call continues.
    """
    with _alone(connection):
        found = find_schema(connection)
        if not found.version:
            with connection.transaction():
                connection.run(f"CREATE SCHEMA IF NOT EXISTS {quoted(connection.schema)}")
                connection.run(SCHEMA)
                connection.run(f"INSERT INTO schema_version VALUES ({SCHEMA_VERSION}, {OLDEST})")
            return 0, SCHEMA_VERSION
        for step in range(found.version + 1, SCHEMA_VERSION + 1):
            with connection.transaction():
                connection.run(_STEPS[step])
                connection.run(f"UPDATE schema_version SET version = {step}, oldest = {OLDEST}")
        if found.version > SCHEMA_VERSION:
            check_schema(found, "the database")
        return found.version, max(found.version, SCHEMA_VERSION)


@contextmanager
def _alone(connection: PostgresConnection) -> Iterator[None]:
    """Keep other processes from migrating the same schema meanwhile; wait for one that does."""
    key = f"{MIGRATIONS}, {lock_key(connection.schema)}::integer"
    connection.run(f"SET lock_timeout = 0; SELECT pg_advisory_lock({key})")
    try:
        yield
    finally:
        if not connection.is_broken:
            connection.run(f"SELECT pg_advisory_unlock({key})")
