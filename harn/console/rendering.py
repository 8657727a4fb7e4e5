"""
Pages as HTML, by Jinja2 from the package's templates. Every value is escaped; control characters are shown, not sent.

Imports Jinja2 when the first page is drawn: a server whose console is not used does not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from harn.clocks import rfc3339
from harn.console.assets import Assets
from harn.model.display import visible, visible_lines

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = "templates"
LONGEST_TEXT = 200_000
"""Characters of a text over several lines that a page shows."""
_LOADING = Lock()
_EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
"""How results have times."""
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class Renderer:
    """
    Draws templates. `render` may be called in any thread.

    :param assets: the files of the package that pages refer to.
    """

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def render(self, template: str, values: Mapping[str, Any]) -> bytes:
        """Return a page."""
        with _LOADING:
            found = make_environment().get_template(template)
        return found.render({"asset": self._assets.address, **values}).encode("utf-8", "replace")


@cache
def make_environment() -> Environment:
    """Make the environment of all templates."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files(__package__).joinpath(FOLDER)
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters |= {
        "count": count,
        "duration": duration,
        "json": as_json,
        "lines": lines,
        "rate": rate,
        "seconds": seconds,
        "segment": lambda text: quote(str(text), safe=""),
        "time": time,
    }
    environment.tests["given"] = lambda value: value is not UNSET and value is not None
    return environment


def shown(value: Any) -> Any:
    """Return a value as a template writes it: nothing for none, and a text on one line with no control characters."""
    if value is None or value is UNSET:
        return ""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return value


def lines(text: Any) -> Any:
    """Return a text over several lines, whose other control characters are shown."""
    from markupsafe import escape

    whole = "" if text is None or text is UNSET else str(text)
    more = "" if len(whole) <= LONGEST_TEXT else f"\n... {len(whole) - LONGEST_TEXT} more characters"
    return escape("\n".join(visible_lines(whole[:LONGEST_TEXT])) + more)


def as_json(value: Any) -> str:
    """Return a JSON value as people read it."""
    written = msgspec.json.encode(value, enc_hook=str)
    return msgspec.json.format(written, indent=2).decode("utf-8")


def time(value: Any) -> Any:
    """
    Return a time as an element that the script turns to the reader's zone; its title has the exact time in UTC.

    :param value: seconds, Unix, or RFC 3339 in UTC; None for a dash.
    """
    from markupsafe import Markup, escape

    if value is None or value is UNSET or value == "":
        return Markup('<span class="none">-</span>')
    exact = rfc3339(value) if isinstance(value, int | float) else str(value)
    shown_exact, shown_text = escape(visible(exact)), escape(visible(to_seconds(exact)))
    # Both are escaped. `Markup.format` would do the same at five times the cost, for each row of a list.
    return Markup(f'<time datetime="{shown_exact}" title="{shown_exact} (UTC)">{shown_text}</time>')  # noqa: S704


def to_seconds(exact: str) -> str:
    """Return an RFC 3339 time to the second, as a page without the script shows it."""
    if _EXACT.fullmatch(exact):
        return f"{exact[:10]} {exact[11:19]}Z"
    try:
        return datetime.fromisoformat(exact).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return exact


def count(value: Any) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds(value: Any) -> str:
    """Return how long something took, to three digits: ``12 ms``, ``1.53 s``; a dash where that is not known."""
    if value is None or value is UNSET:
        return "-"
    number = float(value)
    return f"{number * 1000:.3g} ms" if number < 1.0 else f"{number:.3g} s" if number < 100 else duration(number)


def rate(value: float) -> str:
    """Return a rate with as many digits as say something: ``0``, ``0.03``, ``4.2``, ``1 250``."""
    if not value:
        return "0"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else count(round(value))


def duration(value: Any) -> str:
    """Return a length of time as people say it, in its two largest units: ``3 h 5 min``; a dash for none."""
    if value is None or value is UNSET:
        return "-"
    left, said = round(float(value)), list[str]()
    for unit, size in _UNITS:
        amount, left = divmod(left, size)
        if amount:
            said.append(f"{amount} {unit}")
    return " ".join(said[:2]) or "0 s"
