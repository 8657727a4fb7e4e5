"""Selections: expressions, how much of a delivery they read, and which are refused."""

from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.expressions import NotEvaluated, compile_where
from harn.deliveries.selection import MOST, Scan, Selection, read_states
from harn.model.delivery import DEAD, READY, SKIPPED
from harn.store.deliveries import DeliveryFilter, ListedDelivery, Slice
from harn.testing.stores.kit import NOW, new_delivery


def listed(number: int = 1, **changes: object) -> ListedDelivery:
    new = new_delivery(f"e{number}")
    values: dict[str, object] = {
        "delivery_id": number,
        "event_id": new.event_id,
        "trigger_id": "gh",
        "version": 2,
        "provider": new.provider,
        "kind": new.kind,
        "state": DEAD,
        "attempts": 3,
        "reason": "rejected",
        "error_class": "handler_error",
        "error": "no",
        "received_at": NOW,
        "due_at": None,
        "ended_at": NOW + 1,
        "died_at": None,
        "replay_of": None,
        "replayed_as": None,
        "envelope": new.envelope,
        "body": new.body,
    }
    return ListedDelivery(**(values | changes))  # type: ignore[arg-type]


class WhereTests(SynchronousTestCase):
    def test_members(self) -> None:
        """Each documented name is there."""
        for text in (
            "event.dedupe_key == 'e1'",
            "event.provider_payload.raw.n == `1`",
            "binding == 'gh@v2'",
            "trigger == 'gh' && state == 'dead'",
            "attempts > `2`",
            "reason == 'rejected'",
            "starts_with(error_class, 'handler')",
            "age_seconds == `5`",
            "keys(@)",
        ):
            self.assertTrue(compile_where(text).holds(listed(), NOW + 5), text)
        for text in ("event.dedupe_key == 'other'", "attempts < `3`", "event.headers.x"):
            self.assertFalse(compile_where(text).holds(listed(), NOW + 5), text)

    def test_event_is_read_only_if_named(self) -> None:
        """An expression that does not name the event costs no reading of it; one that may read anything does."""
        for text in ("attempts > `2`", "contains(['gh'], trigger)"):
            self.assertFalse(compile_where(text).needs_event, text)
        for text in ("event.kind", "@ != null", "*", "to_string(@)", "[event]"):
            self.assertTrue(compile_where(text).needs_event, text)

    def test_refused(self) -> None:
        """An expression that is wrong, or names nothing of a delivery, is refused, and the message says why."""
        for text, why in (
            ("attempts >", "ends too early"),
            ("attempts > 1.5", "; write a number between backticks: `1.5`"),
            ("state = 'dead'", "; to compare, write =="),
            ("nosuch(attempts)", "there is no function"),
            ("", "it is empty"),
            ("even.kind == 'x'", "must name one of event"),
        ):
            with self.assertRaisesRegex(ValueError, f"^where: .*{why}"):
                compile_where(text)

    def test_not_evaluated(self) -> None:
        """A function on a value of the wrong kind is an error of that delivery."""
        with self.assertRaises(NotEvaluated):
            compile_where("length(attempts)").holds(listed(), NOW)
        with self.assertRaises(NotEvaluated):
            compile_where(" || ".join(["reason"] * 3000)).holds(listed(), NOW)

    def test_reason_has_no_value(self) -> None:
        """Why an expression cannot be evaluated is said without the value, which may be a secret or large."""
        with self.assertRaises(NotEvaluated) as caught:
            compile_where("abs(event.dedupe_key)").holds(listed(), NOW)
        self.assertEqual(str(caught.exception), "abs() needs number, got string")

    def test_growth(self) -> None:
        """An expression whose value outgrows what it reads is refused before it is evaluated."""
        for text in (
            "event" + " | [@, @][]" * 7,
            "event" + " | [@, @]" * 40 + "[*]" * 40,
            "event" + " | merge({a: @}, {b: @})" * 40,
            "event" + " | join('', [@, @])" * 40,
            "event" + " | to_string([@])" * 40,
            "event | map(&[@, @, @, @, @][], @) | map(&[@, @, @, @, @][], @) | map(&[@, @, @, @, @][], @)",
            "join(event.raw_body, keys(event))",
            "event" + " | [@, @][]" * 900,
        ):
            with self.assertRaisesRegex(ValueError, "^where: must not copy what it reads more than 64 times"):
                compile_where(text)
        for text in (
            "contains([" + ", ".join(f"'{number}'" for number in range(500)) + "], trigger)",
            " || ".join(f"contains([trigger, event.kind], '{number}')" for number in range(100)),
            "event.provider_payload.raw.*.[a, b][] | [?@ == 'x'] | length(@) > `0`",
            "contains(to_string(event), 'x') && contains(join(', ', [trigger, state]), 'gh')",
        ):
            compile_where(text)

    def test_damaged_event(self) -> None:
        """A delivery whose envelope is damaged has its id, provider and kind."""
        self.assertTrue(compile_where("event.id == 'e1'").holds(listed(envelope=b"?"), NOW))

    def test_secret_headers_are_not_read(self) -> None:
        """An expression cannot find out what a header that authorizes holds."""
        envelope = new_delivery("e1").envelope.replace(b'"headers":{}', b'"headers":{"authorization":"Bearer x"}')
        self.assertTrue(
            compile_where("event.headers.authorization == '[redacted]'").holds(listed(envelope=envelope), NOW)
        )

    def test_states(self) -> None:
        """Names of states are read; another one is refused with all names."""
        self.assertEqual(read_states(" dead, skipped "), {DEAD, SKIPPED})
        self.assertEqual(read_states(""), frozenset())
        with self.assertRaisesRegex(ValueError, "must be one or more of ready, running, .*, got 'lost'"):
            read_states("dead,lost")

    def test_selection(self) -> None:
        """An age becomes a time."""
        found = Selection.of(NOW, states=frozenset((READY,)), since=60.0, trigger="gh", kind="ping")
        self.assertEqual(
            found.chosen, DeliveryFilter(states=frozenset((READY,)), trigger="gh", kind="ping", since=NOW - 60)
        )


