"""Making, migrating and showing a store on PostgreSQL, for commands: plain calls, while servers run or not."""

from __future__ import annotations

import msgspec

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.store.postgres.address import Address, unreachable
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint, driver
from harn.store.postgres.schema import SCHEMA_VERSION, check_schema, find_schema, migrate
from harn.store.recovery import LAPSE
from harn.store.rows import NAMES

_SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " WHERE c.relnamespace = to_regnamespace($1::text) AND c.relkind = 'r'"
)
_DELIVERIES = "SELECT greatest(state, ended_as), count(*) FROM deliveries GROUP BY 1"
_GENERATIONS = "SELECT coalesce(max(number), 0), count(*) FROM generations WHERE adopted_at IS NOT NULL"
_ALIVE = (
    "SELECT host, pid FROM servers WHERE ended_at IS NULL AND seen_at > $1::float8 AND seen_at <= $2::float8"
    " ORDER BY incarnation"
)


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """A migration of ``store`` from the schema ``before`` (0 for none) to the one ``after``."""

    store: str
    before: int
    after: int


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    A store as it is found.

    ``schema`` is 0 where there are no tables; ``supported`` is this program's. ``servers`` that live: host and process
    id. ``problem`` says why no server of this version can use it, and what to do.
    """

    store: str
    server_version: str
    schema: int
    supported: int
    bytes: int
    generation: int = 0
    generations: int = 0
    deliveries: dict[str, int] = {}
    servers: tuple[str, ...] = ()
    problem: str | None = None


def migrate_store(endpoint: PostgresEndpoint) -> Migrated:
    """
    Make the tables of a store, or bring them up to date. Blocks.

    :raises StateDirectoryUnusable: it cannot be reached, or a newer harn wrote it.
    :raises EventLogUnavailable: a step failed; the next call continues.
    """
    connection, address = endpoint.connect(), endpoint.address
    try:
        before, after = migrate(connection)
    except driver().Error as error:
        raise EventLogUnavailable(unreachable(address.location, error)) from error
    finally:
        connection.close()
    return Migrated(store=address.location, before=before, after=after)


def read_status(endpoint: PostgresEndpoint, now: float) -> StoreStatus:
    """
    Look at a store. Blocks; reads the index of all deliveries.

    :param now: seconds, Unix.
    :raises StateDirectoryUnusable: it cannot be reached.
    :raises EventLogUnavailable: it cannot be read.
    """
    connection, address = endpoint.connect(), endpoint.address
    try:
        with connection.snapshot():
            return _status(connection, address, now)
    except driver().Error as error:
        raise EventLogUnavailable(unreachable(address.location, error)) from error
    finally:
        connection.close()


def _status(connection: PostgresConnection, address: Address, now: float) -> StoreStatus:
    (version,) = connection.execute("SELECT current_setting('server_version')").fetchone()
    (size,) = connection.execute(_SIZE, (address.schema,)).fetchone()
    found = find_schema(connection)
    seen = StoreStatus(
        store=address.location,
        server_version=version,
        schema=found.version,
        supported=SCHEMA_VERSION,
        bytes=size,
    )
    try:
        check_schema(found, address.location)
    except StateDirectoryUnusable as error:
        return msgspec.structs.replace(seen, problem=str(error))
    generation, generations = connection.execute(_GENERATIONS).fetchone()
    return msgspec.structs.replace(
        seen,
        generation=generation,
        generations=generations,
        deliveries={str(NAMES[number]): count for number, count in connection.execute(_DELIVERIES)},
        servers=living_servers(connection, now),
    )


def living_servers(connection: PostgresConnection, now: float) -> tuple[str, ...]:
    """Return host and process id of each server that lives by its heartbeat; ``now`` is seconds, Unix."""
    return tuple(f"{host}:{pid}" for host, pid in connection.execute(_ALIVE, (now - LAPSE, now + LAPSE)))
