"""
Tables that fit the terminal without cutting a name: columns that matter less are left out, long texts are wrapped, and
where that is not enough each row becomes a few lines of its own.

Imported only where an output is a terminal, since the import of rich takes long.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harn.cli.rows import Column

NARROWEST = 20
"""Cells that a text needs at least to be wrapped in."""
LONGEST_WORD = 50
"""Cells of the longest word of a text that is kept in one piece; an id has fewer."""
BESIDE = 3
"""Cells that a column takes beside its content: two of padding and one between columns."""
EDGES = 1
"""Cells that the edges of a table take beside those."""


@frozen
class Fitted:
    """
    A layout of rows for a width.

    :ivar is_soft: whether it is lines that the terminal is to wrap itself, so that a name can be copied whole.
    """

    renderable: RenderableType
    is_soft: bool = False

    def print(self, console: Console) -> None:
        """Print it."""
        console.print(self.renderable, soft_wrap=self.is_soft)


def fitted(title: str, columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Fitted:
    """Return what shows ``rows``, each with a cell for each column, in ``width`` columns of a terminal."""
    sizes = [Size.of(column, [row[number] for row in rows]) for number, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while needed(sizes, shown) > width:
        droppable = [number for number in shown if columns[number].drop or (rows and sizes[number].is_empty)]
        if not droppable:
            return listed(title, columns, rows)
        shown.remove(max(droppable, key=lambda number: (sizes[number].is_empty, columns[number].drop)))
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left")
    left = width - needed(sizes, shown)
    for number in shown:
        more = min(left, sizes[number].natural - sizes[number].least)
        left -= more
        table.add_column(
            columns[number].name,
            width=sizes[number].least + more,
            justify="right" if columns[number].is_right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    left_out = [columns[number].name for number, size in enumerate(sizes) if number not in shown and not size.is_empty]
    if not left_out:
        return Fitted(table)
    return Fitted(Group(table, Text(f"  too wide to show: {', '.join(left_out)}; see --json", "dim")))


@frozen
class Size:
    """The width of a column with its longest line, and ``least``, the minimum; whether it is empty."""

    natural: int
    least: int
    is_empty: bool

    @classmethod
    def of(cls, column: Column, cells: Sequence[Text]) -> Size:
        """Measure a column."""
        natural = max([cell_len(column.name), *(cell_len(line) for cell in cells for line in cell.plain.split("\n"))])
        is_empty = all(cell.plain in ("", "-") for cell in cells)
        if not column.wraps:
            return cls(natural, natural, is_empty)
        words = [size for cell in cells for word in cell.plain.split() if (size := cell_len(word)) <= LONGEST_WORD]
        return cls(natural, min(natural, max([NARROWEST, cell_len(column.name), *words])), is_empty)


def needed(sizes: Sequence[Size], shown: Sequence[int]) -> int:
    """Return the least width of a table of the columns of these numbers."""
    return sum(sizes[number].least + BESIDE for number in shown) + EDGES


def listed(title: str, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> Fitted:
    """Return what shows each row as lines of a name and a value."""
    lines = [Text(title, "italic")] if title else []
    for row in rows:
        lines.append(Text(""))
        for column, cell in zip(columns, row, strict=True):
            if cell.plain:
                lines.append(Text.assemble((f"{column.name}: ", "bold") if column.name else "", cell))
    return Fitted(Group(*lines), is_soft=True)
