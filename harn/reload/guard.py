"""The guard against half a file: tells whether a reload that nobody asked for would take most triggers away. Pure."""

from __future__ import annotations

FEWEST = 2
"""Triggers that must go before anybody is asked: one may always be deleted."""


def would_remove_most(removed: int, live: int) -> bool:
    """
    Tell whether removing so many of the live triggers is to be confirmed: more than half, and at least two.

    :param live: how many there are before.
    """
    return removed >= FEWEST and 2 * removed > live
