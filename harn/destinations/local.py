"""Local functions as a destination: the interpreter of a generation runs them."""

from __future__ import annotations

from functools import lru_cache

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.destinations.interfaces import DestinationContext, IDestination, IDestinationPlugin
from harn.model.exchange import OutgoingDelivery, Returned
from harn.model.references import LOCAL, FunctionReference, parse_function_reference
from harn.triggers.pool import Shared
from harn.vm.interfaces import Call, IInterpreter


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
        return self.interpreter.value.call(call_of(delivery, _reference(delivery.target)), alone=alone)

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


def call_of(delivery: OutgoingDelivery, handler: FunctionReference | None) -> Call:
    """Return the call that an attempt is; with ``handler`` None it asks the predicate alone."""
    return Call(
        binding=delivery.binding,
        trigger_id=delivery.trigger_id,
        event_id=delivery.event_id,
        handler=handler,
        predicate=delivery.predicate,
        envelope=delivery.envelope,
        body=delivery.body,
        attempt=delivery.attempt,
        timeout=delivery.timeout,
        replay_of=delivery.replay_of,
        secrets=delivery.secrets,
    )


@lru_cache(maxsize=16_384)
def _reference(target: str) -> FunctionReference:
    module, _, function = target.partition(":")
    return FunctionReference(module, function)
