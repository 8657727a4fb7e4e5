"""Durations as people write them in the manifest and on the command line: ``250ms``, ``30s``, ``5m``, ``7d``."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SHAPE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|s|m|h|d|w)", re.ASCII)

LONGEST = 10 * 366 * 86400.0
"""Ten years, in seconds: a longer duration is refused as a mistake."""


def parse_duration(text: str) -> float:
    """
    Return the seconds that ``text`` names.

    :raises ValueError: not a number with a unit (ms, s, m, h, d, w), or longer than ten years.
    """
    found = _SHAPE.fullmatch(text.strip())
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
