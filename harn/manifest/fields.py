"""
The types of the manifest's values; each checks a value and describes itself as JSON schema.

A field's ``read(value, path, diagnostics)`` returns the value as a spec holds it, or None after adding a diagnostic;
``json_schema()`` describes valid values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from msgspec import Struct

from harn.manifest.diagnostics import Diagnostics, KeyPath, describe, nearest, quote
from harn.manifest.interfaces import JsonSchema
from harn.manifest.vocabulary import fault_of_expression
from harn.model.quantities import format_duration, parse_duration, parse_share
from harn.model.references import parse_function_reference


class Field(Protocol):
    """A field of the manifest; ``description`` is for people."""

    @property
    def description(self) -> str:
        """The field's purpose, in one sentence."""

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> Any:
        """Return the value as a spec holds it; None, and a diagnostic, when it is wrong."""

    def json_schema(self) -> JsonSchema:
        """Return the JSON schema of valid values."""


class Flag(Struct, frozen=True):
    """``true`` or ``false``."""

    description: str

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> bool | None:
        """See `Field.read`."""
        if isinstance(value, bool):
            return value
        diagnostics.add(path, f"must be true or false, got {describe(value)}", "write it without quotes")
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "boolean"}


class Integer(Struct, frozen=True):
    """A whole number from ``low`` to ``high``."""

    description: str
    low: int = 0
    high: int = 2**53

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> int | None:
        """See `Field.read`."""
        if isinstance(value, bool) or not isinstance(value, int):
            diagnostics.add(
                path, f"must be a whole number, got {describe(value)}", "write digits alone, without quotes"
            )
        elif not self.low <= value <= self.high:
            diagnostics.add(path, f"must be {_span(self.low, self.high)}, got {_shown(value)}")
        else:
            return value
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Number(Struct, frozen=True):
    """A number from ``low`` to ``high``; with ``positive``, over 0."""

    description: str
    low: float = 0
    high: float = 2**53
    positive: bool = False

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> float | None:
        """See `Field.read`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            diagnostics.add(path, f"must be a number, got {describe(value)}", "write digits alone, without quotes")
        elif isinstance(value, float) and not math.isfinite(value):
            diagnostics.add(path, "must be a finite number")
        elif not self.low <= value <= self.high:
            diagnostics.add(path, f"must be {_span(self.low, self.high)}, got {_shown(value)}")
        elif self.positive and not value > 0:
            diagnostics.add(path, "must be over 0")
        else:
            return float(value)
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        lowest = "exclusiveMinimum" if self.positive else "minimum"
        return {"type": "number", lowest: self.low, "maximum": self.high}


class Choice(Struct, frozen=True):
    """One of a few words."""

    description: str
    options: tuple[str, ...]

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> str | None:
        """See `Field.read`."""
        if isinstance(value, str) and value in self.options:
            return value
        known = ", ".join(quote(option) for option in self.options)
        if isinstance(value, str):
            meant = nearest(value, self.options)
            hint = f"did you mean {quote(meant)}? known: {known}" if meant else f"write one of: {known}"
            diagnostics.add(path, f"{quote(value)} is not known", hint)
        else:
            diagnostics.add(path, f"must be a string, got {describe(value)}", f"write one of: {known}")
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"enum": list(self.options)}


class Duration(Struct, frozen=True):
    """A length of time over 0, or of at least ``low`` seconds, written ``"30s"``; in seconds once read."""

    description: str
    low: float = 0.0

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> float | None:
        """See `Field.read`."""
        if not isinstance(value, str):
            unit = f'"{value}s"' if isinstance(value, int) and not isinstance(value, bool) else '"30s"'
            diagnostics.add(path, f"must be a string with a unit, got {describe(value)}", f"write it as {unit}")
            return None
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            diagnostics.add(path, message, hint)
            return None
        if seconds <= 0:
            diagnostics.add(path, "must be longer than 0", 'write for example "30s"')
        elif seconds < self.low:
            least = format_duration(self.low)
            diagnostics.add(path, f"must be at least {least}, got {quote(value)}", f'write for example "{least}"')
        else:
            return seconds
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)\s*$"}


class Durations(Struct, frozen=True):
    """An array of lengths of time, not empty; a tuple of seconds once read."""

    description: str
    most: int = 100

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> tuple[float, ...] | None:
        """See `Field.read`."""
        if not isinstance(value, list):
            hint = f"write [{quote(value)}]" if isinstance(value, str) else 'write for example ["5s", "1m", "10m"]'
            diagnostics.add(path, f"must be an array of durations, got {describe(value)}", hint)
            return None
        if not value:
            diagnostics.add(path, "is empty", 'write at least one wait, for example ["5s"]')
            return None
        if len(value) > self.most:
            diagnostics.add(path, f"must have at most {self.most} waits, got {len(value)}", "the last one repeats")
            return None
        one = Duration("")
        read = [one.read(each, (*path, index), diagnostics) for index, each in enumerate(value)]
        return tuple(each for each in read if each is not None)

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "array", "items": Duration("").json_schema(), "minItems": 1, "maxItems": self.most}


class Share(Struct, frozen=True):
    """
    A share in percent, written ``"10%"`` or 10; from 0 to 1 once read.

    With ``positive`` it is over 0, with ``partial`` under 100 %.
    """

    description: str
    positive: bool = False
    partial: bool = False

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> float | None:
        """See `Field.read`."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            diagnostics.add(path, f"must be a share, got {describe(value)}", 'write for example "10%"')
            return None
        if isinstance(value, float) and 0 < value < 1:
            # 0.1 is ambiguous: some mean a tenth, others a thousandth.
            diagnostics.add(
                path, f"{value} could be {value:.12g} % or {value * 100:.12g} %", "write it with a % in quotes"
            )
            return None
        try:
            share = parse_share(value if isinstance(value, str) else str(value))
        except ValueError:
            shown = _shown(value) if isinstance(value, int) else quote(str(value))
            diagnostics.add(
                path, f"must be a share, got {shown}", 'write a percentage from 0 to 100, for example "10%"'
            )
            return None
        if self.positive and not share > 0:
            diagnostics.add(path, "must be over 0%")
        elif self.partial and not share < 1:
            diagnostics.add(path, "must be under 100%")
        else:
            return share
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        lowest = "exclusiveMinimum" if self.positive else "minimum"
        highest = "exclusiveMaximum" if self.partial else "maximum"
        shape = r"^\s*[0-9]{1,3}(\.[0-9]{1,20})?\s*%?\s*$"
        return {"type": ["number", "string"], lowest: 0, highest: 100, "pattern": shape}


