"""Alerts of a server: out of its events into messages, over reloads and restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import AlertNotSent, HandlerRetryAfter
from harn.lifecycle import CIRCUIT_CLOSED, CIRCUIT_HALF_OPEN, CIRCUIT_OPEN, CircuitChanged, DeadLettersEnded
from tests.alerts.world import HEAD, URL, AlertWorld, alert, everywhere, fake

HOUR = 3600.0


class AlertCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = AlertWorld(Path(self.mktemp()))
        self.addCleanup(lambda: self.world.stopped())

    def started(self, *triggers: str, **more: str) -> None:
        """Write the manifest, and start."""
        self.world.manifest(*triggers, **more)
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)
        self.world.serves()

    def reloaded(self, *triggers: str, **more: str) -> Any:
        """Write the manifest, if any triggers are given, and reload."""
        if triggers:
            self.world.manifest(*triggers, **more)
        return self.successResultOf(self.world.reload())

    def restarted(self) -> None:
        """End the server, and start another one on the same state."""
        self.world = self.world.restarted()
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)
        self.world.serves()

    def said(self) -> list[str]:
        """Return the messages sent since the last time."""
        return self.world.sender.take()

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Move the clock on in steps."""
        while seconds > 0:
            self.world.clock.advance(min(step, seconds))
            seconds -= step


