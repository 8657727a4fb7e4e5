"""One PostgreSQL server for all tests of a process, and a store on an empty schema of it for each test."""

from __future__ import annotations

import atexit
import os
from functools import cache
from importlib.util import find_spec
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from harn.store.postgres.address import Address
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint
from harn.store.postgres.database import PostgresDatabase
from harn.store.postgres.schema import migrate
from harn.store.postgres.store import PostgresStore
from harn.testing.postgres import URL_VARIABLE, LocalPostgres, NoPostgres
from harn.testing.stores.kit import StoreTestCase

_TABLES = "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = current_schema()"


@cache
def server() -> LocalPostgres | None:
    """Start the server that these tests share; None where they are given one by its URL."""
    if find_spec("psycopg") is None:
        raise SkipTest("psycopg is not installed: pip install 'harn[postgres]'")
    if os.environ.get(URL_VARIABLE):
        return None
    try:
        found = LocalPostgres()
        atexit.register(found.close)
        found.start()
    except NoPostgres as why:
        raise SkipTest(f"no PostgreSQL: {why}; or name one with {URL_VARIABLE}") from None
    return found


def url(schema: str = "harn") -> str:
    """Return the address of a schema of that server."""
    try:
        running = server()
    except SkipTest as why:
        server.cache_clear()
        raise SkipTest(str(why)) from None
    base = os.environ[URL_VARIABLE] if running is None else running.url()
    return f"{base}{'&' if '?' in base else '?'}schema={schema}"


def own_postgres(case: SynchronousTestCase) -> LocalPostgres:
    """Start a PostgreSQL server that one test has to itself, and may kill; skip the test where there is none."""
    try:
        found = LocalPostgres(settings=("autovacuum=off",))
        case.addCleanup(found.close)
        found.start()
    except NoPostgres as why:
        raise SkipTest(f"no PostgreSQL: {why}") from None
    return found


class NoSecrets:
    """Refuses to return a secret."""

    def resolve(self, reference: Any) -> bytes:
        """See `ISecretReader.resolve`."""
        raise AssertionError(f"no secret is asked for, got {reference}")


def endpoint(text: str) -> PostgresEndpoint:
    """Return the endpoint of a URL."""
    return PostgresEndpoint(Address.read(text), NoSecrets())


@cache
def connection(schema: str) -> PostgresConnection:
    """Return a connection to a schema, which is made."""
    found = endpoint(url(schema)).connect()
    found.run(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    migrate(found)
    return found


def emptied(schema: str) -> PostgresConnection:
    """Return a connection to a schema of which all tables but its version are empty."""
    found = connection(schema)
    tables = found.run(_TABLES)[0].split(", ")
    deletes = "; ".join(f"DELETE FROM {name}" for name in tables if name != "schema_version")
    found.run(f"{deletes}; {_RESTART}")
    return found


_RESTART = "; ".join(
    (
        *(f"SELECT setval('{each}_numbers', 0, false)" for each in ("delivery", "attempt", "dead", "record")),
        *(f"ALTER SEQUENCE {each} RESTART" for each in ("servers_incarnation_seq", "jobs_id_seq")),
    )
)


def schema_of_process() -> str:
    """Return the schema of this process's tests: several may run on one server."""
    return f"harn_test_{os.getpid()}"


def make_store(case: StoreTestCase, directory: str, clock: Any, home: str = "home", **given: Any) -> PostgresStore:
    """Make a store on the schema of this process, as it is; ``given``: further parameters of `PostgresDatabase`."""
    database = PostgresDatabase(endpoint(url(schema_of_process())), directory, clock, home, **given)
    return PostgresStore.at(database, clock)


def make_database(directory: str, clock: Any) -> PostgresDatabase:
    """Make the database of the schema of this process, as it is."""
    return PostgresDatabase(endpoint(url(schema_of_process())), directory, clock, "home")
