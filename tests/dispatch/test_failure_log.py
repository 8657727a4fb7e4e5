"""The log lines of failed attempts and of dead letters."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.failure_log import FIRST, LAST, MOST, FailureLog, LeftOut, in_words, left_out_line
from harn.errors import (
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
)
from harn.lifecycle import DeadLettered, Lifecycle, Settled, SettledDelivery
from harn.manifest.model import RetrySpec
from harn.model.delivery import DEAD, RETRY_EXHAUSTED, WAITING, Attempt, DeadLetter, Settlement
from harn.observability.log_limits import BURST, BURST_OF_ALL, RATE
from harn.observability.records import as_json, as_text
from harn.testing.calls import make_call
from harn.triggers.registry import Registry
from tests.dispatch.world import World, one_trigger

LATER = RetrySpec(max=5, schedule=(12.0,))
ENVELOPE = make_call("f").envelope


class LogCase(SynchronousTestCase):
    """Records of ``harn.deliveries``."""

    def setUp(self) -> None:
        self.events = cast("list[LogEvent]", self.enterContext(capturedLogs()))

    def said(self) -> list[tuple[str, str]]:
        """Return level and message of each record since the last call."""
        found = [(event["log_level"].name, formatEvent(event)) for event in self.records()]
        self.events.clear()
        return found

    def records(self) -> list[LogEvent]:
        """Return the records so far."""
        return [event for event in self.events if event["log_namespace"] == "harn.deliveries"]


class LineTests(LogCase):
    """One delivery."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World()

    def take(self, **settings: Any) -> str:
        """Begin a delivery of a trigger with these settings; return its id."""
        self.world.adopt(one_trigger(**settings))
        return self.successResultOf(self.world.take()).event_ids[0]

    def test_failed_attempt(self) -> None:
        """It names binding, event, number, class, error, when it is tried again and on which version, and a command."""
        event_id = self.take(retry=LATER)
        self.world.adopt(one_trigger(retry=LATER, timeout=5.0))
        self.world.call().raises(HandlerRaised("KeyError: 'amount'"))
        self.assertEqual(
            self.said(),
            [
                (
                    "warn",
                    f"gh@v1 {event_id}: attempt 1 of 5 failed (handler_error): KeyError: 'amount'; "
                    f"again in 12 s on v2; look closer: harn orchestrator delivery {event_id}",
                )
            ],
        )

    def test_every_class(self) -> None:
        """No kind of failure is without a line; the last attempt has one, and so has the dead letter."""
        for error in (
            HandlerRaised("no"),
            HandlerTimedOut("ran longer than 1 s"),
            HandlerRejected("not ours"),
            HandlerRetryAfter("busy", 60.0),
            ResultInvalid("a set"),
            PredicateRaised("no"),
            InterpreterDied("signal 9"),
        ):
            event_id = self.take(retry=RetrySpec(max=1))
            self.world.call().raises(error)
            reason = "rejected" if isinstance(error, HandlerRejected) else "retry_exhausted"
            how = "asked for a retry" if isinstance(error, HandlerRetryAfter) else "failed"
            attempt, dead = self.said()
            self.assertEqual(attempt[0], "warn")
            said = f"gh@v1 {event_id}: attempt 1 of 1 {how} ({error.error_class}): {error}; dead letter: {reason}; "
            self.assertTrue(attempt[1].startswith(said), attempt)
            of_class = "" if error.error_class == reason else f" ({error.error_class})"
            command = f"look closer: harn orchestrator delivery {event_id}"
            text = f"gh@v1 {event_id}: dead letter after 1 attempt: {reason}{of_class}: {error}; {command}"
            self.assertEqual(dead, ("error", text))

    def test_success_says_nothing(self) -> None:
        """A delivery that goes well, or that its predicate skips, has no line at the default level."""
        for result in (b"1", None):
            self.take()
            self.world.call().returns(result)
        self.assertEqual(self.said(), [])

    def test_retry_after(self) -> None:
        """An attempt that the handler put off says when it comes back."""
        self.take()
        self.world.call().raises(HandlerRetryAfter("busy", 90.0))
        [(level, text)] = self.said()
        self.assertEqual(level, "warn")
        self.assertIn("attempt 1 of 7 asked for a retry (retry_after): busy; again in 90 s on v1;", text)

    def test_filter(self) -> None:
        """An event on which its filter failed is a dead letter from the start, and says so."""
        event_id = self.take(filter="abs(event.kind)")
        [(level, text)] = self.said()
        self.assertEqual(level, "error")
        self.assertTrue(text.startswith(f"gh@v1 {event_id}: dead letter: filter_error: "), text)

    def test_fields(self) -> None:
        """As JSON each is one object with its ids, and the traceback of the handler's code as a field."""
        event_id = self.take(retry=LATER)
        error = HandlerRaised("ValueError: two\nlines")
        error.traceback = 'File "handlers.py", line 3\n    raise ValueError'
        self.world.call().raises(error)
        [event] = self.records()
        record = json.loads(as_json(event))
        for name, value in {
            "level": "warn",
            "event_id": event_id,
            "binding": "gh@v1",
            "trigger_id": "gh",
            "attempt": 1,
            "max_attempts": 5,
            "error_class": "handler_error",
            "next": "again in 12 s on v1",
            "command": f"harn orchestrator delivery {event_id}",
            "user_traceback": error.traceback,
        }.items():
            self.assertEqual(record[name], value, name)
        self.assertTrue(record["trace_id"].startswith("trace_"), record)
        head, *below = as_text(event).splitlines()
        self.assertIn("ValueError: two\\nlines; again", head)
        self.assertEqual(below, [f"[harn]     {line}" for line in error.traceback.splitlines()])

    @given(st.text(st.characters(exclude_categories=()), max_size=60))
    def test_nothing_forges_a_line(self, text: str) -> None:
        """Whatever an error says, its record is one line of each form, and a line of its own cannot be faked."""
        world = World()
        world.adopt(one_trigger(retry=LATER))
        with capturedLogs() as events:
            world.take()
            world.call().raises(HandlerRaised(f"{text}\n[harn] error: forged"))
        [event] = [each for each in events if each["log_namespace"] == "harn.deliveries"]
        self.assertEqual((as_json(event).count("\n"), as_text(event).count("\n")), (1, 1))


