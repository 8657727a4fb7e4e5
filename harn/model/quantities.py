"""Durations and shares as people write them, for example ``30s`` and ``10%``, and the limit of a share of failures."""

from __future__ import annotations

import re
from fractions import Fraction

from msgspec import Struct

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|s|m|h|d|w)", re.ASCII)

LONGEST = 10 * 366 * 86400.0
"""Ten years, in seconds: a longer duration is refused as a mistake."""


def parse_duration(text: str) -> float:
    """
    Return the seconds that ``text`` names.

    :raises ValueError: not a number with a unit (ms, s, m, h, d, w), or longer than ten years.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'must be a duration, got {text!r}; write a number and ms, s, m, h, d or w, for example "30s"')
    seconds = float(found["count"]) * _UNITS[found["unit"]]
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is longer than ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """Write ``seconds`` in the largest unit that keeps it whole, for example ``5m``."""
    if seconds and seconds < 1:
        return f"{_decimal(seconds * 1000)}ms"
    for unit, size in reversed(_UNITS.items()):
        if size >= 1 and seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{_decimal(seconds)}s"


def _decimal(number: float) -> str:
    """Write without an exponent, to a millionth: what `parse_duration` reads."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


_SHARE = re.compile(r"(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,20})?)\s*%?", re.ASCII)


def parse_share(text: str) -> float:
    """
    Return the share, from 0 to 1, that ``text`` names in percent; the sign may be left out.

    :raises ValueError: not a percentage, or more than 100.
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None or float(found["percent"]) > 100:
        raise ValueError(f'must be a share, got {text!r}; write a percentage from 0 to 100, for example "10%"')
    # The nearest float, so that a count of failures that is exactly this share does not seem to exceed it.
    return float(Fraction(found["percent"]) / 100)


def parse_clear_share(text: str) -> float:
    """
    Return the share as `parse_share` does, but require the sign below one percent.

    :raises ValueError: not a share, or an ambiguous one: 0.1 may mean a tenth.
    """
    share = parse_share(text)
    if 0 < share < 0.01 and "%" not in text:
        number = text.strip()
        raise ValueError(f'{text!r} could be {number} % or {share * 10000:.12g} %; write it with its sign, "{number}%"')
    return share


def format_share(share: float) -> str:
    """Write a share in percent, at most four digits after the point, for example ``12.5%``."""
    return f"{share * 100:.4f}".rstrip("0").rstrip(".") + "%"


class FailureLimit(Struct, frozen=True, kw_only=True):
    """
    The limit of failed attempts.

    :ivar rate: the share of attempts (0 to 1) that may fail.
    :ivar minimum: attempts below which the limit does not apply.
    """

    rate: float
    minimum: int

    def is_exceeded(self, attempts: int, failures: int) -> bool:
        """Return whether so many failures of so many attempts exceed the limit."""
        return attempts > 0 and attempts >= self.minimum and failures / attempts > self.rate
