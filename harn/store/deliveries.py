"""
Where each accepted delivery stands: values, the dead letters that the store makes itself, and the interface; and lists
of deliveries, finished ones too: their filters and rows, and dead letters in groups.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from msgspec import Struct
from zope.interface import Attribute, Interface

from harn.model import delivery as model
from harn.model.delivery import (
    BINDING_REMOVED,
    READY,
    RUNNING,
    WAITING,
    Attempt,
    DeadLetter,
    Settlement,
    State,
    StoredDelivery,
)
from harn.store.holds import Holds

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

HANDLED = "handled"
SKIPPED = "skipped"
FILTER_ERROR = "filter_error"
UNKNOWN = "unknown"

REMOVED = DeadLetter(
    reason=BINDING_REMOVED,
    error_class=BINDING_REMOVED,
    error="its trigger was removed from the manifest before it was done",
)
"""The dead letter of a delivery whose trigger is gone."""


class Backlog(Struct, frozen=True, kw_only=True):
    """Unfinished deliveries of one binding version: ``ready`` to run, and ``waiting`` for a retry's time."""

    trigger_id: str
    version: int
    ready: int
    waiting: int


class DueDelivery(Struct, frozen=True):
    """A delivery whose time had come, and which is ready now."""

    delivery_id: int
    trigger_id: str
    version: int


class Unfinished(Struct, frozen=True):
    """The state of an unfinished delivery, and the version that its row names."""

    state: State
    version: int


class GivenUp(Struct, frozen=True):
    """Counts of the deliveries of one provider that became dead letters: were ``ready`` to run, or ``waiting``."""

    provider: str
    ready: int
    waiting: int


class RecentEvent(Struct, frozen=True, kw_only=True):
    """
    A recorded event, and how its delivery ended.

    :ivar disposition: ``handled`` (its handler was called), ``skipped`` (its predicate said no), ``filter_error``,
        or ``unknown`` while it has not come that far.
    """

    event_id: str
    trigger_id: str
    version: int
    kind: str
    received_at: float
    disposition: str
    envelope: bytes
    body: bytes


def disposition(state: State, reason: str | None, passed: bool, last_outcome: str | None, succeeded: bool) -> str:
    """
    Return how an event was handled, from its delivery's row and attempts.

    :param state: the delivery's.
    :param reason: why it is dead, if it is.
    :param passed: its predicate said yes.
    :param last_outcome: its last attempt's, if there was one.
    :param succeeded: whether any attempt did.
    """
    if state == model.DEAD and reason == model.FILTER_ERROR:
        return FILTER_ERROR
    if state in (model.DONE, model.SKIPPED) and last_outcome == "skipped":
        return SKIPPED
    return HANDLED if passed or succeeded else UNKNOWN


