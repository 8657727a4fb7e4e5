"""Recovery: what a server takes over of those that are gone; the heartbeat, retention and closing."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from harn.errors import EventLogUnavailable
from harn.model.delivery import (
    CANCELLED,
    DEAD,
    DONE,
    READY,
    RECOVERY_LIMIT,
    SKIPPED,
    WAITING,
)
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS
from harn.testing.stores.kit import (
    DAY,
    KEEP,
    NOW,
    StoreTestCase,
    accept_of,
    attempt_of,
    backlog_of,
    binding_of,
    dead_letter,
    dedupe,
    generation_of,
    new_delivery,
    settlement_of,
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


class RetentionTests(StoreTestCase):
    """The promises of `IRetention`, and for closing."""

    def test_trims_by_age(self) -> None:
        """Finished deliveries, dead letters, records and claims are removed after their time, and not before."""
        done, dead = self.accept_one("done", claim=dedupe("k", NOW + 7 * DAY)), self.accept_one("dead")
        self.settle(done, attempt=attempt_of())
        self.settle(dead, DEAD, attempt=attempt_of(1, "failed"), dead=dead_letter("no"))
        self.result_of(self.store.event_log.append("audit.test", "old", {}))
        waiting = self.accept_one("waiting")
        self.settle(waiting, WAITING, due_at=NOW + DAY, attempt=attempt_of(1, "failed"))
        self.accept_one("ready")
        self.assertEqual(self.trim_all(KEEP, NOW + 6 * DAY), 0)
        self.assertEqual(self.trim_all(KEEP, NOW + 8 * DAY), 3)
        states = [self.state_of(name) for name in ("done", "dead", "waiting", "ready")]
        self.assertEqual(states, [[], [DEAD], [WAITING], [READY]])
        self.assertEqual(self.result_of(self.store.event_log.read("audit.test", 0, 10)), [])
        self.assertEqual(self.trim_all(KEEP, NOW + 31 * DAY), 1)
        self.assertEqual((self.state_of("dead"), self.kinds(DEAD_LETTERS)), ([], []))
        self.assertEqual((self.state_of("waiting"), self.kinds(ATTEMPTS)), ([WAITING], ["attempt_recorded"]))

    def test_trims_skipped(self) -> None:
        """A skipped delivery is kept for as long as one that is done."""
        self.settle(self.accept_one("skipped"), SKIPPED, skip_reason=CANCELLED)
        self.settle(self.accept_one("done"), result=b"1")
        self.assertEqual(self.trim_all(KEEP, NOW + 6 * DAY), 0)
        self.assertEqual((self.state_of("skipped"), self.state_of("done")), ([SKIPPED], [DONE]))
        self.assertEqual(self.trim_all(KEEP, NOW + 8 * DAY), 2)

    def test_trims_in_slices(self) -> None:
        """One call removes no more than it may."""
        for number in range(5):
            self.settle(self.accept_one(f"e{number}"))
        counts = [self.result_of(self.store.trim(KEEP, NOW + 8 * DAY, 2)) for _ in range(4)]
        self.assertEqual(counts, [2, 2, 1, 0])

    def test_numbers_outlive_their_rows(self) -> None:
        """After everything was trimmed, ids and numbers continue above those that were given, over a restart too."""
        delivery_id = self.accept_one("e1")
        self.settle(delivery_id, DEAD, attempt=attempt_of(1, "failed"), dead=dead_letter("no"))
        number = self.result_of(self.store.event_log.append("audit.test", "old", {}))
        (letter,) = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        (tried,) = self.result_of(self.store.event_log.read(ATTEMPTS, 0, 10))
        self.trim_all(KEEP, NOW + 100 * DAY)
        self.assertEqual(self.result_of(self.store.event_log.topics()), [])
        self.restart()
        again = self.accept_one("e2")
        self.assertGreater(again, delivery_id)
        self.assertGreater(self.result_of(self.store.event_log.append("audit.test", "new", {})), number)
        self.settle(again, DEAD, attempt=attempt_of(1, "failed"), dead=dead_letter("no"))
        self.assertGreater(self.result_of(self.store.event_log.latest(DEAD_LETTERS)), letter.number)
        self.assertGreater(self.result_of(self.store.event_log.latest(ATTEMPTS)), tried.number)

    def test_trims_by_size(self) -> None:
        """Over the size, the oldest finished go first, then dead letters; what is unfinished never."""
        for number in range(20):
            self.settle(self.accept_one(f"e{number}", body=b"x" * 100_000), attempt=attempt_of())
            self.clock.advance(1)
        self.settle(self.accept_one("dead"), DEAD, dead=dead_letter("no"))
        self.accept_one("ready", body=b"x" * 100_000)
        policy = replace(KEEP, max_bytes=1_200_000)
        self.assertGreater(self.trim_all(policy, self.clock.seconds()), 8)
        left = [bool(self.state_of(f"e{number}")) for number in range(20)]
        self.assertEqual(left, sorted(left))
        self.assertTrue(left[-1])
        self.assertEqual(self.state_of("dead"), [DEAD])
        self.trim_all(replace(KEEP, max_bytes=1), self.clock.seconds())
        self.assertEqual((self.state_of("dead"), self.state_of("ready")), ([], [READY]))

    def test_trims_definitions_that_nobody_names(self) -> None:
        """Old versions and bundles go; the newest of each trigger, and what an unfinished delivery names, stay."""
        self.adopt(generation_of(1, binding_of(1, 1), binding_of(1, 1, trigger_id="still")))
        for number in range(2, 26):
            bundle_id = f"sha256:b{number}"
            self.adopt(generation_of(number, binding_of(number, number, bundle_id=bundle_id), bundle_id=bundle_id))
        self.accept_one("e1", version=3)
        self.trim_all(KEEP, NOW)
        keys = [("gh", version) for version in range(1, 26)]
        kept = [record.version for record in self.result_of(self.store.generations.bindings(keys))]
        self.assertEqual(kept, [3, *range(6, 26)])
        self.assertEqual(len(self.result_of(self.store.generations.bindings([("still", 1)]))), 1)
        bundles = [
            number for number in range(1, 26) if self.result_of(self.store.generations.bundle(f"sha256:b{number}"))
        ]
        self.assertEqual(bundles, [1, 3, *range(6, 26)])
        self.assertEqual(len(self.result_of(self.store.generations.history(100))), 20)

    def test_keeps_what_served_beside_what_did_not(self) -> None:
        """A version stays while the only newer ones belong to generations that are not known to have served."""
        self.adopt(generation_of(1, binding_of(1, 1), binding_of(1, 1, trigger_id="other")))
        for number in range(2, 26):
            self.adopt(generation_of(number, binding_of(number, number, trigger_id="other")), None)
        self.result_of(self.store.generations.reserve(generation_of(26, binding_of(2, 26)), None))
        self.trim_all(KEEP, NOW)
        self.assertEqual(len(self.result_of(self.store.generations.bindings([("gh", 1), ("gh", 2)]))), 2)
        self.assertEqual(self.result_of(self.store.generations.bindings([("other", 1)])), [])
        self.result_of(self.store.generations.reserve(generation_of(26, digest=""), None))
        self.trim_all(KEEP, NOW)
        self.assertEqual(self.result_of(self.store.generations.latest_bindings())["gh"].version, 1)
        self.adopt(generation_of(26, binding_of(2, 26)), None)
        self.trim_all(KEEP, NOW)
        self.assertEqual(self.result_of(self.store.generations.bindings([("gh", 1), ("gh", 2)])), [binding_of(2, 26)])

    def test_trims_beside_the_versions_that_are_kept(self) -> None:
        """Versions that the policy names stay, whatever their triggers are called; those like them do not."""
        ids = ("gh", "gh@v1", "g", "é'\"")
        old = [binding_of(version, 1, trigger_id=name) for name in ids for version in (1, 11)]
        self.adopt(generation_of(1, *old))
        self.adopt(generation_of(2, *(binding_of(12, 2, trigger_id=name) for name in ids)), None)
        kept = (("gh", 1), ("gh@v1", 11), ("é'\"", 1), ("unknown", 1))
        self.trim_all(replace(KEEP, generations=1, versions=kept), NOW)
        left = self.result_of(self.store.generations.bindings([(name, version) for name in ids for version in (1, 11)]))
        self.assertEqual([(record.trigger_id, record.version) for record in left], list(kept[:3]))

    def test_heartbeat(self) -> None:
        """A heartbeat may be given at any time, and leaves the store available."""
        self.result_of(self.store.heartbeat(NOW + 5))
        self.assertTrue(self.store.available())

    def test_close_writes_what_was_handed_over(self) -> None:
        """What was asked for before `close` is done before it fires, and is there after a restart."""
        accepting = self.store.inbox.accept(accept_of(new_delivery("e1")))
        self.result_of(self.store.close())
        self.assertEqual(len(self.result_of(accepting)), 1)
        self.restart()
        self.assertEqual(self.state_of("e1"), [READY])

    def test_closed_refuses(self) -> None:
        """After `close`, reads and writes fail as unavailable, and closing again does no harm."""
        self.result_of(self.store.close())
        self.result_of(self.store.close())
        refusals: list[Deferred[Any]] = [
            self.store.inbox.accept(accept_of(new_delivery("e1"))),
            self.store.inbox.claim("admin", "k", NOW + 1),
            self.store.deliveries.settle(settlement_of(1)),
            self.store.event_log.append("audit.test", "kind", {}),
            self.store.heartbeat(NOW),
            self.store.checkpoints.put("name", 1),
            self.store.checkpoints.get("name"),
            self.store.deliveries.redrive("gh", 1, 2, NOW),
            self.store.deliveries.recent(["gh"], 1, 1),
            self.store.trim(KEEP, NOW, 10),
            self.store.deliveries.find("e1"),
            self.store.generations.last(),
        ]
        for refused in refusals:
            with self.assertRaises(EventLogUnavailable):
                self.result_of(refused)

    def test_cancelled_unit_does_no_harm(self) -> None:
        """Who no longer waits for a unit may cancel its Deferred; it may be written all the same."""
        cancelled = self.store.event_log.append("audit.test", "one", {})
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        self.result_of(self.store.event_log.append("audit.test", "two", {}))
        self.assertIn("two", self.kinds("audit.test"))
