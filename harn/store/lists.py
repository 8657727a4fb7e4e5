"""Lists of deliveries, finished ones too: their filters and rows, and dead letters in groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from zope.interface import Interface

from harn.model.delivery import READY, RUNNING, WAITING, Attempt, State
from harn.store.holds import Holds

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@frozen(kw_only=True)
class DeliveryFilter:
    """
    Which deliveries are listed; each None, and an empty set of states, allows all.

    :ivar since: seconds, Unix: accepted then or later. Found by the order in which deliveries were accepted, so that it
        is right as far as the clock was never set back.
    :ivar holds: what is held: the states are those that `as_held` shows.
    """

    states: frozenset[State] = frozenset()
    trigger: str | None = None
    kind: str | None = None
    since: float | None = None
    holds: Holds = field(factory=Holds)


@frozen(kw_only=True)
class ListedDelivery:
    """
    A delivery in a list.

    :ivar state: `State.RUNNING` if its server has noted that its handler runs.
    :ivar reason: why it is dead, skipped, or waits; the dead letter's of one that was discarded or replayed.
    :ivar error_class: of its dead letter, else of its last attempt; so is ``error``.
    :ivar received_at: seconds, Unix; so are ``due_at`` and ``ended_at``.
    :ivar died_at: of one that was discarded or replayed: when it became a dead letter.
    :ivar envelope: only where it was asked for, as is ``body``.
    """

    delivery_id: int
    event_id: str
    trigger_id: str
    version: int
    provider: str
    kind: str
    state: State
    attempts: int
    reason: str | None
    error_class: str | None
    error: str | None
    received_at: float
    due_at: float | None
    ended_at: float | None
    died_at: float | None
    replay_of: str | None
    replayed_as: str | None
    envelope: bytes = field(default=b"", repr=False)
    body: bytes = field(default=b"", repr=False)


def as_held(delivery: ListedDelivery, holds: Holds) -> ListedDelivery:
    """Return a delivery as it is shown: one that could run waits while its trigger is held. Pure."""
    is_due = delivery.due_at is not None and delivery.due_at <= holds.at
    if delivery.state is READY or (delivery.state is WAITING and is_due):
        hold = holds.of(delivery.trigger_id)
        if hold is not None:
            return evolve(delivery, state=WAITING, reason=hold.reason, due_at=hold.until)
    return delivery


def stored_states(states: Collection[State], is_held: bool) -> set[State]:
    """Return the states in the store of deliveries that `as_held` shows in some states, by whether they are held."""
    stored = {each for each in states if each is not RUNNING}
    if is_held:
        stored.discard(READY)
    if RUNNING in states:
        stored |= {READY, WAITING}
    if is_held and WAITING in states:
        stored.add(READY)
    return stored


def hidden_triggers(chosen: DeliveryFilter) -> list[str]:
    """Return the triggers, held by themselves, of which a filter allows nothing that is ready in the store. Pure."""
    is_read = READY not in chosen.states or not chosen.states.isdisjoint((WAITING, RUNNING))
    return [] if is_read else list(chosen.holds.by_trigger)


@frozen(kw_only=True)
class Slice:
    """
    Some deliveries of a list, the newest first.

    :ivar before: the list goes on with deliveries whose id is less than this; None at its end.
    """

    deliveries: tuple[ListedDelivery, ...]
    before: int | None


@frozen(kw_only=True)
class WholeDelivery:
    """A delivery with its event, its attempts in order, and its result as JSON."""

    delivery: ListedDelivery
    attempts: tuple[Attempt, ...]
    result: bytes | None


@frozen(kw_only=True)
class DeadGroup:
    """
    Dead letters of one trigger that died for one reason by one class of error.

    :ivar first: when the first died (seconds, Unix); so is ``last``.
    :ivar example_id: the event id of the newest.
    """

    trigger_id: str
    reason: str
    error_class: str
    count: int
    first: float
    last: float
    example_id: str


class IDeliveryLists(Interface):
    """Reads deliveries for people. Nothing here is on the path of an event."""

    def part(chosen: DeliveryFilter, before: int | None, rows: int, limit: int, events: bool) -> Deferred[Slice]:
        """
        Return the next deliveries of a list, the newest first: up to ``limit``, of at most ``rows`` that are looked at.

        Each is shown as `as_held` returns it.

        :param before: begin with a delivery whose id is less than this; None: with the newest.
        :param events: with their envelopes and bodies; then the slice may end early, where bodies are large.
        """

    def whole(event_id: str) -> Deferred[Sequence[WholeDelivery]]:
        """Return each delivery of an event, in its state in the store, whatever is held."""

    def place(event_id: str) -> Deferred[int | None]:
        """Return the id of the first delivery of an event."""

    def dead_groups(trigger: str | None) -> Deferred[Sequence[DeadGroup]]:
        """Return the dead letters of one trigger, or of all, in groups: the one that was added to last first."""
