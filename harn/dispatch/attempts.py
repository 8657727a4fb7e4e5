"""
Attempts: hands a delivery that begins to its destination, and settles together the attempts that end together.

The outcome of an attempt is decided in `harn.dispatch.settlements`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.parts import DispatchParts
from harn.dispatch.settlements import failed, skipped, succeeded
from harn.dispatch.settler import Settling
from harn.errors import AttemptFailed, CallInterrupted
from harn.lifecycle import Begun, Failing, Interrupted
from harn.model.delivery import CANCELLED
from harn.model.exchange import Ending, Returned
from harn.triggers.binding import BindingVersion

log = Logger(namespace="harn.dispatch")

DEATHS_UNTIL_ALONE = 2


class Turns(Protocol):
    """The methods of the dispatcher that `Attempts` calls."""

    def turn(self) -> None:
        """Begin the deliveries that may begin."""

    def and_turn(self, work: Iterable[Deferred[Any]]) -> None:
        """Begin the deliveries that may begin, whenever one of these Deferreds has fired."""


class Attempts:
    """
    Begins the attempts of deliveries, and receives their outcomes.

    :param random: the source of random numbers for the delays before retries.
    """

    def __init__(self, turns: Turns, parts: DispatchParts, random: Random) -> None:
        self._turns = turns
        self._random = random
        self._clock, self._wall = parts.clock, parts.wall
        self._deliveries = parts.deliveries
        self._registry, self._lifecycle = parts.registry, parts.lifecycle
        self._scheduler, self._bodies, self._settler = parts.scheduler, parts.bodies, parts.settler
        self._interruptions, self._retries, self._closing = parts.interruptions, parts.retries, parts.closing
        self._traces = parts.traces

    def begin(self, delivery: Delivery) -> None:
        """Begin a delivery that its queue counts as begun; give it up if it has no destination or a gate refuses it."""
        share = delivery.queue.share
        binding = delivery.binding = self._version_for(delivery)
        destination = binding.destination
        if destination is None or share.refusal is not None:
            self._turns.and_turn([self._settler.give_up(delivery)])
            return
        delivery.destination = destination.retain()
        delivery.become(Phase.RUNNING)
        delivery.began_at = self._clock.seconds()
        self._scheduler.begun(delivery)
        if self._traces is not None:
            delivery.trace = self._traces.begin(delivery.envelope, delivery.event_id, self._wall.seconds())
        if not delivery.is_read_back and delivery.body is not None:
            self._deliveries.begins_at_once(delivery.delivery_id)
            self._lifecycle.emit(Begun(binding.id, binding.key, delivery.delivery_id))
            self._run_at_once(delivery)
            return
        # It may have crashed an earlier server. Record its beginning, so that another crash is counted against it.
        noted = self._deliveries.begins(delivery.delivery_id)
        self._lifecycle.emit(Begun(binding.id, binding.key, delivery.delivery_id))
        ready = delivery.calling = noted.addCallback(lambda _: self._bodies.read(delivery))
        running = ready.addCallback(lambda _: self._run(delivery))
        running.addErrback(self._not_run, delivery).addErrback(_unexpected)

    def _version_for(self, delivery: Delivery) -> BindingVersion:
        """Return the version that runs a delivery; the lease of its queue becomes the delivery's lease on it."""
        queue = delivery.queue
        holder = queue.holder
        assert holder is not None
        if delivery.attempts:
            own = self._registry.get(holder.id, queue.version)
            newest = self._registry.for_retry(holder.id, own)
            if newest is not None and newest is not holder:
                newest.lease()
                holder.release()
                return newest
        return holder

    def _run(self, delivery: Delivery) -> None:
        """Run a delivery on its destination; `ended` may be called before this returns."""
        delivery.calling = None
        alone = delivery.deaths >= DEATHS_UNTIL_ALONE
        running = delivery.destination.run(delivery.outgoing(), delivery, self, alone=alone)
        if delivery.phase is Phase.RUNNING and delivery.calling is None:
            delivery.calling = running

    def _run_at_once(self, delivery: Delivery) -> None:
        """Run a delivery; an exception of the destination fails this attempt and does not stop the scheduler's loop."""
        try:
            self._run(delivery)
        except Exception:
            if delivery.phase is Phase.RUNNING:
                self._not_run(Failure(), delivery)
            else:
                _unexpected(Failure())

    def _not_run(self, failure: Failure, delivery: Delivery) -> None:
        error = failure.value
        self.ended([(delivery, error if isinstance(error, Exception) else AttemptFailed(str(error)))])

    # Ending

    def ended(self, endings: Sequence[Ending]) -> None:
        """See `Endings.ended`: settle these attempts together; then begin the deliveries that may begin."""
        now, clock_now = self._wall.seconds(), self._clock.seconds()
        scheduler = self._scheduler
        settling: list[Settling] = []
        self._deliveries.ended(*[delivery.delivery_id for delivery, _ in endings])
        for ending in endings:
            delivery: Delivery = ending[0]
            scheduler.ended(delivery)
            delivery.calling = None
            delivery.destination.release()
            # The difference is measured with the reactor's clock, since the wall clock may jump.
            started_at = now - (clock_now - delivery.began_at)
            if delivery.is_taken:
                self._lifecycle.emit(
                    Interrupted(delivery.binding.id, delivery.binding.key, delivery.delivery_id, delivery.trace)
                )
                self._settler.drop(delivery)
            elif isinstance(ending[1], Returned):
                settling.append((delivery, succeeded(delivery, started_at, now, ending[1].result)))
            else:
                self._failed(delivery, started_at, ending[1], settling)
        if settling:
            self._settler.settle(settling).addCallback(self._settled, settling).addErrback(_unexpected)
        self._turns.turn()
        self._deliveries.note_now()  # send the deliveries that began just now in this reactor turn

    def _failed(self, delivery: Delivery, started_at: float, error: Exception, settling: list[Settling]) -> None:
        """Decide how to settle an attempt that failed or was interrupted; add any settlement to ``settling``."""
        binding = delivery.binding
        if delivery.cancelling:
            settling.append((delivery, skipped(delivery, CANCELLED)))
        elif binding.is_cancelled:
            # Its handler does not run any more: the cancellation of the drain interrupted it.
            self._turns.and_turn([self._settler.give_up(delivery, running=True)])
        elif isinstance(error, CallInterrupted):
            self._lifecycle.emit(Interrupted(binding.id, binding.key, delivery.delivery_id, delivery.trace))
            self._turns.and_turn([self._interruptions.queue_again(delivery, suspect=error.suspect)])
        else:
            if not isinstance(error, AttemptFailed):
                log.failure("an attempt failed in an unexpected way", failure=Failure(error))
                error = AttemptFailed(f"{type(error).__name__}: {error}")
            gone = self._registry.for_retry(binding.id, binding) is None
            self._retries.follow_wall_clock()
            now = self._wall.seconds()
            settlement = failed(delivery, started_at, now, error, self._random.random(), gone=gone)
            self._lifecycle.emit(Failing(binding.id, binding.key, settlement))
            settling.append((delivery, settlement))

    def _settled(self, _: None, settled: Sequence[Settling]) -> None:
        redriving = [self._closing.died(each.binding, settlement) for each, settlement in settled if settlement.dead]
        self._turns.and_turn([each for each in redriving if each is not None])
        self._turns.turn()


def _unexpected(failure: Failure) -> None:
    log.failure("dispatching failed", failure=failure)
