"""Reading a state directory's event log when no server runs: plain calls, no lock, no thread, no reactor."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.model.delivery import StoredDelivery
from harn.store.deliveries import Backlog
from harn.store.event_log import Record
from harn.store.generations import GenerationRecord, LiveBinding
from harn.store.sqlite import deliveries, generations, records
from harn.store.sqlite.schema import connect_reader, read_whole

P = ParamSpec("P")
T = TypeVar("T")


def open_readonly(path: str) -> OfflineStore:
    """
    Open the event log at ``path``; a write-ahead log that a crash left is read, too, and is left as it is.

    :raises StateDirectoryUnusable: there is none, it is not ours, or it cannot be read; the message says which.
    """
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
    try:
        return OfflineStore(path, connect_reader(path))
    except sqlite3.Error as error:
        raise StateDirectoryUnusable(unreadable(path, error)) from error


def unreadable(path: str, error: sqlite3.Error) -> str:
    """Say why ``path`` cannot be used, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        advice = "restore it from a backup, or move it away to begin with an empty event log"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        advice = "another process holds it; end that, and try again"
    elif code == sqlite3.SQLITE_FULL:
        advice = "make room on its disk"
    else:
        advice = "check that it and its directory can be read and written by this user"
    return f"the event log {path} cannot be used: {error}; {advice}"


class OfflineStore:
    """
    The reading methods of `harn.store.interfaces.IStore`, with plain results; also a context manager.

    Each raises `EventLogUnavailable` when the database cannot be read.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def read(self, topic: str, after: int, limit: int) -> Sequence[Record]:
        """See `IEventLog.read`."""
        return self._run(records.read, topic, after, limit)

    def latest(self, topic: str) -> int:
        """See `IEventLog.latest`."""
        return self._run(records.latest, topic)

    def topics(self) -> Sequence[str]:
        """See `IEventLog.topics`."""
        return self._run(records.topics)

    def find(self, event_id: str) -> Sequence[StoredDelivery]:
        """See `IDeliveries.find`."""
        return self._run(deliveries.find, event_id)

    def backlog(self) -> Sequence[Backlog]:
        """See `IDeliveries.backlog`."""
        return self._run(deliveries.backlog)

    def stranded(self, older_than: float, limit: int) -> Sequence[StoredDelivery]:
        """See `IDeliveries.stranded`; whoever's they are, since no server runs."""
        return self._run(deliveries.stranded, (), older_than, limit)

    def last(self) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        return self._run(generations.last)

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        return self._run(generations.history, limit)

    def generation(self, number: int) -> GenerationRecord | None:
        """See `IGenerations.generation`."""
        return self._run(generations.generation, number)

    def manifest(self, digest: str) -> bytes | None:
        """See `IGenerations.manifest`."""
        return self._run(generations.manifest, digest)

    def bundle(self, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        return self._run(generations.bundle, bundle_id)

    def latest_bindings(self) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        return self._run(generations.latest_bindings)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read_whole(self._connection, lambda connection: query(connection, *args, **kwargs))
        except sqlite3.Error as error:
            raise EventLogUnavailable(f"the event log {self._path} cannot be read: {error}") from error
