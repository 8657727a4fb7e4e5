"""What a reload may be asked beside to happen: to be tried on recorded events, to begin small, to undo itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.errors import PayloadInvalid
from harn.listener.admin_arguments import parse_number, parse_seconds
from harn.model.shares import FailureLimit, parse_clear_share

WISHES = ("replay", "ramp", "confirm_within", "revert_on_failures", "min", "for")
"""Options of the query."""

DEFAULT_MINIMUM = 20
"""Attempts below which nothing is judged, where ``min`` does not say."""
MOST_REPLAYED = 1000
"""Recorded events of each trigger."""
_BIGGEST_MINIMUM = 1_000_000


def parse_wishes(options: Mapping[str, str], is_dry: bool) -> dict[str, Any]:
    """
    Read them as fields of a `harn.reload.report.ReloadRequest`.

    :param is_dry: whether this is a dry run, the only one that can replay.
    :raises PayloadInvalid: one makes no sense, alone or with the others.
    """
    if "replay" in options and not is_dry:
        raise PayloadInvalid("replay is for a dry run; add dry_run=true")
    for name in ("min", "for"):
        if name in options and "revert_on_failures" not in options:
            raise PayloadInvalid(f"{name} says when failures are too many; it needs revert_on_failures")
    fields: dict[str, Any] = {"replay": parse_number(options, "replay", 0, 1, MOST_REPLAYED)}
    if "ramp" in options:
        fields["ramp"] = _part(options, "ramp")
    if "confirm_within" in options:
        fields["confirm_within"] = _while(options, "confirm_within")
    if "revert_on_failures" in options:
        rate = _share(options, "revert_on_failures")
        if rate >= 1:
            raise PayloadInvalid("revert_on_failures=100% is never exceeded; give less")
        minimum = parse_number(options, "min", DEFAULT_MINIMUM, 1, _BIGGEST_MINIMUM)
        fields["revert_limit"] = FailureLimit(rate=rate, minimum=minimum)
    if "for" in options:
        fields["revert_for"] = _while(options, "for")
    return fields


def _share(options: Mapping[str, str], name: str) -> float:
    try:
        return parse_clear_share(options[name])
    except ValueError as wrong:
        raise PayloadInvalid(f"{name}: {wrong}") from None


def _part(options: Mapping[str, str], name: str) -> float:
    """Read a share that is neither nothing nor all."""
    share = _share(options, name)
    if not 0 < share < 1:
        raise PayloadInvalid(f"{name}={options[name]!r} is not over 0 % and under 100 %")
    return share


def _while(options: Mapping[str, str], name: str) -> float:
    """Read a duration that is over 0."""
    seconds = parse_seconds(options, name)
    if seconds <= 0:
        raise PayloadInvalid(f"{name}={options[name]!r} is no time at all; give more")
    return seconds
