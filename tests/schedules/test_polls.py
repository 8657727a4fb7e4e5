"""Polls: events and cursors in one unit, over failures, reloads, restarts, and calls that are cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import rfc3339
from harn.connectors.providers.poll import PollSettings, read_polled
from harn.errors import CallInterrupted, HandlerRaised, HandlerRetryAfter, PayloadInvalid, RouteUnknown, WrongState
from harn.lifecycle import ServersSeen
from harn.model.event import TriggerEvent, decode_envelope
from harn.operations.model import Caller, Role
from harn.schedules import feature
from harn.schedules.cursor_operations import SetCursor, set_cursor, show_cursor
from harn.schedules.cursors import KEPT, PREFIX
from harn.schedules.operations import TimedTriggers, list_schedule
from harn.schedules.poll_entry import LONGEST_PAUSE
from harn.schedules.polls import Polls
from harn.schedules.service import Schedules
from tests.reload.world import World

HANDLERS = "def on_event(event):\n    return 1\n\n\ndef look(cursor, context):\n    return None\n"


def poll(trigger_id: str = "p", **more: Any) -> str:
    """Write a trigger that polls each minute."""
    keys = {"every": "1m", "poll": "handlers:look", "handler": "handlers:on_event", **more}
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items() if value is not None)
    return f'[[triggers]]\nid = "{trigger_id}"\nkind = "poll"\nprovider = "poll"\n{lines}'


class PollsCase(SynchronousTestCase):
    """A world with polls."""

    def world(self, *triggers: str, before: World | None = None) -> World:
        """Start a server; after ``before`` on its folder and store."""
        world = World(Path(self.mktemp())) if before is None else before.restarted()
        feature.install(world.server)
        world.write("handlers.py", HANDLERS)
        world.manifest(*(triggers or (poll(),)))
        report = self.successResultOf(world.start())
        self.assertTrue(report.ok, report.problems)
        world.server.background.startService()
        self.polls = world.server[Polls]
        return world

    def stop(self, world: World) -> None:
        """End the polls of a server."""
        self.successResultOf(world.server.background.stopService())

    def due(self, world: World) -> Any:
        """Move the clock on until the function is called; return the call."""
        for _ in range(60):
            if self.running(world):
                break
            world.clock.advance(1.0)
        (call,) = self.running(world)
        return call

    def running(self, world: World) -> list[Any]:
        """Return the calls of functions that poll."""
        return [each for each in world.calls if not each.call.envelope]

    def answer(self, call: Any, cursor: Any, *payloads: Any, **more: Any) -> None:
        """End a call with events and a cursor."""
        events = [{"payload": payload} for payload in payloads]
        call.returns(json.dumps({"events": events, "cursor": cursor, **more}).encode())

    def payloads(self, world: World) -> list[Any]:
        """Return the payloads of all events that were accepted."""
        return [
            TriggerEvent(decode_envelope(row.envelope), row.body).provider_payload["raw"] for row in world.store.rows()
        ]

    def kept(self, world: World, trigger_id: str = "p") -> Any:
        """Return the record in the store."""
        return self.successResultOf(world.store.checkpoints.get(PREFIX + trigger_id))


class LeadingTests(PollsCase):
    """Several servers on one store, of which one polls."""

    def test_another_leads(self) -> None:
        """Nothing is called while another server leads; then the call gets the cursor that this one has written."""
        world = self.world()
        self.answer(self.due(world), 1)
        running = self.due(world)
        world.lifecycle.emit(ServersSeen((1,), leads=False))
        self.assertNotIn(running, self.running(world))
        for _ in range(200):
            world.clock.advance(1.0)
        self.assertEqual(self.running(world), [])
        self.failureResultOf(ensureDeferred(self.polls.set_cursor("p", b"5")), WrongState)
        self.successResultOf(world.store.checkpoints.put(PREFIX + "p", {**self.kept(world), "cursor": 7}))
        world.lifecycle.emit(ServersSeen((), leads=True))
        self.assertEqual(self.due(world).call.body, b"7")


class PollTests(PollsCase):
    """Calls of a function, one after the other."""

    def test_cursor(self) -> None:
        """The function gets the cursor that it returned last; what it found is accepted together with that."""
        world = self.world()
        first = self.due(world)
        self.assertEqual((first.call.handler, first.call.body, first.call.binding), ("handlers:look", b"null", "p@v1"))
        self.answer(first, {"page": 2}, {"order": 1}, {"order": 2})
        self.assertEqual(self.payloads(world), [{"order": 1}, {"order": 2}])
        self.assertEqual(self.kept(world)["cursor"], {"page": 2})
        second = self.due(world)
        self.assertEqual(json.loads(second.call.body), {"page": 2})
        second.returns(b"null")
        self.assertEqual(json.loads(self.due(world).call.body), {"page": 2})

    def test_event(self) -> None:
        """An event has the function's kind, key and time, and its payload's fields; ``match`` applies to it."""
        world = self.world(poll() + 'match = { events = ["order.*"] }\n')
        events = [
            {"kind": "order.paid", "dedupe_key": "o-1", "occurred_at": "2026-01-02T03:04:05Z", "payload": {"n": 7}},
            {"kind": "other", "payload": 1},
        ]
        self.due(world).returns(json.dumps({"events": events, "cursor": 1}).encode())
        (row,) = world.store.rows()
        event = TriggerEvent(decode_envelope(row.envelope), row.body)
        self.assertEqual(
            (event.kind, event.provider, event.occurred_at), ("order.paid", "poll", "2026-01-02T03:04:05Z")
        )
        self.assertEqual((event.dedupe_key, event.provider_payload["n"]), ("poll:p:o-1", 7))
        self.assertEqual(self.kept(world)["cursor"], 1)

    def test_found_again(self) -> None:
        """An event of a key that was found before is a duplicate, and the cursor moves all the same."""
        world = self.world()
        for cursor in (1, 2):
            events = [{"dedupe_key": "o-1", "payload": {}}]
            self.due(world).returns(json.dumps({"events": events, "cursor": cursor}).encode())
        self.assertEqual((len(world.store.rows()), self.kept(world)["cursor"]), (1, 2))

    def test_equal_payloads(self) -> None:
        """Equal payloads at different cursors are different events; at the same cursor they are one."""
        world = self.world()
        self.answer(self.due(world), 1, "same", "same")
        self.answer(self.due(world), 2, "same")
        self.assertEqual(self.payloads(world), ["same", "same", "same"])

    def test_one_at_a_time(self) -> None:
        """While a call runs no other one of its trigger begins."""
        world = self.world()
        self.due(world)
        for _ in range(200):
            world.clock.advance(1.0)
        self.assertEqual(len(self.running(world)), 1)

    def test_more(self) -> None:
        """A function that says that there is more is called again at once, as long as its cursor moves."""
        world = self.world()
        self.answer(self.due(world), 1, "a", more=True)
        world.clock.advance(0.1)
        (call,) = self.running(world)
        self.answer(call, 1, "b", more=True)
        world.clock.advance(0.1)
        self.assertEqual(self.running(world), [])

    def test_set_back(self) -> None:
        """After the clock was set back the function is called as often as before."""
        world = self.world()
        self.answer(self.due(world), 1)
        world.wall.step(-7200)
        for _ in range(2):
            world.clock.advance(60.0)
        self.due(world)

    def test_schedule(self) -> None:
        """A schedule of cron says when instead of an interval."""
        world = self.world(poll(every=None, schedule="0 * * * *"))
        for _ in range(61):
            world.clock.advance(60.0)
        self.assertEqual(len(self.running(world)), 1)


class FailureTests(PollsCase):
    """Functions that fail."""

    def test_backed_off(self) -> None:
        """After a failure the cursor stays; the wait grows, and ends with the first success."""
        world = self.world(poll(every="1s"))
        waits = []
        for _ in range(12):
            self.due_within(world).raises(HandlerRaised("away"))
            began = world.clock.seconds()
            call = self.due_within(world)
            waits.append(world.clock.seconds() - began)
            call.raises(HandlerRaised("away"))
            if len(waits) == 6:
                break
        self.assertEqual(waits, sorted(waits))
        self.assertLessEqual(waits[-1], LONGEST_PAUSE + 1)
        self.answer(self.due_within(world), 1)
        began = world.clock.seconds()
        self.due_within(world)
        self.assertLess(world.clock.seconds() - began, 2.0)
        failures = world.metrics.gauges["harn_poll_failures"].read()
        self.assertEqual(failures, {("p",): 12.0})

    def due_within(self, world: World) -> Any:
        """Wait for the next call."""
        for _ in range(2000):
            if self.running(world):
                break
            world.clock.advance(1.0)
        (call,) = self.running(world)
        return call

    def test_retry_after(self) -> None:
        """A function that names the time of its next call gets it."""
        world = self.world(poll(every="1s"))
        self.due_within(world).raises(HandlerRetryAfter("busy", 300.0))
        began = world.clock.seconds()
        self.due_within(world)
        self.assertGreaterEqual(world.clock.seconds() - began, 299)

    def test_asks_for_no_wait(self) -> None:
        """A function that asks to be called again without a wait is called a second later."""
        world = self.world()
        self.due(world).raises(HandlerRetryAfter("busy", 0.0))
        for _ in range(5):
            world.clock.advance(0.1)
        self.assertEqual(self.running(world), [])
        self.due(world)

    def test_daily(self) -> None:
        """A call that failed is made again after its wait, though the schedule comes only once a day."""
        world = self.world(poll(every=None, schedule="0 0 * * *"))
        while not self.running(world):
            world.clock.advance(600.0)
        for error, wait in ((HandlerRaised("x"), 5), (HandlerRaised("x"), 10), (HandlerRetryAfter("x", 120.0), 120)):
            (call,) = self.running(world)
            call.raises(error)
            world.clock.advance(wait - 1)
            self.assertEqual(self.running(world), [])
            world.clock.advance(1.0)
        self.answer(self.running(world)[0], 1)
        world.clock.advance(3600.0)
        self.assertEqual(self.running(world), [])

    def test_too_many_events(self) -> None:
        """More events than one turn of the reactor can keep are a failure that says what to do."""
        world = self.world()
        self.answer(self.due(world), 1, *range(2000))
        self.assertEqual(len(world.store.rows()), 2000)
        with self.assertRaisesRegex(PayloadInvalid, 'at most 2000 events, got 2001: .* "more"'):
            read_polled(json.dumps({"events": [{"payload": 1}] * 2001}).encode(), "p", b"1")

    def test_times(self) -> None:
        """The time of an event is RFC 3339 with its offset, or the call has failed."""
        for text in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+02:00"):
            answer = json.dumps({"events": [{"payload": 1, "occurred_at": text}]}).encode()
            self.assertEqual(read_polled(answer, "p", b"1").events[0].occurred_at, text)
        for text in ("", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z"):
            answer = json.dumps({"events": [{"payload": 1, "occurred_at": text}]}).encode()
            with self.assertRaisesRegex(PayloadInvalid, "occurred_at a time of RFC 3339"):
                read_polled(answer, "p", b"1")

    def test_interrupted(self) -> None:
        """A call whose interpreter died by another's fault is made again with the same cursor, and does not count."""
        world = self.world()
        self.answer(self.due(world), 1)
        self.due(world).raises(CallInterrupted("died", suspect=False))
        again = self.due(world)
        self.assertEqual((again.call.body, self.polls.entries["p"].failed), (b"1", 0))

    def test_wrong_answers(self) -> None:
        """A wrong answer is a failure, and none of it is kept."""
        for wrong in (
            b"7",
            b'"x"',
            b'{"event": []}',
            b'{"events": [{"kind": 1, "payload": 1}]}',
            b'{"events": [{}], "cursor": 2}',
        ):
            world = self.world()
            self.due(world).returns(wrong)
            self.assertEqual(world.store.rows(), [], wrong)
            self.assertNotIn("cursor", self.kept(world), wrong)
            self.assertEqual(self.polls.entries["p"].failed, 1)

    def test_store_away(self) -> None:
        """What cannot be kept is looked for again, with the same cursor."""
        world = self.world()
        call = self.due(world)
        world.store.fail_writes = True
        self.answer(call, 1, "a")
        world.store.fail_writes = False
        again = self.due(world)
        self.assertEqual(again.call.body, b"null")
        world.store.fail_writes = True
        self.answer(again, 1, "a")
        world.store.fail_writes = False
        world.clock.advance(9.0)
        self.assertEqual(self.running(world), [])
        again = self.due(world)
        self.answer(again, 1, "a")
        self.assertEqual(self.payloads(world), ["a"])


