"""Two servers on one PostgreSQL: fencing one, what it can still write, taking over its deliveries, slice by slice."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
from typing import Any

from harn.errors import EventLogUnavailable, ServerFenced
from harn.model.delivery import DEAD, DONE, READY, WAITING
from harn.store.event_log import ATTEMPTS
from harn.store.postgres import recovery
from harn.store.postgres.store import PostgresStore
from harn.store.proposals import Proposal, ProposalState, Vote
from harn.store.servers import DRAINING, SERVING, ServerNote
from harn.testing.stores.kit import (
    NOW,
    StoreTestCase,
    accept_of,
    attempt_of,
    backlog_of,
    dead_letter,
    dedupe,
    generation_of,
    new_delivery,
    settlement_of,
)
from tests import postgres


class TwoServers(StoreTestCase):
    """`store` and `other`, each with a state directory of its own."""

    store: PostgresStore

    def make_store(self) -> PostgresStore:
        """Make the first server's store."""
        if not hasattr(self, "aside"):
            self.aside = postgres.emptied(postgres.schema_of_process())
            self.directory = self.mktemp()
            os.makedirs(self.directory)
        return postgres.make_store(self, self.directory, self.clock)

    def setUp(self) -> None:
        """Open the stores of both."""
        super().setUp()
        directory = self.mktemp()
        os.makedirs(directory)
        self.other = postgres.make_store(self, directory, self.clock, home="other")
        self.result_of(self.other.open())
        self.addCleanup(lambda: self.result_of(self.other.close()))

    def fence(self) -> Any:
        """Return the servers that the other one could fence: the first."""
        rows = self.result_of(self.other.servers.look()).rows
        beats = {each.incarnation: each.seen_at for each in rows if each.incarnation == self.store.incarnation}
        return self.result_of(self.other.servers.fence(beats))

    def recover(self, store: PostgresStore, limit: int = 10) -> Any:
        """Take over a slice."""
        return self.result_of(store.recovery.recover(NOW, limit))

    def settle_as_before(self, delivery_id: int, **changes: Any) -> Any:
        """Settle a delivery of which an attempt was under way; return what is another server's."""
        return self.result_of(self.store.deliveries.settle(settlement_of(delivery_id, **changes)))


