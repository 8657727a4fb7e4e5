"""What people see at a terminal, made with rich; imported only where an output is one, since its import takes long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harn.cli.fire import written

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
_HELD = ("in_flight", "running", "queued", "waiting", "moved")
_COUNTS = ("received", "refused", "dispatched", "failed", "dlq", "in_flight")


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
        console.print(shown(text.removesuffix("\r").replace("\t", "    "), style), soft_wrap=True)


def print_inspection(found: Mapping[str, Any], shown_dispatches: int, console: Console | None = None) -> None:
    """Print what ``inspect`` found as tables."""
    console = Console() if console is None else console
    console.print(server_table(found.get("snapshot", {}), found.get("dispatcher", {})))
    console.print(trigger_table(found.get("triggers", ())))
    console.print(dispatch_table(found.get("recent_dispatches", ())[-shown_dispatches:]))


def shown(value: Any, style: str = "") -> Text:
    """Write a value as text that cannot steer the terminal: senders have a hand in kinds, results and errors."""
    text = written(value)
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text), style)


def percent(value: Any) -> Text:
    """Write a share in percent."""
    return shown(f"{value:g} %" if isinstance(value, int | float) else None)


def server_table(snapshot: Mapping[str, Any], dispatcher: Mapping[str, Any]) -> Table:
    """Show the server: a line for each fact."""
    table = Table("Server", "", box=SIMPLE_HEAD, show_header=False)
    for name, value in (*snapshot.items(), *dispatcher.items()):
        if isinstance(value, Mapping):
            value = " ".join(written(each) for each in value.values() if each is not None)
        table.add_row(name, shown(value, _STATES.get(str(value), "") if name == "status" else ""))
    return table


def trigger_table(triggers: Sequence[Mapping[str, Any]]) -> Table:
    """Show each live or draining version, its share of new deliveries, and its counts since the server's start."""
    table = Table("Trigger", "Provider", "State", box=SIMPLE_HEAD, title="Triggers", title_justify="left")
    table.add_column("Share", justify="right")
    for name in _COUNTS:
        table.add_column(name.replace("_", " "), justify="right")
    for each in triggers:
        state = written(each.get("state"))
        table.add_row(
            shown(f"{each.get('id')}@v{each.get('version')}"),
            shown(each.get("provider")),
            shown(state, _STATES.get(state, "")),
            percent(each.get("share")),
            *(shown(each.get(name)) for name in _COUNTS),
        )
    return table


def dispatch_table(dispatches: Sequence[Mapping[str, Any]]) -> Table:
    """Show attempts, the newest last: when (UTC), of what, and what came of it."""
    table = Table("At", "Binding", "Attempt", "Outcome", "Result or error", box=SIMPLE_HEAD)
    table.title, table.title_justify = "Recent dispatches", "left"
    for each in dispatches:
        outcome, style = _OUTCOMES.get(written(each.get("kind")), (written(each.get("kind")), ""))
        at = datetime.fromtimestamp(each.get("occurred_at_ms", 0) / 1000, tz=timezone.utc)
        table.add_row(
            f"{at:%Y-%m-%d %H:%M:%S}",
            shown(each.get("binding_key")),
            shown(each.get("attempt")),
            shown(outcome, style),
            shown(each["error"] if each.get("error") else each.get("result")),
        )
    return table


def print_history(entries: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the generations that served; the live one has a star, ``summary`` is a text."""
    table = Table("", "Generation", "Adopted at", "Changes", "Source", "Actor", "Why", "Note", box=SIMPLE_HEAD)
    for each in entries:
        recalled = f"content of {each['recalled']}" if each.get("recalled") is not None else ""
        table.add_row(
            "*" if each.get("live") else "",
            shown(each.get("generation"), "bold green" if each.get("live") else ""),
            *(shown(each.get(name)) for name in ("adopted_at", "summary", "source", "actor")),
            shown(": ".join(part for part in (recalled, each.get("reason") or "") if part)),
            shown(each.get("note") or "", "yellow"),
        )
    (Console() if console is None else console).print(table)


def print_ramps(ramps: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print each ramp: what share the fresh version has, and how it fares."""
    table = Table("Trigger", "State", "Fresh", "Share", "Stable", "Next step", box=SIMPLE_HEAD)
    for name in ("Attempts", "Failures", "Why"):
        table.add_column(name)
    for each in ramps:
        state = written(each.get("state"))
        table.add_row(
            shown(each.get("trigger_id")),
            shown(state, _STATES.get(state, "")),
            shown(each.get("fresh")),
            percent(each.get("percent")),
            *(shown(each.get(name)) for name in ("stable", "next_step_at", "attempts", "failures", "why")),
        )
    (Console() if console is None else console).print(table)


def print_drains(drains: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print each draining version, and what it still holds."""
    (Console() if console is None else console).print(drain_table(drains))


def watch_drains(found: Iterator[Sequence[Mapping[str, Any]]], console: Console | None = None) -> None:
    """Draw what drains, again and again in one place, as long as there is more to come."""
    with Live(console=console, auto_refresh=False) as live:
        for drains in found:
            live.update(drain_table(drains), refresh=True)


def drain_table(drains: Sequence[Mapping[str, Any]]) -> Table | Text:
    """Show each draining version, and what it still holds."""
    if not drains:
        return Text("nothing drains", "green")
    table = Table("Binding", "Age", "Deadline", box=SIMPLE_HEAD)
    for name in _HELD:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("Oldest event")
    for each in drains:
        age, oldest = each.get("age_seconds"), each.get("oldest_event") or {}
        table.add_row(
            shown(each.get("binding"), "yellow"),
            shown(f"{age:.0f} s" if isinstance(age, int | float) else None),
            shown(each.get("deadline")),
            *(shown(each.get(name)) for name in _HELD),
            shown(" ".join(written(value) for value in oldest.values())),
        )
    return table