class OverTests(PollsCase):
    """Cursors outlive reloads, restarts and removals."""

    def test_reload(self) -> None:
        """A reload, also during a call, neither loses nor resets the cursor; the next call is of the new version."""
        world = self.world()
        self.answer(self.due(world), 1)
        during = self.due(world)
        world.write("handlers.py", HANDLERS + "# edited\n")
        self.assertTrue(self.successResultOf(world.reload()).ok)
        self.answer(during, 2, "a")
        self.assertEqual((self.payloads(world), self.kept(world)["cursor"]), (["a"], 2))
        call = self.due(world)
        self.assertEqual((call.call.body, call.call.binding), (b"2", "p@v2"))

    def test_restart(self) -> None:
        """The next server continues from the cursor; a call that was cut off is made again, and changes nothing."""
        world = self.world()
        self.answer(self.due(world), 1, "a")
        self.due(world)
        self.stop(world)
        again = self.world(before=world)
        call = self.due(again)
        self.assertEqual(call.call.body, b"1")
        self.answer(call, 2, "b")
        self.assertEqual(self.payloads(again), ["a", "b"])

    def test_removed(self) -> None:
        """A trigger that comes back within a day continues from its cursor; after that it begins again."""
        for away, body in ((KEPT - 3600, b"1"), (KEPT + 3600, b"null")):
            world = self.world(poll(), poll("other"))
            self.answer(self.due_of(world, "p"), 1)
            world.manifest(poll("other"))
            self.assertTrue(self.successResultOf(world.reload()).ok)
            self.assertIsNotNone(self.kept(world)["removed_at"])
            self.stop(world)
            world.clock.advance(away)
            between = self.world(poll("other"), before=world)
            self.stop(between)
            back = self.world(poll(), poll("other"), before=between)
            self.assertEqual(self.due_of(back, "p").call.body, body)

    def test_removed_long_ago(self) -> None:
        """A trigger that comes back after more than a day begins again, also on a server that ran all the time."""
        world = self.world(poll(), poll("other", every="100h"))
        self.answer(self.due_of(world, "p"), 1)
        world.manifest(poll("other", every="100h"))
        self.assertTrue(self.successResultOf(world.reload()).ok)
        world.clock.advance(KEPT + 60)
        world.manifest(poll(), poll("other", every="100h"))
        self.assertTrue(self.successResultOf(world.reload()).ok)
        self.assertEqual(self.due_of(world, "p").call.body, b"null")

    def test_back_and_quiet(self) -> None:
        """The cursor of a trigger that came back and found nothing new is kept permanently, over restarts, too."""
        world = self.world(poll(), poll("other"))
        self.answer(self.due_of(world, "p"), 1)
        for triggers in ([poll("other")], [poll(), poll("other")]):
            world.manifest(*triggers)
            self.assertTrue(self.successResultOf(world.reload()).ok)
        self.due_of(world, "p").returns(b"null")
        self.assertNotIn("removed_at", self.kept(world))
        self.stop(world)
        world.clock.advance(KEPT + 3600)
        self.assertEqual(self.due_of(self.world(poll(), poll("other"), before=world), "p").call.body, b"1")

    def test_ends_as_an_answer_is_kept(self) -> None:
        """What a function has returned is kept before the server ends: the next call gets the cursor after it."""
        world = self.world()
        call = self.due(world)
        world.store.writer.held = True
        self.answer(call, 1, "a")
        stopped = world.server.background.stopService()
        self.assertNoResult(stopped)
        world.store.writer.release()
        self.successResultOf(stopped)
        again = self.world(before=world)
        self.assertEqual((self.due(again).call.body, self.payloads(again)), (b"1", ["a"]))

    def test_removed_as_an_answer_is_kept(self) -> None:
        """A trigger that is removed then, and comes back, continues from the newest cursor."""
        world = self.world(poll(), poll("other", every="100h"))
        call = self.due_of(world, "p")
        world.store.writer.held = True
        self.answer(call, 7, "a")
        world.manifest(poll("other", every="100h"))
        reloading = world.reload()
        world.store.writer.release()
        self.assertTrue(self.successResultOf(reloading).ok)
        self.assertEqual(self.kept(world)["cursor"], 7)
        self.assertIsNotNone(self.kept(world)["removed_at"])

    def due_of(self, world: World, trigger_id: str) -> Any:
        """Wait for the call of a trigger."""
        for _ in range(130):
            found = [each for each in self.running(world) if each.call.trigger_id == trigger_id]
            if found:
                return found[0]
            world.clock.advance(1.0)
        raise AssertionError("no call")


