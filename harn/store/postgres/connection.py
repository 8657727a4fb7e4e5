"""
Connections to PostgreSQL: how one is opened, runs statements, and reads one state.

This is the only module that uses psycopg, which the extra ``postgres`` brings.
"""

# Statements are put together from constants and numbers; a value is never part of their text.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from socket import SHUT_RDWR, socket
from threading import Lock
from typing import Any

from msgspec import Struct

from harn.errors import StateDirectoryUnusable
from harn.store.postgres.address import REFUSES, Address, ISecretReader, unreachable

CONNECT_TIMEOUT = 5
"""Seconds that a connection may take to be made."""
LOCK_TIMEOUT = 5000
"""Milliseconds that a write waits for another server's."""
IDLE_TIMEOUT = 5_000
"""
Milliseconds after which PostgreSQL ends a transaction that does nothing: that of a server that was stopped, for which
the others wait.
"""
_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A machine that is gone without a word is noticed within some 10 s."""


@cache
def driver() -> Any:
    """
    Return psycopg.

    :raises StateDirectoryUnusable: it is not installed; says what to do.
    """
    try:
        import psycopg
    except ImportError as error:
        raise StateDirectoryUnusable(
            f"the store on PostgreSQL needs psycopg, which cannot be imported ({error});"
            " install it with: pip install 'harn[postgres]'"
        ) from error
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # what it logs is raised, too
    return psycopg


@cache
def _adapters() -> Any:
    """Return how values of Python are sent: always in one form each, so that a statement is prepared once."""
    from psycopg.adapt import AdaptersMap, Dumper
    from psycopg.pq import Format
    from psycopg.types.array import ListBinaryDumper
    from psycopg.types.numeric import Int8BinaryDumper

    class TextDumper(Dumper):
        """PostgreSQL has no text with NUL; what an event or an error brings is kept without it."""

        format = Format.BINARY
        oid = 25

        def dump(self, obj: str) -> bytes:
            """Encode a text."""
            return obj.replace("\0", "\ufffd").encode() if "\0" in obj else obj.encode()

    adapters = AdaptersMap(driver().adapters)
    adapters.register_dumper(str, TextDumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(list, ListBinaryDumper)
    return adapters


class PostgresConnection:
    """One connection; each statement outside of a transaction is one of its own."""

    def __init__(self, conninfo: str, password: str | None, schema: str) -> None:
        """
        Connect.

        :raises psycopg.Error: it cannot be reached, or refuses us.
        """
        psycopg = driver()
        given = {} if password is None else {"password": password}
        self._connection = psycopg.connect(
            conninfo,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            context=_adapters(),
            **{"connect_timeout": CONNECT_TIMEOUT, "application_name": "harn", **_ALIVE, **given},
        )
        self._closing = Lock()
        self._deferred: list[tuple[str, Sequence[Any]]] = []
        self.schema = schema
        try:
            self.run(
                f"SET search_path = {quoted(schema)}; SET lock_timeout = {LOCK_TIMEOUT};"
                f" SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT}; SET client_min_messages = warning;"
                " SET default_transaction_isolation = 'read committed'; SET timezone = 'UTC';"
                " SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off' AND current_setting('fsync') = 'on'"
            )
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """
        Run one statement with its values (``$1`` and so on); return a cursor over its rows.

        :raises psycopg.Error: its, or that of the first deferred one that failed; those after it were not run.
        """
        if not self._deferred:
            return self._connection.execute(statement, values, binary=True)
        with self._connection.pipeline():
            self._run_deferred()
            return self._connection.execute(statement, values, binary=True)

    def defer(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement whose result is not needed with the next one, or the commit, in one round trip."""
        self._deferred.append((statement, values))

    def _run_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for statement, values in deferred:
            self._connection.execute(statement, values, binary=True)

    def commit(self, last: str) -> None:
        """Commit, after a last statement without values (empty for none), in one round trip with what is deferred."""
        if not self._deferred:
            self.run(f"{last}; COMMIT" if last else "COMMIT")
            return
        with self._connection.pipeline():
            self._run_deferred()
            for statement in (last, "COMMIT") if last else ("COMMIT",):
                self._connection.execute(statement, prepare=False)

    def drop_deferred(self) -> None:
        """Run none of the deferred statements."""
        self._deferred = []

    def execute_once(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that is not run again, with its values."""
        self._connection.execute(statement, values or None, prepare=False)

    def run(self, statements: str) -> Any:
        """Run statements without values in one round trip; return the row of the last one that has rows, or None."""
        if self._deferred:
            with self._connection.pipeline():
                self._run_deferred()
        cursor = self._connection.execute(statements, prepare=False)
        row = None
        while True:
            if cursor.description is not None:
                row = cursor.fetchone()
            if not cursor.nextset():
                return row

    def listen(self, announced: list[str]) -> None:
        """Add the notifications of the schema to a list, whenever a statement is run from now on."""
        self._connection.add_notify_handler(lambda notice: announced.append(notice.payload))
        self.run(f"LISTEN {quoted(self.schema)}")

    def fileno(self) -> int:
        """Return the descriptor of its socket."""
        return int(self._connection.fileno())

    @property
    def is_idle(self) -> bool:
        """Whether it is sound, and in no transaction."""
        return bool(self._connection.info.transaction_status == driver().pq.TransactionStatus.IDLE)

    @property
    def is_broken(self) -> bool:
        """Whether the connection itself has failed."""
        return bool(self._connection.closed or self._connection.broken)

    @contextmanager
    def snapshot(self) -> Iterator[PostgresConnection]:
        """Run reads within one transaction, so that all of its statements see one state."""
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield self
        finally:
            if not self.is_broken:
                self.run("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[PostgresConnection]:
        """Run writes within one transaction."""
        self.run("BEGIN")
        try:
            yield self
            self.run("COMMIT")
        finally:
            if not self.is_broken and not self.is_idle:
                self.run("ROLLBACK")

    def close(self) -> None:
        """Close it."""
        with self._closing:
            self._connection.close()

    def abort(self) -> None:
        """End it from another thread: what waits for an answer fails immediately, whatever PostgreSQL does."""
        with self._closing, suppress(OSError, driver().Error), socket(fileno=os.dup(self.fileno())) as its:
            its.shutdown(SHUT_RDWR)


def advice_for(conninfo: str) -> str:
    """Return advice about a database to which no connection can be made. Blocks for at most `CONNECT_TIMEOUT`."""
    pq = driver().pq
    found = pq.PGconn.ping(f"{conninfo}{'&' if '?' in conninfo else '?'}connect_timeout={CONNECT_TIMEOUT}".encode())
    if found == pq.Ping.OK:
        return REFUSES
    if found == pq.Ping.REJECT:
        return "PostgreSQL starts or ends: try again in a moment"
    if found == pq.Ping.NO_ATTEMPT:
        return "correct the URL: its words must be those of libpq, password_secret and schema"
    return "start PostgreSQL, or check host, port, firewalls and sslmode"


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


class PostgresEndpoint(Struct, frozen=True):
    """
    Connects to a store.

    :ivar secrets: reads the password, where the address names a secret.
    """

    address: Address
    secrets: ISecretReader

    def connect(self) -> PostgresConnection:
        """
        Make a connection. Blocks.

        :raises StateDirectoryUnusable: the store cannot be reached, or refuses us; says what to do.
        """
        address = self.address
        try:
            return PostgresConnection(address.conninfo, address.resolved(self.secrets), address.schema)
        except driver().Error as error:
            advice = advice_for(address.conninfo)
            raise StateDirectoryUnusable(unreachable(address.location, error, advice)) from error
