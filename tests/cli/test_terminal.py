"""What ``inspect`` and ``reload`` show at a terminal."""

from __future__ import annotations

import io
import time
from typing import Any

from attrs import evolve
from msgspec import convert
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.drains import rows_of
from harn.cli.history import diff_lines, text_lines
from harn.cli.history import rows_of as history_rows
from harn.cli.inspect import ago
from harn.cli.ramp import rows_of as ramp_rows
from harn.cli.reports import describe_error, describe_success
from harn.cli.sources import History
from harn.cli.terminal import (
    print_inspection,
    print_lines,
    print_rows,
    shown,
    watch_rows,
)
from harn.clocks import rfc3339
from harn.history.model import describe_history
from harn.orchestrator.operations import Inspection
from harn.reload.results import ProbationInfo, ReloadResult
from harn.store.generations import GenerationRecord
from tests.cli.test_commands import ERROR, REPORT
from tests.cli.test_drains import held, ramp
from tests.cli.test_history import RECORD

FOUND: dict[str, Any] = {
    "triggers": [
        {
            "id": "gh",
            "provider": "github",
            "version": 2,
            "state": "draining",
            "share": 12.5,
            "received": 7,
            "refused": 2,
            "dispatched": 5,
            "failed": 1,
            "dlq": 1,
            "in_flight": 3,
            "accepted": 40,
            "running": 1,
            "waiting": 2,
            "dead": 9,
            "last_success": "2026-11-30T08:00:00.000Z",
        }
    ],
    "snapshot": {
        "status": "running",
        "generation": 4,
        "last_reload": {"source": "cli", "actor": "me", "status": "ok", "at": "2026", "error": None},
    },
    "dispatcher": {"in_flight": 0, "queued": 12, "waiting_retries": 0},
    "connectors": [],
    "activations": [],
    "recent_dispatches": [
        {"kind": "dispatch_failed", "occurred_at_ms": 0, "binding_key": "gh@v1", "attempt": 1, "error": "old"},
        {"kind": "dispatch_failed", "occurred_at_ms": 0, "binding_key": "gh@v2", "attempt": 3, "error": "[red]\x1b[2J"},
    ],
}

NOTHING: dict[str, Any] = {
    "triggers": [],
    "connectors": [],
    "activations": [],
    "snapshot": {"status": "running"},
    "recent_dispatches": [],
}


def generation(**fields: Any) -> GenerationRecord:
    """Make a generation as the store has it."""
    usual: dict[str, Any] = {"number": 1, "adopted_at": 1.0, "recalled": None, "reason": "", "actor": "key:1"}
    return evolve(RECORD, **{**usual, "summary": {"added": ["a"]}, **fields})


class TerminalTests(SynchronousTestCase):
    """Tables and colours."""

    def inspected(self, dispatches: int) -> str:
        """Return what ``inspect`` shows, without colours."""
        stream = io.StringIO()
        print_inspection(convert(FOUND, Inspection), dispatches, Console(file=stream, width=120))
        return stream.getvalue()

    def test_lines_that_end_as_dos_has_them(self) -> None:
        """The end of a line of a manifest or a diff is not shown; any other carriage return is, and moves no cursor."""
        stream = io.StringIO()
        print_lines([*text_lines("m", "a = 1\r\nb\r = 2\r\n"), *diff_lines("-x\r\n+y\r\n")], stream)
        self.assertEqual(stream.getvalue().splitlines()[2:], ["a = 1", "b\\r = 2", "-x", "+y"])

    def test_inspection(self) -> None:
        """The tables have the server's facts, each version with its counts, and the newest attempts."""
        said = self.inspected(1)
        for pattern in (
            r"status +running",
            r"last_reload +cli me ok 2026",
            r"queued +12",
            r"gh@v2 +draining +12.5 % +40 +1 +2 +9 +2 ",
        ):
            self.assertRegex(said, pattern)
        self.assertRegex(said, r"1970-01-01 00:00:00 +gh@v2 +3 +failed")
        self.assertNotIn("old", said)

    def test_figures_of_a_trigger(self) -> None:
        """Versions of one trigger show its figures once; nothing is cut at 80 columns."""
        older = {**FOUND["triggers"][0], "id": "github-issues", "version": 1}
        found = {**FOUND, "triggers": [{**older, "version": 2, "state": "active"}, older]}
        stream = io.StringIO()
        print_inspection(convert(found, Inspection), 1, Console(file=stream, width=80))
        said = stream.getvalue()
        self.assertRegex(said, r"github-issues@v2 +active +12.5 % +40 ")
        self.assertRegex(said, r"github-issues@v1 +draining +12.5 % +- ")
        self.assertRegex(said, r"(?s)too wide to show: .*; see --json")
        self.assertNotIn("\N{HORIZONTAL ELLIPSIS}", said)

    def test_ago(self) -> None:
        """Times are shown as how long ago, or in how long."""
        self.patch(time, "time", lambda: 1_000_000.0)
        for seconds, words in ((-5, "5s ago"), (-300, "5m ago"), (-7200, "2h ago"), (-200000, "2d ago"), (90, "in 2m")):
            self.assertEqual(ago(rfc3339(1_000_000.0 + seconds)), words)
        self.assertIsNone(ago(None))

    def test_nothing_steers_the_terminal(self) -> None:
        """Neither rich's markup nor escape sequences in what senders and handlers wrote have a meaning."""
        self.assertIn("[red]\\x1b[2J", self.inspected(1))
        self.assertEqual(shown("a\nb\x07").plain, "a\\nb\\x07")

    def test_inspection_of_nothing(self) -> None:
        """A server that has said nothing yet has empty tables."""
        stream = io.StringIO()
        print_inspection(convert(NOTHING, Inspection), 5, Console(file=stream, width=120))
        self.assertIn("Triggers", stream.getvalue())

    def test_lines(self) -> None:
        """The lines of a report are those that a file gets, one for each whatever the width."""
        success, error = convert(REPORT, ReloadResult), convert(ERROR, ReloadResult)
        for lines in (list(describe_success(success)), list(describe_error(error))):
            stream = io.StringIO()
            print_lines(lines, stream)
            self.assertEqual(stream.getvalue().splitlines(), [text for text, _ in lines])


