"""The event log: its own records, and the topics that are views of deliveries and attempts."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import implementer

from harn.model.delivery import DeadLetter
from harn.store.event_log import (
    ATTEMPTS,
    DEAD_LETTERS,
    INBOX,
    OUTBOX,
    IEventLog,
    Record,
    RecordedAttempt,
    attempt_record,
    dead_record,
    envelope_record,
    outbox_record,
)
from harn.store.executor import reads
from harn.store.halves import AppendUnit, EventLogHalf
from harn.store.postgres.connection import PostgresConnection, PostgresSession
from harn.store.postgres.deliveries import COLUMNS, FROM
from harn.store.postgres.settling import columns, floats
from harn.store.rows import attempt_of, stored, up_to

TABLES = """
CREATE TABLE log (
    number bigint PRIMARY KEY,
    topic text NOT NULL,
    kind text NOT NULL,
    occurred_at double precision NOT NULL,
    headers bytea NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX log_topic ON log (topic, number);
"""

MOST_BYTES = 32 << 20
"""Bodies of one `read`; what is more is for the next one."""

_LOG = (
    "SELECT number, kind, occurred_at, headers, payload FROM log WHERE topic = $1::text AND number > $2::bigint"
    " ORDER BY number LIMIT $3::bigint"
)
_ENVELOPES = "SELECT " + COLUMNS + FROM + "WHERE d.id > $1::bigint ORDER BY d.id LIMIT $2::bigint"
_RESULT = "CASE WHEN a.outcome = 'success' THEN d.result END"
_ATTEMPTS = (
    "SELECT a.id, d.event_id, d.trigger_id, d.provider, d.kind, d.replay_of, {},"
    " (SELECT convert_from(b.spec, 'UTF8')::json->>'handler' FROM binding_versions b"
    " WHERE b.trigger_id = d.trigger_id AND b.version = a.version),"
    " a.number, a.version, a.started_at, a.completed_at, a.outcome, a.error_class, a.error"
    " FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE a.id > $1::bigint ORDER BY a.id LIMIT $2::bigint"
)
_DEAD = (
    "SELECT " + COLUMNS + ", d.dead_number, coalesce(d.died_at, d.settled_at), d.reason, d.error_class, d.error"
    "" + FROM + "WHERE d.dead_number > $1::bigint ORDER BY d.dead_number LIMIT $2::bigint"
)
_ATTEMPTS_OF_ONE = (
    "SELECT number, version, started_at, completed_at, outcome, error_class, error FROM attempts"
    " WHERE delivery_id = $1::bigint ORDER BY id"
)
_LATEST = {
    INBOX: "SELECT max(id) FROM deliveries",
    OUTBOX: "SELECT max(id) FROM attempts",
    ATTEMPTS: "SELECT max(id) FROM attempts",
    DEAD_LETTERS: "SELECT max(dead_number) FROM deliveries WHERE dead_number IS NOT NULL",
}
_LATEST_OF_LOG = "SELECT max(number) FROM log WHERE topic = $1::text"
# One step in the index for each topic, where DISTINCT would read all of it.
_TOPICS = """
WITH RECURSIVE found (topic) AS (
    SELECT min(topic) FROM log
    UNION ALL
    SELECT (SELECT min(topic) FROM log WHERE topic > found.topic) FROM found WHERE found.topic IS NOT NULL
)
SELECT topic FROM found WHERE topic IS NOT NULL
"""
_INSERT = (
    "INSERT INTO log (number, topic, kind, headers, payload, occurred_at) SELECT * FROM"
    " unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::float8[])"
)
# Numbers rise with time, so that the oldest come first; a WHERE inside would read on to the end where there are none.
_OLD_RECORDS = (
    "DELETE FROM log WHERE number IN (SELECT number FROM"
    " (SELECT number, occurred_at FROM log ORDER BY number LIMIT $1::bigint) AS first WHERE occurred_at < $2::float8)"
)


class PostgresAppend(AppendUnit):
    """Writes records with one statement."""

    __slots__ = ()

    @staticmethod
    def write_all(session: PostgresSession, units: Sequence[PostgresAppend], now: float) -> None:
        """Write records of the log, in order."""
        numbers = session.numbers
        rows = []
        for unit in units:
            numbers.record += 1
            unit.value = numbers.record
            rows.append((numbers.record, unit.topic, unit.kind, unit.headers, unit.payload, unit.at))
        *values, at = columns(rows, 6)
        session.connection.execute(_INSERT, (*values, floats(at)))


@implementer(IEventLog)
class PostgresEventLog(EventLogHalf):
    """`IEventLog` on PostgreSQL."""

    unit = PostgresAppend

    @reads
    def read(self, connection: PostgresConnection, topic: str, after: int, limit: int) -> Sequence[Record]:
        """See `IEventLog.read`."""
        if topic == INBOX:
            rows = up_to(map(stored, connection.execute(_ENVELOPES, (after, limit))), MOST_BYTES)
            return list(map(envelope_record, rows))
        if topic == OUTBOX:
            return list(map(outbox_record, _attempts(connection, _RESULT, after, limit)))
        if topic == ATTEMPTS:
            return list(map(attempt_record, _attempts(connection, "NULL", after, limit)))
        return _dead(connection, after, limit) if topic == DEAD_LETTERS else _log(connection, topic, after, limit)

    @reads
    def latest(self, connection: PostgresConnection, topic: str) -> int:
        """See `IEventLog.latest`."""
        return _latest(connection, topic)

    @reads
    def topics(self, connection: PostgresConnection) -> Sequence[str]:
        """See `IEventLog.topics`."""
        found = {topic for (topic,) in connection.execute(_TOPICS)}
        return sorted(found.union(view for view in _LATEST if _latest(connection, view)))


def trim(session: PostgresSession, before: float, limit: int) -> int:
    """Delete old ones among the oldest ``limit`` records; return how many."""
    return int(session.connection.execute(_OLD_RECORDS, (limit, float(before))).rowcount)


def _latest(connection: PostgresConnection, topic: str) -> int:
    query = _LATEST.get(topic)
    found = connection.execute(_LATEST_OF_LOG, (topic,)) if query is None else connection.execute(query)
    return int(found.fetchone()[0] or 0)


def _log(connection: PostgresConnection, topic: str, after: int, limit: int) -> list[Record]:
    return [
        Record(
            number=number,
            topic=topic,
            kind=kind,
            payload=msgspec.json.decode(payload),
            headers=msgspec.json.decode(headers),
            occurred_at=occurred_at,
        )
        for number, kind, occurred_at, headers, payload in connection.execute(_LOG, (topic, after, limit))
    ]


def _attempts(connection: PostgresConnection, result: str, after: int, limit: int) -> list[RecordedAttempt]:
    return [
        RecordedAttempt(
            number=row[0],
            event_id=row[1],
            trigger_id=row[2],
            provider=row[3],
            kind=row[4],
            replay_of=row[5],
            result=row[6],
            handler=row[7],
            attempt=attempt_of(row[8:]),
        )
        for row in connection.execute(_ATTEMPTS.format(result), (after, limit))
    ]


def _dead(connection: PostgresConnection, after: int, limit: int) -> list[Record]:
    records: list[Record] = []
    size = 0
    for row in connection.execute(_DEAD, (after, limit)):
        delivery = stored(row)
        size += len(delivery.body)
        if records and size > MOST_BYTES:
            break
        number, died_at, reason, error_class, error = row[-5:]
        attempts = list(map(attempt_of, connection.execute(_ATTEMPTS_OF_ONE, (delivery.delivery_id,))))
        dead = DeadLetter(reason=reason, error_class=error_class, error=error)
        records.append(dead_record(number, delivery, dead, died_at, attempts))
    return records
