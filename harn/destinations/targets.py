"""
The destination that a binding version holds: the interpreter of local functions, or one of a plugin.

That of a plugin is used as the dispatcher may rely on it: in time, with known failures, behind the predicate.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.destinations.interfaces import DestinationContext, IDestination, IDestinationPlugin
from harn.errors import AttemptFailed, CallInterrupted, DestinationFailed, HandlerTimedOut
from harn.model.exchange import Endings, OutgoingDelivery, Returned, Running
from harn.model.references import LOCAL, parse_function_reference
from harn.triggers.pool import Shared
from harn.vm.calls import pass_on, run_call
from harn.vm.interfaces import Call, IInterpreter
from harn.waiting import ask


@implementer(IDestination)
class LocalFunctions:
    """
    Runs the functions of one interpreter, which has resolved them.

    :ivar interpreter: shared by the generations of its bundle, which hold it; so does each version, and each attempt.
    """

    def __init__(self, interpreter: Shared[IInterpreter]) -> None:
        self.interpreter = interpreter

    def prepare(self) -> None:
        """Acquire nothing: the interpreter is there."""

    def begin(self, delivery: OutgoingDelivery, *, alone: bool = False) -> Deferred[Returned]:
        """See `IDestination.begin`: the predicate first, if there is one, then the handler."""
        return run_call(self.interpreter.value, call_of(delivery, delivery.target), alone=alone)

    def run(self, delivery: OutgoingDelivery, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """See `Target.run`; as `begin`, without a Deferred for each of thousands a second."""
        call = call_of(delivery, delivery.target)
        return self.interpreter.value.begin(call, attempt, endings, alone=alone)

    def close(self) -> None:
        """Release nothing: the interpreter ends with its last holder."""

    def retain(self) -> LocalFunctions:
        """Hold the interpreter once more."""
        self.interpreter.retain()
        return self

    def release(self) -> None:
        """Release the interpreter once."""
        self.interpreter.release()


@implementer(IPlugin, IDestinationPlugin)
class LocalPlugin:
    """The scheme of handlers without a scheme: ``module:function``."""

    scheme = LOCAL
    example = "handlers:on_issue"
    is_remote = False

    def check(self, target: str) -> str:
        """See `IDestinationPlugin.check`."""
        return str(parse_function_reference(target))

    def destination(self, context: DestinationContext) -> LocalFunctions:
        """Make the destination of the functions that the interpreter has resolved."""
        if context.interpreter is None:
            raise ValueError("must be made of an interpreter, got none")
        return LocalFunctions(context.interpreter)


def call_of(delivery: OutgoingDelivery, handler: str | None) -> Call:
    """Return the call that an attempt is; with ``handler`` None it asks the predicate alone."""
    predicate = delivery.predicate
    return Call(
        binding=delivery.binding,
        trigger_id=delivery.trigger_id,
        event_id=delivery.event_id,
        handler=handler,
        predicate=None if predicate is None else str(predicate),
        envelope=delivery.envelope,
        body=delivery.body,
        attempt=delivery.attempt,
        timeout=delivery.timeout,
        replay_of=delivery.replay_of,
        secrets=delivery.secrets,
        trace=delivery.trace,
    )


log = Logger(namespace="harn.destinations")


class Outside:
    """
    One destination of a plugin.

    :ivar target: as the manifest names it.
    :ivar destination: what the plugin made of it.
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

    def run(self, delivery: OutgoingDelivery, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """See `Target.run`: the predicate first, if there is one; if it returned True, deliver in the time left."""
        return pass_on(Deferred.fromCoroutine(self._run(delivery, alone=alone)), attempt, endings)

    async def _run(self, delivery: OutgoingDelivery, *, alone: bool) -> Returned:
        outside = self.outside.value
        began_at = outside.reactor.seconds()
        if delivery.predicate is not None and self.interpreter is not None:
            answer = await run_call(self.interpreter.value, call_of(delivery, None), alone=alone)
            if answer.result is None:
                return answer
        left = delivery.timeout - (outside.reactor.seconds() - began_at)
        return await outside.begin(delivery, left, alone=alone)
