"""
Drawing at a terminal, with rich; imported only when an output is a terminal, since its import takes long.

Tables fit the terminal without cutting a name: long texts are wrapped, columns that matter less are left out or written
below their row, and where that is not enough each row becomes a few lines of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any

from msgspec import UNSET, Struct, to_builtins
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from harn.cli.inspect import tables_of
from harn.cli.rows import STATE_STYLES, Column, Rows, format_value
from harn.model.display import visible
from harn.orchestrator.operations import Inspection


def spinner(text: str) -> AbstractContextManager[object]:
    """Show a spinner at the cursor, beside ``text``, until the context is left; then remove it."""
    return Console().status(Text(text))


def print_styled(lines: Iterable[tuple[str, str]], stream: IO[str]) -> None:
    """
    Print lines, each given as its text and a style of rich.

    Carriage returns at the ends of lines are part of the text, but not drawn.
    """
    console = Console(file=stream, highlight=False)
    for text, style in lines:
        console.print(safe_text(text.removesuffix("\r"), style), soft_wrap=True)


def print_inspection(found: Inspection, shown_dispatches: int, console: Console | None = None) -> None:
    """Print the result of ``inspect``: the server's facts as lines, the rest as tables."""
    console = Console() if console is None else console
    in_hand = {} if found.dispatcher is UNSET else to_builtins(found.dispatcher)
    print_facts({**to_builtins(found.snapshot), **in_hand}, console)
    for rows in tables_of(found, shown_dispatches):
        print_rows(rows, console)


