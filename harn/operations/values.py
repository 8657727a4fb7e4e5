"""Values of parameters that people write as text: each type reads one form, and keeps the text that it has read."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from harn.model.quantities import parse_clear_share, parse_duration

_RATE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)(?:/(?P<unit>s|m|h))?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_RATE = 1e9


class Written(float):
    """
    A number that is written with a unit.

    :ivar text: as it was written.
    :cvar expected: what the text must be, for messages; ``metavar``: its name in the usage of a command.
    :cvar may_be_number: whether JSON may have it as a number, without a unit.
    :cvar pattern: a regular expression of JSON Schema that the text matches.
    """

    text: str
    expected: ClassVar[str]
    metavar: ClassVar[str]
    pattern: ClassVar[str]
    may_be_number: ClassVar[bool] = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a value.

        :raises ValueError: says what the text must be.
        """
        value = cls(cls._read(text))
        value.text = text
        return value

    @staticmethod
    def _read(text: str) -> float:
        raise NotImplementedError


class Duration(Written):
    """Seconds, written with their unit: ``0s``, ``90s``, ``5m``."""

    expected = 'a duration such as "30s"'
    metavar = "DURATION"
    pattern = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)$"

    @staticmethod
    def _read(text: str) -> float:
        return parse_duration(text)


class Period(Duration):
    """Seconds, more than none."""

    expected = 'a duration over 0 such as "30s"'

    @staticmethod
    def _read(text: str) -> float:
        seconds = parse_duration(text)
        if seconds <= 0:
            raise ValueError(f"must be greater than 0, got {text!r}")
        return seconds


class Rate(Written):
    """Things a second, more than none, written with a unit: ``10/s``, ``90/m``, ``0.5/s``, or ``10`` for the first."""

    expected = 'a rate over 0 such as "10/s"'
    metavar = "N/s"
    may_be_number = True
    pattern = r"^[0-9]+(\.[0-9]+)?(/(s|m|h))?$"

    @staticmethod
    def _read(text: str) -> float:
        found = _RATE.fullmatch(text.strip())
        rate = 0.0 if found is None else float(found["count"]) / _SECONDS[found["unit"] or "s"]
        if not 0 < rate <= _MOST_RATE:
            raise ValueError(f'must be a rate over 0 such as "10/s", got {text!r}')
        return rate


class PartialShare(Written):
    """A share over 0 and under 1, written in percent: ``10%``, or ``10``."""

    expected = 'a share over 0% and under 100% such as "10%"'
    metavar = "PERCENT"
    pattern = r"^[0-9]{1,2}(\.[0-9]+)?\s*%?$"

    @staticmethod
    def _read(text: str) -> float:
        share = parse_clear_share(text)
        if not 0 < share < 1:
            raise ValueError(f"must be greater than 0% and less than 100%, got {text!r}")
        return share


class FailureShare(Written):
    """A share of at least 0 and under 1, written in percent."""

    expected = 'a share of at least 0% and under 100% such as "20%"'
    metavar = "PERCENT"
    pattern = r"^[0-9]{1,2}(\.[0-9]+)?\s*%?$"

    @staticmethod
    def _read(text: str) -> float:
        share = parse_clear_share(text)
        if share >= 1:
            raise ValueError(f"must be less than 100%, got {text!r}")
        return share


def schema_of_written(kind: type) -> dict[str, Any]:
    """
    Return the JSON schema of one of these types, a ``schema_hook`` of msgspec.

    :raises NotImplementedError: ``kind`` is something else.
    """
    if issubclass(kind, Written):
        return {"type": "string", "pattern": kind.pattern}
    raise NotImplementedError(kind)


def text_of_written(value: Any) -> str:
    """
    Return the text of such a value, an ``enc_hook`` of msgspec.

    :raises NotImplementedError: ``value`` is something else.
    """
    if isinstance(value, Written):
        return value.text
    raise NotImplementedError(type(value))
