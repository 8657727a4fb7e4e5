"""Circuits as gates of a dispatcher: deliveries that wait or are refused, and states that outlive a restart."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.circuits.circuit import KEPT_UNUSED, CircuitState
from harn.circuits.records import CircuitRecords
from harn.circuits.service import Circuits
from harn.errors import CallInterrupted, HandlerRaised, HandlerRejected, HandlerRetryAfter
from harn.lifecycle import CircuitChanged
from harn.manifest.model import CircuitSpec, RetrySpec
from harn.store.holds import CIRCUITS
from harn.testing.clocks import START
from tests.dispatch.world import World
from tests.triggers.examples import spec

ONCE = RetrySpec(max=1)


class CircuitCase(SynchronousTestCase):
    """A dispatcher with circuits; the trigger ``gh`` has one that opens at two failures, ``other`` has none."""

    def world(self, retry: RetrySpec = ONCE, **settings: Any) -> World:
        """Make a world."""
        return self.adopt(self.equip(World(max_outstanding=8)), retry, **settings)

    def equip(self, world: World) -> World:
        """Add circuits to a world, and read those of an earlier server."""
        self.circuits = Circuits(
            world.wall, CircuitRecords(world.store.checkpoints), world.registry, world.dispatcher, world.lifecycle
        )
        world.dispatcher.gates.add(self.circuits)
        self.changes: list[tuple[str, str]] = []
        world.lifecycle.subscribe(CircuitChanged, lambda event: self.changes.append((event.before, event.state)))
        self.successResultOf(Deferred.fromCoroutine(self.circuits.load()))
        return world

    def adopt(self, world: World, retry: RetrySpec = ONCE, timeout: float = 30.0, **settings: Any) -> World:
        """Adopt the two triggers."""
        circuit = CircuitSpec(**{"failures": 2, "reset": 60.0, **settings})
        world.adopt({"gh": spec("gh", retry=retry, circuit=circuit, timeout=timeout), "other": spec("other")})
        self.circuits.settings_changed()
        return world

    def fail(self, world: World, count: int = 1) -> None:  # type: ignore[override]
        """Accept so many deliveries and let their handlers raise."""
        for _ in range(count):
            world.take()
            world.call().raises(HandlerRaised("no"))

    def opened(self, **settings: Any) -> World:
        """Make a world whose circuit has just opened."""
        world = self.world(**settings)
        self.fail(world, 2)
        self.assertIs(self.circuits.state("gh"), CircuitState.OPEN)
        return world


class HoldingTests(CircuitCase):
    """Deliveries that wait."""

    def test_others_go_on(self) -> None:
        """While it is open nothing of its trigger begins and all is kept; another trigger is not affected."""
        world = self.opened()
        for _ in range(3):
            world.take()
        self.assertEqual((world.calls, world.states()), ([], ["dead"] * 2 + ["ready"] * 3))
        world.take(world.version("other"))
        self.assertEqual(world.call().call.trigger_id, "other")

    def test_probe_closes_it(self) -> None:
        """When its time is up one delivery begins; once it has succeeded all others do."""
        world = self.opened()
        for _ in range(4):
            world.take()
        world.clock.advance(59.0)
        self.assertEqual(world.calls, [])
        world.clock.advance(1.0)
        self.assertIs(self.circuits.state("gh"), CircuitState.HALF_OPEN)
        world.call().returns()
        self.assertEqual(len(world.calls), 3)
        self.assertEqual(self.changes, [("closed", "open"), ("open", "half_open"), ("half_open", "closed")])

    def test_probe_fails(self) -> None:
        """It is open for its time again; what waits stays accepted."""
        world = self.opened()
        for _ in range(3):
            world.take()
        for _ in range(2):
            world.clock.advance(60.0)
            world.call().raises(HandlerRaised("no"))
            self.assertEqual(world.calls, [])
        self.assertEqual(world.states(), ["dead"] * 4 + ["ready"])

    def test_interrupted_probe(self) -> None:
        """A probe whose interpreter ended does not decide, and is the next probe."""
        world = self.opened()
        for _ in range(2):
            world.take()
        world.clock.advance(60.0)
        world.call().raises(CallInterrupted("gone", suspect=False))
        world.clock.advance(5.0)
        world.call().returns()
        self.assertIs(self.circuits.state("gh"), CircuitState.CLOSED)

    def test_attempts_of_one_delivery(self) -> None:
        """One event that fails all its attempts does not open it."""
        world = self.world(RetrySpec(max=7))
        world.take()
        for _ in range(7):
            world.call().raises(HandlerRaised("no"))
        self.assertEqual((world.states(), self.circuits.state("gh")), (["dead"], CircuitState.CLOSED))

    def test_choices_of_the_handler(self) -> None:
        """``RetryAfter`` and ``Reject`` do not open it."""
        world = self.world(RetrySpec(max=2))
        for error in [HandlerRetryAfter("later", 3600.0)] * 3 + [HandlerRejected("no")] * 3:
            world.take()
            world.call().raises(error)
        self.assertIs(self.circuits.state("gh"), CircuitState.CLOSED)

    def test_closed_by_an_operator(self) -> None:
        """What has waited begins at once."""
        world = self.opened()
        for _ in range(3):
            world.take()
        self.assertTrue(self.circuits.close("gh"))
        self.assertEqual(len(world.calls), 3)
        self.assertFalse(self.circuits.close("gh"))

    def test_many(self) -> None:
        """Whatever waits, one delivery begins while it is half-open, also of what only the store held."""
        world = self.adopt(self.equip(World(max_outstanding=8, max_deliveries=4)))
        self.fail(world, 2)
        for _ in range(20):
            world.take()
        world.clock.advance(60.0)
        world.call().returns()
        done = 1
        while world.calls:
            world.calls[0].returns()
            done += 1
        self.assertEqual((done, world.version().in_flight), (20, 0))


class RefusingTests(CircuitCase):
    """``open = "dead_letter"``."""

    def test_dead_letters(self) -> None:
        """While it is open what comes becomes a dead letter that says why; the probe decides as usual."""
        world = self.opened(open="dead_letter")
        world.take()
        self.assertEqual((world.calls, world.states()), ([], ["dead"] * 3))
        self.assertEqual(world.dead_reasons(), {"retry_exhausted": 2, "circuit_open": 1})
        world.clock.advance(60.0)
        world.take()
        probe = world.call()
        world.take()
        self.assertEqual(world.dead_reasons()["circuit_open"], 2)
        probe.returns()
        world.take()
        world.call().returns()
        self.assertEqual((world.states()[-1], world.version().in_flight), ("done", 0))


class OutlivingTests(CircuitCase):
    """Reloads and restarts."""

    def test_reload(self) -> None:
        """A reload of its trigger leaves it open, for the rest of its time."""
        world = self.opened()
        world.take()
        world.clock.advance(30.0)
        self.adopt(world, timeout=5.0)
        self.assertEqual(world.calls, [])
        world.clock.advance(30.0)
        self.assertEqual(world.call().call.binding, "gh@v1")

    def test_reload_without_it(self) -> None:
        """When a reload removes it, deliveries that waited begin."""
        world = self.opened()
        world.take()
        self.adopt(world, failures=0)
        self.assertEqual(len(world.calls), 1)

    def test_other_servers(self) -> None:
        """One that another server has opened is open here, too; and closed when another has closed it."""
        world = self.opened()
        kept = self.successResultOf(world.store.checkpoints.get(CIRCUITS))
        self.circuits.close("gh")
        self.assertIsNone(self.successResultOf(world.store.checkpoints.get(CIRCUITS)))
        self.successResultOf(world.store.checkpoints.put(CIRCUITS, kept))
        self.circuits.follow()
        self.assertEqual(self.circuits.state("gh"), CircuitState.OPEN)
        world.take()
        self.assertEqual(world.calls, [])
        self.successResultOf(world.store.checkpoints.put(CIRCUITS, None))
        self.circuits.follow()
        self.assertEqual((self.circuits.state("gh"), len(world.calls)), (CircuitState.CLOSED, 1))

    def test_switched_off(self) -> None:
        """One that a reload switches off is announced as closed: an alert of it would never end."""
        world = self.opened()
        self.adopt(world, failures=0)
        self.assertEqual(self.changes, [("closed", "open"), ("open", "closed")])

    def test_not_kept(self) -> None:
        """One that was open when its server ended, more than a day ago, is announced as closed, once."""
        world = self.opened()
        world.clock.rightNow += KEPT_UNUSED + 61.0
        following = self.adopt(self.equip(World(store=world.store, clock=world.clock)))
        self.assertEqual((self.circuits.state("gh"), self.changes), (CircuitState.CLOSED, [("open", "closed")]))
        self.adopt(following, timeout=9.0)
        self.assertEqual(len(self.changes), 1)

    def test_restart(self) -> None:
        """An open circuit is open in the next server, for the rest of its time; a closed one is not."""
        world = self.opened()
        world.clock.advance(20.0)
        next_world = self.adopt(self.equip(World(store=world.store, clock=world.clock)))
        next_world.take()
        self.assertEqual(next_world.calls, [])
        next_world.clock.advance(40.0)
        next_world.call().returns()
        again = self.equip(World(store=next_world.store, clock=next_world.clock))
        self.adopt(again)
        self.assertIs(self.circuits.state("gh"), CircuitState.CLOSED)
        self.assertGreater(again.clock.seconds(), START)

    def test_switched_off_while_it_is_probed(self) -> None:
        """The end of the probe ends the circuit: it does not hold its trigger when it is switched on again."""
        world = self.opened()
        world.take()
        world.clock.advance(60.0)
        probe = world.call()
        self.adopt(world, failures=0)
        probe.returns()
        self.adopt(world)
        world.take()
        self.assertEqual((len(world.calls), self.circuits.state("gh")), (1, CircuitState.CLOSED))

    def test_clock_set_back(self) -> None:
        """It stays open for its time at most, which a reload may shorten."""
        world = self.opened()
        world.take()
        world.wall.step(-3600.0)
        world.clock.advance(60.0)  # within a minute the new time is seen
        world.clock.advance(60.0)
        world.call().raises(HandlerRaised("no"))
        world.take()
        self.adopt(world, reset=5.0)
        world.clock.advance(5.0)
        self.assertEqual(len(world.calls), 1)

    def test_paused_while_open(self) -> None:
        """An open circuit keeps in memory what was there; a pause does not."""
        world = self.world()
        world.dispatcher.apply(2)
        for _ in range(10):
            world.take()
        for running in list(world.calls):
            running.raises(HandlerRaised("no"))
        self.assertGreater(world.dispatcher.queued, 0)
        self.successResultOf(Deferred.fromCoroutine(world.pauses.pause("gh", None, "me")))
        self.assertEqual(world.dispatcher.queued, 0)

    def test_read_again(self) -> None:
        """What another program has changed since is in force."""
        world = self.opened()
        world.take()
        beside = Circuits(
            world.wall, CircuitRecords(world.store.checkpoints), world.registry, world.dispatcher, world.lifecycle
        )
        self.successResultOf(Deferred.fromCoroutine(beside.load()))
        beside.close("gh")
        self.assertEqual(world.calls, [])
        self.successResultOf(Deferred.fromCoroutine(self.circuits.load()))
        self.assertEqual((len(world.calls), self.circuits.state("gh")), (1, CircuitState.CLOSED))
