"""The numbers that servers on one store give to versions: the same on each, whoever was away or started when."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attrs import define
from attrs import field as attr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.reload.generation import Candidate, LastGeneration
from harn.reload.interfaces import IDecision, IOtherServers
from harn.reload.report import PREVIOUS, ReloadReport, ReloadRequest
from harn.reload.results import ServerAdoption
from harn.store.generations import BindingRecord, GenerationRecord, LiveBinding
from tests.reload.world import World, fake

TRIGGERS = ("a", "b", "c")
WISHES = st.dictionaries(st.sampled_from(TRIGGERS), st.sampled_from((1, 2, 3)))
"""The time-out of each trigger that the manifest has, in seconds."""


def ended(running: Deferred[ReloadReport]) -> ReloadReport:
    """Return the report of a reload that was adopted; its parts answer before they return."""
    found: list[ReloadReport] = []
    running.addCallback(found.append)
    running.addErrback(lambda failure: failure.raiseException())
    (report,) = found
    assert report.ok, report
    return report


@implementer(IDecision)
@define(eq=False)
class Decision:
    """A decision for a generation; that of the server that proposes it is written where it is made."""

    fleet: Fleet
    follows: int | None = None
    splits: bool = False
    reunites: bool = False

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        if self.follows is None and not self.splits:
            self.fleet.decided = candidate.generation.number
            await self.fleet.servers[0].store.generations.adopted(self.fleet.decided, 1.0)

    async def outcome(self) -> Sequence[ServerAdoption]:
        """See `IDecision.outcome`."""
        return ()

    def end(self) -> None:
        """See `IDecision.end`."""


@implementer(IOtherServers)
@define(eq=False)
class Others:
    """The other servers, as one of the fleet sees them; all of them agree."""

    fleet: Fleet
    world: World

    async def serving(self) -> Sequence[str]:
        """See `IOtherServers.serving`."""
        return ["other"] if [each for each in self.fleet.servers if each is not self.world] else []

    async def settled(self) -> None:
        """See `IOtherServers.settled`."""

    async def begin(self, request: ReloadRequest) -> IDecision | None:
        """See `IOtherServers.begin`."""
        self.world.coordinator.numbers.are_known = False
        is_split = any(each.serving.split_from is not None for each in self.fleet.servers)
        return Decision(self.fleet, splits=request.here, reunites=is_split and not request.here)


@define(eq=False)
class Fleet:
    """
    Servers on one store in memory, each with files of its own.

    :ivar decided: the number of the generation that was decided last.
    """

    root: Path
    servers: list[World] = attr(factory=list)
    decided: int = 0
    made: int = 0

    def start(self) -> World:
        """Start another server: the first from its files, the others with what was decided last."""
        self.made += 1
        root = self.root / str(self.made)
        first = self.servers[0] if self.servers else None
        world = World(root) if first is None else World(root, clock=first.clock, store=first.store.beside())
        world.coordinator.others = Others(self, world)
        world.manifest(fake("a"))
        self.servers.append(world)
        report = ended(world.start())
        self.decided = self.decided or report.generation
        return world

    def reload(self, world: World, wishes: dict[str, int], away: Collection[World] = ()) -> ReloadReport:
        """Reload all servers with these files of one of them; those in ``away`` miss it."""
        world.manifest(*(fake(each, extra=f"timeout = '{seconds}s'") for each, seconds in wishes.items()))
        report = ended(world.reload())
        for each in self.servers:
            if each is not world and each not in away:
                self.catch_up(each)
        return report

    def split(self, world: World, wishes: dict[str, int]) -> ReloadReport:
        """Reload one server alone."""
        world.manifest(*(fake(each, extra=f"timeout = '{seconds}s'") for each, seconds in wishes.items()))
        return ended(world.reload(here=True))

    def catch_up(self, world: World) -> None:
        """Adopt the last decided generation, as a server does that missed it."""
        if world.serving.shared_number != self.decided:
            ended(self.follow(world))

    def follow(self, world: World) -> Deferred[ReloadReport]:
        """Request that a server prepares and adopts the last decided generation."""
        request = ReloadRequest(source="servers", actor="", recall=self.decided, force=True)
        return world.coordinator.follow(request, Decision(self, self.decided))

    def begin_vote(self) -> None:
        """Reserve a generation that changes a trigger, and that is not decided."""
        generations = self.servers[0].store.generations
        known: list[Mapping[str, LiveBinding]] = []
        adopted: list[Sequence[GenerationRecord]] = []
        generations.history(1).addCallback(adopted.append)
        number = adopted[0][0].number + 1
        generations.bindings_at(number - 1).addCallback(known.append)
        version = known[0]["a"].version + 1
        voted = BindingRecord(
            trigger_id="a", version=version, fingerprint="other", generation=number, bundle_id="b", spec=b"{}"
        )
        record = GenerationRecord(number=number, digest="d", bundle_id="b", source="cli", actor="me", bindings=(voted,))
        generations.reserve(record, b"other")

    def close(self) -> None:
        """End all."""
        for each in self.servers:
            each.close()


class FleetCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Start two servers."""
        self.fleet = Fleet(Path(self.mktemp()))
        self.addCleanup(self.fleet.close)
        self.one, self.two = self.fleet.start(), self.fleet.start()

    def live(self) -> list[dict[str, int]]:
        """Return the version numbers of each server."""
        return [each.live() for each in self.fleet.servers]


