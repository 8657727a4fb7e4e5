"""Checkpoints: JSON values by name, in the table ``standing``, that outlast a restart; a dialect has the statements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct
from zope.interface import Interface

from harn.store.database import Connection, Session
from harn.store.executor import Idea, reads, writes

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_encoder = msgspec.json.Encoder()


class ICheckpoints(Interface):
    """JSON values by name, each replaced whole; `IGenerations.adopted` puts some together with its own note."""

    def put(name: str, value: Any) -> Deferred[None]:
        """
        Keep a JSON value under a name, over restarts, in place of the previous one; None removes it.

        :raises TypeError: immediately: the value has no form in JSON.
        """

    def amend(name: str, changes: Mapping[str, Any]) -> Deferred[Mapping[str, Any]]:
        """
        Change entries of the JSON object under a name, which other servers may change, too; return it as it is then.

        :param changes: by key; None removes. The object is removed with its last entry.
        :raises TypeError: immediately: a value has no form in JSON.
        """

    def replace(name: str, before: Any, after: Any) -> Deferred[bool]:
        """
        Put a JSON value in place of another, which other servers may change, too, unless one of them has done so.

        :param before: the value that was read, or None.
        :param after: the value to write; None removes it.
        :return: whether the value was ``before``; else nothing is written.
        :raises TypeError: immediately: a value has no form in JSON.
        """

    def get(name: str) -> Deferred[Any]:
        """Return the value under a name, or None."""

    def beginning(prefix: str) -> Deferred[Mapping[str, Any]]:
        """Return the values whose names begin with ``prefix``, by name."""


def encode_checkpoints(values: Mapping[str, Any]) -> dict[str, bytes | None]:
    """
    Encode values immediately, so that later changes to them do not count; None stays None, and removes what is kept.

    :raises TypeError: a value holds something that JSON has no form for.
    """
    return {name: None if value is None else _encoder.encode(value) for name, value in values.items()}


def amend_checkpoint(kept: Any, changes: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Return a JSON object with changes that `encode_checkpoints` made; ``kept`` may be of another kind."""
    amended: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
    for key, value in changes.items():
        if value is None:
            amended.pop(key, None)
        else:
            amended[key] = msgspec.json.decode(value)
    return amended


class StandingStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect about values by name; the values of each are given here.

    :ivar put: name, value.
    :ivar remove, get: name.
    :ivar beginning: from a name on, below another.
    """

    put: str
    remove: str
    get: str
    beginning: str

    def put_all(self, session: Session, encoded: Mapping[str, bytes | None]) -> None:
        """Put values that `encode_checkpoints` made; None deletes."""
        for name, value in encoded.items():
            if value is None:
                session.connection.execute(self.remove, (name,))
            else:
                session.connection.execute(self.put, (name, value))

    def read(self, connection: Connection, name: str) -> Any:
        """Return the value under a name, or None."""
        row = connection.execute(self.get, (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0])


class CheckpointsHalf(Idea):
    """`ICheckpoints` with the statements of ``sql``."""

    sql: ClassVar[StandingStatements]

    def put(self, name: str, value: Any) -> Deferred[None]:
        """See `ICheckpoints.put`; the value is encoded immediately."""
        return self._put(encode_checkpoints({name: value}))

    @writes
    def _put(self, session: Session, encoded: Mapping[str, bytes | None]) -> None:
        self.sql.put_all(session, encoded)
        for name in encoded:
            session.notify(name)

    def amend(self, name: str, changes: Mapping[str, Any]) -> Deferred[Mapping[str, Any]]:
        """See `ICheckpoints.amend`; the values are encoded immediately."""
        return self._amend(name, encode_checkpoints(changes))

    @writes
    def _amend(self, session: Session, name: str, encoded: Mapping[str, bytes | None]) -> Mapping[str, Any]:
        amended = amend_checkpoint(self.sql.read(session.connection, name), encoded)
        self.sql.put_all(session, encode_checkpoints({name: amended or None}))
        session.notify(name)
        return amended

    def replace(self, name: str, before: Any, after: Any) -> Deferred[bool]:
        """See `ICheckpoints.replace`; the values are encoded immediately."""
        return self._replace(name, _encoder.encode(before), encode_checkpoints({name: after}))

    @writes
    def _replace(self, session: Session, name: str, before: bytes, encoded: Mapping[str, bytes | None]) -> bool:
        if self.sql.read(session.connection, name) != msgspec.json.decode(before):
            return False
        self.sql.put_all(session, encoded)
        session.notify(name)
        return True

    @reads
    def get(self, connection: Connection, name: str) -> Any:
        """See `ICheckpoints.get`."""
        return self.sql.read(connection, name)

    @reads
    def beginning(self, connection: Connection, prefix: str) -> Mapping[str, Any]:
        """See `ICheckpoints.beginning`."""
        rows = connection.execute(self.sql.beginning, (prefix, prefix + "\U0010ffff"))
        return {name: msgspec.json.decode(value) for name, value in rows}