class FencingTests(TwoServers):
    def test_rows(self) -> None:
        """Each server sees both, with what each says about itself, and who has unfinished deliveries."""
        self.accept_one("e1")
        self.result_of(self.other.servers.note(ServerNote(status=SERVING, url="http://b", generation=3)))
        found = self.result_of(self.store.servers.look())
        self.assertEqual([each.incarnation for each in found.rows], [self.store.incarnation, self.other.incarnation])
        self.assertEqual([each.home for each in found.rows], ["home", "other"])
        self.assertEqual([each.note.generation for each in found.rows], [0, 3])
        self.assertEqual(found.owners, {self.store.incarnation})
        self.result_of(self.other.close())
        self.assertEqual(len(self.result_of(self.store.servers.look()).rows), 1)

    def test_one_that_beats_is_not_fenced(self) -> None:
        """A heartbeat that came after the look keeps a server from being fenced."""
        (row, _) = self.result_of(self.other.servers.look()).rows
        self.clock.advance(2.0)
        self.result_of(self.store.heartbeat(self.clock.seconds()))
        self.assertEqual(self.result_of(self.other.servers.fence({row.incarnation: row.seen_at})), [])
        self.accept_one("e1")

    def test_a_fenced_server_writes_nothing(self) -> None:
        """Accepting, settling, heartbeats and values fail, until it continues under a new number."""
        delivery_id = self.accept_one("e1")
        before = self.store.incarnation
        self.assertEqual(self.fence(), [before])
        refused = (
            self.store.inbox.accept(accept_of(new_delivery("e2", claim=dedupe("k")))),
            self.store.deliveries.settle(settlement_of(delivery_id)),
            self.store.heartbeat(NOW),
            self.store.checkpoints.put("name", 1),
        )
        for each in refused:
            with self.assertRaises(ServerFenced):
                self.result_of(each)
        self.assertFalse(self.store.available())
        self.assertGreater(self.result_of(self.store.rejoin()), before)
        self.assertIsNotNone(self.accept_one("e2", claim=dedupe("k")))
        self.assertTrue(self.store.available())

    def test_what_was_taken_over_cannot_be_settled(self) -> None:
        """Attempts that were under way leave no trace; the claim of a dead letter is not released."""
        taken, claimed = self.accept_one("taken"), self.accept_one("claimed", claim=dedupe("k"))
        self.fence()
        self.assertEqual(self.recover(self.other).recovered, 2)
        self.result_of(self.store.rejoin())
        own = self.accept_one("own")
        outcome = self.result_of(
            self.store.deliveries.settle(
                settlement_of(taken, attempt=attempt_of()),
                settlement_of(claimed, DEAD, dead=dead_letter("no"), attempt=attempt_of(outcome="failed")),
                settlement_of(own, attempt=attempt_of()),
            )
        )
        self.assertEqual(outcome, {taken, claimed})
        self.assertEqual([self.state_of(each) for each in ("taken", "claimed", "own")], [[READY], [READY], [DONE]])
        self.assertEqual(len(self.kinds(ATTEMPTS)), 1)
        self.assertEqual(self.accept(new_delivery("again", claim=dedupe("k"))), (None,))
        self.assertFalse(self.result_of(self.other.deliveries.settle(settlement_of(taken, attempt=attempt_of()))))
        self.assertEqual(self.settle_as_before(taken, state=WAITING, due_at=NOW), {taken})
        self.assertEqual(self.state_of("taken"), [DONE])

    def test_before_it_is_taken_over(self) -> None:
        """What no other server has taken over so far is not the fenced one's, either: it would run twice."""
        delivery_id = self.accept_one("e1")
        self.fence()
        self.result_of(self.store.rejoin())
        self.assertEqual(self.ready_ids(), [])
        self.assertEqual(self.settle_as_before(delivery_id), {delivery_id})
        self.assertEqual(self.recover(self.other).backlog, (backlog_of("gh", 1, 1, 0),))
        self.assertFalse(self.result_of(self.other.deliveries.settle(settlement_of(delivery_id))))

    def test_living_servers_are_left_alone(self) -> None:
        """A recovery takes nothing of another state directory's server, however long that has been silent."""
        self.accept_one("e1")
        self.clock.advance(3600.0)
        self.assertEqual(self.recover(self.other).recovered, 0)
        self.assertEqual(self.result_of(self.other.recovery.count_unfinished(NOW + 1)), 0)
        self.result_of(self.store.close())
        self.assertEqual(self.result_of(self.other.recovery.count_unfinished(NOW + 1)), 1)
        self.assertEqual(self.recover(self.other).recovered, 1)

    def test_the_description_of_one_that_crashed(self) -> None:
        """It is removed by the next server on its state directory, which ends its row."""
        crashed = self.store.incarnation
        self.result_of(self.store.servers.note(ServerNote(status=SERVING)))
        after = postgres.make_store(self, self.directory, self.clock)
        self.result_of(after.open())
        self.addCleanup(lambda: self.result_of(after.close()))
        self.assertIn(f"server/{crashed}", self.result_of(after.checkpoints.beginning("server/")))
        self.result_of(after.recovery.recover(NOW, 10, gone=crashed))
        self.assertEqual(self.result_of(after.checkpoints.beginning("server/")), {})


class SliceTests(TwoServers):
    def test_slices(self) -> None:
        """A large backlog is taken over in slices, what ran first, and others take slices of it meanwhile."""
        self.patch(recovery, "SLICE", 4)
        ids = [self.accept_one(f"e{number}") for number in range(9)]
        self.settle(ids[0], WAITING, due_at=NOW + 5)
        self.result_of(self.store.deliveries.begins(ids[7]))
        directory = self.mktemp()
        os.makedirs(directory)
        third = postgres.make_store(self, directory, self.clock, home="third")
        self.result_of(third.open())
        self.addCleanup(lambda: self.result_of(third.close()))
        self.fence()
        slices = [self.recover(store) for store in (self.other, third, self.other, third)]
        self.assertEqual([each.recovered for each in slices], [4, 4, 1, 0])
        self.assertEqual([each.is_more for each in slices], [True, True, False, False])
        self.assertEqual([each.crashed for each in slices], [0] * 4)
        ready = self.result_of(self.other.deliveries.ready("gh", 1, (), 10, 1 << 20))
        self.assertEqual([row.delivery_id for row in ready], ids[1:5])

    def test_a_crash_is_counted_after_others_have_taken_over(self) -> None:
        """Only the next server on the same state directory can read what ran; it counts that once."""
        delivery_id = self.accept_one("ran")
        self.result_of(self.store.deliveries.begins(delivery_id))
        self.fence()
        self.assertEqual((self.recover(self.other).recovered, self.crashes()), (1, 0))
        crashed, self.store = self.store, self.make_store()
        self.addCleanup(lambda: self.result_of(crashed.close()))
        self.result_of(self.store.open())
        self.assertEqual((self.recover(self.store).crashed, self.crashes()), (1, 1))
        self.assertEqual((self.recover(self.store).crashed, self.crashes()), (0, 1))

    def crashes(self) -> int:
        """Return how often a server crashed while it ran the delivery."""
        (row,) = self.result_of(self.other.deliveries.find("ran"))
        return row.crashes