class NumberTests(FleetCase):
    def test_away_for_two_reloads(self) -> None:
        """A server that missed two reloads gives the newest version the number that the others gave it."""
        self.fleet.reload(self.one, {"a": 2}, [self.two])
        self.fleet.reload(self.one, {"a": 3}, [self.two])
        self.fleet.catch_up(self.two)
        self.assertEqual(self.live(), [{"a": 3}, {"a": 3}])
        self.fleet.reload(self.two, {"a": 4})
        self.assertEqual(self.live(), [{"a": 4}, {"a": 4}])

    def test_away_while_a_trigger_changed_and_changed_back(self) -> None:
        """It replaces its version, which is the same but for its number."""
        self.fleet.reload(self.one, {"a": 1})
        before = self.two.version("a")
        self.fleet.reload(self.one, {"a": 2}, [self.two])
        self.fleet.reload(self.one, {"a": 1}, [self.two])
        self.fleet.catch_up(self.two)
        self.assertEqual(self.live(), [{"a": 4}, {"a": 4}])
        self.assertIn(before.key, self.two.retired)
        self.assertEqual(self.two.last.changes, {"a": ("version",)})

    def test_away_while_another_trigger_changed(self) -> None:
        """A version that only an earlier of the missed reloads gave has its number, too."""
        self.fleet.reload(self.one, {"a": 2, "b": 1}, [self.two])
        self.fleet.reload(self.one, {"a": 2, "b": 2}, [self.two])
        self.fleet.catch_up(self.two)
        self.assertEqual(self.live(), [{"a": 2, "b": 2}, {"a": 2, "b": 2}])

    def test_a_start_during_a_vote(self) -> None:
        """A server that starts begins with what was decided; what is voted on is not looked at."""
        self.fleet.begin_vote()
        three = self.fleet.start()
        self.assertEqual((three.coordinator.generation, three.live()), (1, {"a": 1}))
        self.fleet.reload(three, {"a": 2})
        self.assertEqual(self.live(), [{"a": 2}] * 3)

    def test_a_split(self) -> None:
        """One server alone adopts; the next reload brings all together, under numbers that none of them had."""
        self.fleet.reload(self.one, {"a": 2})
        self.fleet.split(self.two, {"a": 3})
        self.assertEqual(self.live(), [{"a": 2}, {"a": 3}])
        numbers = [each.coordinator.generation for each in self.fleet.servers]
        self.assertEqual((numbers, self.two.serving.split_from), ([2, 3], 2))
        self.assertEqual(self.fleet.start().live(), {"a": 2})  # with what all adopted
        self.fleet.reload(self.one, {"a": 2, "b": 1})
        self.assertEqual(self.live(), [{"a": 4, "b": 1}] * 3)
        self.assertEqual({each.serving.split_from for each in self.fleet.servers}, {None})
        shown = self.successResultOf(self.one.store.generations.history(9))
        self.assertEqual([each.summary.get("split_from") for each in shown], [None, 2, None, None])

    def test_a_reload_of_all_from_the_one_that_split(self) -> None:
        """It keeps the versions that it has, and the others adopt them."""
        self.fleet.split(self.two, {"a": 3})
        self.fleet.split(self.two, {"a": 4})
        self.assertEqual(self.two.serving.split_from, 1)
        self.fleet.reload(self.two, {"a": 4, "b": 1})
        self.assertEqual(self.live(), [{"a": 3, "b": 1}] * 2)

    def test_together_with_unchanged_files(self) -> None:
        """A reload of all from either server brings both together, though its files are what it serves."""
        for number, (asked, expected) in enumerate(((self.one, {"a": 1}), (self.two, {"a": 3})), start=2):
            self.fleet.split(self.two, {"a": 3})
            self.fleet.reload(asked, expected)
            served = [each.serving for each in self.fleet.servers]
            self.assertEqual([each.split_from for each in served], [None, None])
            self.assertEqual(served[0].inputs.digest, served[1].inputs.digest)
            self.assertEqual({each.number for each in served}, {2 * number - 1})

    def test_a_rollback_after_a_split(self) -> None:
        """What one server adopted alone is not what all roll back to, and no start continues it."""
        self.fleet.split(self.two, {"a": 3})
        self.fleet.reload(self.one, {"a": 2})
        report = ended(self.one.reload(recall=PREVIOUS))
        self.assertEqual(report.recalled, 1)
        self.fleet.split(self.one, {"a": 5})
        last = self.successResultOf(Deferred.fromCoroutine(LastGeneration.of(self.one.store.generations)))
        self.assertEqual((last.number, last.digest), (self.one.coordinator.generation, None))
        newest = self.successResultOf(Deferred.fromCoroutine(self.one.coordinator.archive.newest()))
        self.assertLess(newest, self.one.coordinator.generation)

    def test_what_a_server_reads_otherwise(self) -> None:
        """A change that the proposing server does not see is refused: its plugins or its version differ."""
        generations = self.two.store.generations
        known = generations.bindings_at
        self.patch(generations, "bindings_at", lambda number: known(1))
        self.fleet.reload(self.one, {"a": 2}, [self.two])
        report = self.successResultOf(self.fleet.follow(self.two))
        self.assertEqual((report.stage, self.two.live()), ("resolve", {"a": 1}))
        self.assertIn("this server reads a otherwise than those that serve", report.error or "")


