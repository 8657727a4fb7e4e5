"""
Lifecycle events: values that say what happened to a request, delivery, version or server, and their subscribers.

The code that makes something happen emits one event. Code that counts, logs, records or reacts subscribes to the type
of the event. To find the effects of an event, search for ``subscribe(`` and its name. An event that carries values of a
higher package is declared there: those of reloads in `harn.reload.interfaces`, those of rollouts in
`harn.rollout.model`.

Events are emitted and received on the reactor thread. A field ``binding`` is the key of a binding version, for example
``gh@v2``.
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
"""The states of a circuit."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base class of every lifecycle event."""


class Received(Event, frozen=True, gc=False):
    """
    A trigger has received a request, or an event that its connector emitted.

    :ivar binding: the version that takes it; None while the trigger ramps: then `Chosen` follows.
    """

    trigger_id: str
    provider: str
    binding: str | None


class Chosen(Event, frozen=True, gc=False):
    """Versions of a ramping trigger were chosen for the events of a request: ``bindings``, each named once."""

    trigger_id: str
    bindings: tuple[str, ...]


class RequestRefused(Event, frozen=True, gc=False):
    """A request was answered with an HTTP error status; no event was made from it."""

    trigger_id: str
    provider: str
    bindings: tuple[str, ...]
    status: int


class Answered(Event, frozen=True, gc=False):
    """
    A request to a trigger's route was answered, or its client disconnected. Emitted only while traces are on.

    :ivar path: the path of the route.
    :ivar headers: the headers of the request, names in lower case.
    :ivar status: the status of the answer; None if the client disconnected before it.
    :ivar began_at: when all headers had arrived (seconds, Unix).
    :ivar ended_at: when the request was answered or its client disconnected (seconds, Unix).
    :ivar size: the bytes of the request's body.
    :ivar is_verified: whether the sender was authenticated.
    :ivar envelope: the encoded envelope of the first event for this trigger, kept or a duplicate; empty for none.
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
    """A sender has sent the secret with which it will sign; its trigger had none. ``secret`` is never logged."""

    trigger_id: str
    provider: str
    secret: str


class Backpressure(Event, frozen=True, gc=False):
    """A request met the limit ``dimension``, for example ``ingest``; ``action`` is ``admit`` or ``reject``."""

    dimension: str
    action: str


class Appended(Event, frozen=True, gc=False):
    """The durable units of one commit are on disk; ``waits`` says how long the writer of each waited (seconds)."""

    topic: str
    waits: Sequence[float]


class Dropped(Event, frozen=True, gc=False):
    """
    Events of a trigger were not accepted.

    :ivar ignored: how many the trigger's ``events`` do not match.
    :ivar filtered: how many the trigger's ``filter`` refused.
    :ivar duplicates: how many had a dedupe key that was claimed before.
    """

    trigger_id: str
    provider: str
    ignored: int = 0
    filtered: int = 0
    duplicates: int = 0


class AcceptedDelivery(msgspec.Struct, frozen=True, gc=False):
    """A delivery that is on disk; if ``delivery.dead`` is set, it is a dead letter from the start."""

    binding: str
    delivery_id: int
    delivery: NewDelivery


class Accepted(Event, frozen=True, gc=False):
    """
    The new deliveries of one commit are on disk. Under load, one commit has about thirty.

    :ivar deliveries: ordered by id.
    :ivar dead: those that are dead letters from the start; most subscribers need only these.
    """

    deliveries: Sequence[AcceptedDelivery]
    dead: Sequence[AcceptedDelivery] = ()

    @classmethod
    def of(cls, deliveries: Sequence[AcceptedDelivery]) -> Accepted:
        """Return the event for these deliveries."""
        return cls(deliveries, [each for each in deliveries if each.delivery.dead is not None])


class Begun(Event, frozen=True, gc=False):
    """A delivery was handed to its destination."""

    trigger_id: str
    binding: str
    delivery_id: int


class Failing(Event, frozen=True, gc=False):
    """An attempt has failed; what a subscriber writes in this reactor turn is committed with the attempt's outcome."""

    trigger_id: str
    binding: str
    settlement: Settlement


class Interrupted(Event, frozen=True, gc=False):
    """An attempt ended without an outcome and is not counted; its delivery begins again soon."""

    trigger_id: str
    binding: str
    delivery_id: int
    trace: AttemptTrace | None = None


class SettledDelivery(msgspec.Struct, frozen=True, gc=False):
    """
    A delivery whose settlement is on disk: the outcome of an attempt, or a decision without an attempt.

    :ivar envelope: the encoded `harn.model.event.Envelope`.
    :ivar predicate_passed: whether this attempt called the predicate and it returned true.
    :ivar handler_kind: the scheme of the binding's destination.
    :ivar received_at: when the event was received (seconds, Unix).
    :ivar trace: the trace context of the attempt; None if there was no attempt, or traces are off.
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
    The outcomes of attempts that ended together are on disk, in one commit.

    :ivar others: those that are not `DONE`: failed, skipped or given up. Most subscribers need only these.
    """

    deliveries: Sequence[SettledDelivery]
    others: Sequence[SettledDelivery] = ()

    @classmethod
    def of(cls, deliveries: Sequence[SettledDelivery]) -> Settled:
        """Return the event for these deliveries."""
        return cls(deliveries, [each for each in deliveries if each.settlement.state is not DONE])


