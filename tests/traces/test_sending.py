"""Batches to a collector, whatever it does."""

from collections.abc import Sequence
from typing import Any

from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harn.testing.clocks import ThreadClock
from harn.traces.sending import LAST_CHANCE, LAST_CHANCE_LESS, Sender
from harn.traces.settings import Batching


class FakeExporter:
    """Keeps what it gets; ``why``: its answer, or what it raises."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.why: str | Exception | None = None
        self.closed = self.prepared = 0
        self.words = ""

    def prepare(self) -> None:
        """Count the calls."""
        self.prepared += 1

    def reason(self) -> str:
        """Return the words."""
        return self.words

    def export(self, items: Sequence[int]) -> str | None:
        """See `Exporter`."""
        self.batches.append(list(items))
        if isinstance(self.why, Exception):
            raise self.why
        return self.why

    def close(self) -> None:
        """Count the calls."""
        self.closed += 1


class SenderTests(SynchronousTestCase):
    """`Sender`."""

    def setUp(self) -> None:
        self.clock = ThreadClock()
        self.exporter = FakeExporter()
        batching = Batching(most_waiting=6, batch=3, delay=5.0)
        self.sender: Sender[int] = Sender(
            self.clock, self.exporter, batching, "spans", "http://c/v1/traces", self.clock.pool
        )
        self.sender.startService()
        self.said: list[str] = []
        observer: Any = self.observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: LogEvent) -> None:
        """Keep the lines of the sender."""
        if event.get("log_namespace") == "harn.traces":
            self.said.append(str(event["log_format"]).format(**event))

    def add(self, *items: int) -> None:
        """Add items."""
        for item in items:
            self.sender.add(item)

    def test_prepared(self) -> None:
        """The exporter is prepared once, in the thread, when the server starts; if that fails, batches are tried."""
        self.assertEqual(self.exporter.prepared, 1)
        self.exporter.prepare = self.fail_to_prepare
        self.sender.startService()
        self.assertEqual(len(self.flushLoggedErrors(ImportError)), 1)
        self.add(1)
        self.clock.advance(5.0)
        self.assertEqual(self.sender.sent, 1)

    def fail_to_prepare(self) -> None:
        """Raise an error."""
        raise ImportError("no SDK")

    def test_why_more_waits(self) -> None:
        """When too many wait, the reason for which the collector does not take them is logged, where it is known."""
        self.clock.pool.held = True
        self.exporter.words = "connection refused"
        self.add(*range(12))
        self.assertEqual(len(self.said), 1)
        self.assertIn("more than 6 wait, since: connection refused", self.said[0])
        self.clock.pool.release()

    def test_after_a_while(self) -> None:
        """Few are sent together after the delay, one timer for all."""
        self.add(1)
        self.clock.advance(4.0)
        self.add(2)
        self.assertEqual((self.exporter.batches, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(1.0)
        self.assertEqual((self.exporter.batches, self.sender.sent), ([[1, 2]], 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_batches(self) -> None:
        """A full batch is sent at once, and the next while there are as many; then the delay begins again."""
        self.clock.pool.held = True
        self.add(*range(6))
        self.assertEqual(self.exporter.batches, [])
        self.clock.pool.release()
        self.assertEqual((self.exporter.batches, self.sender.sent), ([[0, 1, 2], [3, 4, 5]], 6))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_slow_collector(self) -> None:
        """One batch is under way, and no more wait than may; the rest is counted, and said once."""
        self.clock.pool.held = True
        self.add(*range(100))
        self.assertEqual(self.sender.dropped, 100 - 3 - 6)
        self.assertEqual(len(self.said), 1)
        self.assertIn(
            "spans are dropped, deliveries are not affected: more than 6 wait (http://c/v1/traces)", self.said[0]
        )
        self.clock.pool.release()
        self.assertEqual((self.sender.sent, self.exporter.batches[-1]), (9, [6, 7, 8]))
        self.assertEqual(self.said[1:], ["the collector takes spans again; 91 were dropped"])

    def test_a_failing_collector(self) -> None:
        """What it refuses is counted, and said once until it takes some again."""
        self.exporter.why = "code: 500"
        self.add(*range(6))
        self.assertEqual((self.sender.sent, self.sender.dropped), (0, 6))
        self.assertEqual(len(self.said), 1)
        self.exporter.why = None
        self.add(*range(3))
        self.assertEqual((self.sender.sent, self.sender.dropped, len(self.said)), (3, 6, 2))
        self.exporter.why = "code: 503"
        self.add(*range(3))
        self.assertIn("code: 503", self.said[2])

    def test_an_exporter_that_raises(self) -> None:
        """Its batch is lost, and no other."""
        self.exporter.why = ValueError("broken")
        self.add(*range(3))
        self.add(*range(3))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.exporter.why = None
        self.add(*range(3))
        self.assertEqual((self.sender.sent, self.sender.dropped), (3, 6))

    def test_the_end(self) -> None:
        """A server that ends sends what waits, in batches, and takes nothing more."""
        self.add(*range(5))
        self.assertEqual(self.exporter.batches, [[0, 1, 2]])
        self.successResultOf(self.sender.stopService())
        self.assertEqual((self.exporter.batches[1:], self.exporter.closed), ([[3, 4]], 1))
        self.add(9)
        self.assertEqual((self.sender.sent, self.sender.dropped), (5, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_without_an_answer(self) -> None:
        """It waits a moment, and less where the collector has not taken the batches before; what is left is counted."""
        for why, patience in ((None, LAST_CHANCE), ("code: 500", LAST_CHANCE_LESS)):
            self.setUp()
            self.exporter.why = why
            self.add(*range(3))
            self.clock.pool.held = True
            self.add(*range(5))
            ending = self.sender.stopService()
            self.clock.advance(patience - 0.1)
            self.assertNoResult(ending)
            self.clock.advance(0.1)
            self.successResultOf(ending)
            self.assertEqual((self.sender.sent + self.sender.dropped, self.exporter.closed), (8, 1))
            self.assertIn("the server ends, and the collector has not taken 5 spans", self.said[-1])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_late_answer(self) -> None:
        """One that comes after the end changes nothing, and raises nothing."""
        self.clock.pool.held = True
        self.add(*range(4))
        ending: Any = self.sender.stopService()
        self.clock.advance(LAST_CHANCE)
        self.successResultOf(ending)
        self.clock.pool.release()
        self.assertEqual((self.sender.sent, self.sender.dropped, len(self.exporter.batches)), (0, 4, 1))
