"""
The places of a trigger with ``max_outstanding``, divided among the servers on one store.

A server runs no more handlers of the trigger than it holds places, and takes them in a transaction: what all hold
together is never more than the limit. It keeps them while no other server needs one, so that a server which alone has
work uses them all, and a delivery costs nothing. Once another server needs some, each keeps its part at most, and
gives the others back as its handlers end; where there are fewer places than servers, they take turns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.queue import UNLIMITED, Share
from harn.errors import EventLogUnavailable
from harn.store.interfaces import IStore

log = Logger(namespace="harn.dispatch")

PLACES = "places/"
"""Names of the records of places begin so; the trigger's id follows. Each has by number of a server its `Holding`."""
TURN = 1.0
"""Seconds for which a server keeps its last places, though another one has none."""
REST = 0.25
"""Seconds after which a server that has given places back takes some again, unless another one has."""
TRIES = 10
"""So often a change is tried again because another server has changed the record meanwhile."""


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """
    The places that one server holds, and the number that it could use.

    :ivar ticket: of a server that has none and waits for one: those with a lower one come first. 0 of others.
    """

    held: int = 0
    wants: int = 0
    ticket: int = 0

    @property
    def is_hungry(self) -> bool:
        """Whether it could use more than it holds."""
        return self.wants > self.held


NOTHING = Holding()