class ScanTests(SynchronousTestCase):
    def scan(self, where: str | None, limit: int) -> Scan:
        return Scan(selection=Selection.of(NOW, where=where), limit=limit, now=NOW)

    def test_cut_within_a_slice(self) -> None:
        """A scan that has enough ends at the last one that it took, and continues after it."""
        scan = self.scan("attempts > `2`", 2)
        scan.add(Slice(deliveries=tuple(map(listed, (9, 8, 7))), before=7))
        self.assertEqual(([each.delivery_id for each in scan.found], scan.before, scan.is_at_end), ([9, 8], 8, False))
        self.assertFalse(scan.needs_more)

    def test_end(self) -> None:
        """A scan is over with the last slice, unless something of that is left."""
        for limit, is_at_end, before in ((5, True, None), (2, True, None), (1, False, 9)):
            scan = self.scan("attempts > `2`", limit)
            scan.add(Slice(deliveries=(listed(9), listed(8)), before=None))
            self.assertEqual((scan.is_at_end, scan.before), (is_at_end, before), limit)

    def test_slices_grow(self) -> None:
        """Each slice is larger than the previous one, up to a bound; with the events' bytes the bound is lower."""
        scan = self.scan("attempts > `5`", 10)
        sizes = [scan.request()[2] for _ in range(8)]
        self.assertEqual((sizes, sizes[-1]), (sorted(sizes), MOST))
        self.assertLess(max(self.scan("event.kind == 'x'", 1000).request()[2] for _ in range(8)), MOST)

    def test_passed_over(self) -> None:
        """What the expression cannot be evaluated on is counted, with the first reason, and is not found."""
        scan = self.scan("length(attempts) > `1`", 10)
        scan.add(Slice(deliveries=(listed(9), listed(8)), before=None))
        self.assertEqual((scan.found, scan.passed_over), ([], 2))
        self.assertIn("e9: ", scan.problem or "")
