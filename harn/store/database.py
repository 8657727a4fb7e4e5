"""
The database as the writer and the reader of a store need it: connections, transactions, and errors.

`harn.store.sqlite` and other dialects bring these; whatever is the same for all of them is in `harn.store` itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define

if TYPE_CHECKING:
    from harn.store.running import RunningNotes
    from harn.store.worker import Worker


@define
class Numbers:
    """The numbers given last: of deliveries, attempts, dead letters in the order of dying, records of the log."""

    delivery: int
    attempt: int
    dead: int
    record: int

    def copy(self) -> Numbers:
        """Return a copy."""
        return Numbers(self.delivery, self.attempt, self.dead, self.record)


class Rows(Protocol):
    """The result of a statement: its rows, in order."""

    @property
    def rowcount(self) -> int:
        """The number of rows that were written."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection of a database's driver."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Rows:
        """Run a statement with its values."""


class Arrays(Protocol):
    """The form in which a dialect gives many values to one statement."""

    def of(self, values: Collection[Any]) -> Any:
        """Return numbers or texts as one value of a statement."""

    def pairs(self, versions: Collection[tuple[str, int]]) -> tuple[Any, ...]:
        """Return binding versions (trigger id, number) as values of a statement, as many as the dialect needs."""


class Session(Protocol):
    """
    One connection that writes, used in the writer's thread; the transaction around a unit is the caller's.

    :ivar incarnation: the ``owner`` of accepted deliveries; 0 until this server is registered.
    :ivar numbers: counted here, rather than asked of the database for each row.
    :ivar arrays: see `Database`.
    """

    arrays: Arrays
    incarnation: int
    numbers: Numbers

    @property
    def connection(self) -> Connection:
        """The connection, for statements."""

    @property
    def error(self) -> type[Exception]:
        """The class of all errors of the database's driver."""

    def begin(self) -> None:
        """Begin a transaction as the only writer, with the right numbers."""

    def commit(self) -> None:
        """Make the transaction durable."""

    def roll_back(self) -> None:
        """Undo the transaction, if there is one."""

    def begin_unit(self) -> None:
        """Begin a unit that can be undone alone, within the transaction."""

    def undo_unit(self) -> None:
        """Undo the writes since `begin_unit`; `end_unit` follows."""

    def end_unit(self) -> None:
        """End the unit that `begin_unit` began."""

    def write_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement that writes a batch of rows, with the columns of each; return how many were written."""

    def notify(self, topic: str) -> None:
        """Send a topic of `harn.store.changes` to other servers, once the transaction is committed."""

    def release_claims(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement that releases the claims of dead letters."""

    def read_numbers(self) -> None:
        """Read the latest numbers from the database, after a transaction that failed."""

    def keep_numbers(self) -> None:
        """Write the numbers down, before rows that had them are removed, or have others."""

    def settle_log(self) -> None:
        """See `harn.store.retention.IRetention.settle_log`; where that cannot be done now, do nothing."""

    def is_about_unit(self, error: Exception) -> bool:
        """Return whether an error of the database's says that what was to be written is wrong, and it is not."""

    def is_sound_after(self, error: BaseException) -> bool:
        """Return whether the connection can be used on after an error, once the transaction is undone."""

    def close(self) -> None:
        """Close the connection, however it is."""


class Database(Protocol):
    """
    Where a store keeps its data. A server's outlives it; a test may bring one in memory.

    Every method but `notes` is called in the writer's thread, `connect_reader` and `snapshot` in the reader's.

    :ivar arrays: how many values are given to one statement.
    :ivar location: a path or URL without credentials, or None.
    :ivar name: the same for messages, always there.
    :ivar patience: seconds of one batch after which it counts as away; None for one that cannot be without an error.
    :ivar longest_read: seconds after which a read is ended, by the method ``abort`` of its connection, which another
        thread calls; None for one that cannot be without an answer.
    :ivar is_exclusive: a lock that the caller holds keeps others off, but for one that takes over: a server whose
        heartbeat was not renewed since this one started is gone. Else it lives until its heartbeat lapses.
    """

    arrays: Arrays
    location: str | None
    name: str
    is_exclusive: bool
    longest_read: float | None
    patience: float | None

    @property
    def error(self) -> type[Exception]:
        """The class of all errors of its driver."""

    def open(self) -> Session:
        """
        Open the database for writing for the first time, and make it if there has been none.

        :raises StateDirectoryUnusable: it cannot be used; the message says what to do.
        """

    def opened(self, session: Any) -> None:
        """Called when this server's row was written."""

    def reopen(self, incarnation: int) -> Session:
        """
        Open the database for writing again, after the connection failed.

        :raises EventLogGone: it is not the one that was opened before.
        """

    def committed(self, session: Any, *, thorough: bool) -> None:
        """
        Check after a commit that what was written can be found again, and note how far the data goes.

        :param thorough: check all that can be checked.
        :raises EventLogGone: it went to files that were removed or replaced.
        """

    def disconnected(self) -> None:
        """Called when the connection was closed after a failure."""

    def close(self, session: Any) -> None:
        """Close the connection, if there is one, and all other open ones."""

    def connect_reader(self) -> Any:
        """
        Return a connection for reading, which has a method ``close``.

        :raises StateDirectoryUnusable: it cannot be opened or read.
        """

    def snapshot(self, connection: Any) -> AbstractContextManager[Any]:
        """Return a runner of statements on one state of the database, over a connection of `connect_reader`."""

    def notes(self, worker: Worker) -> RunningNotes:
        """Return the notes of running deliveries, written by ``worker``."""
