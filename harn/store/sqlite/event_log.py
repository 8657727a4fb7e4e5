"""The event log: its own records, and the topics that are views of deliveries and attempts."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX, IEventLog
from harn.store.halves import AppendUnit
from harn.store.lists import ATTEMPT_COLUMNS
from harn.store.records import EventLogHalf, LogStatements
from harn.store.sqlite.connection import Session
from harn.store.sqlite.deliveries import COLUMNS, FROM

TABLES = """
CREATE TABLE log (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    kind TEXT NOT NULL,
    occurred_at REAL NOT NULL,
    headers BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX log_topic ON log (topic);
"""

_ATTEMPTS = (
    "SELECT a.id, d.event_id, d.trigger_id, d.provider, d.kind, d.replay_of, {},"
    " (SELECT json_extract(CAST(b.spec AS TEXT), '$.handler') FROM binding_versions b"
    " WHERE b.trigger_id = d.trigger_id AND b.version = a.version),"
    " a.number, a.version, a.started_at, a.completed_at, a.outcome, a.error_class, a.error"
    " FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE a.id > ? ORDER BY a.id LIMIT ?"
)
LOG = LogStatements(
    log=(
        "SELECT number, kind, occurred_at, headers, payload FROM log WHERE topic = ? AND number > ?"
        " ORDER BY number LIMIT ?"
    ),
    envelopes="SELECT " + COLUMNS + FROM + "WHERE d.id > ? ORDER BY d.id LIMIT ?",
    outbox=_ATTEMPTS.format("CASE WHEN a.outcome = 'success' THEN d.result END"),
    attempts=_ATTEMPTS.format("NULL"),
    dead=(
        "SELECT " + COLUMNS + ", d.dead_number, coalesce(d.died_at, d.settled_at), d.reason, d.error_class, d.error"
        "" + FROM + "WHERE d.dead_number > ? ORDER BY d.dead_number LIMIT ?"
    ),
    attempts_of="SELECT " + ATTEMPT_COLUMNS + " FROM attempts WHERE delivery_id = ? ORDER BY id",
    latest={
        INBOX: "SELECT max(id) FROM deliveries",
        OUTBOX: "SELECT max(id) FROM attempts",
        ATTEMPTS: "SELECT max(id) FROM attempts",
        DEAD_LETTERS: "SELECT max(dead_number) FROM deliveries WHERE dead_number IS NOT NULL",
    },
    latest_of_log="SELECT max(number) FROM log WHERE topic = ?",
    # One step in the index for each topic, where DISTINCT would read all of it.
    topics=(
        "WITH RECURSIVE found (topic) AS (SELECT min(topic) FROM log UNION ALL"
        " SELECT (SELECT min(topic) FROM log WHERE topic > found.topic) FROM found WHERE found.topic IS NOT NULL)"
        " SELECT topic FROM found WHERE topic IS NOT NULL"
    ),
    # Numbers rise with time, so that the oldest come first; a WHERE inside would read on to the end where there are
    # none.
    old=(
        "DELETE FROM log WHERE number IN (SELECT number FROM"
        " (SELECT number, occurred_at FROM log ORDER BY number LIMIT ?) AS first WHERE occurred_at < ?)"
    ),
)
_INSERT_RECORDS = "INSERT INTO log (number, topic, kind, occurred_at, headers, payload) VALUES "


class Append(AppendUnit):
    """Writes records with one statement."""

    __slots__ = ()

    @staticmethod
    def write_all(session: Session, units: Sequence[Append], now: float) -> None:
        """Write records of the log, in order."""
        values: list[Any] = []
        numbers = session.numbers
        for unit in units:
            numbers.record += 1
            unit.value = numbers.record
            values += (numbers.record, unit.topic, unit.kind, unit.at, unit.headers, unit.payload)
        session.execute_rows(_INSERT_RECORDS, 6, values)


@implementer(IEventLog)
class SQLiteEventLog(EventLogHalf):
    """`IEventLog` on SQLite."""

    sql = LOG
    unit = Append