class FleetMachine(RuleBasedStateMachine):
    """Servers that reload, miss reloads, start and end in any order."""

    @initialize()
    def begin(self) -> None:
        """Start the first."""
        self.root = tempfile.mkdtemp()
        self.fleet = Fleet(Path(self.root))
        self.fleet.start()
        self.known: dict[tuple[str, int], str] = {}

    @rule(data=st.data(), wishes=WISHES)
    def reload(self, data: st.DataObject, wishes: dict[str, int]) -> None:
        """Reload from any server, while some cannot follow."""
        server = data.draw(st.sampled_from(self.fleet.servers))
        self.fleet.catch_up(server)
        self.fleet.reload(server, wishes, data.draw(st.lists(st.sampled_from(self.fleet.servers))))

    @precondition(lambda self: len(self.fleet.servers) > 1)
    @rule(data=st.data(), wishes=WISHES)
    def split(self, data: st.DataObject, wishes: dict[str, int]) -> None:
        """Reload one server alone; a trigger that only it removes may not come back while its version drains."""
        server = data.draw(st.sampled_from(self.fleet.servers))
        self.fleet.catch_up(server)
        self.fleet.split(server, wishes)

    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        """Adopt the last decided generation on one server."""
        self.fleet.catch_up(data.draw(st.sampled_from(self.fleet.servers)))

    @precondition(lambda self: len(self.fleet.servers) < 3)
    @rule(is_voted=st.booleans())
    def start(self, is_voted: bool) -> None:
        """Start a server, perhaps while a generation is voted on whose proposer then dies."""
        if is_voted:
            self.fleet.begin_vote()
        self.fleet.start()

    @precondition(lambda self: len(self.fleet.servers) > 1)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """End a server; one that is left adopts what was decided."""
        server = data.draw(st.sampled_from(self.fleet.servers))
        self.fleet.servers.remove(server)
        server.close()
        self.fleet.catch_up(self.fleet.servers[0])

    @invariant()
    def same_numbers(self) -> None:
        """Check that a number stands for one definition, and that servers of one generation agree in all numbers."""
        if not hasattr(self, "fleet"):
            return
        for each in self.fleet.servers:
            for binding in each.serving.bindings.values():
                fingerprint = binding.definition.fingerprint
                assert self.known.setdefault((binding.id, binding.version), fingerprint) == fingerprint, binding.key
        current = [each for each in self.fleet.servers if each.coordinator.generation == self.fleet.decided]
        assert all(each.live() == current[0].live() for each in current), [each.live() for each in current]

    def teardown(self) -> None:
        """End all."""
        if hasattr(self, "fleet"):
            self.fleet.close()
            shutil.rmtree(self.root)


FleetMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)


class MachineTests(SynchronousTestCase):
    def test_servers(self) -> None:
        """Any history keeps the numbers the same."""
        FleetMachine.TestCase().runTest()
