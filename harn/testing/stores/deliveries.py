"""Deliveries after their acceptance: settling, reading back, the newest and oldest; dead letters redriven."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import gatherResults

from harn.model.delivery import (
    DEAD,
    DONE,
    FILTER_ERROR,
    LARGE_BODY,
    PREDICATE,
    READY,
    REJECTED,
    SKIPPED,
    WAITING,
    DeadLetter,
)
from harn.store.deliveries import GivenUp, Unfinished
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, OUTBOX
from harn.testing.stores.kit import (
    KEEP,
    NOW,
    StoreTestCase,
    attempt_of,
    backlog_of,
    dead_letter,
    new_delivery,
    settlement_of,
)


class DeliveryTests(StoreTestCase):
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

    def test_owners(self) -> None:
        """What is unfinished has an owner: the server that accepted it."""
        ready, done = self.accept_one("e1"), self.accept_one("e2")
        self.settle(done)
        owners = self.result_of(self.store.deliveries.owners([ready, done, done + 7]))
        self.assertEqual(owners, {ready: self.store.incarnation})
        self.assertEqual(self.result_of(self.store.deliveries.owners([])), {})

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
        """Ready deliveries are those of one version of one trigger, without those that are excluded."""
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

    def test_oldest(self) -> None:
        """A version's oldest unfinished delivery is known, waiting or ready, without its event's bytes."""
        self.assertEqual(self.result_of(self.store.deliveries.oldest([("gh", 1)])), {})
        self.assertEqual(self.result_of(self.store.deliveries.oldest([])), {})
        done, waiting, ready, _ = (self.accept_one(f"e{n}", received_at=NOW + n) for n in range(4))
        other = self.accept_one("other", version=2)
        self.settle(done)
        self.settle(waiting, WAITING, due_at=NOW + 5)
        found = self.result_of(self.store.deliveries.oldest([("gh", 1), ("gh", 9), ("gh", 2), ("else", 1)]))
        self.assertEqual(found.keys(), {("gh", 1), ("gh", 2)})
        self.assertEqual(found["gh", 2].delivery_id, other)
        row = found["gh", 1]
        said = (row.delivery_id, row.event_id, row.received_at, row.state, row.envelope, row.body)
        self.assertEqual(said, (waiting, "e1", NOW + 1, WAITING, b"", b""))
        self.settle(waiting)
        row = self.result_of(self.store.deliveries.oldest([("gh", 1)]))["gh", 1]
        self.assertEqual((row.delivery_id, row.state), (ready, READY))

    def test_recent_is_the_newest_of_each(self) -> None:
        """So many of each trigger come, newest first, and of no other; finished or not."""
        for number in range(6):
            self.settle(self.accept_one(f"a{number}", trigger_id="a"))
            self.accept_one(f"b{number}", trigger_id="b")
        self.accept_one("c", trigger_id="c")
        self.assertEqual(self.recent("a", "b", limit=2), ["b5", "a5", "b4", "a4"])
        self.assertEqual(self.recent("a", "unknown", limit=100), [f"a{number}" for number in reversed(range(6))])
        self.assertEqual((self.recent("unknown"), self.recent("a", limit=0)), ([], []))
        self.assertEqual(self.result_of(self.store.deliveries.recent((), 5, 5)), [])

    def test_recent_looks_no_deeper(self) -> None:
        """Events older than the given number of deliveries, of any trigger, are not found."""
        self.accept_one("rare", trigger_id="rare")
        for number in range(3):
            self.accept_one(f"e{number}")
        self.assertEqual(self.recent("rare", depth=3), [])
        self.assertEqual(self.recent("rare", depth=4), ["rare"])
        self.assertEqual(self.recent("rare", depth=0), [])

    def test_recent_event(self) -> None:
        """A recent event comes with its bytes."""
        new = new_delivery("e1", version=3, kind="push", received_at=NOW + 0.5, body=b"\x00\xff")
        self.accept(new)
        (event,) = self.result_of(self.store.deliveries.recent(["gh"], 1, 1))
        said = (event.event_id, event.trigger_id, event.version, event.kind, event.received_at)
        self.assertEqual(said, ("e1", "gh", 3, "push", NOW + 0.5))
        self.assertEqual((event.envelope, event.body, event.disposition), (new.envelope, b"\x00\xff", "unknown"))

    def test_how_recent_events_were_treated(self) -> None:
        """The disposition says that the handler was called, the predicate said no, the filter failed, or unknown."""
        self.accept_one("fresh")
        skipped, handled, retried, refused = (self.accept_one(name) for name in ("skip", "done", "retry", "refused"))
        self.settle(skipped, SKIPPED, skip_reason=PREDICATE, attempt=attempt_of(1, "skipped"))
        self.settle(handled, passed=True, attempt=attempt_of(), result=b"1")
        self.settle(retried, WAITING, passed=True, due_at=NOW + 5, attempt=attempt_of(1, "failed"))
        self.settle(refused, WAITING, due_at=NOW + 5, attempt=attempt_of(1, "failed"))
        filter_error = DeadLetter(reason=FILTER_ERROR, error_class="filter_error", error="no such function")
        self.accept(new_delivery("filter", dead=filter_error))
        again = self.accept_one("again")
        self.settle(again, WAITING, due_at=NOW + 5, attempt=attempt_of(1, "skipped"))
        self.settle(again, attempts=2, attempt=attempt_of(2))
        found = self.result_of(self.store.deliveries.recent(["gh"], 10, 10))
        expected = {
            "again": "handled",
            "filter": "filter_error",
            "refused": "unknown",
            "retry": "handled",
            "done": "handled",
            "skip": "skipped",
            "fresh": "unknown",
        }
        self.assertEqual({event.event_id: event.disposition for event in found}, expected)

    def recent(self, *trigger_ids: str, limit: int = 10, depth: int = 100) -> list[str]:
        """Return the ids of the newest events."""
        found = self.result_of(self.store.deliveries.recent(trigger_ids or ("gh",), limit, depth))
        return [event.event_id for event in found]


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
        self.result_of(self.store.recovery.recover(NOW, 10))
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