def progress_bar() -> Progress:
    """Return a bar on standard error: for how long it runs, how much is done, and how long it will take."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def safe_text(value: Any, style: str = "") -> Text:
    """Write a value as text that cannot steer the terminal: senders control kinds, results and errors."""
    return Text(visible(format_value(value)).replace("\t", "    "), style)


def print_facts(facts: Mapping[str, Any], console: Console) -> None:
    """Print a line for each fact; one that is too long continues in the next line, whole."""
    longest = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = " ".join(format_value(each) for each in value.values() if each is not None)
        style = STATE_STYLES.get(str(value), "") if name == "status" else ""
        console.print(Text(f"  {name:<{longest}}  ") + safe_text(value, style), soft_wrap=True)


def print_rows(rows: Rows, console: Console | None = None) -> None:
    """Print rows as a table that fits the console."""
    console = Console() if console is None else console
    table_of(rows, console.width).print(console)


def watch_rows(found: Iterator[Rows], console: Console | None = None) -> None:
    """Draw rows again and again in one place, as long as there are more to come."""
    with Live(console=console, auto_refresh=False) as live:
        for rows in found:
            live.update(table_of(rows, live.console.width).renderable, refresh=True)


def watch_screen(found: Iterator[Rows], console: Console | None = None) -> None:
    """Draw rows again and again on a screen of their own, no more than fit in its height."""
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for rows in found:
            live.update(table_of(rows, live.console.width).renderable, refresh=True)


def table_of(rows: Rows, width: int) -> Fitted:
    """Return a table that shows rows in so many cells."""
    if rows.none and not rows.rows:
        return Fitted(Text(rows.none, "green"))
    return fitted(
        rows.heading, rows.columns, [[cell(column, row) for column in rows.columns] for row in rows.rows], width
    )


def cell(column: Column, row: Any) -> Text:
    """Return the cell of a row in a column, in its style."""
    value = column.value(row)
    return safe_text(value, column.styles.get(str(value), column.style))


NARROWEST = 20
"""Cells that a text needs at least to be wrapped in."""
LONGEST_WORD = 50
"""Cells of the longest word of a text that is kept in one piece; an id has fewer."""
BESIDE = 3
"""Cells that a column takes beside its content: two of padding and one between columns."""
EDGES = 1
"""Cells that the edges of a table take beside those."""
INDENT = 4
"""Cells before what is written below a row."""


class Fitted(Struct, frozen=True):
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
    """Return a layout of ``rows``, each with a cell for each column, in ``width`` columns of a terminal."""
    sizes = [Size.of(column, [row[number] for row in rows]) for number, column in enumerate(columns)]
    shown = list(range(len(columns)))
    below: list[int] = []
    while needed(sizes, shown) > width:
        droppable = [number for number in shown if columns[number].drop or (rows and sizes[number].is_empty)]
        if not droppable:
            return listed(title, columns, rows)
        dropped = max(droppable, key=lambda number: (sizes[number].is_empty, columns[number].drop))
        shown.remove(dropped)
        if columns[dropped].is_below and not sizes[dropped].is_empty:
            below.append(dropped)
    below.sort()
    if any(sizes[number].longest_word > width - INDENT for number in below):
        return listed(title, columns, rows)
    left_out = [
        columns[number].name
        for number, size in enumerate(sizes)
        if number not in (*shown, *below) and not size.is_empty
    ]
    note = [Text(f"  too wide to show: {', '.join(left_out)}; see --json", "dim")] if left_out else []
    widths = widths_of(sizes, shown, width)
    if not below:
        return Fitted(Group(table(title, columns, widths, rows), *note))
    lines: list[RenderableType] = [table(title, columns, widths, (), has_edge=False)]
    for row in rows:
        lines.append(table("", columns, widths, [row], has_edge=False, has_head=False))
        text = below_text(columns, below, row)
        if text:
            lines.append(Padding(text, (0, 0, 0, INDENT)))
    return Fitted(Group(*lines, *note))


def widths_of(sizes: Sequence[Size], shown: Sequence[int], width: int) -> Mapping[int, int]:
    """Return the width of each column of these numbers: its least, and what room is left to the first that need it."""
    left = width - needed(sizes, shown)
    widths: dict[int, int] = {}
    for number in shown:
        more = min(left, sizes[number].natural - sizes[number].least)
        left -= more
        widths[number] = sizes[number].least + more
    return widths


def table(
    title: str,
    columns: Sequence[Column],
    widths: Mapping[int, int],
    rows: Iterable[Sequence[Text]],
    *,
    has_edge: bool = True,
    has_head: bool = True,
) -> RenderableType:
    """Return a table of the columns that ``widths`` has, by number."""
    made = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", show_edge=has_edge, show_header=has_head)
    for number, width in widths.items():
        column = columns[number]
        made.add_column(column.name, width=width, justify="right" if column.is_right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(row[number] for number in widths))
    return made if has_edge else Padding(made, (0, 0, 0, EDGES))


def below_text(columns: Sequence[Column], below: Sequence[int], row: Sequence[Text]) -> Text:
    """Return the text below a row: the columns of these numbers that are not empty, with their names."""
    cells = [(columns[number].name, row[number]) for number in below if row[number].plain not in ("", "-")]
    return Text("  ").join(Text.assemble((f"{name}: ", "dim"), cell) for name, cell in cells)


class Size(Struct, frozen=True):
    """
    The width of a column with its longest line, and ``least``, the minimum; whether it is empty.

    :ivar longest_word: the width of its longest word that is kept in one piece.
    """

    natural: int
    least: int
    is_empty: bool
    longest_word: int

    @classmethod
    def of(cls, column: Column, cells: Sequence[Text]) -> Size:
        """Measure a column."""
        natural = max([cell_len(column.name), *(cell_len(line) for cell in cells for line in cell.plain.split("\n"))])
        is_empty = all(cell.plain in ("", "-") for cell in cells)
        words = [cell_len(word) for cell in cells for word in cell.plain.split()]
        longest = max((size for size in words if size <= LONGEST_WORD or not column.wraps), default=0)
        least = min(natural, max(NARROWEST, cell_len(column.name), longest)) if column.wraps else natural
        return cls(natural, least, is_empty, longest)


def needed(sizes: Sequence[Size], shown: Sequence[int]) -> int:
    """Return the least width of a table of the columns of these numbers."""
    return sum(sizes[number].least + BESIDE for number in shown) + EDGES


def listed(title: str, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> Fitted:
    """Return a layout that shows each row as lines of a name and a value."""
    lines = [Text(title, "italic")] if title else []
    for row in rows:
        lines.append(Text(""))
        for column, cell in zip(columns, row, strict=True):
            if cell.plain:
                lines.append(Text.assemble((f"{column.name}: ", "bold") if column.name else "", cell))
    return Fitted(Group(*lines), is_soft=True)