class ReloadTableTests(SynchronousTestCase):
    """The tables of history, ramps and drains."""

    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.console = Console(file=self.stream, width=160)

    def test_history(self) -> None:
        """The live generation has a star; a rollback says what it went back to, and why."""
        rolled = generation(number=8, recalled=5, reason="not confirmed")
        undone = generation(number=7)
        probation = ProbationInfo(generation=7, fallback=6, began_at="2025", until="2026")
        found = History(generations=describe_history([rolled, undone], 8), probation=probation)
        print_rows(history_rows(found), self.console)
        said = self.stream.getvalue()
        self.assertRegex(said, r"\* +8 +1970\S+ +\+1 ~0 -0 +cli +key:1 +content of 5: not confirmed")
        self.assertRegex(said, r"\n +7 +1970.+ on probation until 2026")

    def test_ramps(self) -> None:
        """A ramp shows both versions, the share, and how the new one fares; one that was aborted, why."""
        running = ramp(percent=12.5, attempts=9, failures=0, next_step_at="soon")
        aborted = ramp(state="aborted", percent=0.0, why="3 of 4 failed", attempts=4, failures=3)
        print_rows(ramp_rows([running, aborted]), self.console)
        said = self.stream.getvalue()
        self.assertRegex(said, r"gh +running +gh@v3 +12.5 % +gh@v2 +soon +9 +0")
        self.assertRegex(said, r"gh +aborted +gh@v3 +0 % +gh@v2 +- +4 +3 +3 of 4 failed")

    def test_drains(self) -> None:
        """A version shows its age, its deadline, its load and its oldest event; an empty list is said to be empty."""
        print_rows(rows_of([held()]), self.console)
        self.assertRegex(self.stream.getvalue(), r"gh@v1 +2 s +2026\S+ +3 +2 +1 +0 +false +trigger_evt_1 2026")
        print_rows(rows_of([]), self.console)
        self.assertTrue(self.stream.getvalue().endswith("nothing drains\n"))

    def test_watching(self) -> None:
        """What is drawn last stays: that nothing drains."""
        watch_rows((rows_of(each) for each in ([held()], [])), self.console)
        self.assertTrue(self.stream.getvalue().rstrip().endswith("nothing drains"))

    def test_nothing_steers_the_terminal(self) -> None:
        """Neither a trigger's name nor a reason has a meaning to the terminal."""
        hostile = "[red]\x1b[2J"
        print_rows(ramp_rows([ramp(trigger_id=hostile, why=hostile)]), self.console)
        print_rows(rows_of([held(hostile, hostile)]), self.console)
        entries = describe_history([generation(number=1, reason=hostile, actor=hostile)], None)
        print_rows(history_rows(History(generations=entries)), self.console)
        print_lines([(f"a\t{hostile}", "")], self.stream)
        said = self.stream.getvalue()
        self.assertNotIn("\x1b", said)
        self.assertEqual(said.count("[red]\\x1b[2J"), 7)
        self.assertIn("a    [red]", said)
