"""Values of options and arguments: each is read strictly, and refused with a sentence that says what is wanted."""

from __future__ import annotations

import math
from typing import Any

import click

LONGEST_WAIT = 1e9
"""Seconds; sockets take no longer ones."""
BIGGEST = 2**63 - 1
"""The biggest number that the store can hold."""


class WholeNumber(click.IntRange):
    """A whole number of at least ``low``, and at most ``high``."""

    def __init__(self, low: int, high: int = BIGGEST) -> None:
        super().__init__(low, high)
        self._wanted = f"an integer of at least {low}" + ("" if high == BIGGEST else f" and at most {high}")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"must be {self._wanted}, got {value!r}", param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds over 0; not "nan", which is in no range and outside of none."""

    def __init__(self) -> None:
        super().__init__(0, LONGEST_WAIT, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        try:
            seconds = super().convert(value, param, ctx)
        except click.BadParameter:
            seconds = math.nan
        if math.isnan(seconds):
            self.fail(f"must be a number of seconds greater than 0, got {value!r}", param, ctx)
        return seconds
