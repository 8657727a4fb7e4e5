"""Recovery: what a server takes over of those that are gone, and what it leaves."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from harn.model.delivery import (
    DEAD,
    DONE,
    READY,
    RECOVERY_LIMIT,
    WAITING,
)
from harn.store.event_log import DEAD_LETTERS
from harn.testing.stores.kit import (
    NOW,
    StoreTestCase,
    backlog_of,
    dedupe,
    new_delivery,
)


class RecoveryTests(StoreTestCase):
    """The promises of `IRecovery`."""

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

    def test_recovery_after_the_clock_was_set_back(self) -> None:
        """A server that was alive at a time that is yet to come is gone all the same when the next one starts."""
        left = self.accept_one("left")
        for ahead in (3600.0, 3.0):
            now = self.clock.seconds()
            self.result_of(self.store.heartbeat(now + ahead))
            self.crash()
            self.assertEqual(len(self.result_of(self.store.recovery.unfinished(NOW + 1, 10))), 1)
            self.assertEqual(self.result_of(self.store.recovery.recover(now, 10)).recovered, 1)
        self.assertEqual(self.ready_ids(), [left])

    def test_recovery_when_the_clock_is_set_back_after_the_start(self) -> None:
        """A server whose heartbeat had lapsed when the next one started has lapsed at any later time of day."""
        self.accept_one("left")
        self.clock.advance(60.0)
        self.crash()
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).recovered, 1)

    def test_recovery_leaves_a_server_that_still_runs(self) -> None:
        """What a server that is leaving has stays its own, until a recovery that does not except it."""
        gone = self.accept_one("gone")
        self.crash(gone)
        leaving = self.store.incarnation
        running = self.accept_one("running")
        self.settle(self.accept_one("waits"), WAITING, due_at=NOW + 5)
        self.crash(running)
        ours = self.accept_one("ours")
        found = self.result_of(self.store.recovery.unfinished(NOW + 1, 10, leaving))
        self.assertEqual([row.event_id for row in found], ["gone"])
        recovery = self.result_of(self.store.recovery.recover(NOW, 1, None, leaving))
        self.assertEqual((recovery.recovered, recovery.dead, recovery.backlog), (0, 1, ()))
        self.assertEqual((self.state_of("gone"), self.state_of("running")), ([DEAD], [READY]))
        self.assertEqual(self.result_of(self.store.deliveries.find("running"))[0].crashes, 0)
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 9)), ([ours], []))
        found = self.result_of(self.store.recovery.unfinished(NOW + 1, 10))
        self.assertEqual([row.event_id for row in found], ["running", "waits"])
        recovery = self.result_of(self.store.recovery.recover(NOW, 10))
        self.assertEqual((recovery.recovered, recovery.backlog), (2, (backlog_of("gh", 1, 1, 1),)))
        self.assertEqual(self.ready_ids(gone), [running, ours])

    def crashes_of(self, event_id: str) -> int:
        """Return the number of crashes at which an event's delivery ran."""
        (row,) = self.result_of(self.store.deliveries.find(event_id))
        return row.crashes
