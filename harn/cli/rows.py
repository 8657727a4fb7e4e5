"""
Results as rows and sections of lines, or as JSON: each command says once which columns its rows have.

Rows are drawn as tables at a terminal (`harn.cli.terminal`), and elsewhere as lines with every field.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.cli.output import Line, print_lines
from harn.model.display import visible

if TYPE_CHECKING:
    from harn.cli.client import Answered

R = TypeVar("R", bound=Struct)

STATE_STYLES = {
    "active": "green",
    "draining": "yellow",
    "running": "green",
    "finished": "green",
    "stopped": "yellow",
    "aborted": "red",
    "crashed": "red",
}
"""Styles of rich by state."""


def format_value(value: Any) -> str:
    """Return a value in the form of these lines: ``-`` for none, JSON for what is not a text."""
    if value is None or value is msgspec.UNSET:
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=msgspec.to_builtins)


def format_fields(row: msgspec.Struct | Mapping[str, Any]) -> str:
    """Return ``name=value name=value``, with every field of a Struct that is set."""
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else msgspec.to_builtins(row)
    return " ".join(f"{name}={format_value(value)}" for name, value in fields.items())


def section(title: str, rows: Iterable[msgspec.Struct | Mapping[str, Any]]) -> Iterator[str]:
    """Return a title and its rows, ``- none`` if it has none."""
    yield title
    is_empty = True
    for row in rows:
        is_empty = False
        yield "- " + visible(format_fields(row))
    if is_empty:
        yield "- none"


@frozen
class Column:
    """
    A column of a table.

    :ivar value: returns a row's cell.
    :ivar drop: the column with the highest number is left out first; 0 is never left out.
    :ivar is_below: it is not left out, but written on a line below its row.
    :ivar wraps: whether its cells are texts, which may be wrapped; names, ids, numbers and times may not.
    :ivar is_right: whether it stands to the right, as numbers do.
    :ivar styles: styles of rich, by value.
    :ivar style: the style of all other values.
    """

    name: str
    value: Callable[[Any], object] = field(default=str, repr=False)
    drop: int = 0
    is_below: bool = False
    wraps: bool = False
    is_right: bool = False
    style: str = ""
    styles: Mapping[str, str] = field(factory=dict)


class Rows(Struct, frozen=True, kw_only=True):
    """
    Rows for people.

    :ivar title: the title of the rows if the output is not a terminal.
    :ivar heading: the title of the rows on a terminal.
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


def print_json(document: Any) -> None:
    """Print a JSON value for ``--json``."""
    click.echo(json.dumps(document, indent=2))


def print_found(found: Answered[R], describe: Callable[[R], Iterable[Line]], *, as_json: bool) -> None:
    """Print an answer: its document for ``--json``, else the lines that ``describe`` returns for its result."""
    if as_json:
        print_json(found.document)
    else:
        print_lines(describe(found.result))
