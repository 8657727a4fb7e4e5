"""The database of a state directory on which no server runs: read, or written in one durable transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import quote

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.store.database import Arrays
from harn.store.executor import Executor
from harn.store.offline import OfflineIdeas, OfflineStore, OfflineWriter
from harn.store.sqlite.connection import ARRAYS, Session, check_schema, connect_reader, snapshot, unreadable
from harn.store.sqlite.deliveries import SQLiteDeliveries
from harn.store.sqlite.event_log import Append, SQLiteEventLog
from harn.store.sqlite.generations import STANDING, SQLiteCheckpoints, SQLiteGenerations
from harn.store.sqlite.jobs import SQLiteJobs
from harn.store.sqlite.lists import SQLiteDeliveryLists
from harn.store.sqlite.migrations import SCHEMA_VERSION
from harn.store.sqlite.servers import SQLiteServers
from harn.store.sqlite.statistics import SQLiteStatistics, SQLiteTotals


class FileSource:
    """See `harn.store.offline.Source`."""

    arrays: Arrays = ARRAYS
    error: type[Exception] = sqlite3.Error

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.name = path
        self._connection = connection

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """See `Source.snapshot`."""
        if self._connection.in_transaction:  # its caller keeps it on one state
            return nullcontext(self._connection)
        return snapshot(self._connection)

    def close(self) -> None:
        """See `Source.close`."""
        self._connection.close()


def open_readonly(path: str) -> OfflineStore:
    """
    Open the event log at ``path``; a write-ahead log that a crash left is read, too, and is left as it is.

    :raises StateDirectoryUnusable: there is none, it is another program's, or cannot be read; the message says which.
    """
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
    try:
        return read_offline(path, connect_reader(path))
    except sqlite3.Error as error:
        raise StateDirectoryUnusable(unreadable(path, error)) from error


def read_offline(path: str, connection: sqlite3.Connection) -> OfflineStore:
    """Return a store that is read over a connection; ``path`` is for messages."""
    return OfflineStore(FileSource(path, connection), _ideas)


def _ideas(executor: Executor) -> OfflineIdeas:
    return OfflineIdeas(
        deliveries=SQLiteDeliveries(executor),
        lists=SQLiteDeliveryLists(executor),
        event_log=SQLiteEventLog(executor),
        generations=SQLiteGenerations(executor),
        checkpoints=SQLiteCheckpoints(executor),
        jobs=SQLiteJobs(executor),
        servers=SQLiteServers(executor),
        totals=SQLiteTotals(executor),
        statistics=SQLiteStatistics(executor),
    )


@contextmanager
def write_offline(path: str) -> Iterator[OfflineWriter]:
    """
    Run the writes of a command as one transaction; the caller holds the state directory's lock.

    :raises StateDirectoryUnusable: there is no database, it is not harn's, or its schema is another one.
    :raises EventLogUnavailable: it cannot be written; nothing was.
    """
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=5.0, isolation_level=None)
    try:
        version = check_schema(connection, path)
        if version != SCHEMA_VERSION:
            raise StateDirectoryUnusable(
                f"{path} has the schema {version}, this harn writes {SCHEMA_VERSION}; start a server on its state"
                " directory once, which brings it up to date"
            )
        connection.execute("PRAGMA synchronous = FULL")
        session = Session(connection, 0)
        session.begin()
        yield OfflineWriter(session, STANDING, Append)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise EventLogUnavailable(unreadable(path, error)) from error
    finally:
        connection.close()  # rolls back what was not committed
