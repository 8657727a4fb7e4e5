"""
Reading a store while no server runs: plain calls, no thread, no reactor, and nothing of Twisted.

The ideas of a dialect are those of a server. Their executor runs a read immediately, and returns an `Answer` where that
of a server returns a Deferred; `OfflineStore.ask` takes the result out of it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from msgspec import Struct

from harn.errors import EventLogUnavailable
from harn.store.checkpoints import StandingStatements, encode_checkpoints
from harn.store.database import Arrays, Session
from harn.store.event_log import Payload, encode_record
from harn.store.executor import Executor
from harn.store.halves import AppendUnit

if TYPE_CHECKING:
    from harn.store.checkpoints import ICheckpoints
    from harn.store.deliveries import IDeliveries, IDeliveryLists
    from harn.store.event_log import IEventLog
    from harn.store.generations import IGenerations
    from harn.store.jobs import IJobs
    from harn.store.servers import IServers
    from harn.store.statistics import IStatistics, ITotals

T = TypeVar("T")


class Answer(Struct, frozen=True):
    """The result of a read, in the place of a Deferred that has fired."""

    value: Any


class Source(Protocol):
    """
    An open connection that reads.

    :ivar name: of the store, for messages.
    :ivar error: the class of all errors of its driver.
    :ivar arrays: see `harn.store.database.Database`.
    """

    arrays: Arrays
    name: str
    error: type[Exception]

    def snapshot(self) -> AbstractContextManager[Any]:
        """Return a context that runs statements on one state of the database."""

    def close(self) -> None:
        """Close the connection."""


class OfflineIdeas(Struct, frozen=True, kw_only=True):
    """The ideas that can be read while no server runs; see `harn.store.interfaces.IStore`."""

    deliveries: IDeliveries
    lists: IDeliveryLists
    event_log: IEventLog
    generations: IGenerations
    checkpoints: ICheckpoints
    jobs: IJobs
    servers: IServers
    totals: ITotals
    statistics: IStatistics


class _OfflineReader:
    """Runs reads immediately; in the place of `harn.store.worker.Reader`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, query: Callable[..., Any], *args: Any, **kwargs: Any) -> Answer:
        """
        Run a read.

        :raises EventLogUnavailable: the database cannot be read.
        """
        try:
            with self._source.snapshot() as connection:
                return Answer(query(connection, *args, **kwargs))
        except self._source.error as error:
            raise EventLogUnavailable(f"the event log {self._source.name} cannot be read: {error}") from error


class _NothingRuns:
    """In the place of notes of what runs: without a server nothing does."""

    def read(self) -> Mapping[int, Collection[int]]:
        """See `harn.store.running.RunningNotes.read`."""
        return {}


class _Now:
    """The time of day."""

    def seconds(self) -> float:
        """Return it in seconds, Unix."""
        return time.time()


class OfflineStore:
    """A store that is only read; also a context manager. Each idea is called as a server's, within `ask`."""

    def __init__(self, source: Source, make: Callable[[Executor], OfflineIdeas]) -> None:
        reader, notes, wall = cast(Any, _OfflineReader(source)), cast(Any, _NothingRuns()), cast(Any, _Now())
        ideas = make(Executor(cast(Any, None), reader, notes, wall, source.arrays))
        self._source = source
        self.deliveries = ideas.deliveries
        self.lists = ideas.lists
        self.event_log = ideas.event_log
        self.generations = ideas.generations
        self.checkpoints = ideas.checkpoints
        self.jobs = ideas.jobs
        self.servers = ideas.servers
        self.totals = ideas.totals
        self.statistics = ideas.statistics

    def ask(self, answer: Awaitable[T]) -> T:
        """
        Return the result of a read of this store's, for example ``store.ask(store.generations.history(5))``.

        The read itself raises `EventLogUnavailable` when the database cannot be read.
        """
        result: T = cast(Any, answer).value
        return result

    def close(self) -> None:
        """Close the database."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class OfflineWriter:
    """
    One transaction of a command, on a store that no server uses.

    :param appends: the unit with which the dialect appends a record.
    """

    def __init__(self, session: Session, standing: StandingStatements, appends: type[AppendUnit]) -> None:
        self._session = session
        self._standing = standing
        self._appends = appends

    def get_checkpoint(self, name: str) -> Any:
        """Return the value under a name, or None."""
        return self._standing.read(self._session.connection, name)

    def put_checkpoint(self, name: str, value: Any) -> None:
        """Keep a value under a name; None removes it."""
        self._standing.put_all(self._session, encode_checkpoints({name: value}))

    def append_record(
        self, topic: str, kind: str, payload: Payload, now: float, headers: Mapping[str, str] = {}
    ) -> None:
        """Append a record of a topic; ``now`` is seconds, Unix."""
        unit = self._appends(topic, kind, *encode_record(payload, headers), now)
        self._appends.write_all(self._session, [unit], now)
