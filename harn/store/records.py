"""The event log on every dialect: its records, and those of the topics that are views of deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct

from harn.model.delivery import DeadLetter
from harn.store.database import Connection, Session
from harn.store.event_log import (
    ATTEMPTS,
    DEAD_LETTERS,
    INBOX,
    OUTBOX,
    Payload,
    Record,
    RecordedAttempt,
    attempt_record,
    check_appendable,
    dead_record,
    encode_record,
    envelope_record,
    outbox_record,
)
from harn.store.executor import Idea, reads
from harn.store.halves import AppendUnit
from harn.store.rows import attempt_of, stored, up_to

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

MOST_BYTES = 32 << 20
"""Bodies of one `read`; what is more is for the next one."""


class LogStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar log: topic, after, limit.
    :ivar envelopes: after, limit; as `stored` reads it.
    :ivar outbox: after, limit: attempts with results.
    :ivar attempts: the same without.
    :ivar dead: after, limit; as `stored` reads it, then number, time of death, reason, class and text of the error.
    :ivar attempts_of: delivery; as `attempt_of` reads it.
    :ivar latest: by view, without values.
    :ivar latest_of_log: topic.
    :ivar topics: none.
    :ivar old: limit, before (seconds, Unix).
    """

    log: str
    envelopes: str
    outbox: str
    attempts: str
    dead: str
    attempts_of: str
    latest: Mapping[str, str]
    latest_of_log: str
    topics: str
    old: str

    def trim(self, session: Session, before: float, limit: int) -> int:
        """Delete old ones among the oldest ``limit`` records; return how many."""
        return session.connection.execute(self.old, (limit, float(before))).rowcount


class EventLogHalf(Idea):
    """`harn.store.event_log.IEventLog` with the statements of ``sql``; ``unit`` appends."""

    sql: ClassVar[LogStatements]
    unit: ClassVar[type[AppendUnit]]

    def append(self, topic: str, kind: str, payload: Payload, headers: Mapping[str, str] = {}) -> Deferred[int]:
        """See `IEventLog.append`."""
        check_appendable(topic)
        encoded = encode_record(payload, headers)
        return self._executor.writer.write(self.unit(topic, kind, *encoded, self._executor.wall.seconds()))

    @reads
    def read(self, connection: Connection, topic: str, after: int, limit: int) -> Sequence[Record]:
        """See `IEventLog.read`."""
        which = (after, limit)
        if topic == INBOX:
            rows = up_to(map(stored, connection.execute(self.sql.envelopes, which)), MOST_BYTES)
            return list(map(envelope_record, rows))
        if topic == OUTBOX:
            return [outbox_record(_recorded(row)) for row in connection.execute(self.sql.outbox, which)]
        if topic == ATTEMPTS:
            return [attempt_record(_recorded(row)) for row in connection.execute(self.sql.attempts, which)]
        if topic == DEAD_LETTERS:
            return self._dead(connection, after, limit)
        return [
            Record(
                number=number,
                topic=topic,
                kind=kind,
                payload=msgspec.json.decode(payload),
                headers=msgspec.json.decode(headers),
                occurred_at=occurred_at,
            )
            for number, kind, occurred_at, headers, payload in connection.execute(self.sql.log, (topic, *which))
        ]

    @reads
    def latest(self, connection: Connection, topic: str) -> int:
        """See `IEventLog.latest`."""
        return self._latest(connection, topic)

    @reads
    def topics(self, connection: Connection) -> Sequence[str]:
        """See `IEventLog.topics`."""
        found = {topic for (topic,) in connection.execute(self.sql.topics)}
        return sorted(found.union(view for view in self.sql.latest if self._latest(connection, view)))

    def _latest(self, connection: Connection, topic: str) -> int:
        query = self.sql.latest.get(topic)
        found = connection.execute(self.sql.latest_of_log, (topic,)) if query is None else connection.execute(query)
        return int(found.fetchone()[0] or 0)

    def _dead(self, connection: Connection, after: int, limit: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        for row in connection.execute(self.sql.dead, (after, limit)):
            delivery = stored(row)
            size += len(delivery.body)
            if records and size > MOST_BYTES:
                break
            number, died_at, reason, error_class, error = row[-5:]
            attempts = list(map(attempt_of, connection.execute(self.sql.attempts_of, (delivery.delivery_id,))))
            dead = DeadLetter(reason=reason, error_class=error_class, error=error)
            records.append(dead_record(number, delivery, dead, died_at, attempts))
        return records


def _recorded(row: Sequence[Any]) -> RecordedAttempt:
    number, event_id, trigger_id, provider, kind, replay_of, result, handler = row[:8]
    return RecordedAttempt(
        number=number,
        event_id=event_id,
        trigger_id=trigger_id,
        provider=provider,
        kind=kind,
        replay_of=replay_of,
        result=result,
        handler=handler,
        attempt=attempt_of(row[8:]),
    )
