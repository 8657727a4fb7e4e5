"""The store on PostgreSQL, put together from its ideas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from harn.clocks import WallTime
from harn.lifecycle import Lifecycle
from harn.store.interfaces import IStore
from harn.store.postgres import recovery, retention
from harn.store.postgres.address import unreachable
from harn.store.postgres.database import PostgresDatabase
from harn.store.postgres.deliveries import PostgresDeliveries
from harn.store.postgres.event_log import PostgresEventLog
from harn.store.postgres.generations import PostgresCheckpoints, PostgresGenerations
from harn.store.postgres.inbox import PostgresInbox
from harn.store.postgres.jobs import PostgresJobs
from harn.store.postgres.listening import Listening
from harn.store.postgres.lists import PostgresDeliveryLists
from harn.store.postgres.recovery import PostgresRecovery
from harn.store.postgres.servers import PostgresServers
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.statistics import PostgresStatistics, PostgresTotals
from harn.store.retention import RetentionPolicy
from harn.store.store import Beat, DatabaseStore, Guard
from harn.store.worker import ThreadWorkers, Workers


class PostgresStatements:
    """
    See `harn.store.store.Statements`.

    :param home: names the state directory of this server.
    """

    def __init__(self, home: str) -> None:
        self._home = home

    def register(self, session: PostgresSession, beat: Beat) -> int:
        """See `Statements.register`."""
        return recovery.register(session, beat, self._home)

    def renew(self, session: PostgresSession, beat: Beat) -> None:
        """See `Statements.renew`."""
        recovery.renew(session, beat)

    def last_seen(self, session: PostgresSession) -> Mapping[int, float]:
        """See `Statements.last_seen`: of those on the same state directory, whose lock keeps others off that alone."""
        return recovery.last_seen(session.connection, self._home)

    def trim(self, session: PostgresSession, policy: RetentionPolicy, now: float, limit: int) -> int:
        """See `Statements.trim`."""
        return retention.PostgresTrimming().trim(session, policy, now, limit)

    def shrink(self, session: PostgresSession, pages: int) -> int:
        """See `Statements.shrink`: PostgreSQL gives back what it can by itself."""
        return 0

    def unreadable(self, name: str, error: Exception) -> str:
        """See `Statements.unreadable`."""
        return unreachable(name, error)


@implementer(IStore)
class PostgresStore(DatabaseStore):
    """A store in one schema of a PostgreSQL database; `at` makes one over a URL."""

    backend = "postgresql"
    is_shared = True

    def __init__(
        self, database: PostgresDatabase, workers: Workers, wall: WallTime, guard: Guard | None = None
    ) -> None:
        super().__init__(database, PostgresStatements(database.home), workers, wall, guard)
        self._postgres = database
        self._lifecycle: Lifecycle | None = None
        self._listening: Listening | None = None
        self.inbox = PostgresInbox(self._executor)
        self.deliveries = PostgresDeliveries(self._executor)
        self.lists = PostgresDeliveryLists(self._executor)
        self.recovery = PostgresRecovery(self._executor)
        self.event_log = PostgresEventLog(self._executor)
        self.generations = PostgresGenerations(self._executor)
        self.jobs = PostgresJobs(self._executor)
        self.servers = PostgresServers(self._executor)
        self.checkpoints = PostgresCheckpoints(self._executor)
        self.totals = PostgresTotals(self._executor)
        self.statistics = PostgresStatistics(self._executor)

    @classmethod
    def at(
        cls, database: PostgresDatabase, reactor: Any, *, wall: WallTime | None = None, guard: Guard | None = None
    ) -> PostgresStore:
        """
        Make a store over a database, with threads of its own.

        :param reactor: see `harn.store.sqlite.store.SQLiteStore.at`.
        :param wall: see `harn.store.sqlite.store.SQLiteStore.at`.
        :param guard: see `harn.store.sqlite.store.SQLiteStore.at`.
        """
        return cls(database, ThreadWorkers(reactor), wall or reactor, guard)

    def follow(self, lifecycle: Lifecycle) -> None:
        """See `IChanges.follow`."""
        self._lifecycle = lifecycle

    def open(self) -> Deferred[None]:
        """See `IStore.open`."""
        return super().open().addCallback(self._listen)

    def _listen(self, _: object) -> None:
        if self._lifecycle is not None:
            worker = self._workers.worker("harn-store-listener")
            self._listening = Listening(worker, self._postgres, self._lifecycle, self.incarnation)
            self._listening.open()

    def close(self) -> Deferred[None]:
        """See `IStore.close`."""
        self._postgres.give_up_waiting()
        listening, self._listening = self._listening, None
        if listening is None:
            return super().close()
        return listening.close().addCallback(lambda _: super(PostgresStore, self).close())
