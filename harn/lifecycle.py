"""
Lifecycle events: what happens to requests, deliveries, versions and the server, as values that anyone may subscribe to.

Whoever makes something happen emits an event, once; whoever wants to count, log, record or react subscribes to its
type. To find what an event causes, search for ``subscribe(`` and its name. Events that carry values of a higher room
are declared there: those of reloads in `harn.reload.interfaces`, those of rollouts in `harn.rollout.model`.

Everything happens on the reactor thread. A field ``binding`` is a binding version's key, for example ``gh@v2``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.logger import Logger

from harn.model.delivery import DONE, NewDelivery, Settlement
from harn.model.event_trace import AttemptTrace
from harn.model.references import LOCAL

log = Logger(namespace="harn.lifecycle")

CIRCUIT_CLOSED, CIRCUIT_OPEN, CIRCUIT_HALF_OPEN = "closed", "open", "half_open"
"""States of a circuit."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base of every event."""


class Received(Event, frozen=True, gc=False):
    """
    A request or an emission has reached a trigger.

    :ivar binding: None while its trigger ramps: `Chosen` follows.
    """

    trigger_id: str
    provider: str
    binding: str | None


class Chosen(Event, frozen=True, gc=False):
    """The versions of a ramping trigger that were chosen for a request."""

    trigger_id: str
    bindings: tuple[str, ...]


class RequestRefused(Event, frozen=True, gc=False):
    """A request was answered with an error status and was never an event."""

    trigger_id: str
    provider: str
    bindings: tuple[str, ...]
    status: int


class Answered(Event, frozen=True, gc=False):
    """
    A request to a trigger's route has been answered, or its client is gone. Emitted while traces are on.

    :ivar path: of the route; ``method``: of the request; ``headers``: of the request, names in lower case.
    :ivar status: of the answer; None where the client disconnected before.
    :ivar began_at: when its headers were in (seconds, Unix); ``ended_at``: when it was answered.
    :ivar size: bytes of its body. ``is_verified``: its sender has proved itself.
    :ivar envelope: of its first event for this trigger, kept or a duplicate; empty for none.
    """

    trigger_id: str
    provider: str
    path: str
    method: str
    headers: Mapping[str, str]
    status: int | None
    began_at: float
    ended_at: float
    size: int
    is_verified: bool
    envelope: bytes


class HandshakeCaptured(Event, frozen=True, gc=False):
    """A sender has brought the secret with which it will sign, while its trigger had none; ``secret`` is not logged."""

    trigger_id: str
    provider: str
    secret: str


class Backpressure(Event, frozen=True, gc=False):
    """Something was delayed for lack of room: ``action`` (``admit``, ``reject``) by ``dimension`` (``ingest``)."""

    dimension: str
    action: str


class Appended(Event, frozen=True, gc=False):
    """Units are on disk, those of one commit; ``waits``: for each, how long its writer waited (seconds)."""

    topic: str
    waits: Sequence[float]


class Dropped(Event, frozen=True, gc=False):
    """
    Events of a trigger were not kept.

    :ivar ignored: how many its ``events`` do not match; ``filtered``: its ``filter`` refused; ``duplicates``: had a
        dedupe key that was claimed before.
    """

    trigger_id: str
    provider: str
    ignored: int = 0
    filtered: int = 0
    duplicates: int = 0


class AcceptedDelivery(msgspec.Struct, frozen=True, gc=False):
    """A delivery that is on disk; with ``delivery.dead`` it is a dead letter from the start."""

    binding: str
    delivery_id: int
    delivery: NewDelivery


class Accepted(Event, frozen=True, gc=False):
    """
    Deliveries are on disk: those that one commit brought, by id. Under load that are some thirty.

    :ivar dead: those of them that are dead letters from the start: few look at more than these.
    """

    deliveries: Sequence[AcceptedDelivery]
    dead: Sequence[AcceptedDelivery] = ()

    @classmethod
    def of(cls, deliveries: Sequence[AcceptedDelivery]) -> Accepted:
        """Return the event of these deliveries."""
        return cls(deliveries, [each for each in deliveries if each.delivery.dead is not None])


class Begun(Event, frozen=True, gc=False):
    """A delivery was handed to its destination."""

    trigger_id: str
    binding: str
    delivery_id: int


class Failing(Event, frozen=True, gc=False):
    """An attempt has failed; what is written in this turn of the reactor is committed with its outcome."""

    trigger_id: str
    binding: str
    settlement: Settlement


class Interrupted(Event, frozen=True, gc=False):
    """
    An attempt ended without an outcome, and does not count: its delivery is begun again soon.

    :ivar trace: of `SettledDelivery`.
    """

    trigger_id: str
    binding: str
    delivery_id: int
    trace: AttemptTrace | None = None


class SettledDelivery(msgspec.Struct, frozen=True, gc=False):
    """
    A delivery whose attempt has an outcome that is on disk, or a decision without an attempt.

    :ivar envelope: the encoded `harn.model.event.Envelope`.
    :ivar predicate_passed: this attempt asked the predicate, and it said yes.
    :ivar handler_kind: the scheme of the binding's destination.
    :ivar received_at: when the event was received (seconds, Unix).
    :ivar trace: the context that the attempt ran in; None where there was no attempt, and while traces are off.
    """

    trigger_id: str
    provider: str
    binding: str
    event_id: str
    envelope: bytes
    predicate_passed: bool
    settlement: Settlement
    handler_kind: str = LOCAL
    received_at: float = 0.0
    trace: AttemptTrace | None = None


