"""Accepts the events that connectors emit without a request, for the newest version of their trigger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink, NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.dispatch.intake import Intake
from harn.errors import GateShut
from harn.lifecycle import Lifecycle, Received
from harn.model.delivery import Checkpoint
from harn.triggers.registry import Registry


@implementer(IEventSink)
class Emissions(Struct, frozen=True, kw_only=True, eq=False):
    """The sink to which connectors emit events; see `IEventSink`."""

    wall: WallTime
    registry: Registry
    intake: Intake
    lifecycle: Lifecycle

    def take(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """See `IEventSink.take`."""
        return self._take(trigger_id, [event], None)

    def take_all(self, trigger_id: str, events: Sequence[NormalizedEvent], checkpoint: Checkpoint) -> Deferred[None]:
        """See `IEventSink.take_all`."""
        return self._take(trigger_id, events, checkpoint)

    def _take(
        self, trigger_id: str, events: Sequence[NormalizedEvent], checkpoint: Checkpoint | None
    ) -> Deferred[None]:
        binding = self.registry.active.get(trigger_id)
        if binding is None:
            return fail(GateShut(f"trigger {trigger_id} is not in force; keep what it sends"))
        ramp = self.registry.ramps.get(trigger_id)
        versions = (binding,) if ramp is None else ramp.versions
        for version in versions:
            version.lease()
        for _ in events:
            self.lifecycle.emit(Received(trigger_id, binding.spec.provider, binding.key if ramp is None else None))
        arrival = Arrival(headers={}, body=b"", received_at=self.wall.seconds())
        bodied = [structs.replace(each, body=each.body or b"") for each in events]
        taking = self.intake.take(binding, arrival, bodied, always_claim=True, ramp=ramp, checkpoint=checkpoint)

        def over(result: Any) -> Any:
            for version in versions:
                version.release()
            return result

        return taking.addBoth(over).addCallback(lambda _: None)
