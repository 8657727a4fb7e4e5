"""The store on SQLite, put together from its ideas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from harn.clocks import WallTime
from harn.store.database import Database
from harn.store.interfaces import IStore
from harn.store.retention import RetentionPolicy
from harn.store.sqlite import recovery, retention
from harn.store.sqlite.connection import Session, unreadable
from harn.store.sqlite.database import DatabaseFile
from harn.store.sqlite.deliveries import SQLiteDeliveries
from harn.store.sqlite.event_log import SQLiteEventLog
from harn.store.sqlite.generations import SQLiteCheckpoints, SQLiteGenerations
from harn.store.sqlite.inbox import SQLiteInbox
from harn.store.sqlite.jobs import SQLiteJobs
from harn.store.sqlite.lists import SQLiteDeliveryLists
from harn.store.sqlite.recovery import SQLiteRecovery
from harn.store.sqlite.servers import SQLiteServers
from harn.store.sqlite.statistics import SQLiteStatistics, SQLiteTotals
from harn.store.store import Beat, DatabaseStore, Guard
from harn.store.worker import ThreadWorkers, Workers

DATABASE_FILE = "events.sqlite"
"""The database's name in a state directory."""


class SQLiteStatements:
    """See `harn.store.store.Statements`."""

    def register(self, session: Session, beat: Beat) -> int:
        """See `Statements.register`."""
        return recovery.register(session, beat)

    def renew(self, session: Session, beat: Beat) -> None:
        """See `Statements.renew`."""
        recovery.renew(session, beat)

    def last_seen(self, session: Session) -> Mapping[int, float]:
        """See `Statements.last_seen`."""
        return recovery.last_seen(session.connection)

    def trim(self, session: Session, policy: RetentionPolicy, now: float, limit: int) -> int:
        """See `Statements.trim`."""
        return retention.SQLiteTrimming().trim(session, policy, now, limit)

    def shrink(self, session: Session, pages: int) -> int:
        """See `Statements.shrink`."""
        return retention.shrink(session, pages)

    def unreadable(self, name: str, error: Exception) -> str:
        """See `Statements.unreadable`."""
        return unreadable(name, error)


@implementer(IStore)
class SQLiteStore(DatabaseStore):
    """
    A store in one SQLite database; `at` makes one over a file.

    What keeps a second server off the file is the state directory's lock (`harn.store.lock`), which the caller holds;
    while one server takes over from another, both may write: each waits for the other's commit, and neither gives a
    number that the other gave.
    """

    backend = "sqlite"
    is_shared = False

    def __init__(self, database: Database, workers: Workers, wall: WallTime, guard: Guard | None = None) -> None:
        super().__init__(database, SQLiteStatements(), workers, wall, guard)
        self.inbox = SQLiteInbox(self._executor)
        self.deliveries = SQLiteDeliveries(self._executor)
        self.lists = SQLiteDeliveryLists(self._executor)
        self.recovery = SQLiteRecovery(self._executor)
        self.event_log = SQLiteEventLog(self._executor)
        self.generations = SQLiteGenerations(self._executor)
        self.jobs = SQLiteJobs(self._executor)
        self.servers = SQLiteServers(self._executor)
        self.checkpoints = SQLiteCheckpoints(self._executor)
        self.totals = SQLiteTotals(self._executor)
        self.statistics = SQLiteStatistics(self._executor)

    @classmethod
    def at(
        cls,
        path: str,
        reactor: Any,
        *,
        wall: WallTime | None = None,
        guard: Guard | None = None,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        evidence: Sequence[str] = (),
    ) -> SQLiteStore:
        """
        Make a store over the file at ``path``, with threads of its own.

        :param reactor: an `IReactorTime`, whose turns end the batches; and an `IReactorFromThreads`, which takes the
            answers of the store's threads.
        :param wall: ``reactor`` if None.
        :param synchronous: see `DatabaseFile`.
        :param busy_timeout: see `DatabaseFile`.
        :param evidence: see `DatabaseFile`.
        """
        database = DatabaseFile(path, synchronous=synchronous, busy_timeout=busy_timeout, evidence=evidence)
        return cls(database, ThreadWorkers(reactor), wall or reactor, guard)
