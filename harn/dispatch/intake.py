"""
The intake: makes the deliveries that were decided for a request durable, and hands them to the dispatcher.

All deliveries of a request are one durable unit. The deliveries of one commit are handed to the dispatcher together, in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import structs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.decisions import Arrival, Decided, decide
from harn.dispatch.dispatcher import Dispatcher
from harn.lifecycle import Accepted, AcceptedDelivery, Appended, Chosen, DeadLettersEnded, Dropped, Lifecycle
from harn.model.delivery import REPLAYED, Acceptance, Checkpoint, NewDelivery
from harn.store.inbox import IInbox, KeepingEnded, Kept
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Ramp

INBOX_TOPIC = "trigger.inbox.envelopes"
"""The name of the inbox in the metrics."""

log = Logger(namespace="harn.dispatch")


class Taken(msgspec.Struct, frozen=True, gc=False):
    """
    The result of accepting a request's events: the ids of the accepted events in order, and counts.

    :ivar dead: how many accepted events were dead letters from the start.
    :ivar bindings: the key of the version that accepted each event, in the same order.
    """

    event_ids: tuple[str, ...]
    duplicates: int
    ignored: int
    dead: int = 0
    bindings: tuple[str, ...] = ()


class Taking(msgspec.Struct, eq=False):
    """
    The events of one request while they are being made durable. Either `taken` or `not_taken` is called, once;
    subclasses implement both.

    :ivar began_at: when the events were handed to the inbox (reactor's seconds); set by `Intake.begin`.
    """

    binding: BindingVersion
    decided: Decided
    began_at: float = 0.0

    def taken(self, taken: Taken) -> None:
        """Called when all accepted events are on disk; must not raise."""
        raise NotImplementedError

    def not_taken(self, error: Exception) -> None:
        """Called with an error that `Intake.take` raises, when no event was accepted; must not raise."""
        raise NotImplementedError


TAKING_FAILED = "what waited for events to be kept failed; the others of their commit are not affected"

New = tuple[int, BindingVersion, NewDelivery]
"""A new durable delivery: its id, its version and its content."""


class Intake:
    """Accepts events for bindings, and hands their deliveries to the dispatcher."""

    def __init__(
        self,
        clock: IReactorTime,
        inbox: IInbox,
        dispatcher: Dispatcher,
        lifecycle: Lifecycle,
    ) -> None:
        self._clock = clock
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle

    def take(
        self,
        binding: BindingVersion,
        arrival: Arrival,
        events: Sequence[NormalizedEvent],
        *,
        always_claim: bool = False,
        ramp: Ramp | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Deferred[Taken]:
        """
        Accept ``events`` for ``binding``, on which the caller holds a lease.

        :param ramp: chooses for each event between ``binding`` and its stable version, on which the caller holds a
            lease too. Only on a ramp the version is counted as chosen here, since it was not known before.
        :param checkpoint: written in the same durable unit, whether an event is accepted or not.
        :return: fires when all accepted events are on disk.
        :raises ClaimTaken: the arrival's guard was used before.
        :raises EventLogUnavailable: no event is accepted, and no dedupe key is used up.
        """
        try:
            decided = decide(binding, arrival, events, always_claim=always_claim, ramp=ramp)
        except Exception:
            # For example, JSON cannot encode an event of a plugin. A caller with a lease waits for a Deferred.
            if ramp is not None:
                self._lifecycle.emit(Chosen(binding.id, (binding.key,)))
            return fail()
        return self.keep(binding, decided if checkpoint is None else structs.replace(decided, checkpoint=checkpoint))

    def keep(self, binding: BindingVersion, decided: Decided) -> Deferred[Taken]:
        """Accept the events of a decision, as `take` does."""
        waiting = _Firing(binding, decided)
        self.begin(waiting)
        return waiting.deferred

    def begin(self, taking: Taking) -> None:
        """
        Accept the events of a decision, as `take` does; then call a method of ``taking``, perhaps before this returns.
        """
        decided = taking.decided
        deliveries = decided.deliveries
        if decided.ignored or decided.filtered or decided.reached:
            self._count(taking.binding, decided)
        if not deliveries and decided.guard is None and decided.checkpoint is None:
            taking.taken(Taken((), 0, decided.ignored + decided.filtered))
            return
        for holder in decided.holders:
            holder.in_flight += 1  # a lease
        taking.began_at = self._clock.seconds()
        self._inbox.keep(decided, taking, self)
        self._dispatcher.handed_over()

    def keepings_ended(self, ended: Sequence[KeepingEnded]) -> None:
        """See `harn.store.inbox.Keepings`: submit the new deliveries of one commit, then call each `Taking`."""
        now = self._clock.seconds()
        new: list[New] = []
        kept: list[tuple[Taking, Taken]] = []
        for taking, result in ended:
            if isinstance(result, Exception):
                _end(taking, result)
                continue
            try:
                kept.append((taking, self._sorted(result, taking.binding, taking.decided, new)))
            except Exception as error:
                _end(taking, error)
        if kept:
            self._lifecycle.emit(Appended(INBOX_TOPIC, [now - taking.began_at for taking, _ in kept]))
            self._submit(new)
        for taking, taken in kept:
            try:
                taking.taken(taken)
            except Exception:
                log.failure(TAKING_FAILED)

    def keep_shared(self, decisions: Sequence[tuple[BindingVersion, Decided]]) -> Deferred[tuple[Taken, ...]]:
        """
        Accept the events for several triggers that share a path, in one durable unit.

        :param decisions: for each trigger, the binding on which the caller holds a lease, and the decision. The guard
            of the first decision is used.
        :return: fires with the result of `keep` for each trigger.
        """
        ignored = [self._count(binding, decided) for binding, decided in decisions]
        deliveries = tuple(new for _, decided in decisions for new in decided.deliveries)
        holders = tuple(holder for _, decided in decisions for holder in decided.holders)
        guard = decisions[0][1].guard
        if not deliveries and guard is None:
            return succeed(tuple(Taken((), 0, count) for count in ignored))
        for holder in holders:
            holder.lease()
        accepting = self._inbox.accept(Acceptance(deliveries=deliveries, guard=guard)).addCallbacks(
            self._accepted_shared,
            self._not_kept,
            callbackArgs=(decisions, self._clock.seconds()),
            errbackArgs=(holders,),
        )
        self._dispatcher.handed_over()
        return accepting

    def _count(self, binding: BindingVersion, decided: Decided) -> int:
        """Emit which versions were chosen and how many events are not accepted; return the number of the latter."""
        if decided.reached:
            self._lifecycle.emit(Chosen(binding.id, tuple(version.key for version in decided.reached)))
        ignored = decided.ignored + decided.filtered
        if ignored:
            self._lifecycle.emit(Dropped(binding.id, binding.spec.provider, decided.ignored, decided.filtered))
        return ignored

    def _accepted_shared(
        self, kept: Kept, decisions: Sequence[tuple[BindingVersion, Decided]], began_at: float
    ) -> tuple[Taken, ...]:
        """Submit the new deliveries of each trigger; return the result for each."""
        self._lifecycle.emit(Appended(INBOX_TOPIC, [self._clock.seconds() - began_at]))
        try:
            _check_count(kept, sum(len(decided.deliveries) for _, decided in decisions))
        except ValueError:
            for holder in (each for _, decided in decisions for each in decided.holders):
                holder.release()
            raise
        new: list[New] = []
        taken, begin = [], 0
        for binding, decided in decisions:
            end = begin + len(decided.deliveries)
            own = Kept(kept[begin:end])
            own.repeats = {each: kept.repeats[each] for each in own if each is not None and each in kept.repeats}
            taken.append(self._sorted(own, binding, decided, new))
            begin = end
        self._submit(new)
        return tuple(taken)

    @staticmethod
    def _not_kept(failure: Failure, holders: tuple[BindingVersion, ...]) -> Failure:
        """Called when nothing was stored; release the leases."""
        for holder in holders:
            holder.release()
        return failure

    def _sorted(self, kept: Kept, binding: BindingVersion, decided: Decided, new: list[New]) -> Taken:
        """
        Add the deliveries that are on disk to ``new``, and release the leases of duplicates.

        :raises ValueError: the store's answer does not match these deliveries; no lease was released.
        """
        deliveries = decided.deliveries
        if len(kept) == len(deliveries) == 1 and kept[0] is not None and not kept.repeats:  # most requests
            delivery, holder = deliveries[0], decided.holders[0]
            new.append((kept[0], holder, delivery))
            dead = 0 if delivery.dead is None else 1
            return Taken((delivery.event_id,), 0, decided.ignored + decided.filtered, dead, (holder.key,))
        _check_count(kept, len(deliveries))
        event_ids: list[str] = []
        bindings: list[str] = []
        duplicates = dead = 0
        for delivery_id, delivery, holder in zip(kept, deliveries, decided.holders, strict=True):
            if delivery_id is None:
                duplicates += 1
                holder.release()
                continue
            if kept.repeats and delivery_id in kept.repeats:
                delivery = structs.replace(delivery, replay_of=kept.repeats[delivery_id])
            if delivery.dead is not None:
                dead += 1
            event_ids.append(delivery.event_id)
            bindings.append(holder.key)
            new.append((delivery_id, holder, delivery))
        if kept.repeats or duplicates:
            self._left_out(binding, len(kept.repeats), duplicates)
        return Taken(tuple(event_ids), duplicates, decided.ignored + decided.filtered, dead, tuple(bindings))

    def _submit(self, new: Sequence[New]) -> None:
        """
        Emit `Accepted` for deliveries that are on disk, and hand them to the dispatcher.

        An error here does not fail their requests, since the next server runs the deliveries that this one does not.
        """
        if new:
            accepted = [AcceptedDelivery(holder.key, delivery_id, delivery) for delivery_id, holder, delivery in new]
            self._lifecycle.emit(Accepted.of(accepted))
        for delivery_id, holder, delivery in new:
            try:
                if delivery.dead is not None:
                    holder.release()
                else:
                    self._dispatcher.submit(delivery_id, holder, delivery)
            except Exception:
                log.failure(
                    "delivery {delivery_id} of {event_id} could not be queued; the next start of the server runs it",
                    delivery_id=delivery_id,
                    event_id=delivery.event_id,
                )
        try:
            self._dispatcher.turn()
        except Exception:
            log.failure("dispatching failed")

    def _left_out(self, binding: BindingVersion, repeats: int, duplicates: int) -> None:
        """Emit how many dead letters were sent again, and how many events were duplicates."""
        if repeats:
            self._lifecycle.emit(DeadLettersEnded(binding.id, binding.spec.provider, REPLAYED, repeats))
        if duplicates:
            self._lifecycle.emit(Dropped(binding.id, binding.spec.provider, duplicates=duplicates))


def _check_count(kept: Kept, expected: int) -> None:
    """
    Check that the store has answered for each delivery.

    :raises ValueError: the number of answers differs from ``expected``.
    """
    if len(kept) != expected:
        raise ValueError(f"the store must answer for each of {expected} deliveries, got {len(kept)} answers")


def _end(taking: Taking, error: Exception) -> None:
    """Release the leases of events that were not handed over, and call ``taking.not_taken``."""
    try:
        for holder in taking.decided.holders:
            holder.release()
        taking.not_taken(error)
    except Exception:
        log.failure(TAKING_FAILED)


class _Firing(Taking, eq=False):
    """The events of a caller that waits for a Deferred, which it fires."""

    deferred: Deferred[Taken] = msgspec.field(default_factory=Deferred)

    def taken(self, taken: Taken) -> None:
        self.deferred.callback(taken)

    def not_taken(self, error: Exception) -> None:
        self.deferred.errback(error)
