"""The states of deliveries on every dialect: read, and changed many together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from harn.model.delivery import RETRY_EXHAUSTED, DeadLetter, Settlement, State, StoredDelivery
from harn.store.database import Connection, Session
from harn.store.deliveries import Backlog, GivenUp, RecentEvent, Unfinished, disposition
from harn.store.executor import Idea, reads, writes
from harn.store.halves import SettleUnit
from harn.store.rows import NAMES, READY, WAITING, count, light, stored, up_to

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_ANY = 1 << 62
"""More attempts than a delivery can have."""


class GiveUpStatements(Struct, frozen=True, kw_only=True):
    """
    The statements that make dead letters of unfinished deliveries.

    Values of all: trigger, version, highest state, most attempts, ids that are left out; if ``are_owned``, the owner.

    :ivar count: selects the fields of `GivenUp`.
    :ivar release: their claims.
    :ivar give_up: with further values: at (seconds, Unix), the last number of a dead letter, reason, class and text of
        the error.
    """

    count: str
    release: str
    give_up: str
    are_owned: bool = False


class DeliveryStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar ready: trigger, version, owner, ids that are left out, limit; as `light` reads it.
    :ivar next_due: owner, after.
    :ivar find: event id; as `stored` reads it.
    :ivar backlog: none; as `count` reads it.
    :ivar states: ids, owner.
    :ivar owners: ids.
    :ivar oldest: trigger, version; as `stored` reads it.
    :ivar recent: depth, triggers, limit.
    :ivar of_version, of_trigger: dead letters of one version, and of every version from the one given on.
    :ivar unfinished: id, owner: state and version.
    :ivar skip: at (seconds, Unix), reason, id.
    :ivar redriven_claims: settled since, trigger, version, reason.
    :ivar redrive: further the new version, and the owner.
    :ivar advance_due: seconds, owner.
    """

    ready: str
    next_due: str
    find: str
    backlog: str
    states: str
    owners: str
    oldest: str
    recent: str
    of_version: GiveUpStatements
    of_trigger: GiveUpStatements
    unfinished: str
    skip: str
    redriven_claims: str
    redrive: str
    advance_due: str


