"""
The store for tests of other packages: SQLite in memory, driven in the calling thread.

`PumpedStore` answers before its methods return. A test that needs to see what happens between asking and answer holds
one of its workers; a test that needs a full disk sets ``fail_writes``.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from harn.clocks import WallTime
from harn.model.delivery import StoredDelivery
from harn.store.database import Arrays
from harn.store.rows import stored
from harn.store.sqlite.connection import ARRAYS, Session, snapshot
from harn.store.sqlite.deliveries import COLUMNS, FROM
from harn.store.sqlite.schema import SCHEMA
from harn.store.sqlite.store import SQLiteStore
from harn.store.worker import Answer, Work, Worker


class PumpedWorker:
    """
    A worker without a thread: runs its work immediately, or, while it is held, when the test says so.

    :ivar held: while it is True, work waits for `run`, and its results wait for `deliver`.
    :ivar waiting: what was posted and has not run.
    """

    def __init__(self) -> None:
        self.held = False
        self.waiting: deque[Work] = deque()
        self._turn: deque[Work] = deque()
        self._reports: deque[tuple[Answer, tuple[Any, ...]]] = deque()

    @property
    def has_work(self) -> bool:
        """True while anything waits for `run`."""
        return bool(self._turn or self.waiting)

    def run(self) -> None:
        """End the turn, and run everything that waits; the results wait until `deliver`."""
        while self._turn:
            self._turn.popleft()()
        while self.waiting:
            self.waiting.popleft()()

    def deliver(self) -> None:
        """Deliver the results of everything that has run."""
        while self._reports:
            function, args = self._reports.popleft()
            function(*args)

    def release(self) -> None:
        """Run everything that waits, deliver all results, and hold nothing from now on."""
        self.held = False
        while self.has_work or self._reports:
            self.run()
            self.deliver()

    # `harn.store.worker.Worker`:

    def start(self) -> None:
        """See `Worker.start`."""

    def post(self, work: Work) -> None:
        """See `Worker.post`."""
        self.waiting.append(work)
        if not self.held:
            self.run()
            self.deliver()

    def report(self, function: Answer, *args: Any) -> None:
        """See `Worker.report`."""
        self._reports.append((function, args))

    def soon(self, function: Work) -> None:
        """See `Worker.soon`: a turn ends immediately, or, while this is held, at the next `run`."""
        if self.held:
            self._turn.append(function)
        else:
            function()

    def later(self, seconds: float, function: Answer, *args: Any) -> IDelayedCall:
        """Refuse: time does not pass for this worker."""
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        """See `Worker.stop`."""
        stopped: Deferred[None] = Deferred()
        self.post(lambda: self.report(stopped.callback, None))
        return stopped


class MemoryConnection(sqlite3.Connection):
    """A connection to a database in memory, which stays open, and whose transactions a test can make fail."""

    failing: frozenset[str] = frozenset()
    _fault: Fault | None = None

    def fail(self, beginnings: frozenset[str]) -> None:
        """Make transactions that begin with one of these statements fail from now on."""
        self.failing = beginnings
        self._watch()

    def fail_once(self, fault: Fault | None) -> None:
        """Make one statement fail, the one that the fault says; None: no further one."""
        self._fault = fault
        self._watch()

    def close(self) -> None:
        """Keep the data for the next one that opens it."""

    def _watch(self) -> None:
        for name in ("execute", "executemany"):
            self.__dict__.pop(name, None)
        if self.failing or self._fault is not None:  # only then does each statement go through Python
            self.__dict__["execute"] = self._execute_or_fail
            self.__dict__["executemany"] = self._executemany_or_fail

    def _execute_or_fail(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql in self.failing:
            raise _error(sqlite3.SQLITE_FULL)
        self._count(sql)
        return super().execute(sql, parameters)

    def _executemany_or_fail(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._count(sql)
        return super().executemany(sql, parameters)

    def _count(self, sql: str) -> None:
        fault = self._fault
        if fault is None or (fault.only and not sql.startswith(fault.only)):
            return
        if fault.after:
            fault.after -= 1
            return
        self.fail_once(None)
        if fault.rolls_back and self.in_transaction:
            super().execute("ROLLBACK")
        raise _error(fault.code)


@define
class Fault:
    """
    A failure of one statement.

    :ivar code: SQLite's, for example ``sqlite3.SQLITE_FULL``.
    :ivar after: how many statements go well before it.
    :ivar only: the beginning of those that count; empty for all.
    :ivar rolls_back: as SQLite does by itself when the disk is full or cannot be read.
    """

    code: int
    after: int = 0
    only: str = ""
    rolls_back: bool = False


_SAYS = {
    sqlite3.SQLITE_FULL: "database or disk is full",
    sqlite3.SQLITE_BUSY: "database is locked",
    sqlite3.SQLITE_CORRUPT: "database disk image is malformed",
    sqlite3.SQLITE_IOERR: "disk I/O error",
}


def _error(code: int) -> sqlite3.Error:
    kind = sqlite3.DatabaseError if code == sqlite3.SQLITE_CORRUPT else sqlite3.OperationalError
    error = kind(_SAYS.get(code, "failed"))
    error.sqlite_errorcode = code
    return error


WRITE = "BEGIN IMMEDIATE"
READ = "BEGIN"


class MemoryNotes:
    """
    Notes of what runs, like those of `harn.store.running.RunningNotes`, in memory.

    :param noted: by incarnation, ids of what runs; shared by all servers on one database.
    """

    def __init__(self, noted: dict[int, set[int]]) -> None:
        self._noted = noted
        self._ours: set[int] = set()
        self._incarnation = 0

    def open(self, incarnation: int) -> None:
        """See `RunningNotes.open`."""
        self._incarnation = incarnation
        self._ours = self._noted.setdefault(incarnation, set())

    def renumber(self, incarnation: int) -> None:
        """See `RunningNotes.renumber`."""
        self._noted.pop(self._incarnation, None)
        self._incarnation = incarnation
        self._noted[incarnation] = self._ours

    def begins(self, delivery_id: int) -> Deferred[None]:
        """See `RunningNotes.begins`."""
        self._ours.add(delivery_id)
        return succeed(None)

    def begins_at_once(self, delivery_id: int) -> None:
        """See `RunningNotes.begins_at_once`."""
        self._ours.add(delivery_id)

    def note_now(self) -> None:
        """See `RunningNotes.note_now`."""

    def ended(self, *delivery_ids: int) -> None:
        """See `RunningNotes.ended`."""
        self._ours.difference_update(delivery_ids)

    def read(self) -> Mapping[int, Collection[int]]:
        """See `RunningNotes.read`."""
        return self._noted

    def forget(self, incarnations: Collection[int]) -> None:
        """See `RunningNotes.forget`."""
        for incarnation in incarnations:
            self._noted.pop(incarnation, None)

    def close(self) -> Deferred[None]:
        """See `RunningNotes.close`."""
        self._noted.pop(self._incarnation, None)
        return succeed(None)


class MemoryDatabase:
    """
    A `harn.store.database.Database` in memory: it outlives each store that is opened over it.

    :param is_exclusive: see `Database`; False for tests of several servers that live at the same time.
    """

    arrays: Arrays = ARRAYS
    location: str | None = None
    name = ":memory:"
    error: type[Exception] = sqlite3.Error
    longest_read: float | None = None
    patience: float | None = None

    def __init__(self, *, is_exclusive: bool = True) -> None:
        self.is_exclusive = is_exclusive
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=256, factory=MemoryConnection
        )
        self.connection.deserialize(_template())
        self._noted: dict[int, set[int]] = {}

    def open(self) -> Session:
        """See `harn.store.database.Database.open`."""
        return Session(self.connection, 0)

    def opened(self, session: Session) -> None:
        """See `harn.store.database.Database.opened`."""

    def reopen(self, incarnation: int) -> Session:
        """See `harn.store.database.Database.reopen`."""
        return Session(self.connection, incarnation)

    def committed(self, session: Session, *, thorough: bool) -> None:
        """See `harn.store.database.Database.committed`."""

    def disconnected(self) -> None:
        """See `harn.store.database.Database.disconnected`."""

    def close(self, session: Session | None) -> None:
        """See `harn.store.database.Database.close`."""

    def connect_reader(self) -> sqlite3.Connection:
        """See `harn.store.database.Database.connect_reader`."""
        return self.connection

    def snapshot(self, connection: Any) -> AbstractContextManager[Any]:
        """See `harn.store.database.Database.snapshot`."""
        return snapshot(connection)

    def notes(self, worker: Worker) -> MemoryNotes:
        """See `harn.store.database.Database.notes`."""
        return MemoryNotes(self._noted)


@cache
def _template() -> bytes:
    """Return an empty database with all tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    data = connection.serialize()
    connection.close()
    return data


