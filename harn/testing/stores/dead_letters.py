"""Dead letters: many made at once, redriven, or skipped instead."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Collection

from harn.model.delivery import (
    DEAD,
    DONE,
    READY,
    REJECTED,
    SKIPPED,
    WAITING,
    DeadLetter,
)
from harn.store.deliveries import GivenUp, Unfinished
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS
from harn.testing.stores.kit import (
    KEEP,
    NOW,
    StoreTestCase,
    attempt_of,
    backlog_of,
    dead_letter,
)

CANCELLED = DeadLetter(reason="cancelled", error_class="cancelled", error="key:1 gave it up")


class DeadLetterTests(StoreTestCase):
    """The promises of `IDeliveries` for dead letters."""

    def die(self, event_id: str, at: float = NOW, dead: DeadLetter | None = None, version: int = 1) -> int:
        """Accept a delivery, and let its only attempt fail at a time."""
        delivery_id = self.accept_one(event_id, version=version)
        failed = attempt_of(1, "failed", version=version, completed_at=at, error_class="handler_error", error="no")
        dead = dead or dead_letter("no")
        self.settle(delivery_id, DEAD, version=version, passed=True, attempt=failed, dead=dead)
        return delivery_id

    # dead_letter

    def test_dead_letter(self) -> None:
        """A version's unfinished deliveries die with the reason given; those that run, are done, or others' do not."""
        running, _, waiting, done, other = (self.accept_one(f"e{n}") for n in range(5))
        self.settle(waiting, WAITING, due_at=NOW + 5)
        self.settle(done)
        self.settle(other, READY, version=3)
        self.clock.advance(7)
        self.assertEqual(self.bury(1, {running}), [GivenUp("webhook", 1, 1)])
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 9)), ([running, other], []))
        self.assertEqual([self.state_of(f"e{n}")[0] for n in range(5)], [READY, DEAD, DEAD, DONE, READY])
        records = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        said = [(r.payload["event"]["id"], r.payload["reason"], r.payload["final_error"]) for r in records]
        self.assertEqual(said, [(f"e{n}", "cancelled", "key:1 gave it up") for n in (1, 2)])
        self.assertEqual({record.occurred_at for record in records}, {NOW + 7})
        self.assertEqual(self.bury(1, {running}), [])

    def bury(self, version: int | None = 1, excluding: Collection[int] = (), **which: bool) -> list[GivenUp]:
        """Make dead letters; give how many."""
        return [*self.result_of(self.store.deliveries.dead_letter("gh", version, CANCELLED, excluding, **which))]

    def test_bury_every_version(self) -> None:
        """Without a version, all unfinished deliveries of the trigger die, and are counted by provider."""
        self.accept_one("e1")
        self.accept_one("e2", version=2, provider="stripe")
        self.settle(self.accept_one("e3", version=3), WAITING, version=3, due_at=NOW + 5)
        self.accept_one("e4", trigger_id="other")
        self.assertEqual(self.bury(None), [GivenUp("stripe", 1, 0), GivenUp("webhook", 1, 1)])
        self.assertEqual([self.state_of(f"e{n}")[0] for n in (1, 2, 3, 4)], [DEAD, DEAD, DEAD, READY])

    def test_bury_but_not_what_was_tried(self) -> None:
        """What has used up an attempt may be left as it is."""
        self.settle(self.accept_one("e1"), READY)
        self.accept_one("e2")
        self.assertEqual(self.bury(tried=False), [GivenUp("webhook", 1, 0)])
        self.assertEqual([self.state_of(f"e{n}")[0] for n in (1, 2)], [READY, DEAD])

    def test_dead_letter_but_not_retries(self) -> None:
        """Waiting retries may be left as they are."""
        ready, waiting = self.accept_one("e1"), self.accept_one("e2")
        self.settle(waiting, WAITING, due_at=NOW + 5)
        self.assertEqual(self.bury(waiting=False), [GivenUp("webhook", 1, 0)])
        self.assertEqual((self.ready_ids(ready - 1), self.due_ids(NOW + 5)), ([], [waiting]))

    def test_numbers_of_dead_letters_are_not_given_again(self) -> None:
        """An attempt that ran on may settle a dead letter; the number of the dead letter stays used, always."""
        delivery_id = self.accept_one("e1")
        self.bury()
        number = self.result_of(self.store.event_log.latest(DEAD_LETTERS))
        self.settle(delivery_id, attempt=attempt_of())
        self.restart()
        self.die("e2")
        self.assertGreater(self.result_of(self.store.event_log.latest(DEAD_LETTERS)), number)

    # skip

    def test_skip(self) -> None:
        """What is ready or waits ends as skipped, and its state before is returned; what has ended stays as it is."""
        ready, waiting, done = (self.accept_one(f"e{n}") for n in range(3))
        self.settle(waiting, WAITING, version=2, due_at=NOW + 5)
        self.settle(done)
        found = [
            self.result_of(self.store.deliveries.skip(each, "cancelled")) for each in (ready, waiting, done, ready, 99)
        ]
        self.assertEqual(found, [Unfinished(READY, 1), Unfinished(WAITING, 2), None, None, None])
        self.assertEqual([self.state_of(f"e{n}")[0] for n in range(3)], [SKIPPED, SKIPPED, DONE])
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 9)), ([], []))

    # redrive

    def test_redrive(self) -> None:
        """A delivery whose attempts were used up since a time is ready again, for the other version, as if new."""
        early, late = self.die("early", NOW + 4), self.die("late", NOW + 5)
        self.die("rejected", NOW + 9, DeadLetter(reason=REJECTED, error_class="rejected", error="no"))
        self.die("other", NOW + 9, version=2)
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 3, NOW + 5)), 1)
        self.assertEqual(self.ready_ids(), [late])
        (row,) = self.result_of(self.store.deliveries.find("late"))
        fresh = (row.state, row.version, row.attempts, row.passed, row.due_at, row.crashes)
        self.assertEqual(fresh, (READY, 3, 0, False, None, 0))
        records = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertEqual([r.payload["event"]["id"] for r in records], ["early", "rejected", "other"])
        self.assertEqual(self.result_of(self.store.deliveries.find("early"))[0].delivery_id, early)
        self.assertEqual(len(self.kinds(ATTEMPTS)), 4)
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 3, NOW + 5)), 0)

    def test_redriven_is_unfinished(self) -> None:
        """A redriven delivery counts as unfinished, is not trimmed, and may die again with a new number."""
        delivery_id = self.die("e1")
        before = self.result_of(self.store.event_log.latest(DEAD_LETTERS))
        self.result_of(self.store.deliveries.redrive("gh", 1, 2, NOW))
        self.assertEqual(self.result_of(self.store.deliveries.backlog()), [backlog_of("gh", 2, 1, 0)])
        self.trim_all(KEEP, NOW * 2)
        self.assertEqual(self.ready_ids(), [delivery_id])
        self.restart()
        failed = attempt_of(1, "failed", version=2)
        self.settle(delivery_id, DEAD, version=2, attempt=failed, dead=dead_letter("again"))
        (record,) = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertGreater(record.number, before)
        self.assertEqual((record.payload["final_error"], record.payload["attempt_count"]), ("again", 1))

    def test_numbers_of_redriven_ones_are_not_given_again(self) -> None:
        """The number of a dead letter that was redriven stays used, over a restart too."""
        self.die("e1")
        number = self.result_of(self.store.event_log.latest(DEAD_LETTERS))
        self.result_of(self.store.deliveries.redrive("gh", 1, 2, NOW))
        self.restart()
        self.die("e2")
        self.assertGreater(self.result_of(self.store.event_log.latest(DEAD_LETTERS)), number)

    def test_redrive_from_an_earlier_server(self) -> None:
        """A redriven dead letter of an earlier server belongs to this one."""
        delivery_id = self.die("e1")
        self.restart()
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 2, 0.0)), 1)
        self.assertEqual(self.ready_ids(), [delivery_id])
        self.assertEqual(self.result_of(self.store.recovery.unfinished(NOW + 1, 10)), [])

    # oldest

    # recent

    # leaving
