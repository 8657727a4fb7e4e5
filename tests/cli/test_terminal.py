"""What a terminal shows: tables that fit it without cutting a name, ``inspect``, and reports of reloads."""

from __future__ import annotations

import io
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert
from msgspec.structs import replace
from rich.console import Console
from rich.text import Text
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.generations import History, diff_lines, history_rows, ramp_rows, text_lines
from harn.cli.inspect import ago
from harn.cli.reload import describe_error, describe_success
from harn.cli.rows import Column
from harn.cli.terminal import (
    fitted,
    print_inspection,
    print_rows,
    print_styled,
    safe_text,
    watch_rows,
)
from harn.cli.unfinished import drain_rows
from harn.clocks import rfc3339
from harn.history.operations import describe_history
from harn.orchestrator.operations import Inspection
from harn.reload.results import ProbationInfo, ReloadResult
from harn.store.generations import GenerationRecord
from tests.cli.test_commands import ERROR, REPORT
from tests.cli.test_generations import RECORD
from tests.cli.test_unfinished import held, ramp

COLUMNS = (
    *(Column("Trigger"), Column("Provider", drop=2), Column("Count", drop=1, is_right=True), Column("State")),
    Column("Why", wraps=True),
)
ROW = ("gh-webhook@v1", "github", "7", "draining", "an error that is long enough to need wrapping, of trigger_evt_0199")
LONG = "a-trigger-with-a-name-of-more-than-forty-characters"
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
    """Make a generation as the store holds it."""
    usual: dict[str, Any] = {"number": 1, "adopted_at": 1.0, "recalled": None, "reason": "", "actor": "key:1"}
    return replace(RECORD, **{**usual, "summary": {"added": ["a"]}, **fields})


class TerminalTests(SynchronousTestCase):
    """Tables and colours."""

    def inspected(self, dispatches: int) -> str:
        """Return the output of ``inspect``, without colours."""
        stream = io.StringIO()
        print_inspection(convert(FOUND, Inspection), dispatches, Console(file=stream, width=120))
        return stream.getvalue()

    def test_lines_that_end_as_dos_has_them(self) -> None:
        """The end of a line of a manifest or a diff is not shown; any other carriage return is, and moves no cursor."""
        stream = io.StringIO()
        print_styled([*text_lines("m", "a = 1\r\nb\r = 2\r\n"), *diff_lines("-x\r\n+y\r\n")], stream)
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
        self.assertEqual(safe_text("a\nb\x07").plain, "a\\nb\\x07")

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
            print_styled(lines, stream)
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
        """A ramp shows both versions, the share, and the outcomes of the new one; one that was aborted, why."""
        running = ramp(percent=12.5, attempts=9, failures=0, next_step_at="soon")
        aborted = ramp(state="aborted", percent=0.0, why="3 of 4 failed", attempts=4, failures=3)
        print_rows(ramp_rows([running, aborted]), self.console)
        said = self.stream.getvalue()
        self.assertRegex(said, r"gh +running +gh@v3 +12.5 % +gh@v2 +soon +9 +0")
        self.assertRegex(said, r"gh +aborted +gh@v3 +0 % +gh@v2 +- +4 +3 +3 of 4 failed")

    def test_drains(self) -> None:
        """A version shows its age, its deadline, its load and its oldest event; an empty list is said to be empty."""
        print_rows(drain_rows([held()]), self.console)
        self.assertRegex(self.stream.getvalue(), r"gh@v1 +2 s +2026\S+ +3 +2 +1 +0 +false +trigger_evt_1 2026")
        print_rows(drain_rows([]), self.console)
        self.assertTrue(self.stream.getvalue().endswith("nothing drains\n"))

    def test_watching(self) -> None:
        """What is drawn last stays: that nothing drains."""
        watch_rows((drain_rows(each) for each in ([held()], [])), self.console)
        self.assertTrue(self.stream.getvalue().rstrip().endswith("nothing drains"))

    def test_nothing_steers_the_terminal(self) -> None:
        """Neither a trigger's name nor a reason has a meaning to the terminal."""
        hostile = "[red]\x1b[2J"
        print_rows(ramp_rows([ramp(trigger_id=hostile, why=hostile)]), self.console)
        print_rows(drain_rows([held(hostile, hostile)]), self.console)
        entries = describe_history([generation(number=1, reason=hostile, actor=hostile)], None)
        print_rows(history_rows(History(generations=entries)), self.console)
        print_styled([(f"a\t{hostile}", "")], self.stream)
        said = self.stream.getvalue()
        self.assertNotIn("\x1b", said)
        self.assertEqual(said.count("[red]\\x1b[2J"), 7)
        self.assertIn("a    [red]", said)


def drawn(width: int, *rows: tuple[str, ...]) -> str:
    """Draw rows in a width."""
    stream = io.StringIO()
    fitted("", COLUMNS, [[Text(cell) for cell in row] for row in rows], width).print(Console(file=stream, width=width))
    return stream.getvalue()


