"""Tables that fit the terminal: no name is cut, whatever the width."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert
from rich.console import Console
from rich.text import Text
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.drains import rows_of
from harn.cli.history import rows_of as history_rows
from harn.cli.ramp import rows_of as ramp_rows
from harn.cli.rows import Column
from harn.cli.sources import History
from harn.cli.tables import fitted
from harn.cli.terminal import print_inspection, print_rows, watch_rows
from harn.history.model import describe_history
from harn.orchestrator.operations import Inspection
from tests.cli.test_drains import held, ramp
from tests.cli.test_terminal import FOUND, generation

COLUMNS = (
    *(Column("Trigger"), Column("Provider", drop=2), Column("Count", drop=1, is_right=True), Column("State")),
    Column("Why", wraps=True),
)
ROW = ("gh-webhook@v1", "github", "7", "draining", "an error that is long enough to need wrapping, of trigger_evt_0199")
LONG = "a-trigger-with-a-name-of-more-than-forty-characters"


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
            print_rows(rows_of([drain]), console)
            print_rows(history_rows(History(generations=describe_history([entry], None))), console)
            said = stream.getvalue()
            self.assertNotIn("\N{HORIZONTAL ELLIPSIS}", said)
            for name in (digest, f"{LONG}@v1", f"{LONG}@v3", event):
                self.assertIn(name, said)
            self.assertGreaterEqual(said.count(f"{LONG}@v1"), 2)

    def test_watched_table_stays_in_the_width(self) -> None:
        """A drawing that replaces itself has no line that the terminal would break."""
        stream = io.StringIO()
        watch_rows(iter([rows_of([held(f"{LONG}@v1")])]), Console(file=stream, width=40))
        self.assertLessEqual(max(map(len, stream.getvalue().splitlines())), 40)