class DeadLetterTests(AlertCase):
    def test_what_an_operator_needs(self) -> None:
        """The message has trigger, reason, count, an example, what to type, and which server it is."""
        self.started(fake("a", extra=alert("dead_letter")), fake("b"))
        event_id = self.world.die()
        ((target, message),) = self.world.sender.sent
        self.assertEqual((target.shown, target.address), ("alerts/slack", URL))
        text = message.text
        for part in ("a: 1 dead letter", "rejected", event_id, f"harn orchestrator delivery {event_id}"):
            self.assertIn(part, text)
        self.assertIn("harn orchestrator dlq --trigger a", text)
        self.assertIn("generation 1", text)
        self.assertNotIn("s3cr3t", text)
        self.world.die("b")
        self.assertEqual(len(self.world.sender.sent), 1)

    def test_rate_and_all_clear(self) -> None:
        """One message in the time, naming the count; and one when there was no new one for the time."""
        self.started(fake("a", extra=alert("dead_letter", within="10m", every="1h")))
        for number in range(5):
            self.world.die(key=f"d{number}")
        self.assertEqual(self.said(), ["firing dead_letter 1"])
        self.advance(600, 10.0)
        self.assertEqual(self.said(), ["resolved dead_letter 5"])
        self.world.die(key="again")
        self.assertEqual(self.said(), [])
        self.advance(HOUR, 30.0)
        self.world.die(key="later")
        self.assertEqual(self.said(), ["firing dead_letter 2"])

    def test_of_all_triggers(self) -> None:
        """An alert of all counts over all, and names those that it happened to."""
        self.started(fake("a"), fake("b"), head=everywhere("dead_letter", threshold=2))
        self.world.die("a")
        self.assertEqual(self.said(), [])
        self.world.die("b")
        (document,) = self.world.sender.documents
        self.assertEqual((document["trigger_id"], document["count"]), (None, 2))
        self.assertEqual(sorted(each["trigger_id"] for each in document["triggers"]), ["a", "b"])

    def test_dealt_with(self) -> None:
        """When all of them were replayed or discarded, it has ended."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.die(key="1")
        self.world.die(key="2")
        self.said()
        self.world.lifecycle.emit(DeadLettersEnded("a", "fake", "discarded", 1))
        self.assertEqual(self.said(), [])
        self.world.lifecycle.emit(DeadLettersEnded("a", "fake", "replayed", 1))
        self.assertEqual(self.said(), ["resolved dead_letter 2"])


class CircuitTests(AlertCase):
    def change(self, before: str, state: str, destination: str = "handlers:on_event") -> None:
        """Emit the event of a circuit."""
        self.world.lifecycle.emit(CircuitChanged("a", "a@v1", destination, before, state, 5, None))

    def test_open_and_closed(self) -> None:
        """It begins when the circuit opens, continues while a probe runs, and ends when it is closed."""
        self.started(fake("a", extra=alert("circuit_open")))
        self.change(CIRCUIT_CLOSED, CIRCUIT_OPEN)
        (document,) = self.world.sender.documents
        self.assertEqual(document["reason"], "5 deliveries to handlers:on_event failed")
        self.assertEqual(self.said(), ["firing circuit_open 1"])
        self.change(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN)
        self.change(CIRCUIT_HALF_OPEN, CIRCUIT_OPEN)
        self.assertEqual(self.said(), [])
        self.change(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN)
        self.change(CIRCUIT_HALF_OPEN, CIRCUIT_CLOSED)
        self.assertEqual(self.said(), ["resolved circuit_open 2"])

    def test_another_destination(self) -> None:
        """A circuit of a destination that the trigger has no more is ended by the reload; others stay."""
        self.started(fake("a", extra=alert("circuit_open")))
        self.change(CIRCUIT_CLOSED, CIRCUIT_OPEN)
        self.reloaded(fake("a", extra="timeout = '9s'\n" + alert("circuit_open")))
        self.restarted()
        self.assertEqual(self.said(), [])
        self.world.write("other.py", "def on_event(event):\n    return 1\n")
        self.reloaded(fake("a", handler="other:on_event", extra=alert("circuit_open")))
        self.assertEqual(self.said(), ["resolved circuit_open 1"])

    def test_removed_trigger(self) -> None:
        """A circuit of a trigger that is gone is not open any more."""
        self.started(fake("a"), fake("b"), head=everywhere("circuit_open"))
        self.change(CIRCUIT_CLOSED, CIRCUIT_OPEN)
        self.said()
        self.assertTrue(self.reloaded(fake("b"), head=everywhere("circuit_open")).ok)
        self.assertEqual(self.said(), ["resolved circuit_open 1"])


class ReloadTests(AlertCase):
    def test_failed_and_good(self) -> None:
        """A failed reload begins it, with its first problem; the next good one ends it, also one without changes."""
        extra = alert("reload_failed")
        self.started(fake("a", extra=extra), head=everywhere("reload_failed"))
        self.assertFalse(self.reloaded(fake("a", extra=extra + "evry = 1\n")).ok)
        document = self.world.sender.documents[0]
        self.assertIn("stage validate: harn.toml:", document["reason"])
        self.assertEqual(self.said(), ["firing reload_failed 1"] * 2)
        self.assertTrue(self.reloaded(fake("a", extra=extra), head=everywhere("reload_failed")).ok)
        self.assertEqual(self.said(), ["resolved reload_failed 1"] * 2)

    def test_dry_runs_do_not_count(self) -> None:
        """A dry run that fails does not count as a failed reload."""
        self.started(fake("a"), head=everywhere("reload_failed"))
        self.world.manifest(fake("a", extra="evry = 1\n"), head=everywhere("reload_failed"))
        self.assertFalse(self.successResultOf(self.world.reload(dry_run=True)).ok)
        self.assertEqual(self.said(), [])


class SilenceTests(AlertCase):
    def test_silent_and_not(self) -> None:
        """Nothing accepted for the time begins it; something accepted ends it, and counts from then."""
        self.started(fake("a", extra=alert("silent", within="10m")), fake("b"))
        self.advance(599, 10.0)
        self.world.take("b")
        self.assertEqual(self.said(), [])
        self.advance(2)
        self.assertEqual(self.said(), ["firing silent 1"])
        self.world.take("a")
        self.assertEqual(self.said(), ["resolved silent 0"])
        self.advance(HOUR, 10.0)
        self.assertEqual(self.said(), ["firing silent 1"])

    def test_of_all(self) -> None:
        """Each trigger counts for itself, and one message names all that are silent."""
        self.started(fake("a"), fake("b"), head=everywhere("silent", within="10m", every="15m"))
        self.advance(300, 10.0)
        self.world.take("b")
        self.advance(301, 10.0)
        (document,) = self.world.sender.documents
        self.assertEqual([each["trigger_id"] for each in document["triggers"]], ["a"])
        self.advance(900, 10.0)
        self.assertEqual(len(self.world.sender.documents[-1]["triggers"]), 2)

    def test_over_a_restart(self) -> None:
        """Silence before a restart counts, the time without a server does not."""
        self.started(fake("a", extra=alert("silent", within="10m")))
        self.advance(400, 10.0)
        self.world.stopped()
        self.world.clock.advance(HOUR)
        self.restarted()
        self.advance(190, 10.0)
        self.assertEqual(self.said(), [])
        self.advance(20)
        self.assertEqual(self.said(), ["firing silent 1"])

    def test_over_a_crash(self) -> None:
        """After a crash the silence before it counts, but for what was not written so far: a minute at most."""
        self.started(fake("a", extra=alert("silent", within="10m")))
        self.advance(400, 10.0)
        crashed = self.world
        crashed.server.background.stopService()
        crashed.alerts.hand_over()  # it writes nothing more
        crashed.clock.advance(HOUR)
        self.world = AlertWorld(crashed.root, clock=crashed.clock, store=crashed.store.beside())
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.world.serves()
        self.advance(190, 10.0)
        self.assertEqual(self.said(), [])
        self.advance(80, 10.0)
        self.assertEqual(self.said(), ["firing silent 1"])


class LateTests(AlertCase):
    def test_late_and_not(self) -> None:
        """A delivery that is ready for longer than the time begins it; what runs does not count."""
        self.started(fake("a", extra=alert("late", within="1m")))
        self.world.dispatcher.apply(1)
        self.world.take("a", "1")
        self.advance(120, 5.0)
        self.assertEqual(self.said(), [])
        self.world.take("a", "2")
        self.advance(50, 5.0)
        self.assertEqual(self.said(), [])
        self.advance(20, 5.0)
        (document,) = self.world.sender.documents
        self.assertIn("harn orchestrator deliveries --trigger a --state ready", document["commands"])
        self.assertEqual(self.said(), ["firing late 1"])
        self.world.calls[0].returns()
        self.advance(20, 5.0)
        self.assertEqual(self.said(), ["resolved late 0"])

    def test_retries(self) -> None:
        """A retry counts from the time that it was due, and not from when its event was received."""
        self.started(fake("a", extra=alert("late", within="1m")))
        self.world.take("a", "1")
        self.world.take("a", "2")
        self.world.calls[1].raises(HandlerRetryAfter("later", 7200.0))
        self.world.dispatcher.apply(1)
        self.advance(7200, 10.0)
        self.advance(50, 5.0)
        self.assertEqual(self.said(), [])
        self.advance(30, 5.0)
        self.assertEqual(self.said(), ["firing late 1"])


class AdoptionTests(AlertCase):
    def test_kept_over_a_reload(self) -> None:
        """An alert that stays keeps its counts and pauses; the new limits count from the adoption."""
        self.started(fake("a", extra=alert("dead_letter", threshold=3)))
        self.world.die(key="1")
        self.world.die(key="2")
        self.reloaded(fake("a", extra=alert("dead_letter", threshold=2)))
        self.assertEqual(self.said(), ["firing dead_letter 2"])
        self.reloaded(fake("a", extra=alert("dead_letter", threshold=1)))
        self.world.die(key="3")
        self.assertEqual(self.said(), [])

    def test_added_and_removed(self) -> None:
        """An alert that is new begins with nothing; one that is taken out ends without an all-clear."""
        self.started(fake("a"))
        self.world.die(key="1")
        self.reloaded(fake("a", extra=alert("dead_letter")))
        self.assertEqual(self.said(), [])
        self.world.die(key="2")
        self.assertEqual(self.said(), ["firing dead_letter 1"])
        self.reloaded(fake("a"))
        self.advance(2 * HOUR, 60.0)
        self.assertEqual((self.said(), len(self.world.alerts.board)), ([], 0))
        self.assertEqual(self.world.store.query("SELECT name FROM standing WHERE name LIKE 'alert:%'"), [])

    def test_message_of_a_removed_alert(self) -> None:
        """A message that could not be sent when its alert was taken out is sent all the same."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.sender.fails = AlertNotSent("down")
        self.world.die()
        self.reloaded(fake("a"))
        self.world.sender.fails = None
        self.advance(10)
        self.assertEqual(self.said(), ["firing dead_letter 1"])

    def test_rotated_secret(self) -> None:
        """A reload with another value of the secret sends there from then on, also what waits."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.sender.fails = AlertNotSent("gone")
        self.world.die()
        self.world.environ["HARN_SECRET_ALERTS_SLACK"] = URL + "new"
        self.world.sender.fails = None
        self.assertTrue(self.reloaded().ok)
        self.advance(10)
        ((target, _),) = self.world.sender.sent
        self.assertEqual(target.address, URL + "new")


class RestartTests(AlertCase):
    def test_not_said_again(self) -> None:
        """A restart says nothing again, and does not begin the pause again."""
        self.started(fake("a", extra=alert("dead_letter", every="1h")))
        self.world.die(key="1")
        self.assertEqual(self.said(), ["firing dead_letter 1"])
        self.advance(300, 10.0)
        self.restarted()
        self.world.die(key="2")
        self.assertEqual(self.said(), [])
        self.advance(700, 10.0)
        self.assertEqual(self.said(), ["resolved dead_letter 2"])
        self.advance(HOUR - 1000, 30.0)
        self.world.die(key="3")
        self.assertEqual(self.said(), ["firing dead_letter 1"])

    def test_what_was_counted(self) -> None:
        """What was counted before a restart counts after it."""
        self.started(fake("a", extra=alert("dead_letter", threshold=2)))
        self.world.die(key="1")
        self.restarted()
        self.world.die(key="2")
        self.assertEqual(self.said(), ["firing dead_letter 2"])

    def test_message_that_waits(self) -> None:
        """What could not be sent before a restart is sent after it, once, as the same message."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.sender.fails = AlertNotSent("down")
        self.world.die()
        (tried,) = self.world.sender.tried
        self.restarted()
        ((_, message),) = self.world.sender.sent
        self.assertEqual(message.id, tried.id)
        self.restarted()
        self.assertEqual(self.world.sender.tried, [])

    def test_crash_while_it_is_sent(self) -> None:
        """A message is in the store before it is sent: after a crash it is sent again, and no second one is made."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.sender.held = True
        self.world.die()
        (tried,) = self.world.sender.tried
        crashed = self.world
        self.world = AlertWorld(crashed.root, clock=crashed.clock, store=crashed.store.beside())
        self.addCleanup(crashed.stopped)
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.world.serves()
        ((_, message),) = self.world.sender.sent
        self.assertEqual(message.id, tried.id)

    def test_good_files_at_a_start(self) -> None:
        """A start with good files ends the alert on a failed reload of the previous server."""
        self.started(fake("a"), head=everywhere("reload_failed"))
        self.reloaded(fake("a", extra="evry = 1\n"), head=everywhere("reload_failed"))
        self.assertEqual(self.said(), ["firing reload_failed 1"])
        self.world.manifest(fake("a"), head=everywhere("reload_failed"))
        self.restarted()
        self.assertEqual(self.said(), ["resolved reload_failed 1"])


class TroubleTests(AlertCase):
    def test_store_away(self) -> None:
        """A full disk does not keep a message back; the state is kept when there is room again."""
        self.started(fake("a", extra=alert("reload_failed")), head=HEAD)
        self.world.store.fail_writes = True
        self.assertFalse(self.reloaded(fake("a", extra="evry = 1\n")).ok)
        self.assertEqual(self.said(), ["firing reload_failed 1"])
        self.world.store.fail_writes = False
        self.advance(15)
        ((_, value),) = self.world.store.query("SELECT name, value FROM standing WHERE name LIKE 'alert:%'")
        self.assertIn(b'"sent_at"', value)

    def test_a_receiver_that_hangs_keeps_nothing(self) -> None:
        """While a message hangs, deliveries and reloads continue."""
        self.started(fake("a", extra=alert("dead_letter")))
        self.world.sender.held = True
        self.world.die(key="1")
        self.world.die(key="2")
        self.assertTrue(self.reloaded(fake("a", extra=alert("dead_letter") + "every = '2h'\n")).ok)
        self.assertEqual(len(self.world.sender.tried), 1)
        self.world.sender.answer()
        self.assertEqual(self.said(), ["firing dead_letter 1"])
