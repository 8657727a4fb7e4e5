"""Tests of stores: lists of deliveries by filters, one delivery in full, and dead letters in groups."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from harn.model.delivery import (
    CANCELLED,
    DEAD,
    DONE,
    PREDICATE,
    READY,
    REJECTED,
    RETRY_EXHAUSTED,
    RUNNING,
    SKIPPED,
    WAITING,
    DeadLetter,
    State,
)
from harn.store.lists import DeliveryFilter, ListedDelivery, WholeDelivery
from harn.testing.stores.kit import NOW, StoreTestCase, attempt_of

LETTER = DeadLetter(reason=REJECTED, error_class="rejected", error="no")


class ListTests(StoreTestCase):
    """Lists of deliveries."""

    def fill(self) -> None:
        """Store one delivery or two of each state a store can be brought to, of two triggers and two kinds."""
        self.accept_one("ready", kind="push")
        self.settle(self.accept_one("waiting", version=2), WAITING, version=2, due_at=NOW + 5)
        self.settle(self.accept_one("done"), result=b"1", attempt=attempt_of())
        self.settle(self.accept_one("other", trigger_id="b", kind="push"), result=b"1", attempt=attempt_of())
        self.settle(self.accept_one("refused"), SKIPPED, skip_reason=PREDICATE, attempt=attempt_of(1, "skipped"))
        self.settle(self.accept_one("cut", trigger_id="b"), SKIPPED, skip_reason=CANCELLED)
        self.settle(self.accept_one("dead", kind="push"), DEAD, dead=LETTER)
        self.settle(self.accept_one("late", trigger_id="b", received_at=NOW + 100), DEAD, dead=LETTER)

    def listed(self, **chosen: Any) -> list[ListedDelivery]:
        """Return a list; ``chosen`` are fields of `DeliveryFilter`."""
        part = self.result_of(self.store.lists.part(DeliveryFilter(**chosen), None, 100, 100, False))
        return list(part.deliveries)

    def names(self, *states: State, **chosen: Any) -> list[str]:
        """Return the event ids of a list."""
        return [each.event_id for each in self.listed(states=frozenset(states), **chosen)]

    def test_all_of_them(self) -> None:
        """Without a filter each delivery is listed, the newest first."""
        self.fill()
        everything = ["late", "dead", "cut", "refused", "other", "done", "waiting", "ready"]
        self.assertEqual(self.names(), everything)
        states = [each.state for each in self.listed()]
        self.assertEqual(states, [DEAD, DEAD, SKIPPED, SKIPPED, DONE, DONE, WAITING, READY])

    def test_by_state(self) -> None:
        """A list of some states has those, whether or not they are finished."""
        self.fill()
        self.assertEqual(self.names(READY), ["ready"])
        self.assertEqual(self.names(WAITING), ["waiting"])
        self.assertEqual(self.names(DONE), ["other", "done"])
        self.assertEqual(self.names(SKIPPED), ["cut", "refused"])
        self.assertEqual(self.names(DEAD), ["late", "dead"])
        self.assertEqual(self.names(RUNNING), [])
        self.assertEqual(self.names(READY, WAITING, DEAD), ["late", "dead", "waiting", "ready"])

    def test_by_trigger_and_kind(self) -> None:
        """A list of a trigger has all of its versions; of a kind, all triggers; of both, what has both."""
        self.fill()
        self.assertEqual(self.names(trigger="gh"), ["dead", "refused", "done", "waiting", "ready"])
        self.assertEqual(self.names(trigger="b"), ["late", "cut", "other"])
        self.assertEqual(self.names(trigger="c"), [])
        self.assertEqual(self.names(kind="push"), ["dead", "other", "ready"])
        self.assertEqual(self.names(trigger="gh", kind="push"), ["dead", "ready"])
        self.assertEqual(self.names(DEAD, kind="push"), ["dead"])
        self.assertEqual(self.names(DEAD, DONE, trigger="b"), ["late", "other"])
        self.assertEqual(self.names(WAITING, trigger="gh"), ["waiting"])
        self.assertEqual(self.names(READY, trigger="b"), [])

    def test_by_time(self) -> None:
        """What was received before the time is left out."""
        self.fill()
        self.assertEqual(self.names(since=NOW + 50), ["late"])
        self.assertEqual(self.names(DEAD, since=NOW), ["late", "dead"])
        self.assertEqual(self.names(since=NOW + 101), [])

    def test_running(self) -> None:
        """What its server has noted to run is running, and neither ready nor waiting, until it ends."""
        self.fill()
        (ready,) = self.listed(states=frozenset((READY,)))
        (waiting,) = self.listed(states=frozenset((WAITING,)))
        for each in (ready, waiting):
            self.result_of(self.store.deliveries.begins(each.delivery_id))
        self.assertEqual(self.names(RUNNING), ["waiting", "ready"])
        self.assertEqual(self.names(READY, WAITING), [])
        self.assertEqual(self.names(RUNNING, trigger="b"), [])
        self.settle(ready.delivery_id, result=b"1")
        self.assertEqual((self.names(RUNNING), self.names(DONE)), (["waiting"], ["other", "done", "ready"]))

    def test_in_slices(self) -> None:
        """Slice after slice gives each delivery once, whatever the limits."""
        self.fill()
        for states, trigger in ((frozenset[State](), None), (frozenset((DEAD, READY, SKIPPED)), None), ((), "gh")):
            chosen = DeliveryFilter(states=frozenset(states), trigger=trigger)
            whole = [each.event_id for each in self.listed(states=chosen.states, trigger=trigger)]
            for rows in (1, 2, 3, 100):
                for limit in (1, 3):
                    found: list[str] = []
                    before: int | None = None
                    while True:
                        part = self.result_of(self.store.lists.part(chosen, before, rows, limit, False))
                        self.assertLessEqual(len(part.deliveries), limit)
                        found += (each.event_id for each in part.deliveries)
                        before = part.before
                        if before is None:
                            break
                    self.assertEqual(found, whole, (rows, limit))

    def test_with_events(self) -> None:
        """A list has the events' bytes only if they are asked for."""
        self.fill()
        part = self.result_of(self.store.lists.part(DeliveryFilter(states=frozenset((DONE,))), None, 9, 1, True))
        self.assertEqual([each.body for each in part.deliveries], [b'{"n": 1}'])
        self.assertEqual([each.body for each in self.listed(states=frozenset((DONE,)))], [b"", b""])

    def test_reasons(self) -> None:
        """The reason of each state, and the error of the last attempt, are in the list."""
        self.fill()
        reasons = {each.event_id: each.reason for each in self.listed()}
        self.assertEqual(
            reasons,
            {
                "ready": None,
                "waiting": "retry",
                "done": None,
                "other": None,
                "refused": PREDICATE,
                "cut": CANCELLED,
                "dead": REJECTED,
                "late": REJECTED,
            },
        )
        failed = attempt_of(1, "failed", error_class="handler_error", error="oh")
        self.settle(self.accept_one("tried"), WAITING, due_at=NOW + 9, attempt=failed)
        newest = self.listed()[0]
        self.assertEqual((newest.error_class, newest.error, newest.due_at), ("handler_error", "oh", NOW + 9))

    def whole(self, event_id: str) -> WholeDelivery:
        """Return one delivery."""
        (found,) = self.result_of(self.store.lists.whole(event_id))
        assert isinstance(found, WholeDelivery)
        return found

    def test_whole(self) -> None:
        """One delivery has its event, its attempts with what they raised and printed, and its result."""
        number = self.accept_one("tried")
        failed = attempt_of(1, "failed", error_class="handler_error", error="oh", traceback="File x", output="a\nb")
        self.settle(number, WAITING, due_at=NOW + 9, attempt=failed)
        self.settle(number, attempts=2, attempt=attempt_of(2), result=b"[1]")
        found = self.whole("tried")
        self.assertEqual(found.attempts, (failed, attempt_of(2)))
        self.assertEqual((found.result, found.delivery.body, found.delivery.state), (b"[1]", b'{"n": 1}', DONE))
        self.assertEqual(self.result_of(self.store.lists.whole("unknown")), [])
        self.assertEqual(self.result_of(self.store.lists.place("tried")), number)
        self.assertIsNone(self.result_of(self.store.lists.place("unknown")))

    def test_dead_in_groups(self) -> None:
        """Dead letters are counted by trigger, reason and class; what died last comes first."""
        spent = DeadLetter(reason=RETRY_EXHAUSTED, error_class="handler_error", error="oh")
        for number, (trigger, letter) in enumerate((("gh", LETTER), ("gh", spent), ("b", LETTER), ("gh", LETTER))):
            died = attempt_of(1, "failed", completed_at=NOW + number)
            self.settle(self.accept_one(f"e{number}", trigger_id=trigger), DEAD, dead=letter, attempt=died)
        self.settle(self.accept_one("done"), result=b"1")
        found = self.result_of(self.store.lists.dead_groups(None))
        self.assertEqual(
            [(each.trigger_id, each.reason, each.error_class, each.count, each.first, each.last) for each in found],
            [
                ("gh", REJECTED, "rejected", 2, NOW, NOW + 3),
                ("b", REJECTED, "rejected", 1, NOW + 2, NOW + 2),
                ("gh", RETRY_EXHAUSTED, "handler_error", 1, NOW + 1, NOW + 1),
            ],
        )
        self.assertEqual([each.example_id for each in found], ["e3", "e2", "e1"])
        self.assertEqual([each.example_id for each in self.result_of(self.store.lists.dead_groups("b"))], ["e2"])
        self.assertEqual(self.result_of(self.store.lists.dead_groups("c")), [])
