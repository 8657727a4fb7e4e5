"""Values, rows and sections as plain lines: what commands print where the output is not a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from harn.model.display import visible


def written(value: Any) -> str:
    """Return a value as these lines have it: ``-`` for none, JSON for what is not a text."""
    if value is None or value is msgspec.UNSET:
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=msgspec.to_builtins)


def facts(row: msgspec.Struct | Mapping[str, Any]) -> str:
    """Return ``name=value name=value``, with every field of a Struct that is set."""
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else msgspec.to_builtins(row)
    return " ".join(f"{name}={written(value)}" for name, value in fields.items())


def section(title: str, rows: Iterable[msgspec.Struct | Mapping[str, Any]]) -> Iterator[str]:
    """Return a title and its rows, ``- none`` if it has none."""
    yield title
    is_empty = True
    for row in rows:
        is_empty = False
        yield "- " + visible(facts(row))
    if is_empty:
        yield "- none"
