"""What ``inspect`` and ``reload`` show at a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.reports import describe_error, describe_success
from harn.cli.terminal import print_inspection, print_lines, shown
from tests.cli.test_commands import ERROR, REPORT

FOUND = {
    "triggers": [
        {
            "id": "gh",
            "provider": "github",
            "version": 2,
            "state": "draining",
            "received": 7,
            "dispatched": 5,
            "failed": 1,
            "dlq": 1,
            "in_flight": 3,
        }
    ],
    "snapshot": {"status": "running", "generation": 4, "last_reload": {"source": "cli", "status": "ok", "error": None}},
    "dispatcher": {"queued": 12},
    "recent_dispatches": [
        {"kind": "dispatch_failed", "occurred_at_ms": 0, "binding_key": "gh@v1", "attempt": 1, "error": "old"},
        {"kind": "dispatch_failed", "occurred_at_ms": 0, "binding_key": "gh@v2", "attempt": 3, "error": "[red]\x1b[2J"},
    ],
}


class TerminalTests(SynchronousTestCase):
    """Tables and colours."""

    def inspected(self, dispatches: int) -> str:
        """Give what ``inspect`` shows, without colours."""
        stream = io.StringIO()
        print_inspection(FOUND, dispatches, Console(file=stream, width=120))
        return stream.getvalue()

    def test_inspection(self) -> None:
        """The tables have the server's facts, each version with its counts, and the newest attempts."""
        said = self.inspected(1)
        for pattern in (r"status +running", r"last_reload +cli ok", r"queued +12", r"gh@v2 +github +draining +7 +5 +1"):
            self.assertRegex(said, pattern)
        self.assertRegex(said, r"1970-01-01 00:00:00 +gh@v2 +3 +failed")
        self.assertNotIn("old", said)

    def test_nothing_steers_the_terminal(self) -> None:
        """Neither rich's markup nor escape sequences in what senders and handlers wrote have a meaning."""
        self.assertIn("[red]\N{REPLACEMENT CHARACTER}[2J", self.inspected(1))
        self.assertEqual(shown("a\nb\x07").plain, "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}")

    def test_inspection_of_nothing(self) -> None:
        """A server that has said nothing yet has empty tables."""
        stream = io.StringIO()
        print_inspection({}, 5, Console(file=stream, width=120))
        self.assertIn("Triggers", stream.getvalue())

    def test_lines(self) -> None:
        """The lines of a report are those that a file gets, one for each whatever the width."""
        for lines in (list(describe_success(REPORT)), list(describe_error(ERROR))):
            stream = io.StringIO()
            print_lines(lines, stream)
            self.assertEqual(stream.getvalue().splitlines(), [text for text, _ in lines])
