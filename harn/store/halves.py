"""
The halves of ideas that no dialect changes: the units in which thousands of deliveries are written, and what is decided
in the reactor's thread. A dialect's class adds the statements.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from harn.errors import ClaimTaken
from harn.model.delivery import Acceptance, Claim, Settlement, StoredDelivery
from harn.store.batch import GroupedUnit, log_waiter
from harn.store.executor import Idea
from harn.store.inbox import Keepings, Kept

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from harn.store.recovery import Recovery


_keepings_of = attrgetter("keepings")


class AcceptUnit(GroupedUnit):
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
    def end_all(units: Sequence[AcceptUnit]) -> None:
        """End acceptances that came one after the other: one call for all that ask for one."""
        for keepings, group in groupby(units, _keepings_of):
            together = list(group)
            if keepings is None:
                GroupedUnit.end_all(together)
                continue
            ended = [(unit.waiting, unit.value if unit.error is None else unit.error) for unit in together]
            try:
                keepings.keepings_ended(ended)
            except Exception:
                log_waiter()


class SettleUnit(GroupedUnit):
    """
    Record where deliveries stand.

    :ivar at: since when those do that no attempt has brought there (seconds, Unix).
    :ivar size: bytes of their results.
    """

    __slots__ = ("at", "settlements", "size")

    def __init__(self, settlements: Sequence[Settlement], at: float) -> None:
        super().__init__()
        self.settlements = settlements
        self.at = at
        self.size = sum([len(each.result) for each in settlements if each.result is not None])


class AppendUnit(GroupedUnit):
    """Append a record; payload and headers are encoded already, ``at`` is seconds, Unix."""

    __slots__ = ("at", "headers", "kind", "payload", "topic")

    def __init__(self, topic: str, kind: str, payload: bytes, headers: bytes, at: float) -> None:
        super().__init__()
        self.topic = topic
        self.kind = kind
        self.payload = payload
        self.headers = headers
        self.at = at


class InboxHalf(Idea):
    """`harn.store.inbox.IInbox`, all of which ``unit`` writes."""

    unit: ClassVar[type[AcceptUnit]]

    def accept(self, acceptance: Acceptance) -> Deferred[Kept]:
        """See `IInbox.accept`."""
        return self._executor.writer.write(self.unit(acceptance))

    def keep(self, acceptance: Acceptance, waiting: Any, keepings: Keepings) -> None:
        """See `IInbox.keep`."""
        self._executor.writer.add(self.unit(acceptance, waiting, keepings))

    def claim(self, scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """See `IInbox.claim`."""
        guard = Claim(scope=scope, key=key, expires_at=expires_at)
        return self.accept(Acceptance(deliveries=(), guard=guard)).addCallbacks(lambda _: True, _false_if_taken)


def _false_if_taken(failure: Failure) -> bool:
    failure.trap(ClaimTaken)
    return False


class TakenOver(Struct, frozen=True):
    """
    The result of a recovery in the writer's thread.

    :ivar incarnation: the number of this server from now on.
    :ivar ended: servers whose notes of what ran are of no more use.
    """

    recovery: Recovery
    incarnation: int
    ended: tuple[int, ...]


class Left(Struct, frozen=True):
    """
    Which unfinished deliveries a recovery is about: those of servers that are gone.

    :ivar now: seconds, Unix. ``leaving`` and ``gone``: see `IRecovery.recover`.
    """

    now: float
    leaving: int | None
    gone: int | None


class RecoveryHalf(Idea):
    """The part of `harn.store.recovery.IRecovery` that runs in the reactor's thread."""

    if TYPE_CHECKING:

        def _recover(self, left: Left, limit: int, received_before: float | None) -> Deferred[TakenOver]: ...

        def _unfinished(self, left: Left, older_than: float, limit: int) -> Deferred[Sequence[StoredDelivery]]: ...

        def _count_unfinished(self, left: Left, older_than: float) -> Deferred[int]: ...

    def recover(
        self,
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """See `IRecovery.recover`."""
        return self._recover(Left(now, leaving, gone), limit, received_before).addCallback(self._recovered)

    def _recovered(self, taken: TakenOver) -> Recovery:
        """Called in the reactor's thread: remove notes of no more use, and continue under the number that was given."""
        executor = self._executor
        executor.notes.forget(taken.ended)
        if taken.incarnation != executor.incarnation:
            executor.incarnation = taken.incarnation
            executor.notes.renumber(taken.incarnation)
        return taken.recovery

    def unfinished(
        self, older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """See `IRecovery.unfinished`."""
        return self._unfinished(Left(self._executor.wall.seconds(), leaving, gone), older_than, limit)

    def count_unfinished(self, older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """See `IRecovery.count_unfinished`."""
        return self._count_unfinished(Left(self._executor.wall.seconds(), leaving, gone), older_than)

    def _others(self, seen: Mapping[int, float], left: Left) -> Collection[int]:
        """
        Return the other servers that live, as their heartbeats say, or the caller.

        :param seen: by incarnation when each server of which that was less than `LAPSE` ago was alive last.
        """
        ours, at_start = self._executor.incarnation, self._executor.seen_at_start
        found = living(seen, ours, at_start)
        return [each for each in {*found, left.leaving} - {None, left.gone} if each is not None]


def living(seen: Mapping[int, float], ours: int, seen_at_start: Mapping[int, float]) -> Collection[int]:
    """
    Return the other servers that live: their heartbeat came within `LAPSE`, and is another than it was at our start.

    Where a lock keeps other servers off, those that were silent since our start are gone. That a heartbeat came after
    it shows by its value being another than before, not by its time: the clock may have been set back.

    :param seen: by incarnation when each server was alive last, of those that were within `LAPSE`.
    :param seen_at_start: the same when we started; empty where no lock keeps other servers off.
    """
    return [
        incarnation
        for incarnation, seen_at in seen.items()
        if incarnation != ours and seen_at_start.get(incarnation) != seen_at
    ]