class Text(Struct, frozen=True):
    """A string; ``fault(text)`` returns what is wrong with it and what to write, or None."""

    description: str
    fault: Callable[[str], tuple[str, str] | None] | None = None

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> str | None:
        """See `Field.read`."""
        if not isinstance(value, str):
            diagnostics.add(path, f"must be a string, got {describe(value)}")
            return None
        if not value:
            diagnostics.add(path, "is empty")
            return None
        fault = self.fault(value) if self.fault is not None else None
        if fault is None:
            return value
        diagnostics.add(path, *fault)
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "string", "minLength": 1}


class Texts(Struct, frozen=True):
    """An array of strings, each of them like ``item``."""

    description: str
    item: Text

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> tuple[str, ...] | None:
        """See `Field.read`."""
        if not isinstance(value, list):
            hint = f"write [{quote(value)}]" if isinstance(value, str) else ""
            diagnostics.add(path, f"must be an array of strings, got {describe(value)}", hint)
            return None
        items = [self.item.read(one, (*path, index), diagnostics) for index, one in enumerate(value)]
        return tuple(item for item in items if item is not None)

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "array", "items": self.item.json_schema()}


class Expression(Struct, frozen=True):
    """JMESPath over ``{event: ...}``."""

    description: str

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> str | None:
        """See `Field.read`."""
        if not isinstance(value, str):
            diagnostics.add(path, f"must be a string with JMESPath in it, got {describe(value)}")
            return None
        fault = fault_of_expression(value)
        if fault is None:
            return value
        diagnostics.add(path, f"is not JMESPath: {fault}", "the event is `event`, for example event.kind")
        return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "string", "minLength": 1}


class Function(Struct, frozen=True):
    """A user's function; ``module:function`` once read."""

    description: str
    schemes: tuple[str, ...] = ()

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> str | None:
        """See `Field.read`."""
        if not isinstance(value, str):
            diagnostics.add(path, f"must be a string, got {describe(value)}", 'write for example "handlers:on_issue"')
            return None
        scheme, separator, _ = value.partition("://")
        if separator and scheme in self.schemes:
            hint = "name a Python function, for example handlers:on_issue"
            diagnostics.add(path, f"{scheme}:// is not supported yet", hint)
            return None
        try:
            return _normalize_function(value)
        except ValueError as error:
            # The shared parser puts what to do after the semicolon, and the value in front.
            hint = str(error).rpartition("; ")[2]
            diagnostics.add(path, f"must be a Python function, got {quote(value)}", hint)
            return None

    def json_schema(self) -> JsonSchema:
        """See `Field.json_schema`."""
        return {"type": "string", "minLength": 1}


@lru_cache(maxsize=4096)
def _normalize_function(text: str) -> str:
    return str(parse_function_reference(text))


def _span(low: float, high: float) -> str:
    return f"{low} or more" if high >= 2**53 else f"from {low} to {high}"


def _shown(value: float) -> str:
    # Python refuses to print an integer of thousands of digits.
    return str(value) if abs(value) < 1e18 else "a number that large"