def places_for(limit: int, own: Holding, running: int, others: Collection[Holding], *, is_over: bool) -> int:
    """
    Return how many places a server may hold. Pure.

    :param own: its holding. ``running``: how many of its handlers run, whose places it keeps.
    :param is_over: its turn has ended: it gives one back to a server that has none.
    """
    before = sum(0 < each.ticket < own.ticket for each in others)
    free = max(0, limit - sum(each.held for each in others) - before)
    hungry = [each for each in others if each.is_hungry]
    if not hungry:
        return max(running, min(free, max(own.held, own.wants)))
    claimants = (own.wants > 0) + sum(each.wants > 0 for each in others)
    part = -(-limit // claimants)
    held = min(free, own.wants, part)
    if is_over and held >= free and any(not each.held for each in hungry):
        held = min(held, own.held) - 1
    return max(running, held, 0)


@define(eq=False)
class _Trigger:
    """
    The places of one trigger on this server.

    :ivar others: what the others held at the last look. ``noted``: what this server has in the store.
    :ivar since: since when it holds any (reactor's seconds). ``rests_until``: it takes none before.
    :ivar later: looks again at its time. ``is_failing``: the store could not be asked: nothing is asked before that.
    """

    share: Share
    limit: int
    held: int = 0
    noted: Holding = NOTHING
    others: tuple[Holding, ...] = ()
    since: float = 0.0
    rests_until: float = 0.0
    is_busy: bool = False
    is_outdated: bool = False
    is_failing: bool = False
    later: IDelayedCall | None = None

    @property
    def is_contested(self) -> bool:
        """Whether another server needs places, or all hold more than the limit, which was lowered."""
        held = self.held + sum(each.held for each in self.others)
        return held > self.limit or any(each.is_hungry for each in self.others)


class IBeginner(Protocol):
    """The part of `harn.dispatch.dispatcher.Dispatcher` that `Places` calls."""

    def begin_more(self, share: Share) -> None:
        """Called when a trigger has more places, with its share."""


class Places:
    """The places of all triggers, of one server."""

    def __init__(self, clock: IReactorTime, store: IStore, dispatcher: IBeginner) -> None:
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._triggers: dict[str, _Trigger] = {}
        self._living: frozenset[int] = frozenset()
        self._newest = self._last = 0
        self._is_draining = self._is_closed = False

    def drain(self) -> None:
        """Called when this server begins to end: it needs places for what runs alone."""
        self._is_draining = True
        self.follow(())

    def close(self) -> None:
        """Stop taking places; those of this server are free once it has ended."""
        self._is_closed = True
        for found in self._triggers.values():
            if found.later is not None and found.later.active():
                found.later.cancel()

    def limit(self, share: Share, limit: int) -> int:
        """Return how many handlers of a trigger this server may run, of which all may run ``limit``."""
        found = self._triggers.get(share.trigger_id)
        if limit >= UNLIMITED:
            if found is not None:
                self._release(found)
            return limit
        if found is None:
            found = self._triggers[share.trigger_id] = _Trigger(share, limit)
        found.share = share
        if found.limit != limit:
            found.limit = limit
            self._update_in(found, 0.0)  # a turn of the dispatcher may be under way
        return min(limit, found.held)

    def removed(self, trigger_id: str) -> None:
        """Called when the last version of a trigger has ended."""
        found = self._triggers.get(trigger_id)
        if found is not None:
            self._release(found)

    def _release(self, found: _Trigger) -> None:
        """Release all places of a trigger that is gone, or whose limit a reload has removed."""
        trigger_id = found.share.trigger_id
        del self._triggers[trigger_id]
        if found.later is not None and found.later.active():
            found.later.cancel()
        releasing = self._store.checkpoints.amend(PLACES + trigger_id, {str(self._store.incarnation): None})
        releasing.addErrback(lambda failure: failure.trap(EventLogUnavailable))

    def wanted(self, share: Share) -> None:
        """Called when a delivery of the trigger could begin if this server held a further place."""
        found = self._triggers.get(share.trigger_id)
        if found is None or found.is_failing or self._clock.seconds() < found.rests_until:
            return
        if self._wants(found) > found.held and (not found.noted.is_hungry or not found.others):
            self._update(found)

    def ended(self, share: Share) -> None:
        """Called when a handler of the trigger has ended: another server may need its place."""
        found = self._triggers.get(share.trigger_id)
        if found is not None and found.is_contested and self._lower(found):
            self._update(found)

    def follow(self, topics: Collection[str]) -> None:
        """Read the records again that other servers may have changed; with no topics, all."""
        for trigger_id, found in self._triggers.items():
            if not topics or PLACES + trigger_id in topics:
                self._update(found)

    def seen(self, others: Collection[int]) -> None:
        """Called with the numbers of the other servers that live: the places of one that is gone are free."""
        is_new = self._store.incarnation != self._last
        if is_new:
            self.renumbered()
        living = frozenset(others)
        is_same, self._living = living == self._living, living
        self._newest = max((self._newest, self._store.incarnation, *others))
        if is_new or not is_same:
            self.follow(())

    def renumbered(self) -> None:
        """Called when this server continues under another number: it holds no places under that."""
        self._last = self._store.incarnation
        for found in self._triggers.values():
            found.held, found.noted = 0, Holding()
            found.share.active = None

    def _wants(self, found: _Trigger) -> int:
        """Return the number of places that could be used."""
        share = found.share
        waiting = share.unbegun if share.held is None and not self._is_draining else 0
        return min(found.limit, share.running + waiting)

    def _lower(self, found: _Trigger) -> bool:
        """Release places that others need, here first; return whether there are any."""
        now = self._clock.seconds()
        ours, running = Holding(found.held, self._wants(found)), found.share.running
        is_over = now - found.since >= TURN
        held = places_for(found.limit, ours, running, found.others, is_over=is_over)
        if held < found.held:
            found.held = held
            found.share.limit = min(found.limit, held)
            found.rests_until = now + REST
            self._update_in(found, REST)
            return True
        return False

    def _update_in(self, found: _Trigger, seconds: float) -> None:
        """Write the record again in so many seconds, or when that is due anyway."""
        if found.later is not None and found.later.active():
            if found.later.getTime() <= self._clock.seconds() + seconds:
                return
            found.later.cancel()
        if not self._is_closed:
            found.later = self._clock.callLater(seconds, self._update, found)

    def _update(self, found: _Trigger) -> None:
        """Write the record again, with the places that may be taken; once more if this is called meanwhile."""
        if found.is_busy or self._is_closed:
            found.is_outdated = True
            return
        found.is_busy, found.is_outdated = True, False
        updating = Deferred.fromCoroutine(self._updated(found))
        updating.addErrback(self._not_updated, found).addBoth(lambda _: self._over(found))

    def _over(self, found: _Trigger) -> None:
        found.is_busy = False
        if found.is_outdated and not self._is_closed:
            self._update(found)
        elif found.rests_until > self._clock.seconds():
            self._update_in(found, found.rests_until - self._clock.seconds())

    def _not_updated(self, failure: Failure, found: _Trigger) -> None:
        if failure.check(EventLogUnavailable) is None:
            log.failure("places of a trigger could not be taken", failure)
        found.noted, found.is_failing = NOTHING, True  # it is not known what the record has now
        self._update_in(found, TURN)

    async def _updated(self, found: _Trigger) -> None:
        name, checkpoints = PLACES + found.share.trigger_id, self._store.checkpoints
        for _ in range(TRIES):
            if self._triggers.get(found.share.trigger_id) is not found:
                return
            value = await checkpoints.get(name)
            records = msgspec.convert(value or {}, dict[str, Holding])
            others = self._of_others(records)
            found.others, found.is_failing = tuple(others.values()), False
            self._lower(found)
            ours, before = self._wished(found), records.get(str(self._store.incarnation), NOTHING)
            if self._is_needless(ours, before, found.others):
                found.noted = before
                self._take(found, ours.held)  # it may have given some up, and the record of that failed
                return
            after: dict[str, Any] = {number: msgspec.to_builtins(each) for number, each in others.items()}
            if ours != NOTHING:
                after[str(self._store.incarnation)] = msgspec.to_builtins(ours)
            if after == (value or {}) or await checkpoints.replace(name, value, after or None):
                found.noted = ours
                self._take(found, ours.held)
                return
        found.is_outdated = True

    @staticmethod
    def _is_needless(ours: Holding, before: Holding, others: Collection[Holding]) -> bool:
        """Return whether a record differs in nothing that concerns the others, of which none needs a place."""
        is_calm = not any(each.is_hungry for each in (ours, before, *others))
        return is_calm and ours.held == before.held

    def _wished(self, found: _Trigger) -> Holding:
        """Return the places that this server holds from now on, and waits for."""
        wants, held, ticket = self._wants(found), found.held, 0
        if wants and not held:
            ticket = found.noted.ticket or 1 + max((each.ticket for each in found.others), default=0)
        if self._clock.seconds() >= found.rests_until:
            ours = Holding(held, wants, ticket)
            held = max(held, places_for(found.limit, ours, found.share.running, found.others, is_over=False))
        # Others need to know whether this server wants anything, and whether that is more than it has.
        return Holding(held, min(wants, held + 1) if wants > held else held if wants else 0, 0 if held else ticket)

    def _take(self, found: _Trigger, held: int) -> None:
        """Use the places that the store has for this server, but for those that were given up meanwhile."""
        is_current = self._triggers.get(found.share.trigger_id) is found
        if held <= found.held or self._clock.seconds() < found.rests_until or not is_current:
            return
        if not found.held:
            found.since = self._clock.seconds()
        found.held = held
        found.share.limit = min(found.limit, held)
        self._clock.callLater(0, self._dispatcher.begin_more, found.share)  # a turn of the dispatcher may be under way

    def _of_others(self, records: Mapping[str, Holding]) -> dict[str, Holding]:
        """Return the records of the other servers that live, or began after the last look at them."""
        ours = self._store.incarnation
        return {
            number: each
            for number, each in records.items()
            if int(number) != ours and (int(number) in self._living or int(number) > self._newest)
        }