class Settled(Event, frozen=True, gc=False):
    """
    Outcomes are on disk: those that one commit brought for attempts that had ended together.

    :ivar others: those of them that are not `DONE`: failed, skipped, given up. Few look at more than these.
    """

    deliveries: Sequence[SettledDelivery]
    others: Sequence[SettledDelivery] = ()

    @classmethod
    def of(cls, deliveries: Sequence[SettledDelivery]) -> Settled:
        """Return the event of these deliveries."""
        return cls(deliveries, [each for each in deliveries if each.settlement.state is not DONE])


class DeadLettered(Event, frozen=True, gc=False):
    """
    Deliveries that only the store held became dead letters, in one durable unit.

    :ivar binding: None where that version had ended before.
    """

    trigger_id: str
    provider: str
    binding: str | None
    reason: str
    count: int


class DeadLettersEnded(Event, frozen=True, gc=False):
    """
    Dead letters of a trigger ended: an operator discarded or replayed them, or their sender sent the event again.

    :ivar state: ``replayed`` or ``discarded``.
    """

    trigger_id: str
    provider: str
    state: str
    count: int


class Redriven(Event, frozen=True, gc=False):
    """Dead letters of a version are ready again, as its successor's."""

    trigger_id: str
    binding: str
    count: int


class CircuitChanged(Event, frozen=True, gc=False):
    """
    The circuit of a trigger's destination has another state.

    :ivar destination: as the manifest's ``handler`` names it.
    :ivar before: `CIRCUIT_CLOSED`, `CIRCUIT_OPEN` or `CIRCUIT_HALF_OPEN`, as is ``state``, which holds from now on.
    :ivar failures: deliveries in a row that failed; 0 once it is closed.
    :ivar retry_at: when a probe may be sent (seconds, Unix); None unless it is open.
    """

    trigger_id: str
    binding: str
    destination: str
    before: str
    state: str
    failures: int
    retry_at: float | None


class PauseChanged(Event, frozen=True, gc=False):
    """
    An operator has paused a trigger, or ended its pause. A pause that ends by its time is not announced.

    :ivar trigger_id: None for the whole server. ``until``: when it ends by itself (seconds, Unix); None: never.
    """

    trigger_id: str | None
    is_paused: bool
    until: float | None = None


class InterpreterRestarted(Event, frozen=True, gc=False):
    """An interpreter's process died, or was killed, and is replaced."""


class VersionClosed(Event, frozen=True, gc=False):
    """A draining version begins nothing more; ``cancelled``: since an operator cancelled its drain."""

    trigger_id: str
    binding: str
    cancelled: bool


class VersionEnded(Event, frozen=True, gc=False):
    """
    A draining version has ended.

    :ivar path: of its route; empty for none.
    :ivar is_last: nothing of its trigger is left: the trigger is gone.
    """

    trigger_id: str
    version: int
    binding: str
    path: str
    is_last: bool


class StoreChanged(Event, frozen=True, gc=False):
    """
    Another server on the same store has committed something that this one may have to do with; see
    `harn.store.changes`.

    :ivar topics: what to read again; empty where changes may have been missed: all that other servers can change.
    """

    topics: frozenset[str] = frozenset()

    def concerns(self, topic: str) -> bool:
        """Return whether a topic may have changed."""
        return not self.topics or topic in self.topics


class ServerStarted(Event, frozen=True, gc=False):
    """
    The server serves: its port is open, and what an earlier server left unfinished is taken over.

    :ivar url: of its listener. ``generation``: the number of the live generation.
    """

    url: str
    generation: int


class ServersSeen(Event, frozen=True, gc=False):
    """
    This server has looked at those on its store, as it does with each heartbeat where several may use it.

    :ivar others: numbers of the others that live. ``leads``: it does what one of them all does, such as polling.
    :ivar has_left: a server that is gone has left deliveries.
    """

    others: tuple[int, ...]
    leads: bool
    has_left: bool = False


class Fenced(Event, frozen=True, gc=False):
    """
    The other servers have taken over what this one had, and it continues under another number.

    :ivar before: its number until then. ``incarnation``: its number from now on.
    """

    before: int
    incarnation: int


class TakenAway(Event, frozen=True, gc=False):
    """Deliveries that other servers have taken over were dropped here, without an outcome."""

    count: int


E = TypeVar("E")
Subscriber = Callable[[Any], object]


class Lifecycle:
    """
    The stream of events: passes each to the subscribers of its type, in the order in which they subscribed.

    When `emit` returns, every subscriber has been called, also for an event that another subscriber emitted.
    """

    __slots__ = ("_is_sealed", "_subscribers")

    def __init__(self) -> None:
        self._subscribers: dict[type, tuple[Subscriber, ...]] = {}
        self._is_sealed = False

    def subscribe(self, kind: type[E], subscriber: Callable[[E], object]) -> None:
        """
        Call ``subscriber`` with every event of exactly this type.

        :raises RuntimeError: the subscribers are sealed.
        """
        if self._is_sealed:
            raise RuntimeError(f"{kind.__name__}: subscribers must be added before the server starts")
        self._subscribers[kind] = (*self._subscribers.get(kind, ()), subscriber)

    def seal(self) -> None:
        """Accept no more subscribers; called once the server is put together."""
        self._is_sealed = True

    def emit(self, event: object) -> None:
        """Pass an event to its subscribers now; one that raises is logged, and the others are called all the same."""
        for subscriber in self._subscribers.get(type(event), ()):
            try:
                subscriber(event)
            except Exception:
                log.failure("a subscriber to {kind} failed", kind=type(event).__name__)
