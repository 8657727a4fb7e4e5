"""The reloads of all servers, as the agreement of each takes part in them: what fails, and what others read of that."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from attrs import define
from attrs import field as attr
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import EventLogUnavailable, GenerationUnknown, StageFailed
from harn.lifecycle import Lifecycle, ServersSeen, ServerStarted
from harn.reload.coordinator import Coordinator
from harn.reload.interfaces import IDecision
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.results import ServerAdoption
from harn.server import RecordWriter
from harn.servers.agreement import Agreement
from harn.servers.decisions import Following, Proposing, Splitting
from harn.servers.feature import started
from harn.servers.membership import Clocks, Membership
from harn.servers.votes import not_agreed
from harn.store.postgres.store import PostgresStore
from harn.store.proposals import Proposal, ProposalState, Vote
from harn.store.servers import DRAINING, SERVING, STARTING
from harn.testing.stores.kit import generation_of
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from tests.servers.test_fencing import TwoServers
from tests.triggers.examples import definition, spec

REQUEST = ReloadRequest(source="cli", actor="me")
OWN = ServerAdoption(id="a", generation=6, status="unchanged")


def inputs_of(*, allow_split: bool = False) -> Any:
    """Make the inputs of a generation, by its settings."""
    reload = SimpleNamespace(confirm_within=None, revert_on_failures=None, allow_split=allow_split)
    return SimpleNamespace(manifest=SimpleNamespace(orchestrator=SimpleNamespace(reload=reload)))


CANDIDATE: Any = SimpleNamespace(
    generation=SimpleNamespace(number=2, inputs=inputs_of(), bindings={}),
    numbered=(),
    rollouts=(),
    plan=SimpleNamespace(added=()),
)
"""The candidate of generation 2, which changes no trigger."""


class NotAgreedTests(SynchronousTestCase):
    def statuses(self, living: tuple[int, ...], **votes: Vote) -> tuple[list[str], str]:
        """Return how each server stands, and the error, of a proposal to servers 2, 3 and 4."""
        asked = Proposal(
            id="r",
            by=1,
            generation=7,
            base=6,
            versions=1,
            actor="me",
            members={"2": "b", "3": "c", "4": "d"},
            votes={number[1:]: vote for number, vote in votes.items()},
        )
        error = not_agreed(asked, OWN, living)
        return [f"{each.id} {each.status}" for each in error.servers], str(error)

    def test_silent(self) -> None:
        """Silent is one that lives, and was waited for; not one that is gone."""
        found, error = self.statuses((2, 3), n2=Vote(server="b"))
        self.assertEqual(found, ["a unchanged", "b unchanged", "c silent"])
        self.assertIn("no answer in time from c;", error)

    def test_one_against(self) -> None:
        """One vote against it ends the wait: the others had no time to vote."""
        found, error = self.statuses((2, 3, 4), n3=Vote(server="c", why="it is broken", stage="resolve"))
        self.assertEqual(found, ["a unchanged", "b unchanged", "c refused", "d unchanged"])
        self.assertIn("server c cannot adopt it: resolve: it is broken", error)


@define(eq=False)
class FakeCoordinator:
    """
    Serves a generation, and answers `follow` with a report.

    :ivar followed: numbers of generations that others proposed. ``report``: the answer.
    :ivar numbers: those that were given. ``inputs``: of the live generation. ``split_from``: see `Generation`.
    """

    generation: int = 1
    followed: list[int | None] = attr(factory=list)
    report: Deferred[ReloadReport] = attr(factory=Deferred)
    numbers: SimpleNamespace = attr(factory=lambda: SimpleNamespace(are_known=True))
    inputs: Any = attr(factory=inputs_of)
    split_from: int | None = None

    @property
    def current(self) -> Any:
        """The live generation."""
        shared = self.generation if self.split_from is None else self.split_from
        return SimpleNamespace(number=self.generation, inputs=self.inputs, shared_number=shared)

    def follow(self, request: ReloadRequest, decision: IDecision) -> Deferred[ReloadReport]:
        """See `Coordinator.follow`."""
        self.followed.append(decision.follows)
        return self.report


class AgreementTests(TwoServers):
    def setUp(self) -> None:
        """Begin the memberships of both servers, which serve."""
        super().setUp()
        self.coordinator, self.other_coordinator = FakeCoordinator(), FakeCoordinator()
        self.agreement = self.agreement_of(self.store, self.coordinator)
        self.other_agreement = self.agreement_of(self.other, self.other_coordinator)
        for each in (self.store, self.other):
            self.result_of(each.checkpoints.put("x", 1))  # the notes are written
        self.result_of(self.store.generations.reserve(generation_of(2), b"bundle"))

    def agreement_of(self, store: PostgresStore, coordinator: FakeCoordinator) -> Agreement:
        """Make the agreement of a server."""
        clocks = Clocks(self.clock, self.clock)
        self.lifecycle = Lifecycle()
        members = Membership(clocks, store, self.lifecycle, RecordWriter(self.clock, store.event_log), version="1.0")
        self.run_of(members.begin())
        self.addCleanup(members.leave)
        members.describe(status=SERVING, generation=1)
        self.registry = Registry(Lifecycle())
        return Agreement(clocks, store, members, cast(Coordinator, coordinator), self.registry)

    def run_of(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return self.result_of(Deferred.fromCoroutine(work))

    def last(self) -> Proposal:
        """Return the last proposal."""
        proposal = self.result_of(self.store.servers.proposal())
        assert proposal is not None
        return proposal

    def proposed(self) -> Proposal:
        """Write a proposal of generation 2 to the other server."""
        new = Proposal(id="r1", by=0, generation=2, base=1, versions=0, actor="me")
        return self.result_of(self.store.servers.propose(new))

    def answer_all(self) -> None:
        """Answer all questions to the stores."""
        for _ in range(3):
            for each in (self.store, self.other):
                self.result_of(each.checkpoints.put("x", 1))
                self.result_of(each.servers.proposal())

    def test_decided_before_it_served(self) -> None:
        """A server looks at what was decided while it started as soon as it serves, and not with the next second."""
        members = self.other_agreement.members
        self.lifecycle.subscribe(ServersSeen, lambda _: self.other_agreement.look())
        members.describe(status=STARTING)
        self.answer_all()
        self.assertEqual(self.proposed().members, {})
        self.assertEqual(self.result_of(self.store.servers.decide("r1", is_late=False)).state, ProposalState.ADOPTED)
        started(members, ServerStarted("http://b", generation=1))
        self.answer_all()
        self.assertEqual(self.other_coordinator.followed, [2])

    def test_content_that_is_not_kept(self) -> None:
        """A server that cannot read the content votes against it, and says why."""
        self.proposed()
        self.other_coordinator.report = fail(GenerationUnknown("the content of generation 2 is damaged"))
        self.run_of(self.other_agreement.look_once())
        (vote,) = self.last().votes.values()
        self.assertEqual((vote.stage, vote.why), ("parse", "the content of generation 2 is damaged"))
        self.assertEqual(self.last().state, ProposalState.DROPPED)

    def lose_answer(self, *, is_written: bool = True) -> None:
        """Drop the answer to the next proposal, and that to the first question after it."""
        servers = self.store.servers
        propose, proposal = servers.propose, servers.proposal

        def lost(new: Proposal) -> Deferred[Proposal]:
            self.patch(servers, "proposal", away)
            writing = propose(new) if is_written else self.store.checkpoints.put("x", 1)
            return writing.addCallback(lambda _: fail(EventLogUnavailable("no answer")))

        def away() -> Deferred[Proposal]:
            self.patch(servers, "proposal", proposal)
            return fail(EventLogUnavailable("no connection"))

        self.patch(servers, "propose", lost)

    def agreeing_without_answer(self, decision: Proposing) -> Deferred[None]:
        """Return the agreement of a decision, which is about to find out what was written without an answer."""
        agreeing = Deferred.fromCoroutine(decision.agree(CANDIDATE, 0.5))
        self.answer_all()
        self.assertNoResult(agreeing)
        self.run_of(self.agreement.look_once())
        self.assertEqual(self.coordinator.followed, [])  # it is this reload's to adopt
        self.clock.advance(1.0)
        return agreeing

    def test_a_decision_without_answer(self) -> None:
        """The reload of a lone server adopts what was decided itself: no other has its terms."""
        self.other_agreement.members.describe(status=DRAINING)
        self.answer_all()
        self.lose_answer()
        decision = Proposing(self.agreement, ReloadRequest(source="cli", actor="me", confirm_within=60.0))
        self.result_of(self.agreeing_without_answer(decision))
        self.assertEqual(decision.proposal, self.last())
        self.assertEqual(self.last().state, ProposalState.ADOPTED)

    def test_a_proposal_without_answer(self) -> None:
        """It waits for the votes, and fails with a report where they are missing."""
        self.lose_answer()
        agreeing = self.agreeing_without_answer(Proposing(self.agreement, REQUEST))
        with self.assertRaisesRegex(StageFailed, "no answer in time"):
            self.result_of(agreeing)
        self.assertEqual(self.last().state, ProposalState.DROPPED)

    def test_a_proposal_that_was_not_written(self) -> None:
        """The reload fails with a report that says why."""
        self.lose_answer(is_written=False)
        agreeing = self.agreeing_without_answer(Proposing(self.agreement, REQUEST))
        with self.assertRaisesRegex(StageFailed, "no answer"):
            self.result_of(agreeing)
        self.assertIsNone(self.result_of(self.store.servers.proposal()))

    def test_no_store(self) -> None:
        """A reload does not wait for a store that does not answer any longer than for votes."""
        for name in ("propose", "proposal"):
            self.patch(self.store.servers, name, lambda *_: fail(EventLogUnavailable("connection refused")))
        agreeing = Deferred.fromCoroutine(Proposing(self.agreement, REQUEST).agree(CANDIDATE, 0.5))
        self.assertNoResult(agreeing)
        self.clock.pump([0.1] * 20)
        with self.assertRaisesRegex(StageFailed, "connection refused"):
            self.result_of(agreeing)

    def test_a_proposal_that_was_left(self) -> None:
        """A proposal of this server whose reload was cut off is dropped with the next look."""
        self.proposed()
        self.run_of(self.agreement.look_once())
        self.assertEqual((self.last().state, self.coordinator.followed), (ProposalState.DROPPED, []))

    def test_a_proposal_that_was_left_and_that_all_adopt(self) -> None:
        """The server that proposed it follows the others."""
        self.proposed()
        self.result_of(self.other.servers.vote(self.last().id, Vote(server="b")))
        looking = Deferred.fromCoroutine(self.agreement.look_once())
        self.result_of(self.store.servers.look())
        self.assertEqual((self.last().state, self.coordinator.followed), (ProposalState.ADOPTED, [2]))
        self.assertFalse(self.agreement.is_current())
        looking.addErrback(lambda failure: failure.trap(CancelledError))
        looking.cancel()

    def test_a_proposal_that_is_not_the_last(self) -> None:
        """A reload fails with a report where another server has proposed since."""
        decision = Proposing(self.agreement, REQUEST)
        agreeing = Deferred.fromCoroutine(decision.agree(CANDIDATE, 30.0))
        self.result_of(self.store.servers.look())
        self.proposed()
        self.clock.advance(1.0)
        with self.assertRaisesRegex(StageFailed, "not the last one any more"):
            self.result_of(agreeing)

    def turn_of_other(self) -> int:
        """Return the number of the server that has the turn, once the other one has asked for it."""
        return self.result_of(self.other.servers.take_turn())

    def test_a_turn_that_could_not_be_released(self) -> None:
        """It is released with a later look, so that others may reload."""
        decision = self.run_of(self.agreement.begin(REQUEST))
        self.assertEqual(self.turn_of_other(), self.store.incarnation)
        end_turn = self.store.servers.end_turn
        self.patch(self.store.servers, "end_turn", lambda: fail(EventLogUnavailable("no answer")))
        decision.end()
        self.assertEqual(self.turn_of_other(), self.store.incarnation)
        self.patch(self.store.servers, "end_turn", end_turn)
        self.agreement.look()
        self.result_of(self.store.checkpoints.put("x", 1))
        self.assertEqual(self.turn_of_other(), self.other.incarnation)

    def test_a_turn_that_comes_too_late(self) -> None:
        """A reload that waits for the turn no longer does not keep it."""
        take_turn = self.store.servers.take_turn
        taken: list[Deferred[int]] = []

        def take() -> Deferred[int]:
            taken.append(take_turn())
            return Deferred()

        self.patch(self.store.servers, "take_turn", take)
        beginning = Deferred.fromCoroutine(self.agreement.begin(REQUEST))
        while not taken:
            self.result_of(self.store.servers.look())
        beginning.cancel()
        self.failureResultOf(beginning, CancelledError)
        self.assertEqual(self.result_of(taken[0]), self.store.incarnation)
        self.result_of(self.store.checkpoints.put("x", 1))
        self.assertEqual(self.turn_of_other(), self.other.incarnation)

    def reload_alone(self, request: ReloadRequest = REQUEST) -> None:
        """Run a reload of the first server, during which the other one begins to start."""
        self.other_agreement.members.describe(status=DRAINING)
        self.result_of(self.other.checkpoints.put("x", 1))
        decision = self.run_of(self.agreement.begin(request))
        self.other_agreement.members.describe(status=STARTING)
        self.result_of(self.other.checkpoints.put("x", 1))
        try:
            self.run_of(decision.agree(CANDIDATE, 30.0))
            self.assertEqual(self.run_of(decision.outcome()), ())
        finally:
            decision.end()

    def test_a_server_that_starts_during_a_reload(self) -> None:
        """It may have begun with the generation before, and adopts what was decided once it serves."""
        self.reload_alone()
        self.other_agreement.look()
        self.assertEqual(self.other_coordinator.followed, [])  # it does not serve so far
        self.other_agreement.members.describe(status=SERVING)
        looking = Deferred.fromCoroutine(self.other_agreement.look_once())
        self.result_of(self.other.servers.look())
        self.assertEqual(self.other_coordinator.followed, [2])
        looking.addErrback(lambda failure: failure.trap(CancelledError))
        looking.cancel()

    def test_a_server_that_starts_during_a_reload_with_terms(self) -> None:
        """A probation is refused in the transaction that decides, though no other server was there at its begin."""
        asked = ReloadRequest(source="cli", actor="me", confirm_within=60.0)
        with self.assertRaisesRegex(StageFailed, "probation or ramp is decided by one server, and .* serves or starts"):
            self.reload_alone(asked)
        self.assertIsNone(self.result_of(self.store.generations.generation(2)))
        self.other_agreement.members.describe(status=DRAINING)
        self.result_of(self.other.checkpoints.put("x", 1))
        self.run_of(Proposing(self.agreement, asked).agree(CANDIDATE, 30.0))
        self.assertIsNotNone(self.result_of(self.store.generations.generation(2)))

    def test_one_server_alone(self) -> None:
        """It is refused unless the live settings allow it, and says what to do; its turn is free afterwards."""
        here = ReloadRequest(source="cli", actor="me", here=True)
        with self.assertRaisesRegex(StageFailed, "allow_split = true in .orchestrator.reload., and reload all"):
            self.run_of(self.agreement.begin(here))
        self.result_of(self.store.checkpoints.put("x", 1))
        self.assertEqual(self.turn_of_other(), self.other.incarnation)
        self.result_of(self.other.servers.end_turn())
        self.coordinator.inputs = inputs_of(allow_split=True)
        decision = self.run_of(self.agreement.begin(here))
        self.run_of(decision.agree(CANDIDATE, 30.0))
        self.assertIsNone(self.result_of(self.store.servers.proposal()))
        self.assertIsNotNone(self.result_of(self.store.generations.generation(2)))  # before the next has the turn
        self.coordinator.generation, self.coordinator.split_from = 2, 1
        outcome = self.run_of(decision.outcome())
        self.assertEqual([(each.generation, each.status) for each in outcome], [(2, "adopted"), (1, "unchanged")])
        asked = ReloadRequest(source="cli", actor="me", here=True, confirm_within=60.0)
        with self.assertRaisesRegex(StageFailed, "probation or ramp is decided by one server"):
            self.run_of(Splitting(self.agreement, asked).agree(CANDIDATE, 30.0))

    def test_one_server_alone_without_others(self) -> None:
        """It is a reload as any other."""
        self.other_agreement.members.describe(status=DRAINING)
        self.result_of(self.other.checkpoints.put("x", 1))
        decision = self.run_of(self.agreement.begin(ReloadRequest(source="cli", actor="me", here=True)))
        self.assertFalse(decision.splits)

    def test_one_server_alone_that_is_behind(self) -> None:
        """What all decided is adopted before anything else."""
        self.proposed()
        self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.coordinator.inputs = inputs_of(allow_split=True)
        with self.assertRaisesRegex(StageFailed, "generation 2 was decided, and is adopted first"):
            self.run_of(self.agreement.begin(ReloadRequest(source="cli", actor="me", here=True)))

    def test_together_again(self) -> None:
        """A server that had split votes as one that serves what the others do, and its proposals follow that, too."""
        self.coordinator.generation, self.coordinator.split_from = 2, 1
        decision = Proposing(self.agreement, REQUEST)
        agreeing = Deferred.fromCoroutine(decision.agree(CANDIDATE, 30.0))
        self.result_of(self.store.checkpoints.put("x", 1))
        self.assertEqual(self.last().base, 1)
        self.run_of(Following(self.other_agreement, self.last()).agree(CANDIDATE, 30.0))
        self.clock.advance(1.0)
        self.result_of(agreeing)
        self.assertEqual(self.last().state, ProposalState.ADOPTED)

    def test_all_after_one_alone(self) -> None:
        """A reload of all is one even with unchanged files where a server has adopted the newest generation alone."""
        self.assertFalse(self.run_of(self.agreement.begin(REQUEST)).reunites)
        split = generation_of(3, summary={"split_from": 1})
        self.result_of(self.store.generations.reserve(split, None))
        self.result_of(self.store.generations.adopted(3, 5.0))
        self.assertTrue(self.run_of(self.agreement.begin(REQUEST)).reunites)

    def test_a_version_that_still_drains(self) -> None:
        """A trigger that one server alone had removed comes back there once its version has drained."""
        binding = BindingVersion(definition(spec("gh"), "code"), 1, "b")
        binding.lease()
        self.registry.drain(binding, 1.0)
        plan = SimpleNamespace(added=("gh",))
        back = SimpleNamespace(generation=SimpleNamespace(bindings={"gh": binding}), plan=plan, numbered=("gh",))
        following = Following(self.other_agreement, Proposal(id="r", by=1, generation=2, base=1, versions=1, actor=""))
        with self.assertRaisesRegex(StageFailed, "gh@v1 still drains here"):
            self.run_of(following.agree(cast(Any, back), 30.0))

    def test_a_server_that_could_not_adopt(self) -> None:
        """Its vote against the next generation says why it is behind, and what to do."""
        self.proposed()
        adopted = self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.other_coordinator.report = fail(GenerationUnknown("its content is damaged"))
        self.run_of(self.other_agreement.follow(adopted))
        following = Following(self.other_agreement, Proposal(id="r2", by=1, generation=3, base=2, versions=0, actor=""))
        with self.assertRaisesRegex(StageFailed, "could not adopt generation 2: its content is damaged; repair that"):
            self.run_of(following.agree(CANDIDATE, 30.0))

    def test_an_end_after_the_decision(self) -> None:
        """A server that ends while it waits for the others to show the generation still names them."""
        decision = Proposing(self.agreement, REQUEST)
        decision.proposal = self.proposed()

        async def look() -> Any:
            return await Deferred()

        self.patch(self.agreement.members, "look", look)
        outcome = Deferred.fromCoroutine(decision.outcome())
        outcome.cancel()
        self.assertEqual([each.status for each in self.successResultOf(outcome)], ["adopted"])
