"""The gate between a connector that starts events itself and the inbox."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from harn.connectors.interfaces import IEmitter, IEventSink, NormalizedEvent
from harn.errors import GateShut


@implementer(IEmitter)
class Gate:
    """
    Passes events on while it is open, and refuses them while it is shut; it stores none.

    Each connector has its own. The gate is shut until its generation is adopted, and shut permanently when another one
    is: both in the same synchronous step, so that at each instant exactly one gate of a trigger is open. The connector
    decides how to handle a refused event: a stream does not acknowledge it, a poll does not advance, a schedule holds
    it.
    """

    def __init__(self) -> None:
        self._sink: IEventSink | None = None

    @property
    def is_open(self) -> bool:
        """Whether events pass now."""
        return self._sink is not None

    def open(self, sink: IEventSink) -> None:
        """Pass events to ``sink`` from now on; its result fires when they are durable."""
        self._sink = sink

    def shut(self) -> None:
        """Refuse events from now on; events that passed already belong to the sink."""
        self._sink = None

    def emit(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """See `IEmitter.emit`."""
        if self._sink is None:
            return fail(GateShut(f"events of trigger {trigger_id} are not accepted now; keep this one"))
        return self._sink.take(trigger_id, event)
