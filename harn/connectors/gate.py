"""The valve between a connector that starts events itself and the inbox."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail

from harn.connectors.model import NormalizedEvent
from harn.errors import GateShut

Sink = Callable[[str, NormalizedEvent], "Deferred[None]"]


class Gate:
    """
    Lets events through while it is open, and refuses them while it is shut; it keeps none.

    A connector gets its own `emit`. It is shut until its generation is adopted, and shut for good when another one is:
    both in the same synchronous step, so that at each instant one gate of a trigger is open. What to do with a refused
    event is the connector's to know: a stream does not acknowledge it, a poll does not advance, a schedule holds it.
    """

    def __init__(self) -> None:
        self._sink: Sink | None = None

    @property
    def is_open(self) -> bool:
        """Whether events go through now."""
        return self._sink is not None

    def open(self, sink: Sink) -> None:
        """Let events through to ``sink``, which answers when they are durable."""
        self._sink = sink

    def shut(self) -> None:
        """Refuse events from now on; what went through already is the sink's."""
        self._sink = None

    def emit(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """
        Hand over an event.

        :return: fires when the event is durable; fails with `GateShut` when it was not taken, and with what the sink
            fails with.
        """
        if self._sink is None:
            return fail(GateShut(f"events of trigger {trigger_id} are not taken now; keep this one"))
        return self._sink(trigger_id, event)
