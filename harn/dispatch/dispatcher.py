"""
The dispatcher: runs accepted deliveries, a limited number at the same time, and makes the outcome of each durable.

`harn.dispatch.settlements` decides the outcomes, and the store holds all durable state: the dispatcher's memory can be
lost at any moment, and the next server rebuilds it. Every change that may let a delivery begin calls `Dispatcher.turn`:
it begins all deliveries that may begin, reads rows for queues that have room, and gives up deliveries that no version
can run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.dispatch.attempts import Attempts
from harn.dispatch.closing import ClosedVersions
from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.gates import Gates
from harn.dispatch.parts import DispatchLimits, DispatchParts
from harn.dispatch.places import Places
from harn.dispatch.queue import Share
from harn.dispatch.settler import Outcome
from harn.dispatch.timers import Woken
from harn.lifecycle import VersionEnded
from harn.model.delivery import NewDelivery, StoredDelivery, Workload
from harn.server import Server
from harn.store.deliveries import Backlog
from harn.triggers.binding import BindingVersion
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")

T = TypeVar("T")

BETWEEN_EXCHANGES = 16
"""After this many requests in one reactor turn, deliveries whose handlers have ended are settled."""
UNSETTLED_LIMIT = 1024
"""While more outcomes than this are not yet on disk, no delivery begins."""


@implementer(IVersionDeliveries)
class Dispatcher:
    """
    Runs deliveries, within limits, and makes their outcomes durable.

    :ivar in_progress: the deliveries whose handler runs now, by id.
    """

    def __init__(self, server: Server, registry: Registry, limits: DispatchLimits) -> None:
        lifecycle = server.lifecycle
        self._interpreters, self._deliveries = server.interpreters, server.store.deliveries
        self._registry = registry
        parts = DispatchParts(server.reactor, server.wall, server.store, registry, lifecycle, limits, server.traces)
        self._attempts = Attempts(self, parts, server.random)
        self._wakeups, self._writes = parts.wakeups, parts.writes
        self._room, self._bodies = parts.room, parts.bodies
        self._queues, self._scheduler, self._refill = parts.queues, parts.scheduler, parts.refill
        self._retries, self._settler, self._closing = parts.retries, parts.settler, parts.closing
        self._dropping = parts.dropping
        self._interruptions, self._cancellations = parts.interruptions, parts.cancellations
        self._turns, self._suspects = parts.scheduler.turns, parts.scheduler.suspects
        self.in_progress: Mapping[int, Delivery] = self._scheduler.running
        self._idle: Deferred[None] | None = None
        self._open = True
        self._in_turn = self._goes_on = False
        self._handed_over = 0
        self._left: int | None = None
        self._submitted_large: list[Delivery] = []
        lifecycle.subscribe(Woken, lambda event: self._woken())
        lifecycle.subscribe(VersionEnded, lambda event: self._queues.version_ended(event.trigger_id, event.version))

    # For other packages

    def submit(self, delivery_id: int, binding: BindingVersion, new: NewDelivery) -> None:
        """
        Queue a delivery that has just become durable, and take over the caller's lease on ``binding``.

        It begins now if no other waits; otherwise not before the next `turn`, when all of one durable unit are
        submitted.
        """
        queue = self._queues.of(binding.id, binding.version)
        delivery = Delivery.accepted(delivery_id, queue, new)
        if self._left is None and self._begins_more and self._scheduler.takes_at_once(delivery, binding):
            self._attempts.begin(delivery)
        elif self._queues.admit(queue, binding, stays=queue.share.has_found(delivery_id)):
            self._scheduler.hold(delivery)
            if delivery.large:
                self._submitted_large.append(delivery)

    def submit_row(self, row: StoredDelivery, binding: BindingVersion) -> None:
        """Queue the delivery of a row that names ``binding``, as `submit` does; the row may lack a large body."""
        queue = self._queues.of(binding.id, binding.version)
        if self._queues.admit(queue, binding, stays=queue.share.has_found(row.delivery_id)):
            self._scheduler.hold(Delivery.stored(row, queue))

    @property
    def _begins_more(self) -> bool:
        """Whether outcomes can be written, and as fast as deliveries begin; else none may begin."""
        return self._open and not self._settler.is_gone and self._settler.unsettled < UNSETTLED_LIMIT

    def handed_over(self) -> None:
        """
        Called with each request whose events are handed to the inbox.

        After every `BETWEEN_EXCHANGES` requests, settle the deliveries that have ended, and begin others, within the
        same reactor turn. One reactor turn can take a request from each of hundreds of connections, but without this
        it would run only as many deliveries as there are places, so that the backlog would grow without bound.
        """
        self._handed_over += 1
        if self._handed_over >= BETWEEN_EXCHANGES:
            self._handed_over = 0
            if self.in_progress:
                self._deliveries.note_now()  # send the deliveries that began in this turn now
                self._interpreters.exchange()

    def hold(self) -> None:
        """Read no rows and make no retries ready until `resume`, because rows are being taken over."""
        self._retries.hold()
        self._refill.hold()

    def take_over(self, backlog: Iterable[Backlog]) -> None:
        """Count the rows that this server has taken over, and take leases on the versions that will run them."""
        for entry in backlog:
            self._registry.waiting[entry.trigger_id] += entry.waiting
            if entry.ready:
                self._queues.became_ready(entry.trigger_id, entry.version, entry.ready)
        for share in self._queues.shares():
            self._scheduler.pace(share, self.gates.rate(share.trigger_id))
        self.turn()

    def resume(self, next_due: float | None) -> None:
        """End `hold`; no retry that was taken over is due before ``next_due`` (seconds, Unix; None for none)."""
        self._refill.resume()
        self._retries.resume(next_due)
        self.turn()

    @property
    def max_outstanding(self) -> int:
        """The most handlers that may run at the same time."""
        return self._scheduler.max_outstanding

    def apply(self, max_outstanding: int, max_bytes: int | None = None) -> None:
        """Set the most handlers that may run at a time, and the limits in bytes if given; running ones continue."""
        self._scheduler.apply(max_outstanding)
        if max_bytes is not None:
            self._bodies.max_bytes = self._room.max_bytes = max_bytes
        self.turn()

    @property
    def gates(self) -> Gates:
        """The gates that a delivery must pass before it begins."""
        return self._queues.gates

    def divide(self, places: Places) -> None:
        """Set the object that divides the limits of triggers among the servers on the store."""
        self._scheduler.places = places

    def begin_more(self, share: Share) -> None:
        """See `IBeginner.begin_more`."""
        self._scheduler.enlist(share)
        self.turn()

    def gate_changed(self, trigger_id: str | None = None) -> None:
        """Read the gates again for a trigger, or with None for all triggers."""
        for share in self._queues.shares(trigger_id):
            self._scheduler.gate_changed(share)
        self.turn()

    def ask_gates_at(self, trigger_id: str, at: float) -> None:
        """Read the gates again for a trigger at ``at`` (seconds, Unix), or before."""
        for share in self._queues.shares(trigger_id):
            self._queues.ask_gates_at(share, at)

    def pace(self, trigger_id: str | None, rate: float | None) -> None:
        """Begin waiting deliveries of a trigger, or with None of each, at most ``rate`` a second (None: no limit)."""
        for share in self._queues.shares(trigger_id):
            self._scheduler.pace(share, rate)

    def waiting(self, trigger_id: str | None) -> int:
        """Return how many deliveries of a trigger, or with None of all triggers, have not begun."""
        return sum(share.unbegun for share in self._queues.shares(trigger_id))

    def watch(self, event_id: str) -> Deferred[Outcome]:
        """See `Settler.watch`."""
        return self._settler.watch(event_id)

    @property
    def queued(self) -> int:
        """The number of deliveries that wait in memory for a free place."""
        return self._room.count - len(self._queues.interrupted)

    @property
    def bytes_in_hand(self) -> int:
        """The bytes of all deliveries in memory, waiting or running."""
        return self._room.bytes + self._bodies.bytes

    @property
    def closed(self) -> ClosedVersions:
        """The stored record of closed versions, which a starting server reads."""
        return self._closing.closed

    def drop_all(self) -> None:
        """Drop every delivery that this server accepted under its earlier number, since others have taken them over."""
        self._dropping.drop_all()
        self.turn()

    def drain(self, max_items: int) -> Deferred[None]:
        """
        Begin at most ``max_items`` more deliveries; fire when none runs and every outcome is on disk.

        Deliveries that have not begun stay in the store for the next server.
        """
        self._left = max_items if self._left is None else 0
        idle = self._idle = Deferred()
        self._retries.stop()
        self._wakeups.stop()
        self.turn()
        return idle

    def close(self) -> None:
        """Begin no further delivery; closing the interpreters ends the running ones."""
        self._open = False
        self._retries.stop()
        self._refill.close()
        self._wakeups.stop()
        self._writes.close()
        self._interruptions.close()

    def workload(self, bindings: Iterable[BindingVersion]) -> Mapping[BindingVersion, Workload]:
        """Return the unfinished deliveries of each version; the time grows with the number of running deliveries."""
        running = Counter(delivery.binding for delivery in self.in_progress.values())
        return {each: Workload(running[each], self._queues.unbegun(each)) for each in bindings}

    def stored(self, binding: BindingVersion) -> int:
        """Return how many of the deliveries that wait for a version are only in the store."""
        return self._queues.stored(binding)

    def move_on(self, binding: BindingVersion) -> Deferred[int]:
        """See `Closing.move_on`."""
        return self._then_turn(self._closing.move_on(binding))

    def move_and_redrive(self, binding: BindingVersion, since: float) -> Deferred[int]:
        """See `Closing.move_and_redrive`."""
        return self._then_turn(self._closing.move_and_redrive(binding, since))

    def cancel(self, binding: BindingVersion) -> Deferred[int]:
        """See `Closing.cancel`."""
        return self._then_turn(self._closing.cancel(binding))

    def cancel_delivery(self, event_id: str, delivery_id: int) -> Deferred[bool]:
        """See `Cancellations.cancel`."""
        return self._then_turn(Deferred.fromCoroutine(self._cancellations.cancel(event_id, delivery_id)))

    def _then_turn(self, closing: Deferred[T]) -> Deferred[T]:
        """Begin the deliveries that may begin, now and when ``closing`` has fired; return it."""

        def over(result: T | Failure) -> T | Failure:
            self.turn()
            return result

        self.turn()
        return closing.addBoth(over)

    # Turns

    def _woken(self) -> None:
        """Called at a time when a retry may be due or a delivery may begin."""
        self._scheduler.look_again()
        retrying = self._retries.look()
        if retrying is not None:
            self.and_turn([retrying])
        self.turn()

    def turn(self) -> None:
        """
        Begin deliveries that may begin, start reads, give up orphans; then begin those that this made ready.
        """
        queues = self._queues
        work = self._turns or self._suspects.concern or queues.hungry or queues.orphans or self._submitted_large
        if not work and self._idle is None:
            return  # the usual case after a delivery has ended under little load
        self._goes_on = True
        if self._in_turn:
            return
        self._in_turn = True
        try:
            while self._goes_on:
                self._goes_on = False
                self._begin_all()
                if self._open and (queues.hungry or queues.orphans):
                    self._start_work()
        finally:
            self._in_turn = False
        if self._submitted_large:
            for delivery in self._submitted_large:
                if delivery.phase is Phase.QUEUED:
                    delivery.drop_body()
            self._submitted_large.clear()
        if self._idle is not None:
            self._check_idle()

    def _begin_all(self) -> None:
        while self._begins_more and self._left != 0:
            delivery = self._scheduler.next()
            if delivery is None:
                return
            if self._left is not None:
                self._left -= 1
            self._attempts.begin(delivery)

    def _start_work(self) -> None:
        if self._queues.hungry:
            reading = self._refill.begin()
            if reading is not None:
                self.and_turn([reading])
        if self._queues.orphans:
            self.and_turn(self._closing.give_up_orphans())

    def and_turn(self, work: Iterable[Deferred[Any]]) -> None:
        """Begin the deliveries that may begin when each of these has ended."""
        for each in work:
            each.addErrback(_unexpected).addCallback(lambda _: self.turn())

    def _check_idle(self) -> None:
        if self._idle is None or self.in_progress or self._settler.unsettled or self._queues.interrupted:
            return
        self._left = 0
        idle, self._idle = self._idle, None
        idle.callback(None)


def _unexpected(failure: Failure) -> None:
    log.failure("dispatching failed", failure=failure)
