"""Events that connectors emit, and synthetic ones, while a trigger is on a ramp."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.connectors.interfaces import IExamples, NormalizedEvent
from harn.dispatch.emissions import Emissions
from harn.dispatch.operations import Fire, fire
from harn.dispatch.synthetic import SyntheticEvents
from harn.errors import EventLogUnavailable
from tests.dispatch.test_ramps import TO_FRESH, TO_STABLE, RampWorld
from tests.operations.asking import asked


def tick(key: str, **fields: Any) -> NormalizedEvent:
    """Make an event as a connector emits it."""
    return NormalizedEvent(kind="tick", dedupe_key=key, **fields)


class SinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = RampWorld({"dedupe_key": None}, {"dedupe_key": None}, max_outstanding=100)
        world = self.world
        self.sink = Emissions(
            wall=world.clock, registry=world.registry, intake=world.intake, lifecycle=world.lifecycle
        ).take

    def test_by_key(self) -> None:
        """An emission goes to the version that its key chooses, once, and is counted there alone."""
        keys = (TO_STABLE[0], TO_FRESH[0], TO_FRESH[0], TO_FRESH[1])
        for key in keys:
            self.assertIsNone(self.successResultOf(self.sink("gh", tick(key))))
        self.assertEqual([running.call.binding for running in self.world.calls], ["gh@v1", "gh@v2", "gh@v2"])
        self.assertEqual(self.world.counts(), [(1, 1), (3, 2)])

    def test_both_are_held(self) -> None:
        """Until it is on disk either may get it; afterwards only the delivery is held, or nothing if it failed."""
        self.world.store.writer.held = True
        emitting = self.sink("gh", tick(TO_STABLE[0]))
        self.assertEqual(self.world.counts(), [(1, 2), (0, 1)])
        self.world.end(self.world.fresh)
        self.world.store.writer.release()
        self.successResultOf(emitting)
        self.assertEqual((self.world.counts(), self.world.ended), ([(1, 1), (0, 0)], []))
        self.assertEqual((self.world.ran(), self.world.ended), (["gh@v1"], ["gh@v1"]))

    def test_failures(self) -> None:
        """What cannot be kept, or has no form in JSON, leaves no lease behind."""
        self.failureResultOf(self.sink("gh", tick("a", payload={"a": object()})), TypeError)
        self.world.store.fail_writes = True
        self.failureResultOf(self.sink("gh", tick("a")), EventLogUnavailable)
        self.assertEqual([in_flight for _, in_flight in self.world.counts()], [0, 0])


@implementer(IExamples)
class NoExamples:
    """Connectors without examples."""

    def example(self, trigger_id: str) -> NormalizedEvent | None:
        """See `IExamples.example`."""
        return None


class FireTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = RampWorld({"events": ("old",)}, {"events": ("new",)}, share=0.0)
        world = self.world
        clock: Any = world.clock
        self.events = SyntheticEvents(clock, clock, world.registry, world.intake, world.dispatcher, NoExamples())

    def fire(self) -> Deferred[Any]:
        """Fire."""
        return asked(fire, self.events, Fire(trigger="gh"))

    def test_by_its_key(self) -> None:
        """The chosen version gets an event of a kind that it matches, and the answer names it."""
        for share, number, kind in ((0.0, 1, b'"old"'), (1.0, 2, b'"new"')):
            self.world.ramp.share = share
            self.world.clock.advance(1.0)
            fired = self.fire()
            running = self.world.call()
            self.assertIn(b'"kind":' + kind, running.call.envelope)
            running.returns()
            answer = self.successResultOf(fired)
            self.assertEqual((answer.status, answer.binding_version), ("dispatched", number))
        self.assertEqual(self.world.counts(), [(0, 0), (0, 0)])

    def test_kind_and_payload(self) -> None:
        """The event has the kind and the body that were asked for; of a kind that no rule takes, nothing is kept."""
        fired = asked(fire, self.events, Fire(trigger="gh", kind="old", payload={"n": 1}))
        running = self.world.call()
        self.assertIn(b'"kind":"old"', running.call.envelope)
        self.assertEqual(running.call.body, b'{"n":1}')
        running.returns()
        self.assertEqual(self.successResultOf(fired).status, "dispatched")
        self.world.clock.advance(1.0)
        other = asked(fire, self.events, Fire(trigger="gh", kind="other"))
        self.assertEqual(self.successResultOf(other).status, "ignored")

    def test_duplicate(self) -> None:
        """One that was accepted before names the version that found that out."""
        self.fire()
        answer = self.successResultOf(self.fire())
        self.assertEqual((answer.status, answer.binding_version), ("duplicate_dropped", 1))
