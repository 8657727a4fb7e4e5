"""The decision of a reload by all servers: single decisions, and any history of votes, deaths and waits."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from harn.store.proposals import Proposal, ProposalState, Vote, decided, voted, waiting_for

YES, NO = Vote(server="b"), Vote(server="b", why="no", stage="resolve")
OPEN, ADOPTED, DROPPED = ProposalState.OPEN, ProposalState.ADOPTED, ProposalState.DROPPED


def proposal(*members: int) -> Proposal:
    """Make a proposal of server 1 to others."""
    names = {str(each): f"s{each}" for each in members}
    return Proposal(id="r", by=1, generation=7, base=6, versions=1, actor="me", members=names)


class DecisionTests(SynchronousTestCase):
    def test_all_must_agree(self) -> None:
        """It stays open until each that lives has voted; then it is adopted, unless one was against it."""
        asked = proposal(2, 3)
        self.assertEqual(decided(asked, [1, 2, 3]).state, OPEN)
        one = voted(asked, 2, YES)
        self.assertEqual((decided(one, [1, 2, 3]).state, waiting_for(one, [1, 2, 3])), (OPEN, ["s3"]))
        self.assertEqual(decided(voted(one, 3, YES), [1, 2, 3]).state, ADOPTED)
        self.assertEqual(decided(voted(one, 3, NO), [1, 2, 3]).state, DROPPED)
        self.assertEqual(decided(voted(asked, 3, NO), [1, 2, 3]).state, DROPPED)

    def test_deaths_and_time(self) -> None:
        """Who is gone is not asked; without the proposer, or in time, it is dropped."""
        asked = voted(proposal(2, 3), 2, YES)
        self.assertEqual(decided(asked, [1, 2]).state, ADOPTED)
        self.assertEqual(decided(asked, [2, 3]).state, DROPPED)
        self.assertEqual(decided(asked, [1, 2, 3], is_late=True).state, DROPPED)
        self.assertEqual(decided(proposal(), [1]).state, ADOPTED)

    def test_alone(self) -> None:
        """What one server adopts alone is dropped if there is another, whatever that votes; else it is adopted."""
        alone = msgspec.structs.replace(proposal(2), is_alone=True)
        self.assertEqual(decided(alone, [1, 2]).state, DROPPED)
        self.assertEqual(decided(voted(alone, 2, YES), [1, 2]).state, DROPPED)
        self.assertEqual(decided(msgspec.structs.replace(alone, members={}), [1, 2]).state, ADOPTED)

    def test_votes_that_do_not_count(self) -> None:
        """Those of servers that are not asked, and those after the decision."""
        self.assertEqual(voted(proposal(2), 5, NO), proposal(2))
        adopted = decided(voted(proposal(2), 2, YES), [1, 2])
        self.assertEqual(voted(adopted, 2, NO), adopted)
        self.assertEqual(decided(adopted, [], is_late=True), adopted)


class ReloadMachine(RuleBasedStateMachine):
    """Servers that vote on one proposal, adopt when they read the decision, die, and return under new numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.living = {1, 2, 3}
        self.next_number = 4
        self.stored = proposal(2, 3)
        self.adopted: set[int] = set()
        self.unwound: set[int] = set()
        self.against = False
        self.decision: ProposalState | None = None

    def keep(self, after: Proposal) -> None:
        """Write the proposal in one transaction, and note its first decision."""
        self.stored = after
        if self.decision is None and after.state is not OPEN:
            self.decision = after.state

    @precondition(lambda self: self.living)
    @rule(data=st.data(), is_for=st.booleans())
    def vote(self, data: st.DataObject, is_for: bool) -> None:
        """Add the vote of a server, which is asked or not."""
        number = data.draw(st.sampled_from(sorted(self.living)))
        before = self.stored
        self.keep(decided(voted(before, number, YES if is_for else NO), self.living))
        self.against |= not is_for and before.state is OPEN and str(number) in before.members

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Remove a server, as fencing does; its process may still run, and reads the decision before it writes."""
        self.living.discard(data.draw(st.sampled_from(sorted(self.living))))

    @rule()
    def return_again(self) -> None:
        """Register a server under a new number."""
        self.living.add(self.next_number)
        self.next_number += 1

    @rule(is_late=st.booleans())
    def look(self, is_late: bool) -> None:
        """Decide, as the proposer does each second, or at the end of its time; others do so without an end."""
        self.keep(decided(self.stored, self.living, is_late=is_late and 1 in self.living))

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """Adopt or unwind, as the proposal says that a server reads."""
        number = data.draw(st.sampled_from(sorted(self.living)))
        if self.stored.state is ADOPTED:
            self.adopted.add(number)
        elif self.stored.state is DROPPED:
            self.unwound.add(number)

    @invariant()
    def all_or_none(self) -> None:
        """Check that no two servers saw different decisions, and that the first one stays."""
        assert not (self.adopted and self.unwound)
        assert self.decision in (None, self.stored.state)

    @invariant()
    def adopted_by_all_that_live(self) -> None:
        """Check that what is adopted had no vote against it, and the vote of each member that lived then."""
        if self.decision is ADOPTED:
            assert not self.against
        assert msgspec.json.decode(msgspec.json.encode(self.stored), type=Proposal) == self.stored


ReloadMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


class MachineTests(SynchronousTestCase):
    def test_reloads(self) -> None:
        """Any history ends with all or none."""
        ReloadMachine.TestCase().runTest()