class DeliveriesHalf(Idea):
    """`harn.store.deliveries.IDeliveries`, but for `due`, with the statements of ``sql``; ``unit`` settles."""

    sql: ClassVar[DeliveryStatements]
    unit: ClassVar[type[SettleUnit]]

    def settle(self, *settlements: Settlement) -> Deferred[Collection[int] | None]:
        """See `IDeliveries.settle`."""
        return self._executor.writer.write(self.unit(settlements, self._executor.wall.seconds()))

    def begins(self, delivery_id: int) -> Deferred[None]:
        """See `IDeliveries.begins`."""
        return self._executor.notes.begins(delivery_id)

    def begins_at_once(self, delivery_id: int) -> None:
        """See `IDeliveries.begins_at_once`."""
        self._executor.notes.begins_at_once(delivery_id)

    def note_now(self) -> None:
        """See `IDeliveries.note_now`."""
        self._executor.notes.note_now()

    def ended(self, *delivery_ids: int) -> None:
        """See `IDeliveries.ended`."""
        self._executor.notes.ended(*delivery_ids)

    @reads
    def ready(
        self,
        connection: Connection,
        trigger_id: str,
        version: int,
        excluding: Collection[int],
        limit: int,
        max_bytes: int,
    ) -> Sequence[StoredDelivery]:
        """See `IDeliveries.ready`."""
        left_out = self._executor.arrays.of(excluding)
        values = (trigger_id, version, self._executor.incarnation, left_out, limit)
        return up_to(map(light, connection.execute(self.sql.ready, values)), max_bytes)

    @reads
    def next_due(self, connection: Connection, after: float = 0.0) -> float | None:
        """See `IDeliveries.next_due`."""
        (at,) = connection.execute(self.sql.next_due, (self._executor.incarnation, float(after))).fetchone()
        return None if at is None else float(at)

    @reads
    def find(self, connection: Connection, event_id: str) -> Sequence[StoredDelivery]:
        """See `IDeliveries.find`."""
        return list(map(stored, connection.execute(self.sql.find, (event_id,))))

    @reads
    def backlog(self, connection: Connection) -> Sequence[Backlog]:
        """See `IDeliveries.backlog`."""
        return list(map(count, connection.execute(self.sql.backlog)))

    @reads
    def oldest(
        self, connection: Connection, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], StoredDelivery]:
        """See `IDeliveries.oldest`."""
        rows = ((version, connection.execute(self.sql.oldest, version).fetchone()) for version in versions)
        return {version: stored(row) for version, row in rows if row is not None}

    @reads
    def recent(
        self, connection: Connection, trigger_ids: Collection[str], limit: int, depth: int
    ) -> Sequence[RecentEvent]:
        """See `IDeliveries.recent`."""
        values = (depth, self._executor.arrays.of(trigger_ids), limit)
        return [
            RecentEvent(
                event_id=row[0],
                trigger_id=row[1],
                version=row[2],
                kind=row[3],
                received_at=row[4],
                disposition=disposition(NAMES[row[7]], row[8], bool(row[9]), row[10], bool(row[11])),
                envelope=row[5],
                body=row[6],
            )
            for row in connection.execute(self.sql.recent, values)
        ]

    @reads
    def states(self, connection: Connection, delivery_ids: Collection[int]) -> Mapping[int, State]:
        """See `IDeliveries.states`."""
        which = self._executor.arrays.of(delivery_ids)
        rows = connection.execute(self.sql.states, (which, self._executor.incarnation))
        return {delivery_id: NAMES[state] for delivery_id, state in rows}

    @reads
    def owners(self, connection: Connection, delivery_ids: Collection[int]) -> Mapping[int, int]:
        """See `IDeliveries.owners`."""
        return dict(connection.execute(self.sql.owners, (self._executor.arrays.of(delivery_ids),)).fetchall())

    @writes
    def dead_letter(
        self,
        session: Session,
        trigger_id: str,
        version: int | None,
        dead: DeadLetter,
        excluding: Collection[int],
        *,
        waiting: bool = True,
        tried: bool = True,
    ) -> Sequence[GivenUp]:
        """See `IDeliveries.dead_letter`."""
        execute = session.connection.execute
        sql = self.sql.of_trigger if version is None else self.sql.of_version
        most = (WAITING if waiting else READY, _ANY if tried else 0)
        owner = (session.incarnation,) if sql.are_owned else ()
        which = (trigger_id, version or 0, *most, session.arrays.of(excluding), *owner)
        found = [GivenUp(*row) for row in execute(sql.count, which)]
        session.release_claims(sql.release, which)
        why = (dead.reason, dead.error_class, dead.error)
        values = (*which, float(self._executor.wall.seconds()), session.numbers.dead, *why)
        session.numbers.dead += execute(sql.give_up, values).rowcount
        # An attempt that ran on may settle one of them again; then no row has its number any more.
        session.keep_numbers()
        return found

    @writes
    def skip(self, session: Session, delivery_id: int, reason: str) -> Unfinished | None:
        """See `IDeliveries.skip`."""
        execute = session.connection.execute
        found = execute(self.sql.unfinished, (delivery_id, session.incarnation)).fetchone()
        if found is None:
            return None
        execute(self.sql.skip, (float(self._executor.wall.seconds()), reason, delivery_id))
        return Unfinished(NAMES[found[0]], found[1])

    @writes
    def redrive(self, session: Session, trigger_id: str, version: int, to_version: int, since: float) -> int:
        """See `IDeliveries.redrive`."""
        # No row has the numbers of these dead letters any more, and they are not given again.
        session.keep_numbers()
        which = (float(since), trigger_id, version, RETRY_EXHAUSTED)
        session.connection.execute(self.sql.redriven_claims, which)
        return session.connection.execute(self.sql.redrive, (*which, to_version, session.incarnation)).rowcount

    @writes
    def advance_due(self, session: Session, seconds: float) -> None:
        """See `IDeliveries.advance_due`."""
        session.connection.execute(self.sql.advance_due, (float(seconds), session.incarnation))