class CursorTests(PollsCase):
    """Operators look at cursors, and set them."""

    def ask(self, world: World, operation: Any, **wanted: Any) -> Any:
        """Return the answer of an operation."""
        service = TimedTriggers(world.server[Schedules], self.polls)
        caller = Caller(actor="test", role=Role.OPERATE)
        return self.successResultOf(ensureDeferred(operation.run(service, caller, operation.parameters(**wanted))))

    def test_set_while_it_runs(self) -> None:
        """A call that runs is interrupted, so that it brings no other cursor; the next one is as scheduled."""
        world = self.world()
        self.answer(self.due(world), 1)
        during = self.due(world)
        found = self.ask(world, set_cursor, trigger="p", cursor={"page": 9})
        self.assertEqual((found.before, found.cursor, found.changed), (1, {"page": 9}, True))
        self.assertNotIn(during, self.running(world))
        call = self.due(world)
        self.assertEqual((json.loads(call.call.body), self.payloads(world)), ({"page": 9}, []))

    def test_set_as_an_answer_is_kept(self) -> None:
        """An answer that is on its way to the store is kept first; the cursor that was set holds."""
        world = self.world()
        call = self.due(world)
        world.store.writer.held = True
        self.answer(call, 1, "a")
        setting = ensureDeferred(self.polls.set_cursor("p", b"5"))
        self.assertNoResult(setting)
        world.store.writer.release()
        self.assertEqual(bytes(self.successResultOf(setting).cursor), b"1")
        self.assertEqual((self.payloads(world), self.kept(world)["cursor"]), (["a"], 5))
        self.assertEqual(self.due(world).call.body, b"5")

    def test_reset_and_dry_run(self) -> None:
        """A reset has the function begin from the start; a dry run changes nothing."""
        world = self.world()
        self.answer(self.due(world), 1)
        tried = self.ask(world, set_cursor, trigger="p", reset=True, dry_run=True)
        self.assertEqual((tried.before, tried.cursor, tried.changed, tried.dry_run), (1, None, True, True))
        self.assertEqual(self.ask(world, show_cursor, trigger="p").cursor, 1)
        self.ask(world, set_cursor, trigger="p", reset=True)
        self.assertEqual((self.kept(world)["cursor"], self.due(world).call.body), (None, b"null"))

    def test_failure_is_kept(self) -> None:
        """The last error is shown with its time, also by the next server, until a call succeeds."""
        world = self.world()
        self.answer(self.due(world), 1)
        for _ in range(2):
            self.due(world).raises(HandlerRaised("KeyError: 'id'"))
        shown = self.ask(world, show_cursor, trigger="p")
        self.assertEqual((shown.cursor, shown.failures), (1, 2))
        self.assertIn("KeyError: 'id'", shown.last_error)
        found = self.ask(world, list_schedule)
        self.assertEqual(found.polls, (shown,))
        at = self.polls.next_of("p")
        assert at is not None
        self.assertGreaterEqual(found.firings[0].at, rfc3339(at))
        self.stop(world)
        again = self.world(before=world)
        self.assertEqual(self.ask(again, show_cursor, trigger="p"), shown)
        self.due(again).returns(b"null")
        self.assertEqual(self.ask(again, show_cursor, trigger="p").failures, 0)
        self.assertNotIn("failure", self.kept(again))

    def test_refused(self) -> None:
        """Another trigger, a cursor that is too long, and one beside a reset, or neither, are refused."""
        world = self.world()
        for wanted, error, said in (
            ({"trigger": "q", "cursor": 1}, RouteUnknown, "triggers of kind poll: p"),
            ({"trigger": "p", "cursor": "x" * (1024 * 1024)}, PayloadInvalid, "at most 1048576 bytes"),
        ):
            setting: Any = set_cursor.run(
                TimedTriggers(world.server[Schedules], self.polls),
                Caller(actor="test", role=Role.OPERATE),
                SetCursor(**wanted),
            )
            self.assertIn(said, str(self.failureResultOf(ensureDeferred(setting), error).value))
        self.assertRaises(ValueError, SetCursor, trigger="p")
        self.assertRaises(ValueError, SetCursor, trigger="p", cursor=1, reset=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


class AnswerTests(SynchronousTestCase):
    """What functions return."""

    @settings(max_examples=300, deadline=None)
    @given(
        value=VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "events": VALUES
                | st.lists(
                    st.fixed_dictionaries(
                        {}, optional=dict.fromkeys(("payload", "kind", "dedupe_key", "occurred_at"), VALUES)
                    ),
                    max_size=3,
                ),
                "cursor": VALUES,
                "more": VALUES,
            },
        )
    )
    def test_any_value(self, value: Any) -> None:
        """Any JSON value is an answer, or refused with what is wrong; keys are the same for the same call."""
        text = json.dumps(value).encode()
        try:
            found = read_polled(text, "p", b"1")
        except PayloadInvalid as error:
            self.assertIn("must return", str(error))
            return
        self.assertEqual(
            [each.dedupe_key for each in found.events],
            [each.dedupe_key for each in read_polled(text, "p", b"1").events],
        )
        if isinstance(value, dict) and "cursor" in value:
            self.assertEqual(json.loads(found.cursor), value["cursor"])

    def test_settings(self) -> None:
        """One of ``every`` and ``schedule`` says when."""
        for table, keys in (
            ({}, ["every"]),
            ({"every": "1m", "schedule": "* * * * *"}, ["every"]),
            ({"every": "10ms"}, ["every"]),
            ({"schedule": "x", "timezone": "y"}, ["schedule", "timezone"]),
        ):
            self.assertEqual([each.key for each in PollSettings(**table).problems()], keys)
        self.assertEqual(PollSettings(every="1m", jitter="10s").problems(), [])
