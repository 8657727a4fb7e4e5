"""Deliveries after their acceptance: settling, reading back, moving, restarts."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from twisted.internet.defer import gatherResults

from harn.model.delivery import (
    DEAD,
    DONE,
    LARGE_BODY,
    READY,
    RECOVERY_LIMIT,
    WAITING,
)
from harn.store.event_log import DEAD_LETTERS, OUTBOX
from harn.testing.stores.kit import (
    NOW,
    StoreTestCase,
    attempt_of,
    backlog_of,
    dedupe,
    new_delivery,
    settlement_of,
)


class DeliveringTests(StoreTestCase):
    """The promises for deliveries."""

    def test_done_is_not_ready(self) -> None:
        """A delivery that is done does not run again, and its attempt is recorded."""
        delivery_id = self.accept_one("e1")
        self.settle(delivery_id, passed=True, attempt=attempt_of(), result=b'{"ok":true}')
        (row,) = self.result_of(self.store.deliveries.find("e1"))
        self.assertEqual((row.state, row.attempts, row.passed), (DONE, 1, True))
        self.assertEqual(self.ready_ids(), [])

    def test_settlements_of_one_delivery_in_one_turn(self) -> None:
        """Of two settlements in one turn, the later holds, and both attempts are recorded in their order."""
        delivery_id = self.accept_one("e1")
        failed = attempt_of(1, "failed", error_class="handler_error", error="no")
        first = settlement_of(delivery_id, WAITING, due_at=NOW + 5, attempt=failed)
        second = settlement_of(delivery_id, DONE, attempts=2, attempt=attempt_of(2))
        self.result_of(gatherResults([self.store.deliveries.settle(first), self.store.deliveries.settle(second)]))
        self.assertEqual(self.state_of("e1"), [DONE])
        self.assertEqual(self.kinds(OUTBOX), ["dispatch_failed", "dispatch_succeeded"])

    def test_ready_in_order_and_limited(self) -> None:
        """Ready deliveries come by id, after an id, up to a count."""
        ids = [self.accept_one(f"e{n}") for n in range(5)]
        self.settle(ids[2])
        self.assertEqual(self.ready_ids(), [ids[0], ids[1], ids[3], ids[4]])
        self.assertEqual(self.ready_ids(after=ids[1], limit=1), [ids[3]])

    def test_ready_limited_by_bytes(self) -> None:
        """Ready deliveries come up to a size of bodies, but at least one."""
        ids = [self.accept_one(f"e{n}", body=b"x" * 100) for n in range(3)]
        self.assertEqual(self.ready_ids(max_bytes=250), ids[:2])
        self.assertEqual(self.ready_ids(max_bytes=1), ids[:1])

    def test_large_bodies_are_left_out(self) -> None:
        """Many are read without bodies above a size, which they tell; one is read with it."""
        ready, small, waiting = (
            self.accept_one(f"e{n}", body=b"x" * size) for n, size in enumerate((LARGE_BODY + 1, LARGE_BODY, 300_000))
        )
        self.settle(waiting, WAITING, due_at=NOW)
        self.assertEqual(self.due_ids(NOW), [waiting])
        rows = self.result_of(self.store.deliveries.ready("gh", 1, (), 10, LARGE_BODY))
        found = [(row.delivery_id, len(row.body), row.left_out) for row in rows]
        self.assertEqual(found, [(ready, 0, LARGE_BODY + 1), (small, LARGE_BODY, 0), (waiting, 0, 300_000)])
        (whole,) = self.result_of(self.store.deliveries.find("e2"))
        self.assertEqual((len(whole.body), whole.left_out), (300_000, 0))

    def test_ready_of_one_version(self) -> None:
        """Ready deliveries come of one version of one trigger, without those that are excluded."""
        first, second, other = self.accept_one("e1"), self.accept_one("e2"), self.accept_one("e3", version=2)
        self.accept_one("e4", trigger_id="other")
        found = [
            [row.delivery_id for row in self.result_of(self.store.deliveries.ready(trigger_id, version, but, 10, 1000))]
            for trigger_id, version, but in (
                ("gh", 1, ()),
                ("gh", 1, (first, other)),
                ("gh", 2, (first,)),
                ("gh", 3, ()),
            )
        ]
        self.assertEqual(found, [[first, second], [second], [other], []])

    def test_due_when_its_time_comes(self) -> None:
        """Waiting deliveries are due from their time on, the longest due first, and are ready then."""
        late, early, never = (self.accept_one(f"e{n}") for n in range(3))
        self.settle(late, WAITING, due_at=NOW + 20)
        self.settle(early, WAITING, due_at=NOW + 10)
        self.settle(never, WAITING, due_at=NOW + 1000)
        self.assertEqual(self.due_ids(NOW + 9), [])
        self.assertEqual(self.due_ids(NOW + 20, limit=1), [early])
        self.assertEqual((self.ready_ids(), self.state_of("e1")), ([early], [READY]))
        (row,) = self.result_of(self.store.deliveries.find("e1"))
        self.assertEqual((row.version, row.attempts), (1, 1))
        self.assertEqual(self.due_ids(NOW + 20), [late])
        self.assertEqual((self.due_ids(NOW + 20), self.ready_ids()), ([], [late, early]))

    def test_next_due(self) -> None:
        """The earliest time of a waiting delivery is known, and the earliest after another."""
        self.assertIsNone(self.result_of(self.store.deliveries.next_due()))
        for number, due_at in enumerate((NOW + 20, NOW + 10)):
            self.settle(self.accept_one(f"e{number}"), WAITING, due_at=due_at)
        self.assertEqual(self.result_of(self.store.deliveries.next_due()), NOW + 10)
        self.assertEqual(self.result_of(self.store.deliveries.next_due(NOW + 10)), NOW + 20)
        self.assertIsNone(self.result_of(self.store.deliveries.next_due(NOW + 20)))

    def test_due_earlier(self) -> None:
        """All that wait are due so much earlier, and nothing else changes."""
        first, second, ready = (self.accept_one(f"e{n}") for n in range(3))
        self.settle(first, WAITING, due_at=NOW + 4000)
        self.result_of(self.store.deliveries.advance_due(3600.0))
        self.settle(second, WAITING, due_at=NOW + 500)
        self.assertEqual((self.due_ids(NOW + 399), self.due_ids(NOW + 400)), ([], [first]))
        self.assertEqual((self.due_ids(NOW + 500), self.ready_ids()), ([second], [first, second, ready]))

    def test_waiting_becomes_ready_again(self) -> None:
        """A settlement may make a waiting delivery ready, without an attempt."""
        delivery_id = self.accept_one("e1")
        self.settle(delivery_id, WAITING, due_at=NOW + 10)
        self.settle(delivery_id, READY, version=2)
        (row,) = self.result_of(self.store.deliveries.ready("gh", 2, (), 10, 1 << 20))
        self.assertEqual((row.state, row.version, row.due_at), (READY, 2, None))
        self.assertEqual(self.due_ids(NOW + 100), [])

    def test_all_deliveries_of_an_event(self) -> None:
        """An event's deliveries to several bindings are found together, by id."""
        ids = self.accept(new_delivery("e1"), new_delivery("e1", trigger_id="other"), new_delivery("e2"))
        found = self.result_of(self.store.deliveries.find("e1"))
        self.assertEqual([(row.delivery_id, row.trigger_id) for row in found], [(ids[0], "gh"), (ids[1], "other")])
        self.assertEqual(self.result_of(self.store.deliveries.find("unknown")), [])

    def test_backlog_counts_what_is_unfinished(self) -> None:
        """Unfinished deliveries are counted for each binding version, ready and waiting apart."""
        self.accept_one("e1")
        self.settle(self.accept_one("e2"), WAITING, due_at=NOW + 1)
        self.settle(self.accept_one("e3"), DONE)
        self.accept_one("e4", version=2)
        self.accept_one("e5", trigger_id="other")
        expected = [("gh", 1, 1, 1), ("gh", 2, 1, 0), ("other", 1, 1, 0)]
        self.assertEqual(self.result_of(self.store.deliveries.backlog()), [backlog_of(*entry) for entry in expected])

    def test_what_another_left_waits_for_recovery(self) -> None:
        """After a restart, nothing is ready or due before it is recovered; then all of it is, at its place."""
        ready, waiting, done = (self.accept_one(f"e{n}") for n in range(3))
        self.settle(waiting, WAITING, due_at=NOW + 5)
        self.settle(done)
        before = self.store.incarnation
        self.restart()
        self.assertGreater(self.store.incarnation, before)
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 9)), ([], []))
        self.assertIsNone(self.result_of(self.store.deliveries.next_due()))
        found = self.result_of(self.store.recovery.unfinished(NOW + 1, 10))
        self.assertEqual([row.delivery_id for row in found], [ready, waiting])
        self.assertEqual(len(self.result_of(self.store.recovery.unfinished(NOW + 1, 1))), 1)
        self.assertEqual(self.result_of(self.store.recovery.count_unfinished(NOW + 1)), 2)
        self.assertEqual(self.result_of(self.store.deliveries.states([ready, waiting, done, 99])), {done: DONE})
        recovery = self.result_of(self.store.recovery.recover(NOW, 10))
        self.assertEqual((recovery.recovered, recovery.dead), (2, 0))
        self.assertEqual(recovery.backlog, (backlog_of("gh", 1, 1, 1),))
        states = self.result_of(self.store.deliveries.states([ready, waiting, done]))
        self.assertEqual(states, {ready: READY, waiting: WAITING, done: DONE})
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 9)), ([ready], [waiting]))
        self.assertEqual(self.crashes_of("e0"), 0)
        self.assertEqual(self.result_of(self.store.recovery.unfinished(NOW + 1, 10)), [])

    def test_recovery_leaves_our_own_alone(self) -> None:
        """What this server accepted itself is not recovered, nor listed as unfinished."""
        self.accept_one("e1")
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).recovered, 0)
        self.assertEqual(self.result_of(self.store.recovery.unfinished(NOW + 1, 10)), [])
        self.assertEqual(self.crashes_of("e1"), 0)

    def test_recovery_of_what_is_older(self) -> None:
        """A recovery may be limited to what was received before a time; the rest waits on."""
        old = self.accept_one("e1", received_at=NOW - 100)
        self.accept_one("e2")
        self.restart()
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10, NOW - 50)).recovered, 1)
        self.assertEqual(self.ready_ids(), [old])
        self.assertEqual(self.result_of(self.store.recovery.count_unfinished(NOW + 1)), 1)
        self.assertEqual(self.result_of(self.store.recovery.count_unfinished(NOW - 50)), 0)
        self.assertEqual([row.event_id for row in self.result_of(self.store.recovery.unfinished(NOW + 1, 10))], ["e2"])

    def crashes_of(self, event_id: str) -> int:
        """Return the number of crashes at which an event's delivery ran."""
        (row,) = self.result_of(self.store.deliveries.find(event_id))
        return row.crashes

    def test_what_ran_at_a_crash_is_counted(self) -> None:
        """A crash is counted, once, for deliveries that ran; not for those that had ended, waited or had not begun."""
        ran, ended, waits, fresh = (self.accept_one(name) for name in ("ran", "ended", "waits", "fresh"))
        self.result_of(self.store.deliveries.begins(ended))
        self.result_of(self.store.deliveries.begins(waits))
        self.store.deliveries.ended(ended)
        self.store.deliveries.ended(waits)
        self.settle(waits, WAITING, due_at=NOW + 5)
        self.crash(ran)
        recovery = self.result_of(self.store.recovery.recover(NOW, 10))
        self.assertEqual((recovery.recovered, recovery.dead, recovery.crashed), (4, 0, 1))
        self.assertEqual([self.crashes_of(name) for name in ("ran", "ended", "waits", "fresh")], [1, 0, 0, 0])
        self.assertEqual(self.ready_ids(), [ran, ended, fresh])
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).crashed, 0)
        self.crash()
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).crashed, 0)
        self.assertEqual(self.crashes_of("ran"), 1)

    def test_what_ran_keeps_its_version(self) -> None:
        """Of a version the deliveries that never ran are given to a later one, where another one ran at a crash."""
        ran, _ = self.accept_one("ran"), self.accept_one("fresh")
        self.crash()
        self.result_of(self.store.recovery.recover(NOW, 10))
        self.assertEqual(self.result_of(self.store.recovery.keep_begun("gh", 1, 3)), (0, 0))
        self.crash(ran)
        self.result_of(self.store.recovery.recover(NOW, 10))
        self.assertEqual(self.result_of(self.store.recovery.keep_begun("gh", 1, 3)), (1, 1))
        found = [self.result_of(self.store.deliveries.find(name)) for name in ("ran", "fresh")]
        self.assertEqual([[row.version for row in rows] for rows in found], [[1], [3]])
        self.assertEqual(self.result_of(self.store.recovery.keep_begun("gh", 1, 3)), (1, 0))

    def test_a_clean_end_is_not_counted(self) -> None:
        """A delivery that runs when its server is closed begins again, as if it had never run."""
        self.result_of(self.store.deliveries.begins(self.accept_one("e1")))
        self.restart()
        recovery = self.result_of(self.store.recovery.recover(NOW, 1))
        self.assertEqual((recovery.recovered, recovery.dead, recovery.crashed), (1, 0, 0))

    def test_what_was_settled_is_not_counted(self) -> None:
        """A crash is not counted for a delivery that was settled just before it."""
        delivery_id = self.accept_one("e1")
        self.result_of(self.store.deliveries.begins(delivery_id))
        self.settle(delivery_id)
        self.crash()
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 1)).crashed, 0)
        self.assertEqual(self.state_of("e1"), [DONE])

    def test_crashes_and_recovery_of_what_is_older(self) -> None:
        """A crash is counted by the recovery that takes the delivery, not by a limited one that leaves it."""
        old, young = self.accept_one("old", received_at=NOW - 100), self.accept_one("young")
        self.crash(old, young)
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10, NOW - 50)).crashed, 1)
        self.assertEqual((self.crashes_of("old"), self.crashes_of("young")), (1, 0))
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).crashed, 1)
        self.assertEqual((self.crashes_of("old"), self.crashes_of("young")), (1, 1))

    def test_recovery_limit(self) -> None:
        """A delivery that ran at the limit of crashes becomes a dead letter and releases its claim; no other does."""
        culprit = self.accept_one("culprit", claim=dedupe("k"))
        self.accept_one("beside")
        outcomes = []
        for _ in range(3):
            self.crash(culprit)
            recovery = self.result_of(self.store.recovery.recover(NOW, 3))
            outcomes.append((recovery.recovered, recovery.dead))
        self.assertEqual(outcomes, [(2, 0), (2, 0), (1, 1)])
        self.assertEqual((self.state_of("culprit"), self.state_of("beside")), ([DEAD], [READY]))
        (record,) = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertEqual((record.payload["reason"], record.occurred_at), (RECOVERY_LIMIT, NOW))
        self.assertEqual(self.result_of(self.store.recovery.unfinished(NOW + 1, 10)), [])
        self.assertIsNotNone(self.accept(new_delivery("again", claim=dedupe("k")))[0])
        self.restart()
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 1)).dead, 0)