class UnavailableTests(TwoServers):
    def test_rejoining_in_vain(self) -> None:
        """While the store cannot be reached, a fenced server stays as it is, and tries again."""
        self.fence()
        register = recovery._REGISTER
        self.patch(recovery, "_REGISTER", "SELECT $1 FROM no_such_table")
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.store.rejoin())
        self.patch(recovery, "_REGISTER", register)
        self.result_of(self.store.rejoin())
        self.accept_one("e1")


class ProposalTests(TwoServers):
    def propose(self, number: int = 2) -> Proposal:
        """Reserve a generation, and propose it to the other server, which serves."""
        self.result_of(self.store.generations.reserve(generation_of(number), b"bundle"))
        self.result_of(self.other.servers.note(ServerNote(status=SERVING, generation=1)))
        new = Proposal(id="r1", by=0, generation=number, base=1, versions=0, actor="me")
        return self.result_of(self.store.servers.propose(new))

    def adopted(self) -> bool:
        """Return whether the generation counts as adopted."""
        return self.result_of(self.other.generations.generation(2)) is not None

    def test_the_last_vote_decides(self) -> None:
        """In its transaction the generation is adopted; a server that starts or proposes is not asked."""
        asked = self.propose()
        self.assertEqual((asked.by, list(asked.members)), (self.store.incarnation, [str(self.other.incarnation)]))
        self.assertEqual((asked.state, self.adopted()), (ProposalState.OPEN, False))
        voted = self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.assertEqual((voted.state, self.adopted()), (ProposalState.ADOPTED, True))
        self.assertEqual(self.result_of(self.store.servers.decide("r1", is_late=True)), voted)
        self.assertEqual(self.result_of(self.store.servers.proposal()), voted)

    def test_votes_that_come_too_late(self) -> None:
        """After the proposer has dropped it, nothing is adopted; nor when it dies before."""
        self.propose()
        self.assertEqual(self.result_of(self.store.servers.decide("r1", is_late=True)).state, ProposalState.DROPPED)
        voted = self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.assertEqual((voted.state, self.adopted()), (ProposalState.DROPPED, False))
        self.propose()
        self.fence()
        self.assertEqual(self.result_of(self.other.servers.decide("r1")).state, ProposalState.DROPPED)
        self.assertFalse(self.adopted())

    def test_a_proposer_that_drains(self) -> None:
        """It cuts off its reload, and withdraws the generation: the last vote must not adopt that any more."""
        self.propose()
        self.result_of(self.store.servers.note(ServerNote(status=DRAINING, generation=1)))
        voted = self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.assertEqual((voted.state, self.adopted()), (ProposalState.DROPPED, False))

    def test_a_generation_that_was_withdrawn(self) -> None:
        """Nothing is adopted of which the content is not there."""
        self.propose()
        self.result_of(self.store.generations.reserve(generation_of(2, digest=""), None))
        voted = self.result_of(self.other.servers.vote("r1", Vote(server="b")))
        self.assertEqual((voted.state, self.adopted()), (ProposalState.DROPPED, False))

    def test_a_member_that_drains(self) -> None:
        """Its vote is not waited for."""
        self.propose()
        self.result_of(self.other.servers.note(ServerNote(status=DRAINING, generation=1)))
        self.assertEqual(self.result_of(self.store.servers.decide("r1")).state, ProposalState.ADOPTED)

    def test_turns(self) -> None:
        """One server at a time may reload, until it releases the turn, or is gone."""
        ours, others = self.store.incarnation, self.other.incarnation
        take, take_other = self.store.servers.take_turn, self.other.servers.take_turn
        self.assertEqual([self.result_of(each()) for each in (take, take_other, take)], [ours] * 3)
        self.result_of(self.other.servers.end_turn())
        self.assertEqual(self.result_of(take_other()), ours)
        self.result_of(self.store.servers.end_turn())
        self.assertEqual(self.result_of(take_other()), others)
        self.result_of(self.other.servers.end_turn())
        self.result_of(take())
        self.fence()
        self.assertEqual(self.result_of(take_other()), others)
