"""Drawing at a terminal, with rich; imported only when an output is a terminal, since its import takes long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any

from msgspec import UNSET, to_builtins
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from harn.cli.inspect import tables_of
from harn.cli.lines import written
from harn.cli.rows import STATES, Column, Rows
from harn.cli.tables import Fitted, fitted
from harn.model.display import visible
from harn.orchestrator.operations import Inspection


def spinner(text: str) -> AbstractContextManager[object]:
    """Show a spinner at the cursor, beside ``text``, until the context is left; then remove it."""
    return Console().status(Text(text))


def print_lines(lines: Iterable[tuple[str, str]], stream: IO[str]) -> None:
    """
    Print lines, each given as its text and a style of rich.

    A text may have lines that end as DOS has them. That belongs to the text, but is nothing to be seen.
    """
    console = Console(file=stream, highlight=False)
    for text, style in lines:
        console.print(shown(text.removesuffix("\r"), style), soft_wrap=True)


def print_inspection(found: Inspection, shown_dispatches: int, console: Console | None = None) -> None:
    """Print what ``inspect`` found: the server's facts as lines, the rest as tables."""
    console = Console() if console is None else console
    in_hand = {} if found.dispatcher is UNSET else to_builtins(found.dispatcher)
    print_facts({**to_builtins(found.snapshot), **in_hand}, console)
    for rows in tables_of(found, shown_dispatches):
        print_rows(rows, console)


def progress_bar() -> Progress:
    """Return a bar on standard error: for how long it runs, how much is done, and how long it will take."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def shown(value: Any, style: str = "") -> Text:
    """Write a value as text that cannot steer the terminal: senders control kinds, results and errors."""
    return Text(visible(written(value)).replace("\t", "    "), style)


def print_facts(facts: Mapping[str, Any], console: Console) -> None:
    """Print a line for each fact; one that is too long goes on in the next line, whole."""
    longest = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = " ".join(written(each) for each in value.values() if each is not None)
        style = STATES.get(str(value), "") if name == "status" else ""
        console.print(Text(f"  {name:<{longest}}  ") + shown(value, style), soft_wrap=True)


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
    """Return what shows rows in so many cells."""
    if rows.none and not rows.rows:
        return Fitted(Text(rows.none, "green"))
    return fitted(
        rows.heading, rows.columns, [[cell(column, row) for column in rows.columns] for row in rows.rows], width
    )


def cell(column: Column, row: Any) -> Text:
    """Return the cell of a row in a column, in its style."""
    value = column.value(row)
    return shown(value, column.styles.get(str(value), column.style))
