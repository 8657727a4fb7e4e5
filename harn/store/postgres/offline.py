"""A store on PostgreSQL that no server uses: read, or written in one durable transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from harn.errors import EventLogUnavailable
from harn.store.database import Arrays
from harn.store.executor import Executor
from harn.store.offline import OfflineIdeas, OfflineStore, OfflineWriter
from harn.store.postgres import recovery
from harn.store.postgres.address import unreachable
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint, driver
from harn.store.postgres.deliveries import PostgresDeliveries
from harn.store.postgres.event_log import PostgresAppend, PostgresEventLog
from harn.store.postgres.generations import STANDING, PostgresCheckpoints, PostgresGenerations
from harn.store.postgres.jobs import PostgresJobs
from harn.store.postgres.lists import PostgresDeliveryLists
from harn.store.postgres.schema import check_schema, find_schema
from harn.store.postgres.servers import PostgresServers
from harn.store.postgres.session import ARRAYS, PostgresSession
from harn.store.postgres.statistics import PostgresStatistics, PostgresTotals


def connect_checked(endpoint: PostgresEndpoint) -> PostgresConnection:
    """
    Connect to a store whose tables this program can use.

    :raises StateDirectoryUnusable: it cannot be reached, has no tables, or those of another version.
    """
    connection = endpoint.connect()
    try:
        check_schema(find_schema(connection), endpoint.address.location)
    except BaseException:
        connection.close()
        raise
    return connection


class DatabaseSource:
    """See `harn.store.offline.Source`."""

    arrays: Arrays = ARRAYS

    def __init__(self, name: str, connection: PostgresConnection) -> None:
        self.name = name
        self.error: type[Exception] = driver().Error
        self._connection = connection

    def snapshot(self) -> AbstractContextManager[PostgresConnection]:
        """See `Source.snapshot`."""
        return self._connection.snapshot()

    def close(self) -> None:
        """See `Source.close`."""
        self._connection.close()


def open_readonly(endpoint: PostgresEndpoint) -> OfflineStore:
    """
    Open a store to read it.

    :raises StateDirectoryUnusable: see `connect_checked`.
    """
    return OfflineStore(DatabaseSource(endpoint.address.location, connect_checked(endpoint)), _ideas)


def _ideas(executor: Executor) -> OfflineIdeas:
    return OfflineIdeas(
        deliveries=PostgresDeliveries(executor),
        lists=PostgresDeliveryLists(executor),
        event_log=PostgresEventLog(executor),
        generations=PostgresGenerations(executor),
        checkpoints=PostgresCheckpoints(executor),
        jobs=PostgresJobs(executor),
        servers=PostgresServers(executor),
        totals=PostgresTotals(executor),
        statistics=PostgresStatistics(executor),
    )


@contextmanager
def write_offline(endpoint: PostgresEndpoint, home: str) -> Iterator[OfflineWriter]:
    """
    Run the writes of a command as one transaction; the caller holds the lock of the state directory ``home``.

    :raises StateDirectoryUnusable: see `connect_checked`; or a server of another state directory uses the store.
    :raises EventLogUnavailable: it cannot be written; nothing was.
    """
    connection = connect_checked(endpoint)
    try:
        recovery.refuse_second(connection, home, time.time(), endpoint.address.location)
        session = PostgresSession(connection, 0, endpoint)
        session.begin()
        yield OfflineWriter(session, STANDING, PostgresAppend)
        session.commit()
    except driver().Error as error:
        raise EventLogUnavailable(unreachable(endpoint.address.location, error)) from error
    finally:
        connection.close()  # rolls back what was not committed
