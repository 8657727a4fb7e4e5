"""Refused requests in the log."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.refusals import EVERY, MOST, Refusals


class RefusalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.refusals = Refusals(self.clock)
        globalLogPublisher.addObserver(cast(ILogObserver, self._keep))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, self._keep))

    def _keep(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "harn.listener":
            self.lines.append(formatEvent(event))

    def test_once_a_minute(self) -> None:
        """The first is said at once, the others are counted until a minute is over; other kinds are said apart."""
        for _ in range(3):
            self.refusals.note("gh", 400, "the body is not JSON")
        self.refusals.note("gh", 401, "no signature")
        self.refusals.note("other", 400, "the body is not JSON")
        self.clock.advance(EVERY)
        self.refusals.note("gh", 400, "bad\x1b[31m\n" + "x" * 1000)
        said = "trigger gh: a request was refused with 400"
        self.assertEqual(self.lines[0], f"{said}: the body is not JSON")
        self.assertEqual(self.lines[1], "trigger gh: a request was refused with 401: no signature")
        self.assertEqual(len(self.lines), 4)
        self.assertTrue(self.lines[3].startswith(f"{said} (2 more since the last line like this): bad"), self.lines[3])
        self.assertNotIn("\x1b", self.lines[3])
        self.assertNotIn("\n", self.lines[3])
        self.assertLess(len(self.lines[3]), 700)

    def test_bounded(self) -> None:
        """However many triggers there are, so many are remembered; the old ones make room."""
        for number in range(MOST + 10):
            self.refusals.note(f"t{number}", 400, "x")
        self.assertEqual(len(self.lines), MOST)
        self.clock.advance(EVERY)
        for number in range(MOST + 10):
            self.refusals.note(f"new{number}", 400, "x")
        self.assertEqual(len(self.lines), 2 * MOST)
