"""The inbox: accepted events with their claims, the first rows of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from harn.errors import ClaimTaken
from harn.model.delivery import Acceptance, Claim
from harn.store.batch import GroupedUnit, log_waiter
from harn.store.executor import Idea
from harn.store.inbox import IInbox, KeepingEnded, Keepings, Kept
from harn.store.sqlite import claims
from harn.store.sqlite.connection import LARGE, Session
from harn.store.sqlite.generations import put_all
from harn.store.sqlite.settling import Death, mark_dead, mark_replayed

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

_INSERT_EVENTS = "INSERT INTO events (id, envelope, body) VALUES "
_INSERT_LARGE_EVENT = "INSERT INTO events (id, envelope, body) SELECT ?, ?, ? WHERE ?"
_INSERT_DELIVERIES = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of) VALUES "
)
_NAME_REPEATED = "UPDATE deliveries SET replay_of = ? WHERE id = ?"


class Accept(GroupedUnit):
    """
    Keep deliveries with their claims; ``size``: bytes of their bodies.

    :ivar keepings: called with ``waiting`` when that has ended, see `IInbox.keep`; None where a Deferred is fired.
    """

    __slots__ = ("acceptance", "keepings", "size", "waiting")

    def __init__(self, acceptance: Acceptance, waiting: Any = None, keepings: Keepings | None = None) -> None:
        self.value = self.error = self.deferred = None  # as the base class does: thousands are made a second
        self.acceptance = acceptance
        self.waiting = waiting
        self.keepings = keepings
        deliveries = acceptance.deliveries
        self.size = len(deliveries[0].body) if len(deliveries) == 1 else sum([len(each.body) for each in deliveries])

    def end(self) -> None:
        """See `Unit.end`."""
        if self.keepings is None:
            super().end()
        else:
            self.keepings.keepings_ended([(self.waiting, self.value if self.error is None else self.error)])

    @staticmethod
    def end_all(units: Sequence[Accept]) -> None:
        """End acceptances that came one after the other: one call for all that ask for one."""
        together: dict[Keepings, list[KeepingEnded]] = {}
        alone = []
        for unit in units:
            if unit.keepings is None:
                alone.append(unit)
            else:
                ended = (unit.waiting, unit.value if unit.error is None else unit.error)
                together.setdefault(unit.keepings, []).append(ended)
        for keepings, each in together.items():
            try:
                keepings.keepings_ended(each)
            except Exception:
                log_waiter()
        GroupedUnit.end_all(alone)

    @staticmethod
    def write_all(session: Session, units: Sequence[Accept], now: float) -> None:
        """
        Write acceptances, in order; one whose guard is taken gets its error, a duplicate its None. What takes the claim
        of a dead letter is linked with it.
        """
        granted = claims.take_all(session, [unit.acceptance for unit in units], now)
        events: list[Any] = []
        large: list[tuple[Any, ...]] = []
        deliveries: list[Any] = []
        dead: list[Death] = []
        checkpoints: dict[str, bytes | None] = {}
        owner, number = session.incarnation, session.numbers.delivery
        for unit in units:
            ids: list[int | None] = []
            if not granted and not claims.take(session, unit.acceptance.guard, now):
                unit.error = ClaimTaken("it was accepted before")
                continue
            for new in unit.acceptance.deliveries:
                claim = None if new.dead is not None else new.claim
                if not granted and not claims.take(session, claim, now, number + 1):
                    ids.append(None)
                    continue
                number += 1
                ids.append(number)
                if len(new.body) > LARGE:
                    large.append((number, new.envelope, new.body, True))
                else:
                    events += (number, new.envelope, new.body)
                deliveries += (number, new.event_id, new.trigger_id, new.version, new.provider, new.kind)
                deliveries += (owner, new.received_at, new.replay_of)
                if new.dead is not None:
                    dead.append((number, new.dead, new.received_at))
            unit.value = Kept(ids)
            if unit.acceptance.checkpoint is not None:
                checkpoints[unit.acceptance.checkpoint.name] = unit.acceptance.checkpoint.value
        session.numbers.delivery = number
        _insert(session, events, large, deliveries)
        mark_dead(session, dead)
        if checkpoints:
            put_all(session, checkpoints)
        _link(session, units, now)


def _insert(session: Session, events: list[Any], large: list[tuple[Any, ...]], deliveries: list[Any]) -> None:
    if events:
        session.execute_rows(_INSERT_EVENTS, 3, events)
    for event in large:
        session.connection.execute(_INSERT_LARGE_EVENT, event)
    if large:
        session.connection.execute(_INSERT_LARGE_EVENT, (None, None, None, False))  # frees the copy of the last one
    if deliveries:
        session.execute_rows(_INSERT_DELIVERIES, 9, deliveries)


def _link(session: Session, units: Sequence[Accept], now: float) -> None:
    """Link deliveries that took the claim of a dead letter with that, in their rows and in the units' values."""
    found = {each.delivery_id: each for each in claims.successions(session)}
    if not found:
        return
    for unit in units:
        kept = unit.value
        if kept is None:
            continue
        pairs = [
            (found[number], new)
            for number, new in zip(kept, unit.acceptance.deliveries, strict=True)
            if number in found
        ]
        for succession, new in pairs:
            session.connection.execute(_NAME_REPEATED, (succession.dead_event, succession.delivery_id))
            mark_replayed(session, succession.dead_id, new.event_id, now)
        if pairs:
            kept.repeats = {succession.delivery_id: succession.dead_event for succession, _ in pairs}


@implementer(IInbox)
class SQLiteInbox(Idea):
    """`IInbox` on SQLite."""

    def accept(self, acceptance: Acceptance) -> Deferred[Kept]:
        """See `IInbox.accept`."""
        return self._executor.writer.write(Accept(acceptance))

    def keep(self, acceptance: Acceptance, waiting: Any, keepings: Keepings) -> None:
        """See `IInbox.keep`."""
        self._executor.writer.add(Accept(acceptance, waiting, keepings))

    def claim(self, scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """See `IInbox.claim`."""
        guard = Claim(scope=scope, key=key, expires_at=expires_at)
        return self.accept(Acceptance(deliveries=(), guard=guard)).addCallbacks(lambda _: True, _false_if_taken)


def _false_if_taken(failure: Failure) -> bool:
    failure.trap(ClaimTaken)
    return False
