"""Events that connectors start themselves."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.connectors.interfaces import IEventSink, NormalizedEvent
from harn.dispatch.emissions import Emissions
from harn.errors import EventLogUnavailable, GateShut
from tests.reload.world import World, fake


class EmissionsTests(SynchronousTestCase):
    def test_events_of_connectors(self) -> None:
        """An event is accepted by the newest version, once for its key, and without a trigger it is refused."""
        world = World(Path(self.mktemp()))
        world.manifest(fake("a"))
        self.successResultOf(world.start())
        emissions = Emissions(wall=world.clock, registry=world.registry, intake=world.intake, lifecycle=world.lifecycle)
        self.assertTrue(verifyObject(IEventSink, emissions))
        sink = emissions.take
        for _ in range(2):
            self.successResultOf(sink("a", NormalizedEvent(kind="tick", dedupe_key="12:00")))
        self.assertEqual(len(world.calls), 1)
        version = world.version("a")
        self.assertEqual((world.metrics.version(version.key).received, version.in_flight), (2, 1))
        self.failureResultOf(sink("b", NormalizedEvent(kind="tick", dedupe_key="12:00")), GateShut)
        world.store.fail_writes = True
        failed = sink("a", NormalizedEvent(kind="tick", dedupe_key="12:01"))
        self.failureResultOf(failed, EventLogUnavailable)
        self.assertEqual(world.version("a").in_flight, 1)