class FittedTests(SynchronousTestCase):
    """Rows in a width."""

    def test_wide(self) -> None:
        """Where there is room, everything is in one line."""
        self.assertRegex(drawn(140, ROW), r"gh-webhook@v1 +github +7 +draining +an error .*0199")

    def test_narrow(self) -> None:
        """Texts are wrapped between words; then columns are left out, and named, in the order of their numbers."""
        said = drawn(80, ROW)
        self.assertNotIn("too wide", said)
        self.assertIn("trigger_evt_0199", said)
        self.assertIn("too wide to show: Provider; see --json", drawn(60, ROW))
        self.assertIn("too wide to show: Provider, Count; see --json", drawn(54, ROW))

    def test_empty_columns_first(self) -> None:
        """A column without anything to say is left out before any other, and not missed."""
        said = drawn(60, (*ROW[:4], ""))
        self.assertNotIn("Why", drawn(45, (*ROW[:4], "")))
        self.assertNotIn("too wide", said)

    def test_below(self) -> None:
        """A column that must not be left out is written below its row, with its name, wrapped; an empty cell is not."""
        columns = [Column("Trigger"), Column("Kind", drop=3), Column("Tries", drop=1, is_below=True), Column("State")]
        columns.append(Column("Error", drop=2, is_below=True, wraps=True))
        error = "an error that is long enough to need wrapping, of trigger_evt_0199"
        rows = [
            [Text(cell) for cell in row] for row in (("gh@v1", "k" * 20, "3", "dead", error), ("b", "", "1", "", ""))
        ]
        stream = io.StringIO()
        fitted("", columns, rows, 45).print(Console(file=stream, width=45))
        self.assertEqual(
            [line.rstrip() for line in stream.getvalue().splitlines()][2:],
            [
                "  gh@v1     3       dead",
                "    Error: an error that is long enough to",
                "    need wrapping, of trigger_evt_0199",
                "  b         1",
                "  too wide to show: Kind; see --json",
            ],
        )
        stream = io.StringIO()
        fitted("", columns, rows, 20).print(Console(file=stream, width=20))
        self.assertIn("Tries: 3 Error: an error", " ".join(stream.getvalue().split()))

    def test_too_narrow(self) -> None:
        """Where no table fits, each cell has a line, and the terminal breaks it."""
        said = drawn(30, (LONG, *ROW[1:]))
        self.assertIn(f"Trigger: {LONG}\n", said)
        self.assertIn(f"Why: {ROW[4]}\n", said)

    @given(st.integers(20, 200), st.lists(st.from_regex(r"[a-z0-9@_-]{1,60}", fullmatch=True), min_size=1, max_size=4))
    def test_no_name_is_cut(self, width: int, names: list[str]) -> None:
        """Each name is whole in the output, at every width, and no table is wider than the terminal."""
        said = drawn(width, *((name, "github", "7", name, "why") for name in names))
        for name in names:
            self.assertEqual(said.count(name) >= 2, True, said)
        if "Trigger: " not in said:
            self.assertLessEqual(max(len(line.rstrip()) for line in said.splitlines()), width)


class CommandTableTests(SynchronousTestCase):
    """The tables of the commands, at 80 and 40 columns."""

    def test_names_are_whole(self) -> None:
        """Names, versions, ids and digests are whole in all of them."""
        digest = "sha256:" + "0" * 64
        event = "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057"
        inspected = {
            **FOUND,
            "snapshot": {"status": "running", "digest": digest},
            "triggers": [{**FOUND["triggers"][0], "id": LONG}],
            "recent_dispatches": [{"kind": "dispatch_failed", "binding_key": f"{LONG}@v1", "error": f"of {event}"}],
        }
        ramping = ramp(trigger_id=LONG, stable=f"{LONG}@v2", fresh=f"{LONG}@v3")
        drain = held(f"{LONG}@v1", event)
        entry = generation(number=12, reason=f"of {event}")
        for width in (80, 40):
            stream = io.StringIO()
            console = Console(file=stream, width=width)
            print_inspection(convert(inspected, Inspection), 5, console)
            print_rows(ramp_rows([ramping]), console)
            print_rows(drain_rows([drain]), console)
            print_rows(history_rows(History(generations=describe_history([entry], None))), console)
            said = stream.getvalue()
            self.assertNotIn("\N{HORIZONTAL ELLIPSIS}", said)
            for name in (digest, f"{LONG}@v1", f"{LONG}@v3", event):
                self.assertIn(name, said)
            self.assertGreaterEqual(said.count(f"{LONG}@v1"), 2)

    def test_watched_table_stays_in_the_width(self) -> None:
        """A drawing that replaces itself has no line that the terminal would break."""
        stream = io.StringIO()
        watch_rows(iter([drain_rows([held(f"{LONG}@v1")])]), Console(file=stream, width=40))
        self.assertLessEqual(max(map(len, stream.getvalue().splitlines())), 40)
