"""
Two checkouts side by side: one benchmark of each in turn, round by round, and every figure of one over the other's.

``python -m benchmarks paired --against ../before reload --triggers 10`` runs ``reload --triggers 10 --rounds 1`` in the
directory ``../before`` and in this one, in an order that changes. Each checkout runs its own benchmark, with the Python
of its ``.venv`` if it has one, so that figures are compared that both have.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Table, spread

Figure = tuple[str, str, str]
"""The title of a table, the first cell of a row, the name of a column."""

_NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")


def figures(output: str) -> dict[Figure, float]:
    """Return the figures of the tables in a benchmark's output: the number that a cell begins with."""
    return dict(_figures(output.splitlines()))


def _figures(lines: Sequence[str]) -> Iterator[tuple[Figure, float]]:
    title, begins, columns = "", list[int](), list[str]()
    for before, line in zip(("", *lines), lines, strict=False):
        if not line.startswith("  "):
            title, begins = line, []
        elif set(line) <= {" ", "-"}:
            begins = [dashes.start() for dashes in re.finditer("-+", line)]
            columns = _cells(before, begins)
        elif begins and title != "Goals":
            row, *cells = _cells(line, begins)
            for column, cell in zip(columns[1:], cells, strict=True):
                found = _NUMBER.match(cell)
                if found is not None:
                    yield (title, row, column), float(found[0].replace(",", ""))


def _cells(line: str, begins: Sequence[int]) -> list[str]:
    """Return the texts of the columns that begin at these places."""
    return [line[begin:end].strip() for begin, end in zip(begins, (*begins[1:], None), strict=True)]


def run(checkout: Path, arguments: Sequence[str]) -> dict[Figure, float]:
    """Run one round of a benchmark in a checkout; return its figures."""
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python) if python.exists() else sys.executable, "-m", "benchmarks", *arguments, "--rounds", "1"]
    done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=False)
    found = figures(done.stdout)
    if not found:
        raise SystemExit(f"{' '.join(command)} in {checkout} printed no figures:\n{done.stdout}")
    return found


def compare(before: Mapping[Figure, Sequence[float]], now: Mapping[Figure, Sequence[float]]) -> list[Table]:
    """Return a table for each that both have, with each figure of both, and the ratio round by round."""
    tables: dict[str, Table] = {}
    for figure, values in before.items():
        if len(now.get(figure, ())) != len(values):
            continue
        title, row, column = figure
        table = tables.setdefault(title, Table(title, ("what", "before", "now", "now / before")))
        ratios = [new / old for old, new in zip(values, now[figure], strict=True) if old]
        table.add(f"{row}: {column}", spread(values), spread(now[figure]), spread(ratios, 2) if ratios else "")
    return list(tables.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both in turn, print the figures of both; no goal is missed here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks paired", description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="the directory of the other checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("benchmark", nargs=argparse.REMAINDER, help="its name, and its options but --rounds")
    options = parser.parse_args(arguments)
    if not options.benchmark:
        parser.error("name a benchmark, for example reload")
    checkouts = {"before": options.against.resolve(), "now": Path.cwd()}
    found: dict[str, dict[Figure, list[float]]] = {name: defaultdict(list) for name in checkouts}
    for number in range(options.rounds):
        for name in list(checkouts)[:: 1 if number % 2 else -1]:
            for figure, value in run(checkouts[name], options.benchmark).items():
                found[name][figure].append(value)
        print(f"round {number + 1} of {options.rounds}", flush=True)
    for table in compare(found["before"], found["now"]):
        table.show()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