class IDeliveries(Interface):
    """
    Where each accepted delivery stands.

    A delivery belongs to a server (``owner``) from its acceptance, or from the `IRecovery.recover` that took it over.
    `ready`, `due` and `next_due` are about this server's only, so that what an earlier one left is not run before that.
    """

    def settle(*settlements: Settlement) -> Deferred[Collection[int] | None]:
        """
        Record attempts and the new states of their deliveries, as one durable unit: all of them, or none.

        :return: the ids of those that another server has taken over, which stay as they are; None or nothing for none.

        :raises StoreError: a delivery is not there. Which one is named only if there is one settlement.
        """

    def ready(
        trigger_id: str, version: int, excluding: Collection[int], limit: int, max_bytes: int
    ) -> Deferred[Sequence[StoredDelivery]]:
        """
        Return deliveries of a binding version that are ready, by id, without those in ``excluding``; up to
        ``max_bytes`` of bodies, or one. Large bodies are left out.
        """

    def due(now: float, limit: int) -> Deferred[Sequence[DueDelivery]]:
        """Make waiting deliveries whose time has come ready, the longest due first; return which."""

    def next_due(after: float = 0.0) -> Deferred[float | None]:
        """Return when the earliest waiting delivery that is due later than ``after`` is due (seconds, Unix)."""

    def advance_due(seconds: float) -> Deferred[None]:
        """Make every waiting delivery of this server due so many seconds earlier: the wall clock was set back."""

    def find(event_id: str) -> Deferred[Sequence[StoredDelivery]]:
        """Return all deliveries of one event, by id."""

    def backlog() -> Deferred[Sequence[Backlog]]:
        """Count the unfinished deliveries of each binding version. Only for start-up: cost grows with the backlog."""

    def dead_letter(
        trigger_id: str,
        version: int | None,
        dead: DeadLetter,
        excluding: Collection[int],
        *,
        waiting: bool = True,
        tried: bool = True,
    ) -> Deferred[Sequence[GivenUp]]:
        """
        Make unfinished deliveries of a version, or with None of every version of the trigger, dead letters: where
        several servers may use the store, those of this one.

        :param excluding: ids that stay as they are: of those that memory has.
        :param waiting: those that wait for a retry, too.
        :param tried: those that have used up an attempt, too.
        :return: how many that were, by provider.
        """

    def skip(delivery_id: int, reason: str) -> Deferred[Unfinished | None]:
        """
        End a delivery that is ready or waits as skipped, for one of `harn.model.delivery.SKIP_REASONS`.

        :return: its state and version before; None when it is not unfinished, or another server's.
        """

    def redrive(trigger_id: str, version: int, to_version: int, since: float) -> Deferred[int]:
        """
        Make the dead letters of a version ready again, for another version and with all of their attempts: those that
        used up their attempts (``retry_exhausted``) and died at ``since`` (seconds, Unix) or later. This server's.

        :return: the number of deliveries.
        """

    def oldest(versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], StoredDelivery]]:
        """Return for each version (trigger id, number) its oldest unfinished delivery, without its bytes."""

    def recent(trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """
        Return the newest ``limit`` events of each trigger, newest first, among the newest ``depth`` deliveries of all.
        """

    def begins(delivery_id: int) -> Deferred[None]:
        """
        Record that a delivery's handler is about to run; a note is kept until `ended`, or a crash of this process.

        :return: fires, always, when the note would outlive a crash of this process. It is not durable: a failure of the
            whole system may lose it.
        """

    def begins_at_once(delivery_id: int) -> None:
        """Record the same of a handler that does not wait for the note, which is written at the end of this turn."""

    def note_now() -> None:
        """
        Write the notes that `begins_at_once` has recorded in this turn now: its handlers are called before the turn
        ends.
        """

    def ended(*delivery_ids: int) -> None:
        """Remove the notes of deliveries whose handlers have ended."""

    def states(delivery_ids: Collection[int]) -> Deferred[Mapping[int, State]]:
        """Return the state of each of these deliveries that is this server's, or finished; others are left out."""

    def owners(delivery_ids: Collection[int]) -> Deferred[Mapping[int, int]]:
        """Return the number of the server that has each of these deliveries; those that are finished are left out."""


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
    :ivar error_class: of its dead letter, else of its last attempt.
    :ivar error: of its dead letter, else of its last attempt.
    :ivar received_at: seconds, Unix.
    :ivar due_at: seconds, Unix.
    :ivar ended_at: seconds, Unix.
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


class Slice(Struct, frozen=True, kw_only=True):
    """
    Some deliveries of a list, the newest first.

    :ivar before: the list continues with deliveries whose id is less than this; None at its end.
    """

    deliveries: tuple[ListedDelivery, ...]
    before: int | None


class WholeDelivery(Struct, frozen=True, kw_only=True):
    """A delivery with its event, its attempts in order, and its result as JSON."""

    delivery: ListedDelivery
    attempts: tuple[Attempt, ...]
    result: bytes | None


class DeadGroup(Struct, frozen=True, kw_only=True):
    """
    Dead letters of one trigger that died for one reason by one class of error.

    :ivar first: when the first died (seconds, Unix).
    :ivar last: when the newest died (seconds, Unix).
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

    nothing_runs: bool = Attribute(
        "True for a command where no server runs: what ran when one was killed is shown as it is stored."
    )

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
