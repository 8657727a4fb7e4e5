"""Results that are rows: each command says once which columns it has, and they are drawn for people in any output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import msgspec
from attrs import field, frozen

from harn.cli.lines import section

STATES = {
    "active": "green",
    "draining": "yellow",
    "running": "green",
    "finished": "green",
    "stopped": "yellow",
    "aborted": "red",
    "crashed": "red",
}
"""Styles of rich by state."""


@frozen
class Column:
    """
    A column of a table.

    :ivar value: returns a row's cell.
    :ivar drop: the column with the highest number is left out first; 0 is never left out.
    :ivar is_below: it is not left out, but written on a line below its row.
    :ivar wraps: whether its cells are texts, which may be wrapped; names, ids, numbers and times may not.
    :ivar is_right: whether it stands to the right, as numbers do.
    :ivar styles: styles of rich by value; ``style`` is that of all others.
    """

    name: str
    value: Callable[[Any], object] = field(default=str, repr=False)
    drop: int = 0
    is_below: bool = False
    wraps: bool = False
    is_right: bool = False
    style: str = ""
    styles: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Rows:
    """
    Rows for people.

    :ivar title: their title where the output is not a terminal; ``heading`` where it is one.
    :ivar none: what a terminal shows where there are none; empty for an empty table.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[msgspec.Struct | Mapping[str, Any]]
    none: str = ""
    heading: str = ""


def draw(rows: Rows) -> None:
    """Print rows: as a table that fits the terminal; elsewhere one line for each, with every field."""
    if sys.stdout.isatty():
        from harn.cli.terminal import print_rows

        print_rows(rows)
        return
    for line in section(rows.title, rows.rows):
        click.echo(line)