class DeadLettered(Event, frozen=True, gc=False):
    """
    Deliveries that were in the store but not in memory became dead letters, in one durable unit.

    :ivar binding: their version; None if it had ended before.
    """

    trigger_id: str
    provider: str
    binding: str | None
    reason: str
    count: int


class DeadLettersEnded(Event, frozen=True, gc=False):
    """
    Dead letters of a trigger were replayed or discarded by an operator, or their sender sent the event again.

    :ivar state: ``replayed`` or ``discarded``.
    """

    trigger_id: str
    provider: str
    state: str
    count: int


class Redriven(Event, frozen=True, gc=False):
    """Dead letters of a version were made ready again; the version that replaced it runs them."""

    trigger_id: str
    binding: str
    count: int


class CircuitChanged(Event, frozen=True, gc=False):
    """
    The circuit of a trigger's destination has changed its state.

    :ivar destination: the destination as the manifest's ``handler`` names it.
    :ivar before: the state before: `CIRCUIT_CLOSED`, `CIRCUIT_OPEN` or `CIRCUIT_HALF_OPEN`.
    :ivar state: the state from now on: one of the same three.
    :ivar failures: how many deliveries in a row failed; 0 once the circuit is closed.
    :ivar retry_at: when a probe may begin (seconds, Unix); None unless the circuit is open.
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
    An operator has paused or resumed a trigger. No event is emitted when a pause ends because its time has come.

    :ivar trigger_id: the trigger; None for the whole server.
    :ivar until: when the pause ends by itself (seconds, Unix); None if only a resume ends it.
    """

    trigger_id: str | None
    is_paused: bool
    until: float | None = None


class InterpreterRestarted(Event, frozen=True, gc=False):
    """The process of an interpreter died or was killed; a new process replaces it."""


class VersionClosed(Event, frozen=True, gc=False):
    """A draining version begins no further delivery; ``cancelled`` says whether an operator cancelled its drain."""

    trigger_id: str
    binding: str
    cancelled: bool


class VersionEnded(Event, frozen=True, gc=False):
    """
    A draining version has ended.

    :ivar path: the path of its route; empty for none.
    :ivar is_last: whether it was the last version of its trigger, which was removed.
    """

    trigger_id: str
    version: int
    binding: str
    path: str
    is_last: bool


class StoreChanged(Event, frozen=True, gc=False):
    """
    Another server on the same store has committed changes that may concern this server; see `harn.store.changes`.

    :ivar topics: the topics to read again; empty if changes may have been missed, so that all must be read again.
    """

    topics: frozenset[str] = frozenset()

    def concerns(self, topic: str) -> bool:
        """Return whether ``topic`` may have changed."""
        return not self.topics or topic in self.topics


class ServerStarted(Event, frozen=True, gc=False):
    """The server serves at ``url``: its port is open, and it has taken over what an earlier server left unfinished."""

    url: str
    generation: int


class ServersSeen(Event, frozen=True, gc=False):
    """
    This server has read which servers use its store; it does so with each heartbeat if several may use the store.

    :ivar others: the numbers of the other live servers.
    :ivar leads: whether this server is the leader, which alone does tasks such as polling.
    :ivar has_left: whether a dead server has left deliveries to take over.
    """

    others: tuple[int, ...]
    leads: bool
    has_left: bool = False


class Fenced(Event, frozen=True, gc=False):
    """Other servers have taken over this server's deliveries; its number was ``before``, now it is ``incarnation``."""

    before: int
    incarnation: int


class TakenAway(Event, frozen=True, gc=False):
    """This server dropped deliveries without an outcome, because other servers have taken them over."""

    count: int


E = TypeVar("E")
Subscriber = Callable[[Any], object]


class Lifecycle:
    """
    The stream of lifecycle events: passes each event to the subscribers of its type, in the order of subscription.

    When `emit` returns, every subscriber has been called, also for the events that subscribers emitted meanwhile.
    """

    __slots__ = ("_is_sealed", "_subscribers")

    def __init__(self) -> None:
        self._subscribers: dict[type, tuple[Subscriber, ...]] = {}
        self._is_sealed = False

    def subscribe(self, kind: type[E], subscriber: Callable[[E], object]) -> None:
        """
        Call ``subscriber`` with every event of exactly the type ``kind``, not of its subclasses.

        :raises RuntimeError: `seal` was called before.
        """
        if self._is_sealed:
            raise RuntimeError(f"{kind.__name__}: subscribers must be added before the server starts")
        self._subscribers[kind] = (*self._subscribers.get(kind, ()), subscriber)

    def seal(self) -> None:
        """Accept no more subscribers; called when the server is assembled."""
        self._is_sealed = True

    def emit(self, event: object) -> None:
        """Call the event's subscribers now; log an exception that one raises, and call the others all the same."""
        for subscriber in self._subscribers.get(type(event), ()):
            try:
                subscriber(event)
            except Exception:
                log.failure("a subscriber to {kind} failed", kind=type(event).__name__)