class PumpedStore(SQLiteStore):
    """
    The SQLite store over a database in memory, driven by workers that the test holds and releases.

    :param database: that of an earlier store, as a server after a restart has it; a new one if None.
    :ivar writer: what runs the writes; units that come while one is held wait for the next commit, as they do on disk.
    :ivar reader: what runs the reads.
    """

    def __init__(self, wall: WallTime, database: MemoryDatabase | None = None) -> None:
        self.database = MemoryDatabase() if database is None else database
        self.writer, self.reader = PumpedWorker(), PumpedWorker()
        super().__init__(self.database, self, wall)

    def worker(self, name: str) -> PumpedWorker:
        """See `harn.store.worker.Workers`: its writer, its reader, or one for notes."""
        return {"harn-store-writer": self.writer, "harn-store-reader": self.reader}.get(name) or PumpedWorker()

    @property
    def fail_writes(self) -> bool:
        """While it is True, each commit fails with `EventLogUnavailable`: a full disk."""
        return WRITE in self.database.connection.failing

    @fail_writes.setter
    def fail_writes(self, value: bool) -> None:
        self._fail(WRITE, value)

    @property
    def fail_reads(self) -> bool:
        """While it is True, each read fails with `EventLogUnavailable`."""
        return READ in self.database.connection.failing

    @fail_reads.setter
    def fail_reads(self, value: bool) -> None:
        self._fail(READ, value)

    def _fail(self, beginning: str, value: bool) -> None:
        failing = self.database.connection.failing
        self.database.connection.fail(failing | {beginning} if value else failing - {beginning})

    def beside(self) -> PumpedStore:
        """Return the store of another server on the same database; it is not open."""
        return PumpedStore(self._executor.wall, self.database)

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement beside the workers, whatever is held or fails; return its rows."""
        return self.database.connection.execute(statement, values).fetchall()

    def rows(self) -> list[StoredDelivery]:
        """Return every delivery by id, read as `query` does."""
        return list(map(stored, self.query(_ROWS)))


_ROWS = "SELECT " + COLUMNS + FROM + "ORDER BY d.id"
