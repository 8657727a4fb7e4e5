"""Shares as people write them, ``10%``, and the limit of a share of failures."""

from __future__ import annotations

import re
from fractions import Fraction

from attrs import frozen

_SHAPE = re.compile(r"(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,20})?)\s*%?", re.ASCII)


def parse_share(text: str) -> float:
    """
    Return the share, from 0 to 1, that ``text`` names in percent; the sign may be left out.

    :raises ValueError: not a percentage, or more than 100.
    """
    found = _SHAPE.fullmatch(text.strip())
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


@frozen(kw_only=True)
class FailureLimit:
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
