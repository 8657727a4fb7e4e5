"""Circuits of several servers on one store: failures count over all of them, and one of them tries the probe."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.circuits.circuit import CircuitState
from harn.circuits.records import FAILED, CircuitRecords
from harn.circuits.service import Circuits
from harn.errors import HandlerRaised
from harn.lifecycle import CircuitChanged, VersionEnded
from harn.manifest.model import CircuitSpec, RetrySpec
from harn.model.delivery import Acceptance, NewDelivery
from harn.store.holds import CIRCUITS
from harn.testing.clocks import START
from tests.dispatch.world import World
from tests.triggers.examples import spec

RESET, FAILURES = 60.0, 3
FILLINGS = 50
"""More than a test accepts on one server."""
FILLING = NewDelivery(
    event_id="evt_filling",
    trigger_id="filling",
    version=1,
    provider="github",
    kind="filling",
    envelope=b"{}",
    body=b"{}",
    received_at=START,
)
SETTINGS = settings(max_examples=25, stateful_step_count=25, deadline=None)


class Servers:
    """Servers with one clock, whose circuits are in the store of the first, and what each has announced."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        clock = Clock()
        clock.advance(START)
        self.clock = clock
        self.worlds = [World(clock=clock, max_outstanding=8) for _ in range(count)]
        self.checkpoints = self.worlds[0].store.checkpoints
        self.changes: list[tuple[int, str]] = []
        self.circuits = [self.equip(number, world) for number, world in enumerate(self.worlds)]
        circuit = CircuitSpec(**{"failures": FAILURES, "reset": RESET, **settings})
        for world, circuits in zip(self.worlds, self.circuits, strict=True):
            world.adopt({"gh": spec("gh", retry=RetrySpec(max=1), circuit=circuit)})
            circuits.settings_changed()

    def equip(self, number: int, world: World) -> Circuits:
        """Add circuits to a server, whose deliveries have ids of their own: they are in a store of its own."""
        world.store.inbox.accept(Acceptance(deliveries=(FILLING,) * (FILLINGS * number)))
        records = CircuitRecords(self.checkpoints, is_shared=True)
        circuits = Circuits(world.wall, records, world.registry, world.dispatcher, world.lifecycle)
        world.dispatcher.gates.add(circuits)
        world.lifecycle.subscribe(VersionEnded, circuits.version_ended)
        world.lifecycle.subscribe(CircuitChanged, lambda event: self.changes.append((number, event.state)))
        Deferred.fromCoroutine(circuits.load())
        return circuits

    def take(self, number: int) -> None:
        """Accept an event on a server."""
        self.worlds[number].take()

    def end(self, number: int, *, fails: bool, of: int = 0) -> None:
        """End a handler that runs on a server."""
        running = self.worlds[number].calls[of]
        if fails:
            running.raises(HandlerRaised("no"))
        else:
            running.returns()

    def hear(self) -> None:
        """Read on each server what the others have written."""
        for circuits in self.circuits:
            circuits.follow()

    def states(self) -> list[str]:
        """Return the state of the circuit on each server."""
        return [circuits.of("gh").state for circuits in self.circuits]


