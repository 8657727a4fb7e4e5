"""Places of a trigger among several servers: never more than its limit, all of them where one has work, and turns."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import Struct
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.feature import install_places
from harn.dispatch.places import PLACES, REST, TURN, Holding, Places, places_for
from harn.lifecycle import ServersSeen
from harn.testing.clocks import START
from tests.dispatch.world import World, one_trigger

RECORD = PLACES + "gh"
SETTINGS = settings(max_examples=25, stateful_step_count=30, deadline=None)


class Numbered(Struct):
    """The store as one of the servers on it sees it."""

    checkpoints: Any
    incarnation: int


class Servers:
    """Servers on one store, with a trigger of so many places."""

    def __init__(self, limit: int, count: int = 2, *, looks: bool = True) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.limit = limit
        self.worlds: list[World] = []
        self.places: list[Places] = []
        for number in range(count):
            world = World(clock=self.clock, max_outstanding=64)
            self.worlds.append(world)
            store: Any = Numbered(self.worlds[0].store.checkpoints, number + 1)
            places = Places(self.clock, store, world.dispatcher)
            world.dispatcher.divide(places)
            self.places.append(places)
            world.adopt(one_trigger(max_outstanding=limit))
        if looks:
            self.live(range(count))

    def live(self, numbers: Sequence[int]) -> None:
        """Notify each server of the others that live."""
        for number in numbers:
            others = [each + 1 for each in numbers if each != number]
            self.places[number].seen(others)

    def take(self, number: int, count: int = 1) -> None:
        """Accept so many events on a server."""
        for _ in range(count):
            self.worlds[number].take()
        self.clock.advance(0)

    def hear(self) -> None:
        """Read on each server what the others have written, until none writes anything more."""
        for _ in range(4):
            for places in self.places:
                places.follow(())
                self.clock.advance(0)

    def rest(self) -> None:
        """Run the clock until places that were given back are taken."""
        for _ in range(3):
            self.clock.advance(REST)
            self.hear()

    def end(self, number: int) -> None:
        """End the handler of a server that has run for longest."""
        self.worlds[number].calls[0].returns()

    def records(self) -> Any:
        """Return the checkpoints that all share."""
        return self.worlds[0].store.checkpoints

    @property
    def running(self) -> list[int]:
        """The number of handlers that each server runs."""
        return [len(world.calls) for world in self.worlds]


class PlacesTests(SynchronousTestCase):
    """Two servers or three."""

    def test_one_has_work(self) -> None:
        """One server that alone has work uses all places, and writes nothing for each delivery."""
        servers = Servers(4)
        servers.take(0, 6)
        self.assertEqual(servers.running, [4, 0])
        servers.hear()
        commits = servers.worlds[0].store.commits
        servers.end(0)
        self.assertEqual((servers.running, servers.worlds[0].store.commits), ([4, 0], commits + 1))

    def test_both_have_work(self) -> None:
        """Each gets its part as handlers end, and what is left when the other has no work any more."""
        servers = Servers(4)
        servers.take(0, 40)
        servers.take(1, 8)
        self.assertEqual(servers.running, [4, 0])
        for _ in range(4):
            servers.hear()
            servers.end(0)
        servers.rest()
        self.assertEqual(servers.running, [2, 2])
        for _ in range(8):
            servers.end(1)
            servers.hear()
        servers.rest()
        self.assertEqual(servers.running, [4, 0])

    def test_one_place(self) -> None:
        """Servers take turns at one place, however much each has to do."""
        servers = Servers(1, 3)
        for number in range(3):
            servers.take(number, 40)
        done = [0, 0, 0]
        for _ in range(60):
            (number,) = [each for each in range(3) if servers.running[each]]
            servers.end(number)
            done[number] += 1
            servers.hear()
            self.assertLessEqual(sum(servers.running), 1)
            servers.clock.advance(TURN / 2)
            servers.hear()
            if not any(servers.running):
                servers.rest()
        self.assertTrue(all(each >= 5 for each in done), done)

    def test_one_that_died(self) -> None:
        """Its places are free once the others have seen that it is gone."""
        servers = Servers(2)
        servers.take(0, 2)
        servers.take(1, 2)
        servers.hear()
        self.assertEqual(servers.running, [2, 0])
        servers.places[1].seen([])
        servers.clock.advance(0)
        self.assertEqual(servers.running, [2, 2])

    def test_one_that_died_before(self) -> None:
        """A server takes the places of one that was gone before its first look as soon as it has looked."""
        servers = Servers(2, looks=False)
        self.successResultOf(servers.records().put(RECORD, {"1": msgspec.to_builtins(Holding(2, 2))}))
        servers.take(1, 2)
        self.assertEqual(servers.running, [0, 0])
        servers.places[1].seen([])
        servers.clock.advance(0)
        self.assertEqual(servers.running, [0, 2])

    def test_trigger_removed(self) -> None:
        """When the last version of a trigger has ended, the record of its places is removed."""
        servers = Servers(2, 1)
        (world,) = servers.worlds
        store = Numbered(servers.records(), 1)
        services = SimpleNamespace(add_closing=lambda _: None)
        server: Any = SimpleNamespace(
            lifecycle=world.lifecycle, store=store, reactor=servers.clock, add=lambda part: part, services=services
        )
        install_places(server, world.dispatcher)
        world.lifecycle.emit(ServersSeen((), True))
        world.adopt(one_trigger(max_outstanding=3))  # its limits are read again
        servers.take(0)
        self.assertIsNotNone(self.successResultOf(servers.records().get(RECORD)))
        world.adopt({})
        self.assertIsNotNone(self.successResultOf(servers.records().get(RECORD)))
        servers.end(0)
        self.assertIsNone(self.successResultOf(servers.records().get(RECORD)))

    def test_limit_removed(self) -> None:
        """A reload that removes the limit gives the places back, and one that sets it again finds none taken."""
        servers = Servers(1)
        servers.take(0)
        for world in servers.worlds:
            world.adopt(one_trigger())
        servers.take(0, 2)
        self.assertEqual(servers.running, [3, 0])
        self.assertIsNone(self.successResultOf(servers.worlds[0].store.checkpoints.get(PLACES + "gh")))
        for _ in range(3):
            servers.end(0)
        for world in servers.worlds:
            world.adopt(one_trigger(max_outstanding=1))
        servers.take(1, 2)
        self.assertEqual(servers.running, [0, 1])

    def adopt(self, servers: Servers, limit: int) -> None:
        """Reload both with another limit."""
        servers.limit = limit
        for world in servers.worlds:
            world.adopt(one_trigger(max_outstanding=limit))
            world.dispatcher.apply(64, 1_000_000)
        for _ in range(3):
            servers.clock.advance(0)

    def test_limit_lowered(self) -> None:
        """A reload that lowers the limit holds over all, once what runs has ended."""
        servers = Servers(4)
        servers.take(0, 2)
        servers.take(1, 2)
        self.assertEqual(servers.running, [2, 2])
        servers.take(0, 9)
        servers.take(1, 9)
        self.adopt(servers, 1)
        for number in (0, 0, 1, 1):
            servers.end(number)
            servers.hear()
        for _ in range(12):
            servers.rest()
            self.assertLessEqual(sum(servers.running), 1)
            for number in (0, 1):
                if servers.running[number]:
                    servers.end(number)
            servers.clock.advance(TURN)

    def test_limit_raised(self) -> None:
        """A server that waits for a place takes one of those that a reload adds, and not only when another ends."""
        servers = Servers(1)
        servers.take(0)
        servers.take(1)
        servers.hear()
        self.assertEqual(servers.running, [1, 0])
        self.adopt(servers, 4)
        self.assertEqual(servers.running, [1, 1])

    def contested(self, servers: Servers) -> None:
        """Run two on the first server, and end one: the second needs its place."""
        servers.take(0, 9)
        servers.take(1)
        servers.hear()
        self.assertEqual(servers.running, [2, 0])
        servers.end(0)
        self.assertEqual(servers.running, [1, 0])

    def test_given_back_in_vain(self) -> None:
        """A place that was given back, which could not be written, is used again where none needs it any more."""
        servers = Servers(2)
        store = servers.worlds[0].store
        servers.take(0, 9)
        servers.take(1)
        servers.hear()
        store.fail_writes = True
        servers.end(0)
        store.fail_writes = False
        self.successResultOf(store.checkpoints.amend(PLACES + "gh", {"2": None}))
        servers.clock.advance(TURN)
        servers.clock.advance(0)
        self.assertEqual(servers.running, [2, 0])

    def test_limit_changed_while_it_rests(self) -> None:
        """A server that has given a place back takes more in its time, though a reload changes the limit meanwhile."""
        servers = Servers(2)
        self.contested(servers)
        self.adopt(servers, 3)
        self.assertEqual(servers.running[0], 1)
        servers.clock.advance(REST)
        servers.clock.advance(0)
        self.assertEqual(servers.running[0], 2)

    def test_nothing_is_written_while_none_needs_a_place(self) -> None:
        """How much a server has to do below its places concerns no other: they would answer each other for ever."""
        servers = Servers(8)
        servers.take(0, 3)
        servers.take(1, 3)
        servers.hear()
        commits = servers.worlds[0].store.commits
        for count in (1, 3, 2):
            for _ in range(count):
                servers.end(1)
                servers.hear()
            servers.take(1, count)
            servers.hear()
        self.assertEqual(servers.worlds[0].store.commits, commits)

    def test_one_that_ends(self) -> None:
        """A server that ends waits for no place, so that it keeps none from the others."""
        servers = Servers(1)
        servers.take(0, 5)
        servers.take(1, 5)
        servers.hear()
        servers.places[1].drain()
        servers.hear()
        for _ in range(4):
            servers.clock.advance(2 * TURN)
            servers.end(0)
            servers.hear()
            self.assertEqual(servers.running, [1, 0])

    def test_store_away(self) -> None:
        """Without the store no place is taken; when it is back they are."""
        servers = Servers(1)
        servers.take(0)
        servers.take(1)
        servers.hear()
        servers.end(0)
        servers.worlds[0].store.fail_writes = True
        servers.hear()
        servers.clock.advance(TURN)
        self.assertEqual(servers.running, [0, 0])
        servers.worlds[0].store.fail_writes = False
        for _ in range(4):
            servers.clock.advance(TURN)
        servers.hear()
        self.assertEqual(servers.running, [0, 1])

    def test_pure(self) -> None:
        """What runs keeps its place, and what is not wanted by another is kept."""
        self.assertEqual(places_for(4, Holding(4, 0), 0, [], is_over=True), 4)
        self.assertEqual(places_for(4, Holding(4, 9), 3, [Holding(0, 9)], is_over=False), 3)
        self.assertEqual(places_for(4, Holding(4, 0), 0, [Holding(0, 1)], is_over=False), 0)
        self.assertEqual(places_for(1, Holding(1, 5), 0, [Holding(0, 1)], is_over=True), 0)
        self.assertEqual(places_for(1, Holding(1, 5), 0, [Holding(0, 1)], is_over=False), 1)


class PlacesMachine(RuleBasedStateMachine):
    """Three servers in any order, which read of each other at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.servers = Servers(2, 3)

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        """Accept one."""
        self.servers.take(number)

    @precondition(lambda self: any(self.servers.running))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """End one that runs."""
        self.servers.end(data.draw(st.sampled_from([n for n in range(3) if self.servers.running[n]])))

    @rule(number=st.integers(0, 2))
    def hear(self, number: int) -> None:
        """Read on one server what the others have written."""
        self.servers.places[number].follow(())

    @rule(seconds=st.sampled_from((REST / 2, REST, TURN)))
    def time_passes(self, seconds: float) -> None:
        """Wait."""
        self.servers.clock.advance(seconds)

    @invariant()
    def within_the_limit(self) -> None:
        """Check that no more run at once than the limit, of all servers."""
        assert sum(self.servers.running) <= self.servers.limit, self.servers.running

    def teardown(self) -> None:
        """Check that everything is done in the end: no server waits for a place for ever."""
        for _ in range(60):
            self.servers.rest()
            for number in range(3):
                if self.servers.running[number]:
                    self.servers.end(number)
                    self.within_the_limit()
            self.servers.clock.advance(TURN)
            if all(state == "done" for world in self.servers.worlds for state in world.states()):
                return
        raise AssertionError("deliveries wait for ever")


class MachineTests(SynchronousTestCase):
    """Any order."""

    def test_any_order(self) -> None:
        """Whatever comes where and ends in whatever order, the limit holds and everything is done."""
        run_state_machine_as_test(PlacesMachine, settings=SETTINGS)
