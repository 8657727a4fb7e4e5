"""Destinations of plugins as the dispatcher may rely on them: in time, with known failures, behind the predicate."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.destinations.interfaces import IDestination
from harn.destinations.local import call_of
from harn.errors import AttemptFailed, CallInterrupted, DestinationFailed, HandlerTimedOut
from harn.model.exchange import OutgoingDelivery, Returned
from harn.triggers.pool import Shared
from harn.vm.interfaces import IInterpreter
from harn.waiting import ask

log = Logger(namespace="harn.destinations")


class Outside:
    """
    One destination of a plugin.

    :ivar target: as the manifest names it; ``destination``: what the plugin made of it.
    :ivar is_closed: whether ``destination`` was closed, or is being closed.
    :param reactor: an `IReactorTime`.
    """

    def __init__(self, target: str, destination: IDestination, reactor: Any) -> None:
        self.target = target
        self.destination = destination
        self.reactor = reactor
        self.is_closed = False

    async def begin(self, delivery: OutgoingDelivery, seconds: float, *, alone: bool = False) -> Returned:
        """
        Run one attempt, for so many seconds at most.

        :raises AttemptFailed: or one of its classes; anything else that the plugin does becomes `DestinationFailed`.
        :raises CallInterrupted: the plugin reports that this does not count as an attempt.
        """
        answering = ask(lambda: self.destination.begin(delivery, alone=alone))
        try:
            (outcome,) = await answering.addTimeout(max(0.0, seconds), self.reactor)
        except TimeoutError:
            raise HandlerTimedOut(f"ran longer than {delivery.timeout:g} s") from None
        if isinstance(outcome, Returned):
            return outcome
        if not isinstance(outcome, Failure):
            raise DestinationFailed(f"{self.target}: begin must return harn.interfaces.Returned, got {outcome!r}")
        error = outcome.value
        if isinstance(error, AttemptFailed | CallInterrupted):
            raise error
        log.failure("{target} failed in an unexpected way", outcome, target=self.target)
        raise DestinationFailed(f"{type(error).__name__}: {error}")


class OutsideTarget:
    """
    A destination of a plugin as one version holds it.

    :ivar interpreter: what runs the version's predicate; None where it has none.
    """

    def __init__(self, outside: Shared[Outside], interpreter: Shared[IInterpreter] | None) -> None:
        self.outside = outside
        self.interpreter = interpreter

    def retain(self) -> OutsideTarget:
        """Hold both once more."""
        self.outside.retain()
        if self.interpreter is not None:
            self.interpreter.retain()
        return self

    def release(self) -> None:
        """Release both once."""
        self.outside.release()
        if self.interpreter is not None:
            self.interpreter.release()

    def begin(self, delivery: OutgoingDelivery, *, alone: bool = False) -> Deferred[Returned]:
        """Run the predicate, if there is one; deliver if it returned True, in the time that is left."""
        return Deferred.fromCoroutine(self._begin(delivery, alone=alone))

    async def _begin(self, delivery: OutgoingDelivery, *, alone: bool) -> Returned:
        outside = self.outside.value
        began_at = outside.reactor.seconds()
        if delivery.predicate is not None and self.interpreter is not None:
            answer = await self.interpreter.value.call(call_of(delivery, None), alone=alone)
            if answer.result is None:
                return answer
        left = delivery.timeout - (outside.reactor.seconds() - began_at)
        return await outside.begin(delivery, left, alone=alone)