class SharingTests(SynchronousTestCase):
    """Two servers."""

    def fail_on(self, servers: Servers, *numbers: int) -> None:  # not `fail`, which trial has
        """Accept deliveries on these servers, one after the other, and let each fail."""
        for number in numbers:
            servers.take(number)
            servers.end(number, fails=True)

    def opened(self, **settings: Any) -> Servers:
        """Return servers whose circuit has just opened, on both."""
        servers = Servers(**settings)
        self.fail_on(servers, 0, 1, 0)
        servers.hear()
        self.assertEqual(servers.states(), ["open", "open"])
        return servers

    def test_failures_of_both(self) -> None:
        """Failures on two servers open it together, whoever's is the last, before the other has read of them."""
        servers = Servers()
        self.fail_on(servers, 0, 0)
        self.assertEqual(servers.states(), ["closed", "closed"])
        self.fail_on(servers, 1)
        self.assertEqual(servers.states(), ["closed", "open"])
        servers.hear()
        self.assertEqual(servers.states(), ["open", "open"])
        for number in (0, 1):
            servers.take(number)
            self.assertEqual(servers.worlds[number].calls, [])

    def waiting_on(self, world: World) -> tuple[str, int]:
        """Return the event and the id of the last delivery of a server."""
        row = world.rows()[-1]
        return row.event_id, row.delivery_id

    def test_same_commit(self) -> None:
        """A failure is counted with the commit that settles its delivery."""
        servers = Servers()
        servers.take(0)
        before = servers.worlds[0].store.commits
        servers.worlds[0].store.writer.held = True
        servers.end(0, fails=True)
        servers.worlds[0].store.writer.release()
        self.assertEqual(servers.worlds[0].store.commits, before + 1)
        self.assertEqual(len(self.successResultOf(servers.checkpoints.get(FAILED + "gh"))), 1)

    def test_success_on_the_other(self) -> None:
        """A success on either ends the row of failures; a further one writes nothing."""
        servers = Servers()
        self.fail_on(servers, 0, 0)
        servers.hear()
        servers.take(1)
        servers.end(1, fails=False)
        servers.hear()
        self.fail_on(servers, 0, 1)
        self.assertEqual(servers.states(), ["closed", "closed"])
        servers.take(0)
        servers.end(0, fails=False)
        self.assertIsNone(self.successResultOf(servers.checkpoints.get(FAILED + "gh")))
        commits = servers.worlds[0].store.commits
        servers.take(0)
        servers.end(0, fails=False)
        self.assertEqual(servers.worlds[0].store.commits, commits + 2)  # accepted, and settled

    def test_one_probe(self) -> None:
        """When its time has come one of them tries a delivery; its success lets both begin."""
        servers = self.opened()
        for number in (0, 1, 0, 1):
            servers.take(number)
        servers.clock.advance(RESET)
        running = [len(world.calls) for world in servers.worlds]
        self.assertEqual(sorted(running), [0, 1])
        servers.clock.advance(RESET / 2)
        servers.end(running.index(1), fails=False)
        servers.hear()
        self.assertEqual(servers.states(), ["closed", "closed"])
        self.assertEqual(sum(len(world.calls) for world in servers.worlds), 3)

    def test_probe_fails(self) -> None:
        """It is open on both for its time again."""
        servers = self.opened()
        servers.take(0)
        servers.take(1)
        servers.clock.advance(RESET)
        prober = 0 if servers.worlds[0].calls else 1
        servers.end(prober, fails=True)
        servers.hear()
        self.assertEqual(servers.states(), ["open", "open"])
        servers.clock.advance(RESET - 1.0)
        self.assertFalse(any(world.calls for world in servers.worlds))
        servers.clock.advance(1.0)
        self.assertEqual(len(servers.worlds[1 - prober].calls), 1)

    def test_where_nothing_waits(self) -> None:
        """A server without a delivery does not keep another from trying one that comes later."""
        servers = self.opened()
        servers.clock.advance(RESET * 3)
        for number in (1, 0):
            servers.take(number)
        self.assertEqual([len(world.calls) for world in servers.worlds], [0, 1])

    def test_prober_is_gone(self) -> None:
        """Where the server that tries it dies, another one tries after one reset."""
        servers = self.opened()
        servers.take(0)
        servers.clock.advance(RESET)
        self.assertEqual(len(servers.worlds[0].calls), 1)
        servers.take(1)
        servers.clock.advance(RESET)
        self.assertEqual(len(servers.worlds[1].calls), 1)

    def test_refusing(self) -> None:
        """Where deliveries are refused meanwhile, the one that comes to a server when its time has come is tried."""
        servers = self.opened(open="dead_letter")
        servers.clock.advance(RESET)
        servers.take(1)
        servers.take(0)
        self.assertEqual([len(world.calls) for world in servers.worlds], [0, 1])
        self.assertEqual(servers.worlds[0].dead_reasons().get("circuit_open"), 1)

    def test_nothing_begins(self) -> None:
        """Where what it claimed the probe for is cancelled before it begins, a server claims once more for the next."""
        servers = self.opened()
        first, store = servers.worlds[0], servers.worlds[0].store
        servers.take(0)
        store.writer.held = True
        servers.clock.advance(RESET)
        first.dispatcher.cancel_delivery(*self.waiting_on(first))
        store.writer.release()
        self.assertEqual(first.calls, [])
        servers.clock.advance(RESET)
        for number in (0, 1):
            servers.take(number)
        servers.clock.advance(1.0)
        self.assertEqual([len(world.calls) for world in servers.worlds], [1, 0])

    def test_trigger_removed(self) -> None:
        """With its last version, the failures of a trigger are removed from the store."""
        servers = Servers()
        self.fail_on(servers, 0)
        servers.take(0)
        first, name = servers.worlds[0], FAILED + "gh"
        first.adopt({})
        self.assertIsNotNone(self.successResultOf(servers.checkpoints.get(name)))
        servers.end(0, fails=True)
        self.assertEqual(list(first.registry.draining()), [])
        self.assertIsNone(self.successResultOf(servers.checkpoints.get(name)))

    def test_restart(self) -> None:
        """A server that starts has the failures that were counted before, and reads which circuit is open."""
        servers = Servers()
        self.fail_on(servers, 0, 0)
        circuits = servers.equip(1, servers.worlds[1])
        self.assertEqual(len(circuits.of("gh").failed), 2)

    def test_store_away(self) -> None:
        """A probe that cannot be claimed waits, and is claimed once the store answers."""
        servers = self.opened()
        servers.take(1)
        servers.worlds[0].store.fail_writes = True
        servers.clock.advance(RESET)
        self.assertEqual(servers.worlds[1].calls, [])
        servers.worlds[0].store.fail_writes = False
        servers.clock.advance(1.0)
        self.assertEqual(len(servers.worlds[1].calls), 1)


