"""What people see at a terminal, made with rich; imported only where an output is one, since its import takes long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harn.cli.fire import written
from harn.cli.rows import Column, Rows
from harn.cli.tables import Fitted, fitted
from harn.model.visible import visible

_STATES = {
    "active": "green",
    "draining": "yellow",
    "running": "green",
    "finished": "green",
    "stopped": "yellow",
    "aborted": "red",
    "crashed": "red",
}
_OUTCOMES = {
    "dispatch_succeeded": ("succeeded", "green"),
    "dispatch_skipped": ("skipped", "yellow"),
    "dispatch_failed": ("failed", "red"),
}
_COUNTS = {"received": 8, "refused": 7, "dispatched": 6, "failed": 5, "dlq": 4, "in_flight": 2}
"""What is counted of a trigger, and how early its column is left out of a narrow table."""


def spinner(text: str) -> AbstractContextManager[object]:
    """Turn at the cursor, beside ``text``, until the context is left; then leave no trace."""
    return Console().status(Text(text))


def print_lines(lines: Iterable[tuple[str, str]], stream: IO[str]) -> None:
    """
    Print lines, each given as its text and a style of rich.

    A text may have lines that end as DOS has them. That belongs to the text, but is nothing to be seen.
    """
    console = Console(file=stream, highlight=False)
    for text, style in lines:
        console.print(shown(text.removesuffix("\r"), style), soft_wrap=True)


def print_inspection(found: Mapping[str, Any], shown_dispatches: int, console: Console | None = None) -> None:
    """Print what ``inspect`` found: the server's facts as lines, the rest as tables."""
    console = Console() if console is None else console
    print_facts({**found.get("snapshot", {}), **found.get("dispatcher", {})}, console)
    trigger_table(found.get("triggers", ()), console.width).print(console)
    dispatch_table(found.get("recent_dispatches", ())[-shown_dispatches:], console.width).print(console)


def shown(value: Any, style: str = "") -> Text:
    """Write a value as text that cannot steer the terminal: senders have a hand in kinds, results and errors."""
    return Text(visible(written(value)).replace("\t", "    "), style)


def percent(value: Any) -> Text:
    """Write a share in percent."""
    return shown(f"{value:g} %" if isinstance(value, int | float) else None)


def print_facts(facts: Mapping[str, Any], console: Console) -> None:
    """Print a line for each fact; one that is too long goes on in the next line, whole."""
    longest = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = " ".join(written(each) for each in value.values() if each is not None)
        style = _STATES.get(str(value), "") if name == "status" else ""
        console.print(Text(f"  {name:<{longest}}  ") + shown(value, style), soft_wrap=True)


def trigger_table(triggers: Sequence[Mapping[str, Any]], width: int) -> Fitted:
    """Show each live or draining version, its share of new deliveries, and its counts since the server's start."""
    counts = [Column(name.replace("_", " "), drop=drop, is_right=True) for name, drop in _COUNTS.items()]
    columns = (Column("Trigger"), Column("Provider", drop=9), Column("State"), Column("Share", drop=3, is_right=True))
    rows = []
    for each in triggers:
        state = written(each.get("state"))
        rows.append(
            (
                shown(f"{each.get('id')}@v{each.get('version')}"),
                shown(each.get("provider")),
                shown(state, _STATES.get(state, "")),
                percent(each.get("share")),
                *(shown(each.get(name)) for name in _COUNTS),
            )
        )
    return fitted("Triggers", (*columns, *counts), rows, width)


def dispatch_table(dispatches: Sequence[Mapping[str, Any]], width: int) -> Fitted:
    """Show attempts, the newest last: when (UTC), of which binding, and how each ended."""
    columns = (
        *(Column("At", drop=1), Column("Binding"), Column("Attempt", drop=2), Column("Outcome")),
        Column("Result or error", wraps=True),
    )
    rows = []
    for each in dispatches:
        outcome, style = _OUTCOMES.get(written(each.get("kind")), (written(each.get("kind")), ""))
        at = datetime.fromtimestamp(each.get("occurred_at_ms", 0) / 1000, tz=timezone.utc)
        rows.append(
            (
                Text(f"{at:%Y-%m-%d %H:%M:%S}"),
                shown(each.get("binding_key")),
                shown(each.get("attempt")),
                shown(outcome, style),
                shown(each["error"] if each.get("error") else each.get("result")),
            )
        )
    return fitted("Recent dispatches", columns, rows, width)


def print_history(entries: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the generations that served; the live one has a star, ``summary`` is a text."""
    console = Console() if console is None else console
    columns = (
        *(Column(""), Column("Generation"), Column("Adopted at", drop=2), Column("Changes", drop=1)),
        *(Column("Source", drop=4), Column("Actor", drop=3), Column("Why", wraps=True), Column("Note", wraps=True)),
    )
    rows = []
    for each in entries:
        recalled = f"content of {each['recalled']}" if each.get("recalled") is not None else ""
        rows.append(
            (
                Text("*" if each.get("live") else ""),
                shown(each.get("generation"), "bold green" if each.get("live") else ""),
                *(shown(each.get(name)) for name in ("adopted_at", "summary", "source", "actor")),
                shown(": ".join(part for part in (recalled, each.get("reason") or "") if part)),
                shown(each.get("note") or "", "yellow"),
            )
        )
    fitted("", columns, rows, console.width).print(console)


def print_rows(rows: Rows, console: Console | None = None) -> None:
    """Print rows as a table that fits the console."""
    console = Console() if console is None else console
    table_of(rows, console.width).print(console)


def watch_rows(found: Iterator[Rows], console: Console | None = None) -> None:
    """Draw rows again and again in one place, as long as there are more to come."""
    with Live(console=console, auto_refresh=False) as live:
        for rows in found:
            live.update(table_of(rows, live.console.width).renderable, refresh=True)


def table_of(rows: Rows, width: int) -> Fitted:
    """Return what shows rows in so many cells."""
    if rows.none and not rows.rows:
        return Fitted(Text(rows.none, "green"))
    return fitted("", rows.columns, [[cell(column, row) for column in rows.columns] for row in rows.rows], width)


def cell(column: Column, row: Any) -> Text:
    """Return the cell of a row in a column, in its style."""
    value = column.value(row)
    return shown(value, column.styles.get(str(value), column.style))
