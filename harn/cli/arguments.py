"""Values of options and arguments: each is read strictly, and refused with a sentence that says what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from harn.model.durations import parse_duration
from harn.model.shares import parse_clear_share

LONGEST_WAIT = 1e9
"""Seconds; sockets take no longer ones."""
BIGGEST = 2**63 - 1
"""The biggest number that the store can hold."""


class WholeNumber(click.IntRange):
    """A whole number of at least ``low``, and at most ``high``."""

    def __init__(self, low: int, high: int = BIGGEST) -> None:
        super().__init__(low, high)
        self._wanted = f"no whole number of at least {low}" + ("" if high == BIGGEST else f" and at most {high}")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is {self._wanted}", param, ctx)


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
            self.fail(f"{value!r} is no number of seconds over 0", param, ctx)
        return seconds


GENERATION = WholeNumber(1)


def check_age(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """
    Let through what is a duration with its unit, as it was written.

    :raises click.BadParameter: it is none.
    """
    return _checked(parse_duration, text)


def check_while(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """
    Let through what is a duration over 0.

    :raises click.BadParameter: it is none.
    """
    return _checked(parse_duration, text, lambda seconds: "" if seconds > 0 else "is no time at all; give more")


def check_part(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """
    Let through a share in percent that is neither nothing nor all.

    :raises click.BadParameter: it is none.
    """
    return _checked(parse_clear_share, text, lambda share: "" if 0 < share < 1 else "is not over 0 % and under 100 %")


def check_limit(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """
    Let through a share in percent that can be exceeded.

    :raises click.BadParameter: it is none.
    """
    return _checked(parse_clear_share, text, lambda share: "" if share < 1 else "is never exceeded; give less")


def _checked(
    parse: Callable[[str], float], text: str | None, fault: Callable[[float], str] = lambda value: ""
) -> str | None:
    """Give what was written, if it can be read and ``fault`` has nothing to say of its value."""
    if text is None:
        return None
    try:
        wrong = fault(parse(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if wrong:
        raise click.BadParameter(f"{text!r} {wrong}")
    return text