class SharingMachine(RuleBasedStateMachine):
    """Three servers; what one has written the others read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.servers = Servers(3)

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        """Accept one."""
        self.servers.take(number)
        self.servers.hear()

    @rule(seconds=st.sampled_from((1.0, RESET / 2)))
    def time_passes(self, seconds: float) -> None:
        """Wait, less than a claim lasts: a probe ends before."""
        for number, circuits in enumerate(self.servers.circuits):
            if circuits.of("gh").state is CircuitState.HALF_OPEN:
                self.end_probe(number)
        self.servers.clock.advance(seconds)
        self.servers.hear()

    def end_probe(self, number: int) -> None:
        """End all handlers of the server that tries the probe; the last is the probe."""
        while self.servers.worlds[number].calls:
            self.servers.end(number, fails=True, of=-1)
        self.servers.hear()

    @precondition(lambda self: any(world.calls for world in self.servers.worlds))
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        """End one that runs."""
        number = data.draw(st.sampled_from([n for n, world in enumerate(self.servers.worlds) if world.calls]))
        before = self.servers.states()
        failures = max(len(circuits.of("gh").failed) for circuits in self.servers.circuits)
        self.servers.end(number, fails=fails)
        self.servers.hear()
        if before == ["closed"] * 3:
            expected = "open" if fails and failures + 1 >= FAILURES else "closed"
            assert self.servers.states() == [expected] * 3
            counted = {circuits.of("gh").failed for circuits in self.servers.circuits}
            assert len(counted) == 1
            (found,) = counted
            assert len(found) == (failures + 1 if fails and expected == "closed" else 0)

    @invariant()
    def one_probe(self) -> None:
        """Check that at most one server tries a probe, and that none is closed meanwhile."""
        states = self.servers.states()
        assert states.count("half_open") <= 1
        assert "closed" not in states or set(states) == {"closed"}

    @invariant()
    def as_in_the_store(self) -> None:
        """Check that the store has a record exactly while the circuit is not closed."""
        found: list[Any] = []
        self.servers.checkpoints.get(CIRCUITS).addCallback(found.append)
        assert bool(found[0]) == (self.servers.states() != ["closed"] * 3)


class MachineTests(SynchronousTestCase):
    """Any order."""

    def test_any_order(self) -> None:
        """Whichever server begins and ends what, all count alike, open and close together, and one has the probe."""
        run_state_machine_as_test(SharingMachine, settings=SETTINGS)
