"""The inbox: claims, guards, duplicates, and units that fail alone."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from twisted.internet.defer import gatherResults

from harn.errors import ClaimTaken, EventLogUnavailable, StoreError
from harn.model.delivery import (
    DEAD,
    DRAIN_CANCELLED,
    FILTER_ERROR,
    READY,
    REJECTED,
    REPLAYED,
    RETRY_EXHAUSTED,
    WAITING,
    Claim,
    DeadLetter,
)
from harn.store.deliveries import REMOVED
from harn.store.event_log import DEAD_LETTERS, OUTBOX
from harn.testing.stores.kit import (
    DAY,
    KEEP,
    NOW,
    StoreTestCase,
    accept_of,
    attempt_of,
    dead_letter,
    dedupe,
    new_delivery,
    settlement_of,
)


class InboxTests(StoreTestCase):
    """The promises of the inbox."""

    def test_accepted_is_found_as_it_came(self) -> None:
        """An accepted delivery is read back with every field and byte, ready to run."""
        new = new_delivery("e1", version=3, body=b"\x00\xff" * 5000, replay_of="e0", received_at=NOW + 0.5)
        (delivery_id,) = self.accept(new)
        (row,) = self.result_of(self.store.deliveries.find("e1"))
        expected = (delivery_id, "e1", "gh", 3, "webhook", "ping", new.envelope, new.body, NOW + 0.5, "e0")
        self.assertEqual(
            expected,
            (
                row.delivery_id,
                row.event_id,
                row.trigger_id,
                row.version,
                row.provider,
                row.kind,
                row.envelope,
                row.body,
                row.received_at,
                row.replay_of,
            ),
        )
        fresh = (row.state, row.attempts, row.passed, row.crashes, row.due_at)
        self.assertEqual(fresh, (READY, 0, False, 0, None))

    def test_ids_rise(self) -> None:
        """Ids rise from unit to unit, over restarts too."""
        first = self.accept(new_delivery("e1"), new_delivery("e2"))
        second = self.accept(new_delivery("e3"))
        self.restart()
        ids = [*first, *second, *self.accept(new_delivery("e4"))]
        self.assertEqual(ids, sorted({number for number in ids if number is not None}))
        self.assertEqual(len(ids), 4)

    def test_large_body(self) -> None:
        """A body of 10 MiB and a result of 1 MiB are kept."""
        body = b"x" * (10 << 20)
        delivery_id = self.accept_one("e1", body=body)
        self.settle(delivery_id, result=b'"' + b"y" * (1 << 20) + b'"', attempt=attempt_of())
        (row,) = self.result_of(self.store.deliveries.find("e1"))
        self.assertTrue(row.body == body)
        (record,) = self.result_of(self.store.event_log.read(OUTBOX, 0, 10))
        self.assertEqual(len(record.payload["result"]), 1 << 20)

    def test_duplicate_gives_none(self) -> None:
        """The second delivery with a claim is a duplicate, and the rest of its unit is kept."""
        self.accept(new_delivery("e1", claim=dedupe("k")))
        first, second = self.accept(new_delivery("e2", claim=dedupe("k")), new_delivery("e3", claim=dedupe("l")))
        self.assertIsNone(first)
        self.assertIsNotNone(second)
        self.assertEqual(self.state_of("e2"), [])

    def test_duplicate_within_one_unit(self) -> None:
        """Of two deliveries of one unit with the same claim, the first is kept."""
        first, second = self.accept(new_delivery("e1", claim=dedupe("k")), new_delivery("e2", claim=dedupe("k")))
        self.assertIsNotNone(first)
        self.assertIsNone(second)

    def test_duplicates_within_one_turn(self) -> None:
        """Of units handed over in one turn with the same claim, the first is kept; the others' neighbours, too."""
        units = [self.store.inbox.accept(accept_of(new_delivery(f"e{n}", claim=dedupe(f"k{n % 3}")))) for n in range(9)]
        results = [ids[0] is not None for ids in self.result_of(gatherResults(units))]
        self.assertEqual(results, [True] * 3 + [False] * 6)

    def test_claims_of_other_scopes_differ(self) -> None:
        """A key is taken in its scope only."""
        self.accept(new_delivery("e1", claim=dedupe("k")))
        other = Claim(scope="trigger:other", key="k", expires_at=NOW + DAY)
        self.assertIsNotNone(self.accept(new_delivery("e2", claim=other))[0])

    def test_expired_claim_is_free(self) -> None:
        """From its time on, a claim is as if it had never been; a moment before, it is not."""
        self.accept(new_delivery("e1", claim=dedupe("k", NOW + 10)))
        self.clock.advance(9)
        self.assertIsNone(self.accept(new_delivery("e2", claim=dedupe("k", NOW + 100)))[0])
        self.clock.advance(1)
        self.assertIsNotNone(self.accept(new_delivery("e3", claim=dedupe("k", NOW + 100)))[0])
        self.clock.advance(50)
        self.assertIsNone(self.accept(new_delivery("e4", claim=dedupe("k", NOW + 200)))[0])

    def test_claims_outlive_a_restart(self) -> None:
        """A duplicate is one after a restart, too."""
        self.accept(new_delivery("e1", claim=dedupe("k")))
        self.restart()
        self.assertIsNone(self.accept(new_delivery("e2", claim=dedupe("k")))[0])

    def test_dead_letter_lets_go_of_its_claim(self) -> None:
        """What the sender sends again after a dead letter is accepted, once; of one that was handled it is not."""
        self.settle(self.accept_one("done", claim=dedupe("d")))
        for reason in (RETRY_EXHAUSTED, REJECTED):
            first = self.accept_one(f"{reason}-1", claim=dedupe(reason))
            self.settle(first, WAITING, due_at=NOW + 5)
            self.assertEqual(self.accept(new_delivery("early", claim=dedupe(reason))), (None,))
            self.settle(first, DEAD, dead=DeadLetter(reason=reason, error_class="handler_error", error="no"))
            kept = self.accept(*(new_delivery(f"{reason}-{n}", claim=dedupe(reason)) for n in (2, 3)))
            again, twice = kept
            assert again is not None
            self.assertIsNone(twice)
            self.assertEqual(kept.repeats, {again: f"{reason}-1"})
            (repeat,) = self.result_of(self.store.deliveries.find(f"{reason}-2"))
            self.assertEqual((repeat.replay_of, self.state_of(f"{reason}-1")), (f"{reason}-1", [REPLAYED]))
            self.restart()
            self.assertEqual(self.accept(new_delivery("late", claim=dedupe(reason))), (None,))
        self.assertEqual(self.accept(new_delivery("done-2", claim=dedupe("d"))), (None,))

    def test_dead_letters_release_their_claims(self) -> None:
        """So do those that are given up many together, but not those beside them."""
        running, ready, waiting = (self.accept_one(f"e{n}", claim=dedupe(f"k{n}")) for n in range(3))
        self.settle(waiting, WAITING, due_at=NOW + 5)
        other = self.accept_one("e3", version=2, claim=dedupe("k3"))
        self.result_of(self.store.deliveries.dead_letter("gh", 1, REMOVED, {running}))
        again = [self.accept(new_delivery(f"f{n}", version=3, claim=dedupe(f"k{n}")))[0] for n in range(4)]
        self.assertEqual([number is not None for number in again], [False, True, True, False])
        dead = DeadLetter(reason=DRAIN_CANCELLED, error_class=DRAIN_CANCELLED, error="no")
        self.result_of(self.store.deliveries.dead_letter("gh", 2, dead, (), waiting=False))
        self.assertIsNotNone(self.accept(new_delivery("g3", claim=dedupe("k3")))[0])
        self.assertGreater(other, ready)

    def test_claim_that_another_holds_stays(self) -> None:
        """A dead letter whose claim has expired, and is held by another delivery now, releases nothing."""
        first = self.accept_one("e1", claim=dedupe("k", NOW + 10))
        self.clock.advance(10)
        self.accept_one("e2", claim=dedupe("k", NOW + 100))
        self.settle(first, DEAD, dead=DeadLetter(reason=REJECTED, error_class="rejected", error="no"))
        self.assertEqual(self.accept(new_delivery("e3", claim=dedupe("k"))), (None,))

    def test_guard_stays(self) -> None:
        """A guard outlives the dead letter that came with it: a signature that counts once stays used."""
        guard = Claim(scope="admin", key="signature", expires_at=NOW + DAY)
        (delivery_id,) = self.accept(new_delivery("e1", claim=dedupe("k")), guard=guard)
        assert delivery_id is not None
        self.settle(delivery_id, DEAD, dead=DeadLetter(reason=REJECTED, error_class="rejected", error="no"))
        with self.assertRaises(ClaimTaken):
            self.accept(new_delivery("e2", claim=dedupe("k")), guard=guard)
        self.assertEqual(self.state_of("e1"), [DEAD])
        self.assertIsNotNone(self.accept(new_delivery("e3", claim=dedupe("k")))[0])

    def test_redriven_takes_its_claim_back(self) -> None:
        """What is sent again while a redriven delivery is under way is a duplicate; so it is after a repetition."""
        first = self.accept_one("e1", claim=dedupe("k"))
        self.settle(first, DEAD, dead=dead_letter("no"))
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 2, NOW)), 1)
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (None,))
        self.settle(first, DEAD, dead=dead_letter("no"), version=2)
        self.assertIsNotNone(self.accept(new_delivery("e3", claim=dedupe("k")))[0])
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 2, 3, NOW)), 0)
        self.assertEqual(self.state_of("e1"), [REPLAYED])

    def test_released_claim_expires(self) -> None:
        """Retention removes the claim of a dead letter when its time has come; what comes then repeats nothing."""
        first = self.accept_one("e1", claim=dedupe("k", NOW + 10))
        self.settle(first, DEAD, dead=dead_letter("no"))
        self.assertEqual(self.trim_all(KEEP, NOW + 5), 0)
        self.assertEqual(self.trim_all(KEEP, NOW + 10), 1)
        kept = self.accept(new_delivery("e2", claim=dedupe("k")))
        self.assertEqual((kept.repeats, self.state_of("e1")), ({}, [DEAD]))

    def test_claims_of_a_unit_with_duplicates(self) -> None:
        """Each delivery releases its own claim, also where others of its turn were duplicates."""
        self.accept_one("e0", claim=dedupe("k0"))
        units = [self.store.inbox.accept(accept_of(new_delivery(f"e{n}", claim=dedupe(f"k{n % 3}")))) for n in range(4)]
        found = [ids[0] for ids in self.result_of(gatherResults(units))]
        self.assertEqual([number is None for number in found], [True, False, False, True])
        for number in (found[1], found[2]):
            assert number is not None
            self.settle(number, DEAD, dead=DeadLetter(reason=REJECTED, error_class="rejected", error="no"))
        again = [self.accept(new_delivery(f"f{n}", claim=dedupe(f"k{n}")))[0] for n in range(3)]
        self.assertEqual([number is None for number in again], [True, False, False])

    def test_taken_guard_refuses_the_unit(self) -> None:
        """A unit whose guard is taken keeps nothing, and uses up none of its claims."""
        guard = Claim(scope="admin", key="signature", expires_at=NOW + DAY)
        self.accept(new_delivery("e1"), guard=guard)
        refused = self.store.inbox.accept(accept_of(new_delivery("e2", claim=dedupe("k")), guard=guard))
        with self.assertRaises(ClaimTaken):
            self.result_of(refused)
        self.assertEqual(self.state_of("e2"), [])
        self.assertIsNotNone(self.accept(new_delivery("e3", claim=dedupe("k")))[0])

    def test_refused_unit_fails_alone(self) -> None:
        """Of units of one turn, the one whose guard is taken fails, the others are kept."""
        guard = Claim(scope="admin", key="signature", expires_at=NOW + DAY)
        first = self.store.inbox.accept(accept_of(new_delivery("e1"), guard=guard))
        second = self.store.inbox.accept(accept_of(new_delivery("e2"), guard=guard))
        third = self.store.inbox.accept(accept_of(new_delivery("e3")))
        self.result_of(first)
        with self.assertRaises(ClaimTaken):
            self.result_of(second)
        self.result_of(third)
        self.assertEqual([self.state_of(name) for name in ("e1", "e2", "e3")], [[READY], [], [READY]])

    def test_claim_alone(self) -> None:
        """A claim by itself is taken once, until it expires."""
        taken = [self.result_of(self.store.inbox.claim("admin", "k", NOW + 10)) for _ in range(2)]
        self.clock.advance(10)
        taken.append(self.result_of(self.store.inbox.claim("admin", "k", NOW + 20)))
        self.assertEqual(taken, [True, False, True])

    def test_dead_from_the_start(self) -> None:
        """A delivery that is accepted as a dead letter is never ready, and says why."""
        dead = DeadLetter(reason=FILTER_ERROR, error_class="filter_error", error="no such function")
        self.accept(new_delivery("e1", dead=dead), new_delivery("e2"))
        self.assertEqual((self.state_of("e1"), self.state_of("e2")), ([DEAD], [READY]))
        (record,) = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        said = (record.payload["reason"], record.payload["final_error"], record.payload["attempt_count"])
        self.assertEqual(said, (FILTER_ERROR, "no such function", 0))

    def test_dead_from_the_start_leaves_its_claim_to_the_next(self) -> None:
        """Of two deliveries of one batch with the same claim the second is accepted if the first is a dead letter."""
        dead = DeadLetter(reason=FILTER_ERROR, error_class="filter_error", error="no such function")
        first = new_delivery("e1", dead=dead, claim=dedupe("k"))
        second, third = (new_delivery(event, claim=dedupe("k")) for event in ("e2", "e3"))
        numbers = self.accept(first, second, third)
        self.assertEqual([number is None for number in numbers], [False, False, True])

    def test_unit_that_cannot_be_stored_fails_alone(self) -> None:
        """A unit with a value that no database takes fails; the others of its turn are kept, and ids continue."""
        good = self.store.inbox.accept(accept_of(new_delivery("e1")))
        bad = self.store.deliveries.settle(settlement_of(1_000_000))
        other = self.store.inbox.accept(accept_of(new_delivery("e2")))
        record = self.store.event_log.append("audit.test", "kept", {})
        (first,) = self.result_of(good)
        with self.assertRaises(StoreError) as raised:
            self.result_of(bad)
        self.assertNotIsInstance(raised.exception, EventLogUnavailable)
        (second,) = self.result_of(other)
        self.result_of(record)
        self.assertEqual((self.ready_ids(), self.kinds("audit.test")), ([first, second], ["kept"]))
        self.assertTrue(self.store.available())
