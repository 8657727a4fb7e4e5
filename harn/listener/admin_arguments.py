"""What a caller of the admin API may say, read strictly: a misspelt option is refused, never passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from harn.errors import PayloadInvalid
from harn.model.durations import parse_duration

DEFAULT_SOURCE = "admin_api"
ROLLBACK_SOURCE = "rollback"
_RESERVED = ("signal", "file_watch")
_LONGEST_SOURCE = 32
_UNFIT = re.compile(r"[^A-Za-z0-9_.:@/+-]")
_TRUE, _FALSE = ("true", "1", "yes", ""), ("false", "0", "no")
_BIGGEST = 2**63 - 1


def parse_body(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """
    Read an optional JSON object.

    :param known: its members beside ``request_id``, which makes a signed body new and is not looked at.
    :raises PayloadInvalid: it is something else, or has other members.
    """
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PayloadInvalid("the body is no JSON; send a JSON object, or none") from None
    if not isinstance(document, dict):
        raise PayloadInvalid("the body is no JSON object; send one, or none")
    _check_known("member of the body", document, (*known, "request_id"))
    return document


def check_options(options: Mapping[str, str], known: tuple[str, ...] = ()) -> None:
    """
    Refuse options of the query that are not ``known``.

    :raises PayloadInvalid: there is one.
    """
    _check_known("option", options, known)


def _check_known(what: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise PayloadInvalid(f"unknown {what} {name!r}; known are: {', '.join(known) or 'none'}")


def parse_flag(options: Mapping[str, Any], name: str) -> bool:
    """
    Read a flag, from a query (``?force=true``, ``?force``) or from JSON.

    :raises PayloadInvalid: it is neither yes nor no.
    """
    value = options.get(name, False)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE:
        return True
    if isinstance(value, str) and value.lower() in _FALSE:
        return False
    raise PayloadInvalid(f"{name} is neither true nor false")


def parse_number(
    options: Mapping[str, str], name: str, default: int | None, lowest: int, highest: int = _BIGGEST
) -> int:
    """
    Read a whole number.

    :param default: None for a number that must be there.
    :raises PayloadInvalid: it is none, or outside ``lowest`` to ``highest``.
    """
    text = options.get(name)
    if text is None:
        if default is None:
            raise PayloadInvalid(f"{name} is missing; give a whole number of at least {lowest}")
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and lowest <= int(text) <= highest):
        upper = "" if highest == _BIGGEST else f" and at most {highest}"
        raise PayloadInvalid(f"{name}={text!r} is no whole number of at least {lowest}{upper}")
    return int(text)


def parse_seconds(options: Mapping[str, Any], name: str) -> float:
    """
    Read a duration such as ``"10m"``.

    :raises PayloadInvalid: it is none, or there is none.
    """
    value = options.get(name)
    if value is None:
        raise PayloadInvalid(f'{name} is missing; give a duration, for example "60s"')
    try:
        return parse_duration(value if isinstance(value, str) else f"{value}")
    except ValueError as wrong:
        raise PayloadInvalid(f"{name}: {wrong}") from None


def parse_generation(body: Mapping[str, Any], name: str) -> int | None:
    """
    Read the number of a generation out of JSON, None if there is none.

    :raises PayloadInvalid: it is no whole number of at least 1.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _BIGGEST:
        raise PayloadInvalid(f"{name} is no generation's number: a whole number of at least 1")
    return value


def parse_source(value: Any, default: str = DEFAULT_SOURCE) -> str:
    """
    Read the label of a reload: at most 32 characters, those that are unfit to be shown replaced.

    :param default: what stands for none, and for a blank one.
    :raises PayloadInvalid: no string, or a source that only the server itself may name.
    """
    if value is None:
        return default
    if not isinstance(value, str):
        raise PayloadInvalid('source is no string; it is a label, for example "cli"')
    label = _UNFIT.sub("_", value.strip()[:_LONGEST_SOURCE])
    if label in _RESERVED:
        raise PayloadInvalid(f"source {label!r} is the server's own; choose another label")
    return label or default
