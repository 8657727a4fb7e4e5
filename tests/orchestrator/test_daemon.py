"""The report of a daemon's start to the command that starts it, and the exit status of that."""

from __future__ import annotations

import io
import os

from twisted.trial.unittest import SynchronousTestCase

from harn.orchestrator.daemon import StartReport, outcome


class OutcomeTests(SynchronousTestCase):
    """A pipe between the two."""

    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.report = StartReport(self.writing)
        self.stderr = io.StringIO()

    def outcome(self) -> tuple[int, str]:
        """Return the command's exit status, and what it says."""
        return outcome(self.reading, "twistd.log", self.stderr), self.stderr.getvalue()

    def test_ready(self) -> None:
        """A server that is ready is a success, at once, whatever it says later."""
        self.report.ready()
        self.report.failed("too late")
        self.report.ready()
        self.assertEqual(self.outcome(), (0, ""))

    def test_failed(self) -> None:
        """Each reason is a line, up to the end of the process; no reason can look like a success."""
        self.report.failed("harn.toml:1: no\nharn.toml:2: no \0ready\n\udc80")
        os.close(self.writing)
        said = "error: harn.toml:1: no\nerror: harn.toml:2: no ready\nerror: \\udc80\n"
        self.assertEqual(self.outcome(), (1, said))

    def test_gone(self) -> None:
        """A daemon that ends without a report is a failure, and its log is named; closed standard error is ignored."""
        os.close(self.writing)
        self.assertEqual(outcome(self.reading, "twistd.log", None), 1)
        self.assertEqual(self.outcome(), (1, "error: the server ended before it was ready; see twistd.log\n"))

    def test_nobody_reads(self) -> None:
        """A command that was interrupted does not disturb the server."""
        reading, writing = os.pipe()
        os.close(reading)
        report = StartReport(writing)
        report.failed("no")
        report.ready()
        os.close(self.writing)
