"""The figures that `benchmarks.paired` compares are those that benchmarks print."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Goals, Table, spread
from benchmarks.paired import compare, figures


def printed() -> str:
    """Return the output of a benchmark of two tables and a goal."""
    one = Table("Start and rest", ("what", "ms", "of it, x import"))
    one.add("ready to serve 10,000 triggers", spread([1988.0, 2000.0, 2100.0]), spread([3.05], 2))
    one.add("failed", "", "0 of 70,646")
    other = Table("At rest", ("triggers", "RSS of all (MiB)"))
    other.add("10", "140.1 (139.0-141.0)")
    goals = Goals()
    goals.at_most("ready (ms)", 600, [613.0])
    with redirect_stdout(StringIO()) as output:
        output.write("round 1: idle 12 ms\n")
        for each in (one, other, goals):
            each.show()
    return output.getvalue()


class PairedTests(SynchronousTestCase):
    def test_figures(self) -> None:
        """Each cell that begins with a number is one, whatever stands between tables; goals are left out."""
        self.assertEqual(
            figures(printed()),
            {
                ("Start and rest", "ready to serve 10,000 triggers", "ms"): 2000.0,
                ("Start and rest", "ready to serve 10,000 triggers", "of it, x import"): 3.05,
                ("Start and rest", "failed", "of it, x import"): 0.0,
                ("At rest", "10", "RSS of all (MiB)"): 140.1,
            },
        )

    def test_compare(self) -> None:
        """Figures that both have are set side by side, with the ratio round by round."""
        before = {("T", "a", "ms"): [10.0, 20.0], ("T", "gone", "ms"): [1.0, 1.0], ("U", "zero", "ms"): [0.0, 0.0]}
        now = {("T", "a", "ms"): [5.0, 30.0], ("U", "zero", "ms"): [0.0, 1.0]}
        tables = {table.title: [tuple(row) for row in table.rows] for table in compare(before, now)}
        self.assertEqual(tables["T"], [("a: ms", "15.0 (10.0-20.0)", "17.5 (5.0-30.0)", "1.00 (0.50-1.50)")])
        self.assertEqual(tables["U"], [("zero: ms", "0.0 (0.0-0.0)", "0.5 (0.0-1.0)", "")])
