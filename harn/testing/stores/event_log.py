"""The event log: records, and the views of deliveries."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from msgspec import structs

from harn.model.delivery import (
    DEAD,
    PREDICATE,
    RETRY_EXHAUSTED,
    SKIPPED,
    WAITING,
)
from harn.model.display import REDACTED
from harn.model.event import decode_envelope, encode_envelope
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX
from harn.testing.stores.kit import (
    NOW,
    StoreTestCase,
    attempt_of,
    dead_letter,
    new_delivery,
)


class EventLogTests(StoreTestCase):
    """The promises of the event log."""

    def test_append_and_read(self) -> None:
        """Records come back by topic and number, with payload, headers and time."""
        first = self.result_of(self.store.event_log.append("audit.test", "one", {"a": [1, None, "é"]}, {"h": "v"}))
        self.result_of(self.store.event_log.append("audit.other", "other", {}))
        self.clock.advance(5)
        second = self.result_of(self.store.event_log.append("audit.test", "two", {}))
        self.assertLess(first, second)
        records = self.result_of(self.store.event_log.read("audit.test", 0, 10))
        self.assertEqual([record.number for record in records], [first, second])
        self.assertEqual((records[0].payload, records[0].headers), ({"a": [1, None, "é"]}, {"h": "v"}))
        self.assertEqual([record.occurred_at for record in records], [NOW, NOW + 5])
        self.assertEqual([r.kind for r in self.result_of(self.store.event_log.read("audit.test", first, 10))], ["two"])
        self.assertEqual([r.kind for r in self.result_of(self.store.event_log.read("audit.test", 0, 1))], ["one"])
        self.assertEqual(self.result_of(self.store.event_log.latest("audit.test")), second)

    def test_unknown_topic_is_empty(self) -> None:
        """A topic without records reads as empty, and is not listed."""
        self.assertEqual(self.result_of(self.store.event_log.read("no.such", 0, 10)), [])
        self.assertEqual(self.result_of(self.store.event_log.latest("no.such")), 0)
        self.assertEqual(self.result_of(self.store.event_log.topics()), [])

    def test_topics(self) -> None:
        """Topics with records are named, views among them, in order."""
        self.result_of(self.store.event_log.append("orchestrator.manifest", "reload_succeeded", {}))
        self.result_of(self.store.event_log.append("audit.test", "one", {}))
        self.settle(self.accept_one("e1"), attempt=attempt_of())
        expected = ["audit.test", "orchestrator.manifest", ATTEMPTS, INBOX, OUTBOX]
        self.assertEqual(self.result_of(self.store.event_log.topics()), expected)

    def test_bad_topics_are_refused(self) -> None:
        """A view takes no records, nor does a name with other characters; payloads must be JSON."""
        for topic in (INBOX, OUTBOX, ATTEMPTS, DEAD_LETTERS, "", "a b", "ä", "a/b"):
            with self.assertRaises(ValueError):
                self.store.event_log.append(topic, "kind", {})
        with self.assertRaises(TypeError):
            self.store.event_log.append("audit.test", "kind", {"a": object()})

    def test_numbers_go_on_after_a_restart(self) -> None:
        """A topic's numbers rise over restarts."""
        before = self.result_of(self.store.event_log.append("audit.test", "one", {}))
        self.restart()
        self.assertGreater(self.result_of(self.store.event_log.append("audit.test", "two", {})), before)
        self.assertEqual(self.kinds("audit.test"), ["one", "two"])

    def test_inbox_view(self) -> None:
        """Each accepted delivery is a record of the inbox, with its event."""
        delivery_id = self.accept_one("e1", version=4)
        (record,) = self.result_of(self.store.event_log.read(INBOX, 0, 10))
        self.assertEqual((record.number, record.kind, record.occurred_at), (delivery_id, "event_ingested", NOW))
        self.assertEqual((record.payload["trigger_id"], record.payload["binding_version"]), ("gh", 4))
        event = record.payload["event"]
        self.assertEqual((event["id"], event["provider_payload"]["raw"]), ("e1", {"n": 1}))
        self.assertEqual(record.headers["binding_key"], "gh@v4")
        self.assertEqual(self.result_of(self.store.event_log.read(INBOX, delivery_id, 10)), [])

    def test_views_hide_what_is_secret(self) -> None:
        """A topic hides headers that authorize; the stored event has them, for handlers."""
        given = {"authorization": "Bearer s3cret", "idempotency-key": "order-1"}
        envelope = encode_envelope(structs.replace(decode_envelope(new_delivery("e1").envelope), headers=given))
        self.accept_one("e1", envelope=envelope)
        (record,) = self.result_of(self.store.event_log.read(INBOX, 0, 10))
        self.assertEqual(record.payload["event"]["headers"], {**given, "authorization": REDACTED})
        (row,) = self.result_of(self.store.deliveries.ready("gh", 1, (), 10, 1000))
        self.assertEqual(row.envelope, envelope)

    def test_unreadable_envelope_does_not_hide_the_others(self) -> None:
        """A topic stays readable although one envelope cannot be decoded."""
        self.accept(new_delivery("e1", envelope=b"?"), new_delivery("e2"))
        records = self.result_of(self.store.event_log.read(INBOX, 0, 10))
        self.assertEqual([record.payload["event"]["id"] for record in records], ["e1", "e2"])

    def test_outbox_view(self) -> None:
        """Each finished attempt is a record of the outbox: its result, its error, or where it was skipped."""
        done, skipped, failed = (self.accept_one(f"e{n}", replay_of="e") for n in range(3))
        self.settle(done, attempt=attempt_of(), result=b"[1]")
        self.settle(skipped, SKIPPED, skip_reason=PREDICATE, attempt=attempt_of(1, "skipped"))
        error = attempt_of(1, "timeout", version=2, error_class="handler_timeout", error="too slow")
        self.settle(failed, WAITING, due_at=NOW + 5, attempt=error)
        records = self.result_of(self.store.event_log.read(OUTBOX, 0, 10))
        kinds = [record.kind for record in records]
        self.assertEqual(kinds, ["dispatch_succeeded", "dispatch_skipped", "dispatch_failed"])
        common = {"attempt": 1, "trigger_id": "gh", "handler_kind": "local", "target_uri": None}
        for number, record in enumerate(records):
            expected = {**common, "event_id": f"e{number}", "replay_of_event_id": "e"}
            self.assertEqual({**record.payload, **expected}, record.payload)
        self.assertEqual(records[0].payload["result"], [1])
        self.assertEqual(records[1].payload["skip_stage"], "predicate")
        self.assertEqual((records[2].payload["error"], records[2].payload["binding_key"]), ("too slow", "gh@v2"))
        self.assertEqual(records[0].occurred_at, NOW + 1)

    def test_attempts_view(self) -> None:
        """Each attempt is recorded with its times and outcome."""
        error = attempt_of(1, "failed", error_class="handler_error", error="ValueError: no")
        self.settle(self.accept_one("e1"), WAITING, due_at=NOW + 5, attempt=error)
        (record,) = self.result_of(self.store.event_log.read(ATTEMPTS, 0, 10))
        self.assertEqual(record.kind, "attempt_recorded")
        expected = {
            "trigger_id": "gh",
            "binding_key": "gh@v1",
            "event_id": "e1",
            "attempt": 1,
            "handler_kind": "local",
            "started_at": "2027-01-15T08:00:00.000Z",
            "completed_at": "2027-01-15T08:00:01.000Z",
            "outcome": "failed",
            "error_class": "handler_error",
            "error_msg": "ValueError: no",
        }
        self.assertEqual(record.payload, expected)
        self.assertEqual(self.result_of(self.store.event_log.latest(ATTEMPTS)), record.number)

    def test_dead_letters_in_order_of_dying(self) -> None:
        """Dead letters are numbered as they die, with the event, every attempt and the reason."""
        first, second = self.accept_one("e1"), self.accept_one("e2")
        error = attempt_of(1, "failed", error_class="handler_error", error="no")
        self.settle(second, DEAD, attempt=error, dead=dead_letter("second"))
        self.settle(first, WAITING, due_at=NOW + 1, attempt=error)
        last = attempt_of(2, "failed", completed_at=NOW + 9, error_class="handler_error", error="no")
        self.settle(first, DEAD, attempts=2, attempt=last, dead=dead_letter("first"))
        records = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertEqual([record.payload["final_error"] for record in records], ["second", "first"])
        self.assertLess(records[0].number, records[1].number)
        payload = records[1].payload
        said = (payload["trigger_id"], payload["binding_key"], payload["event"]["id"], payload["attempt_count"])
        self.assertEqual(said, ("gh", "gh@v1", "e1", 2))
        self.assertEqual((payload["error_class"], payload["reason"]), ("handler_error", RETRY_EXHAUSTED))
        self.assertEqual([entry["attempt"] for entry in payload["attempts"]], [1, 2])
        self.assertEqual(records[1].occurred_at, NOW + 9)
        self.assertEqual(self.result_of(self.store.event_log.latest(DEAD_LETTERS)), records[1].number)
