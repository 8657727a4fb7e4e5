"""Figures: medians over rounds, ratios within a round, and how they are printed beside their goals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from attrs import define, field


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Write the median, with the least and the greatest behind it."""
    least, middle, most = min(values), median(values), max(values)
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


@define
class Table:
    """Rows of text under a title; columns as wide as they must be."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def show(self) -> None:
        """Print it."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        print(f"\n{self.title}")
        for row in (self.columns, ["-" * width for width in widths], *self.rows):
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@define
class Goals:
    """The promised figures, and the measured ones."""

    missed: int = 0
    table: Table = field(factory=lambda: Table("Goals", ("goal", "wanted", "measured", "")))

    def at_least(self, what: str, wanted: float, values: Sequence[float], digits: int = 2) -> None:
        """Record a figure of which the median should be ``wanted`` or more."""
        self._note(what, f">= {wanted:g}", values, digits, median(values) >= wanted)

    def at_most(self, what: str, wanted: float, values: Sequence[float], digits: int = 2) -> None:
        """Record a figure of which the median should be ``wanted`` or less."""
        self._note(what, f"<= {wanted:g}", values, digits, median(values) <= wanted)

    def _note(self, what: str, wanted: str, values: Sequence[float], digits: int, met: bool) -> None:
        self.missed += not met
        self.table.add(what, wanted, spread(values, digits), "met" if met else "MISSED")

    def show(self) -> None:
        """Print them all."""
        self.table.show()
