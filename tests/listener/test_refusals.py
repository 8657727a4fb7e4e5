"""Refused requests in the log."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.refusals import EVERY, SOURCES, SOURCES_OF_ONE, Refusals


class RefusalsTests(SynchronousTestCase):
    """Who was refused what, and how often."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.refusals = Refusals(self.clock)
        globalLogPublisher.addObserver(cast("ILogObserver", self._keep))
        self.addCleanup(globalLogPublisher.removeObserver, cast("ILogObserver", self._keep))

    def _keep(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "harn.listener":
            self.lines.append(formatEvent(event))

    def note(
        self, target: str = "trigger gh", status: int = 401, detail: str = "no", address: str = "192.0.2.1"
    ) -> None:
        """Refuse one request."""
        self.refusals.note(target, status, detail, address, address)

    def said(self) -> list[str]:
        """Return the lines since the last call."""
        found, self.lines = self.lines, []
        return found

    def test_each_source(self) -> None:
        """The first request of each source, target and status has a line, with the reason and the address."""
        self.note()
        self.note(address="192.0.2.2")
        self.note(status=400, detail="the body is not JSON")
        self.note("page /admin")
        self.assertEqual(
            self.said(),
            [
                "trigger gh: a request from 192.0.2.1 was refused with 401: no",
                "trigger gh: a request from 192.0.2.2 was refused with 401: no",
                "trigger gh: a request from 192.0.2.1 was refused with 400: the body is not JSON",
                "page /admin: a request from 192.0.2.1 was refused with 401: no",
            ],
        )

    def test_once_a_minute(self) -> None:
        """Further ones are counted, and logged after a minute; a source that stopped starts from the beginning."""
        for _ in range(3):
            self.note()
        self.note(detail="still no")
        self.said()
        self.clock.advance(EVERY)
        more = "trigger gh: 3 more requests from 192.0.2.1 were refused with 401 in 60 s: still no"
        self.assertEqual(self.said(), [more])
        self.clock.advance(EVERY)
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), ([], []))
        self.note()
        self.assertEqual(self.said(), ["trigger gh: a request from 192.0.2.1 was refused with 401: no"])

    def test_many_addresses(self) -> None:
        """A stranger with many addresses writes few lines; one says how many there were."""
        for number in range(SOURCES_OF_ONE + 50):
            self.note(address=f"192.0.2.{number}")
        self.note(address="192.0.2.69")
        self.assertEqual(len(self.said()), SOURCES_OF_ONE)
        self.clock.advance(EVERY)
        last = "the last one from 192.0.2.69: no"
        self.assertEqual(
            self.said(),
            [f"trigger gh: 51 more requests from 50 further addresses were refused with 401 in 60 s, {last}"],
        )

    def test_many_targets(self) -> None:
        """However many targets there are, memory and lines are bounded, and nothing is left uncounted."""
        for number in range(2 * SOURCES + 30):
            self.note(f"trigger t{number}")
        self.assertEqual(len(self.said()), SOURCES)
        self.clock.advance(EVERY)
        lines = self.said()
        self.assertEqual(len(lines), SOURCES + 1)
        self.assertTrue(lines[-1].startswith("many targets: 30 more requests from 1 further addresses"), lines[-1])
        self.clock.advance(EVERY)
        self.note("trigger new")
        self.assertEqual(len(self.said()), 1)

    def test_what_strangers_write(self) -> None:
        """Text of a request is shown on one line, without control characters, shortened."""
        self.note(detail="bad\x1b[31m\n[harn] error: forged" + "x" * 1000)
        [line] = self.said()
        self.assertNotIn("\x1b", line)
        self.assertNotIn("\n", line)
        self.assertLess(len(line), 700)

    def test_at_the_end(self) -> None:
        """What was counted is said when the server ends."""
        self.note()
        self.note()
        self.said()
        self.refusals.close()
        self.assertEqual(len(self.said()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