class FloodTests(LogCase):
    """Many failures at once."""

    def setUp(self) -> None:
        super().setUp()
        self.clock, self.lifecycle = Clock(), Lifecycle()
        self.log = FailureLog(self.clock, Registry(self.lifecycle), self.lifecycle)

    def attempt_fails(self, trigger_id: str = "gh", *, dead: bool = False) -> None:
        """Emit that an attempt failed."""
        attempt = Attempt(
            number=1,
            version=1,
            started_at=0.0,
            completed_at=1.0,
            outcome="failed",
            error_class="handler_error",
            error="no",
        )
        letter = DeadLetter(reason=RETRY_EXHAUSTED, error_class="handler_error", error="no") if dead else None
        settlement = Settlement(
            delivery_id=1, state=DEAD if dead else WAITING, version=1, attempts=1, attempt=attempt, dead=letter
        )
        failed = SettledDelivery(trigger_id, "p", f"{trigger_id}@v1", "evt", ENVELOPE, False, settlement)
        self.lifecycle.emit(Settled.of([failed]))

    def test_bounded_and_counted(self) -> None:
        """A thousand a second for a minute are a few lines a second, and nothing of it is left unsaid."""
        for _ in range(60):
            for _ in range(1000):
                self.attempt_fails()
            self.clock.advance(1.0)
        self.log.close()
        lines = self.said()
        self.assertLess(len(lines), BURST + 60 * RATE + 10)
        own = sum("attempt 1 failed" in text for _, text in lines)
        counted = sum(int(text.partition(": ")[2].partition(" failed")[0]) for _, text in lines if "more in" in text)
        self.assertEqual(own + counted, 60_000)

    def test_following_line(self) -> None:
        """A second after the first line that was left out, one says how many were, an example and a command."""
        for _ in range(BURST):
            self.attempt_fails(dead=True)
        self.said()
        for _ in range(3):
            self.attempt_fails(dead=True)
        self.attempt_fails()
        self.assertEqual(self.said(), [])
        self.clock.advance(FIRST)
        text = (
            "gh: 4 failed attempts (handler_error 4) and 3 dead letters (retry_exhausted 3) more in 1.0 s, without a "
            "line of their own, the last one evt; look closer: harn orchestrator dlq"
        )
        self.assertEqual(self.said(), [("error", text)])
        self.clock.advance(2 * LAST)
        self.clock.advance(2 * LAST)
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), ([], []))

    def test_failures_alone(self) -> None:
        """Without a dead letter that line is a warning, and shows how to list what waits."""
        for _ in range(BURST + 1):
            self.attempt_fails("o'hara")
        self.said()
        self.clock.advance(FIRST)
        [(level, text)] = self.said()
        self.assertEqual(level, "warn")
        self.assertTrue(text.endswith("harn orchestrator deliveries --state waiting --trigger 'o'\"'\"'hara'"), text)

    def test_others_are_heard(self) -> None:
        """The flood of one trigger leaves the lines of another."""
        for _ in range(1000):
            self.attempt_fails()
        self.said()
        self.attempt_fails("other")
        self.assertEqual(len(self.said()), 1)

    def test_many_triggers(self) -> None:
        """All triggers together are bounded too, and so are the lines that follow."""
        for number in range(5000):
            self.attempt_fails(f"t{number}", dead=True)
        self.assertEqual(len(self.said()), BURST_OF_ALL)
        self.clock.advance(FIRST)
        lines = self.said()
        self.assertEqual(len(lines), MOST + 1)
        self.assertIn("further triggers: ", lines[-1][1])
        count = sum(int(text.partition(" and ")[2].partition(" dead")[0]) for _, text in lines)
        self.assertEqual(count, 5000 - BURST_OF_ALL // 2)

    def test_dead_letters_in_bulk(self) -> None:
        """Deliveries that only the store held have one line together; none of them, none."""
        self.lifecycle.emit(DeadLettered("gh", "p", "gh@v1", "binding_removed", 12))
        self.lifecycle.emit(DeadLettered("gh", "p", None, "binding_removed", 1))
        self.lifecycle.emit(DeadLettered("gh", "p", "gh@v1", "binding_removed", 0))
        rest = "binding_removed; look closer: harn orchestrator dlq"
        self.assertEqual(
            self.said(),
            [
                ("error", f"gh@v1: 12 deliveries are dead letters now: {rest}"),
                ("error", f"gh: 1 delivery is a dead letter now: {rest}"),
            ],
        )

    def test_at_the_end(self) -> None:
        """What was left out is said when the server ends."""
        for _ in range(BURST + 5):
            self.attempt_fails()
        self.said()
        self.log.close()
        [(_, text)] = self.said()
        self.assertIn("5 failed attempts", text)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WordTests(SynchronousTestCase):
    """Times and counts in words."""

    def test_times(self) -> None:
        """Seconds, minutes, hours and days, as people say them."""
        found = [in_words(each) for each in (-1, 0, 0.25, 9.94, 12, 119, 300, 7200, 7500, 36000, 200_000)]
        words = ["now", "now", "in 0.2 s", "in 9.9 s", "in 12 s", "in 119 s", "in 5 min", "in 2 h", "in 2 h 5 min"]
        self.assertEqual(found, [*words, "in 10 h", "in 2 days"])

    def test_many_classes(self) -> None:
        """The most frequent classes are named."""
        left = LeftOut(0.0)
        left.failed.update({f"class_{number}": number for number in range(1, 9)})
        line = left_out_line("gh", "gh", left, 1.0)
        said = formatEvent({"log_format": line.text, **line.fields})
        self.assertIn("36 failed attempts (class_8 8, class_7 7, class_6 6, class_5 5, class_4 4) more", said)
