"""Events that connectors start themselves: accepted by the newest version of their trigger."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink, NormalizedEvent
from harn.dispatch.intake import Arrival, Intake
from harn.errors import GateShut
from harn.lifecycle import Lifecycle, Received
from harn.triggers.registry import Registry


@implementer(IEventSink)
@frozen(kw_only=True, eq=False)
class Emissions:
    """See `IEventSink`."""

    wall: WallTime
    registry: Registry
    intake: Intake
    lifecycle: Lifecycle

    def take(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """See `IEventSink.take`."""
        binding = self.registry.active.get(trigger_id)
        if binding is None:
            return fail(GateShut(f"trigger {trigger_id} is not in force; keep this event"))
        ramp = self.registry.ramps.get(trigger_id)
        versions = (binding,) if ramp is None else ramp.versions
        for version in versions:
            version.lease()
        self.lifecycle.emit(Received(trigger_id, binding.spec.provider, binding.key if ramp is None else None))
        arrival = Arrival(headers={}, body=event.body or b"", received_at=self.wall.seconds())
        taking = self.intake.take(binding, arrival, [event], always_claim=True, ramp=ramp)

        def over(result: Any) -> Any:
            for version in versions:
                version.release()
            return result

        return taking.addBoth(over).addCallback(lambda _: None)
