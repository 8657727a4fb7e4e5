"""Sending: order, pauses, receivers that fail or ask for a pause."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harn.alerts.board import Board
from harn.alerts.keeping import Keeper
from harn.alerts.model import Happened, Rule
from harn.alerts.runner import AlertRunner
from harn.alerts.senders import AlertTarget, Senders
from harn.errors import AlertNotSent
from harn.observability.metrics import Metrics
from harn.testing.clocks import SteppedWall
from harn.testing.stores.pumped import PumpedStore
from tests.alerts.examples import rule
from tests.alerts.world import ScriptedSender


class RunnerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.wall = SteppedWall(self.clock)
        self.store = PumpedStore(self.wall)
        self.store.open()
        self.sender, self.board, self.metrics = ScriptedSender(), Board(), Metrics()
        keeper = Keeper(self.clock, self.wall, self.store.checkpoints)
        senders = Senders({"slack": self.sender, "webhook": self.sender})
        self.runner = AlertRunner(self.clock, self.wall, self.board, keeper, senders, self.metrics, "web-1")
        self.runner.start()
        self.addCleanup(lambda: _started(self.runner.stop()))
        self.logged: list[str] = []

    def adopt(self, trigger_id: str, *alerts: tuple[Rule, str]) -> None:
        """Put alerts in force, each with the address that it goes to."""
        found = [(each, AlertTarget(to=each.spec.to, shown="alerts/url", address=address)) for each, address in alerts]
        self.board.adopt(trigger_id, found, (trigger_id,), self.wall.seconds())
        self.runner.run()

    def happens(self, trigger_id: str) -> None:
        """Make a dead letter of a trigger."""
        self.board.happened("dead_letter", Happened(at=self.wall.seconds(), trigger_id=trigger_id))
        self.runner.run()

    def many(self, count: int, address: str = "https://x.test/{}") -> None:
        """Put so many alerts in force, one a trigger."""
        for number in range(count):
            name = f"t{number}"
            self.adopt(name, (rule("dead_letter", trigger_id=name), address.format(number)))


class OrderTests(RunnerCase):
    def test_one_at_a_time_to_a_receiver(self) -> None:
        """A receiver gets one message after the other; another is not kept waiting by it."""
        self.sender.held = True
        self.many(3, "https://same.test/")
        self.adopt("other", (rule("dead_letter", trigger_id="other"), "https://other.test/"))
        for name in ("t0", "t1", "t2", "other"):
            self.happens(name)
        self.assertEqual([each.document.trigger_id for each in self.sender.tried], ["t0", "other"])
        self.sender.answer()
        self.assertEqual(len(self.sender.tried), 3)
        self.sender.answer()
        self.sender.answer()
        self.assertEqual((len(self.sender.sent), self.runner.pending), (4, 0))

    def test_few_at_once(self) -> None:
        """Eight messages are sent at once at most, however many receivers hang."""
        self.sender.held = True
        self.many(20)
        for number in range(20):
            self.happens(f"t{number}")
        self.assertEqual((len(self.sender.tried), self.runner.pending), (8, 20))
        for _ in range(4):
            self.sender.answer()
        self.assertEqual(len(self.sender.sent), 20)

    def test_stop_cuts_off(self) -> None:
        """The end does not wait for a receiver that hangs; its message is kept."""
        self.sender.held = True
        self.many(1)
        self.happens("t0")
        self.successResultOf(_started(self.runner.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        ((value,),) = self.store.query("SELECT value FROM standing WHERE name LIKE 'alert:%'")
        self.assertIn(b'"pending"', value)


def _started(work: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(work)


class FailureTests(RunnerCase):
    def tries(self, seconds: float) -> list[float]:
        """Move the clock on, and return after how many seconds each try was made."""
        began, found = self.clock.seconds(), []
        while self.clock.seconds() < began + seconds:
            before = len(self.sender.tried)
            self.clock.advance(1.0)
            found += [self.clock.seconds() - began] * (len(self.sender.tried) - before)
        return found

    def test_growing_pauses(self) -> None:
        """It is tried again with pauses that double, up to ten minutes, as the same message."""
        self.sender.fails = AlertNotSent("refused")
        self.many(1)
        self.happens("t0")
        self.assertEqual(self.tries(2000), [5, 15, 35, 75, 155, 315, 635, 1235, 1835])
        self.assertEqual(len({each.id for each in self.sender.tried}), 1)
        counts = self.metrics.alert("dead_letter", "slack")
        self.assertEqual((counts.sent, counts.failed), (0, 10))
        self.sender.fails = None
        self.clock.advance(600)
        self.assertEqual((counts.sent, self.runner.pending), (2, 0))  # by now its all-clear, too

    def test_asked_to_wait(self) -> None:
        """A receiver that asks for a pause gets none of its messages meanwhile, and other receivers do."""
        self.sender.fails = AlertNotSent("the receiver answered 429", retry_after=30.0)
        self.many(2, "https://same.test/")
        self.adopt("other", (rule("dead_letter", trigger_id="other"), "https://other.test/"))
        self.happens("t0")
        self.happens("t1")
        self.assertEqual(len(self.sender.tried), 1)
        self.sender.fails = None
        self.happens("other")
        self.assertEqual(len(self.sender.sent), 1)
        self.assertEqual(self.tries(40), [30, 30])
        self.assertEqual(len(self.sender.sent), 3)

    def test_what_is_logged(self) -> None:
        """Each try that failed is a warning with the next one; after a quarter of an hour it says what to do."""
        self.sender.fails = AlertNotSent("the receiver answered 404: no_service")
        self.many(1, "https://x.test/s3cr3tt0ken")
        logged: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "harn.alerts":
                logged.append(f"{event['log_level'].name}: {formatEvent(event)}")

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.happens("t0")
        self.tries(1300)
        self.assertEqual(
            logged[0],
            "warn: alert t0/dead_letter/slack cannot be sent to alerts/url: the receiver answered 404: no_service"
            " (try 1, the next at 1970-01-12T13:46:45.000Z)",
        )
        advice = (
            "; check the value of secret alerts/url, then try: harn orchestrator alerts --test t0/dead_letter/slack"
        )
        self.assertEqual([advice in line for line in logged], [False] * 8 + [True])
        self.sender.fails = None
        self.tries(700)
        self.assertIn("info: alert t0/dead_letter/slack sent to alerts/url: harn alert: t0: 1 dead letter", logged[9])
        self.assertNotIn("s3cr3t", "".join(logged))

    def test_given_up_after_a_day(self) -> None:
        """A message that no receiver accepts is given up after a day, with an error in the log; a new one follows."""
        self.sender.fails = AlertNotSent("refused")
        self.adopt("t0", (rule("dead_letter", trigger_id="t0", within=864000.0), "https://x.test/"))
        self.happens("t0")
        for _ in range(150):
            self.clock.advance(600.0)
        first = self.sender.tried[0].id
        self.happens("t0")
        self.clock.advance(1.0)
        self.assertNotEqual(self.sender.tried[-1].id, first)
        (entry,) = self.board
        self.assertEqual(len(entry.state.pending), 1)

    def test_a_defect_of_a_sender(self) -> None:
        """What a sender raises unexpectedly is logged, and counts as a try that failed."""

        async def broken(target: AlertTarget, message: Any) -> None:
            raise ValueError("oops")

        self.patch(self.sender, "send", broken)
        self.many(1)
        self.happens("t0")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.metrics.alert("dead_letter", "slack").failed, 1)
        self.assertEqual(self.runner.pending, 1)

    def test_clock_set_back(self) -> None:
        """A wall clock that is set back by a day delays no try for longer than usual."""
        self.sender.fails = AlertNotSent("refused")
        self.many(1)
        self.happens("t0")
        self.wall.step(-86400.0)
        self.sender.fails = None
        self.tries(61)
        self.assertEqual(len(self.sender.sent), 1)
