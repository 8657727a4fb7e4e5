"""Plots as SVG: the points of lines, and the widths of bars. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

WIDTH, HEIGHT = 600.0, 120.0
"""Units of a plot."""
_TOPS = (1.0, 2.0, 5.0)


class Plot(Struct, frozen=True, kw_only=True):
    """
    Lines over time.

    :ivar top: the value at the upper edge.
    :ivar lines: by name, the points of a polyline.
    """

    top: float
    lines: Mapping[str, str]


def draw(series: Mapping[str, Sequence[float]]) -> Plot:
    """Return a plot of these series, of equal length, the oldest value first."""
    top = round_up(max((value for values in series.values() for value in values), default=0.0))
    return Plot(top=top, lines={name: points(values, top) for name, values in series.items()})


def points(values: Sequence[float], top: float) -> str:
    """Return the points of a polyline."""
    step = WIDTH / max(1, len(values) - 1)
    return " ".join(f"{at * step:.1f},{HEIGHT - value / top * HEIGHT:.1f}" for at, value in enumerate(values))


def round_up(value: float) -> float:
    """Return the next round number: 1, 2 or 5 with any number of zeros, at least 1."""
    size = 1.0
    while True:
        for each in _TOPS:
            if value <= each * size:
                return each * size
        size *= 10.0


class Bar(Struct, frozen=True, kw_only=True):
    """One part of a bar; ``start`` and ``width`` are of `WIDTH`."""

    name: str
    value: float
    start: float
    width: float


def bars(parts: Mapping[str, float]) -> list[Bar]:
    """Return the parts of one bar that is as wide as a plot."""
    whole = sum(parts.values()) or 1.0
    found: list[Bar] = []
    start = 0.0
    for name, value in parts.items():
        width = value / whole * WIDTH
        found.append(Bar(name=name, value=value, start=round(start, 1), width=round(width, 1)))
        start += width
    return found
