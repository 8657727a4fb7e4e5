"""The operations that read deliveries, over a store in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.operations import (
    DeliveryService,
    ListDeadLetters,
    ListDeliveries,
    ShowDelivery,
    list_dead_letters,
    list_deliveries,
    show_delivery,
)
from harn.deliveries.selection import DeliveryReader
from harn.dispatch.gates import Gates
from harn.errors import DeliveryUnknown
from harn.model.delivery import DEAD, DONE, WAITING, DeadLetter
from harn.operations.parameters import Period
from harn.testing.stores.kit import NOW, accept_of, attempt_of, new_delivery, settlement_of
from harn.testing.stores.pumped import PumpedStore
from tests.operations.asking import asked

LETTER = DeadLetter(reason="retry_exhausted", error_class="handler_error", error="ValueError: no")


class FakeLive:
    """A live generation whose only secret is ``s3cret``."""

    current = None


class OperationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = PumpedStore(self.clock)
        self.successResultOf(self.store.open())
        self.threads = 0
        self.slowness = 0.0
        self.gates = Gates()
        reader = DeliveryReader(
            clock=self.clock,
            wall=self.clock,
            lists=self.store.lists,
            gates=self.gates,
            threads=cast("Any", self),
        )
        self.service = DeliveryService(reader=reader, coordinator=cast("Any", FakeLive()))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """See `ReactorThreads.call`."""
        self.threads += 1
        self.clock.advance(self.slowness)
        return succeed(function(*arguments))

    def ask(self, operation: Any, wanted: Any) -> Any:
        return self.successResultOf(asked(operation, self.service, wanted))

    def accept(self, event_id: str, **changes: Any) -> int:
        new = new_delivery(event_id, **changes)
        (number,) = self.successResultOf(self.store.inbox.accept(accept_of(new)))
        assert number is not None
        return number

    def settle(self, number: int, state: Any, **changes: Any) -> None:
        self.successResultOf(self.store.deliveries.settle(settlement_of(number, state, **changes)))

    def test_shape(self) -> None:
        """An entry has exactly the documented members, in their order."""
        failed = attempt_of(1, "failed", error_class="handler_error", error="ValueError: no")
        self.settle(self.accept("e1"), DEAD, dead=LETTER, attempt=failed)
        found = self.ask(list_deliveries, ListDeliveries())
        self.assertEqual(
            msgspec.json.decode(msgspec.json.encode(found)),
            {
                "deliveries": [
                    {
                        "event_id": "e1",
                        "trigger_id": "gh",
                        "binding": "gh@v1",
                        "provider": "webhook",
                        "kind": "ping",
                        "state": "dead",
                        "reason": "retry_exhausted",
                        "error_class": "handler_error",
                        "error": "ValueError: no",
                        "attempts": 1,
                        "received_at": "2027-01-15T08:00:00.000Z",
                        "due_at": None,
                        "ended_at": "2027-01-15T08:00:01.000Z",
                        "replay_of": None,
                        "replayed_as": None,
                    }
                ],
                "more": False,
            },
        )

    def test_skipped(self) -> None:
        """The reason of a delivery that was skipped stands under both names; no other has the second."""
        self.successResultOf(self.store.deliveries.skip(self.accept("e1"), "cancelled"))
        self.settle(self.accept("e2"), DONE, result=b"1")
        done, skipped = self.ask(list_deliveries, ListDeliveries()).deliveries
        self.assertEqual((skipped.state, skipped.reason, skipped.skip_reason), ("skipped", "cancelled", "cancelled"))
        self.assertEqual((done.state, done.skip_reason), ("done", UNSET))
        self.assertEqual(self.ask(show_delivery, ShowDelivery(event_id="e1")).skip_reason, "cancelled")

    def test_nothing_runs(self) -> None:
        """Where no server runs, what a note says that ran is listed as it is stored."""
        number = self.accept("e1")
        self.store.deliveries.begins_at_once(number)
        self.assertEqual(self.ask(list_deliveries, ListDeliveries()).deliveries[0].state, "running")
        self.store.lists.nothing_runs = True
        self.assertEqual(self.ask(list_deliveries, ListDeliveries(state="running")).deliveries, ())
        self.assertEqual(self.ask(list_deliveries, ListDeliveries(state="ready")).deliveries[0].event_id, "e1")

    def test_pages(self) -> None:
        """A list that is cut says where it continues; so does the id of its last entry."""
        for number in range(5):
            self.accept(f"e{number}")
        first = self.ask(list_deliveries, ListDeliveries(limit=2))
        self.assertEqual(([each.event_id for each in first.deliveries], first.more), (["e4", "e3"], True))
        for before in (str(first.before), "e3"):
            second = self.ask(list_deliveries, ListDeliveries(limit=2, before=before))
            self.assertEqual([each.event_id for each in second.deliveries], ["e2", "e1"])
        last = self.ask(list_deliveries, ListDeliveries(limit=2, before="e1"))
        self.assertEqual(([each.event_id for each in last.deliveries], last.more, last.before), (["e0"], False, UNSET))
        self.failureResultOf(asked(list_deliveries, self.service, ListDeliveries(before="gone")), DeliveryUnknown)
        self.assertEqual(len(self.ask(list_deliveries, ListDeliveries(before="9" * 18)).deliveries), 5)
        for too_large in ("9" * 19, "9" * 5000):
            self.assertRaisesRegex(ValueError, "at most 18 digits", ListDeliveries, before=too_large)

    def test_filters(self) -> None:
        """States, trigger, kind and age choose; an expression is evaluated off the reactor's thread."""
        self.settle(self.accept("done"), DONE, result=b"1")
        self.settle(self.accept("dead", kind="push"), DEAD, dead=LETTER)
        self.settle(self.accept("waits", trigger_id="b", received_at=NOW - 100), WAITING, due_at=NOW + 1)

        def names(**wanted: Any) -> list[str]:
            return [each.event_id for each in self.ask(list_deliveries, ListDeliveries(**wanted)).deliveries]

        self.assertEqual(names(state="dead,waiting"), ["waits", "dead"])
        self.assertEqual(names(trigger="gh", kind="push"), ["dead"])
        self.assertEqual(names(state="", trigger="", kind="", where=""), ["waits", "dead", "done"])
        self.assertEqual((names(since=Period.parse("50s")), self.threads), (["dead", "done"], 0))
        self.assertEqual(names(where="event.dedupe_key == 'done'"), ["done"])
        self.assertEqual((names(where="age_seconds >= `100`"), self.threads), (["waits"], 2))

    def test_wrong_arguments(self) -> None:
        """A state or an expression that is wrong is refused where the parameters are read."""
        for wanted in ({"state": "lost"}, {"where": "attempts >"}):
            with self.assertRaises(ValueError):
                ListDeliveries(**wanted)  # type: ignore[arg-type]

    def test_budget(self) -> None:
        """A list whose time is over ends where it has come to, and continues from there."""
        for number in range(800):
            self.accept(f"e{number}")
        self.slowness = 1.5
        where = "event.dedupe_key == 'e0'"
        first = self.ask(list_deliveries, ListDeliveries(where=where))
        self.assertEqual((first.deliveries, first.more, first.before), ((), True, 201))
        second = self.ask(list_deliveries, ListDeliveries(where=where, before=str(first.before)))
        self.assertEqual(([each.event_id for each in second.deliveries], second.more), (["e0"], False))

    def test_passed_over(self) -> None:
        """Deliveries on which the expression cannot be evaluated are counted, and the first is explained."""
        self.accept("e1")
        found = self.ask(list_deliveries, ListDeliveries(where="length(attempts) > `1`"))
        self.assertEqual((found.deliveries, found.passed_over), ((), 1))
        self.assertIn("e1: ", found.problem)

    def test_show(self) -> None:
        """One delivery has a timeline of all that happened, its attempts, and its event."""
        number = self.accept("e1")
        failed = attempt_of(
            1, "failed", error_class="handler_error", error="ValueError: no", traceback="File", output="one\ntwo"
        )
        self.settle(number, WAITING, due_at=NOW + 5, attempt=failed)
        waiting = self.ask(show_delivery, ShowDelivery(event_id="e1"))
        self.assertEqual([each.what for each in waiting.timeline], ["received", "accepted", "attempt", "waiting"])
        self.assertEqual((waiting.timeline[-1].reason, waiting.timeline[-1].until), ("retry", waiting.due_at))
        second = attempt_of(2, started_at=NOW + 5, completed_at=NOW + 5.25, version=2)
        self.settle(number, DONE, attempts=2, version=2, attempt=second, result=b'{"a":1}')
        found = self.ask(show_delivery, ShowDelivery(event_id="e1"))
        self.assertEqual(
            [(each.what, each.number, each.binding) for each in found.timeline],
            [
                ("received", UNSET, UNSET),
                ("accepted", UNSET, UNSET),
                ("attempt", 1, "gh@v1"),
                ("waiting", UNSET, UNSET),
                ("attempt", 2, "gh@v2"),
                ("done", UNSET, UNSET),
            ],
        )
        self.assertEqual((found.timeline[4].seconds, found.timeline[3].until), (0.25, "2027-01-15T08:00:05.000Z"))
        first = found.attempts[0]
        self.assertEqual((first.number, first.traceback, first.log), (1, "File", ("one", "two")))
        self.assertEqual((found.result, found.event["id"]), ({"a": 1}, "e1"))
        self.assertEqual(found.event["provider_payload"]["raw"], {"n": 1})
        self.failureResultOf(asked(show_delivery, self.service, ShowDelivery(event_id="no")), DeliveryUnknown)

    def test_dealt_with(self) -> None:
        """A dead letter that was replayed shows when it died and the event of its replay."""
        self.settle(self.accept("e1"), DEAD, dead=LETTER)
        self.store.database.connection.execute(
            "UPDATE deliveries SET state = 2, ended_as = 6, died_at = settled_at, settled_at = ?, replayed_as = 'e2'",
            (NOW + 60,),
        )
        (found,) = self.ask(list_deliveries, ListDeliveries(state="replayed")).deliveries
        self.assertEqual((found.state, found.replayed_as, found.reason), ("replayed", "e2", "retry_exhausted"))
        timeline = self.ask(show_delivery, ShowDelivery(event_id="e1")).timeline
        self.assertEqual([each.what for each in timeline], ["received", "accepted", "dead", "replayed"])
        self.assertEqual(timeline[-1].event_id, "e2")
        self.assertEqual(self.ask(list_dead_letters, ListDeadLetters()).groups, ())

    def test_secrets(self) -> None:
        """Headers that authorize or sign, secret fields of the body, and known secrets anywhere are not shown."""
        new = new_delivery("e1")
        body = b'{"token": "t0ken", "note": "fine", "deep": [{"password": "pw"}], "value": "s3cret"}'
        headers = {"authorization": "Bearer x", "x-hub-signature-256": "sha256=ab", "x-event": "ping", "x-a": "s3cret"}
        envelope = msgspec.json.decode(new.envelope)
        envelope["headers"] = headers
        self.accept("e1", envelope=msgspec.json.encode(envelope), body=body)
        live = FakeLive()
        live.current = cast("Any", live)
        live.inputs = live.known = live  # type: ignore[attr-defined]
        live.include = lambda value: value == b"s3cret"  # type: ignore[attr-defined]
        self.service = replace(self.service, coordinator=cast("Any", live))
        found = msgspec.json.encode(self.ask(show_delivery, ShowDelivery(event_id="e1")))
        for secret in (b"t0ken", b"pw", b"s3cret", b"Bearer", b"sha256=ab"):
            self.assertNotIn(secret, found)
        event = msgspec.json.decode(found)["event"]
        self.assertEqual((event["headers"]["x-event"], event["raw_body"]), ("ping", "[redacted]"))
        self.assertEqual(event["provider_payload"]["raw"]["note"], "fine")

    def test_dead_letters(self) -> None:
        """Dead letters are counted in groups."""
        for number in range(3):
            self.settle(self.accept(f"e{number}"), DEAD, dead=LETTER)
        found = msgspec.to_builtins(self.ask(list_dead_letters, ListDeadLetters()))
        group = found["groups"][0]
        self.assertEqual((found["total"], group["count"], group["example_id"]), (3, 3, "e2"))
        self.assertEqual(list(group), ["trigger_id", "reason", "error_class", "count", "first", "last", "example_id"])
        self.assertEqual(self.ask(list_dead_letters, ListDeadLetters(trigger="b")).total, 0)
