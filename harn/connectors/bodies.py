"""Reads the few fields that decide about an event out of a body, without building the rest of it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated

import msgspec

from harn.clocks import rfc3339

LONGEST_WORD = 256
"""Characters of a kind or an identifier; what is longer is none."""

NULL = msgspec.Raw(b"null")
"""The JSON text of nothing: what an absent field is taken for."""


class Fields(msgspec.Struct):
    """Fields of a JSON object, each as its JSON text: a view into the body. Absent ones are ``null``."""

    action: msgspec.Raw = NULL
    type: msgspec.Raw = NULL
    event: msgspec.Raw = NULL
    id: msgspec.Raw = NULL
    timestamp: msgspec.Raw = NULL


_fields = msgspec.json.Decoder(Fields)
_anything = msgspec.json.Decoder(msgspec.Raw)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_word = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(int)
_moment = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])

# What a decoder raises at a body that is not what it wants; nesting too deep for it ends in RecursionError.
NOT_READABLE = (ValueError, RecursionError)


def read_fields(body: bytes) -> Fields:
    """
    Check that ``body`` is one JSON object in UTF-8, all of it, and give the fields that matter here.

    Of a repeated key the last counts. A byte order mark, ``NaN`` and trailing text are errors.

    :raises ValueError: it is not; ``RecursionError`` where it is nested deeper than the interpreter's stack allows.
    """
    # The decoder does not decode the strings that it skips.
    body.decode("utf-8")
    return _fields.decode(body)


def is_json(body: bytes) -> bool:
    """Say whether ``body`` is one JSON value in UTF-8, of any type."""
    try:
        body.decode("utf-8")
        _anything.decode(body)
    except NOT_READABLE:
        return False
    return True


def read_members(body: bytes) -> dict[str, msgspec.Raw]:
    """
    Check ``body`` as `read_fields` does, and give every member of the object as its JSON text.

    :raises ValueError: or ``RecursionError``, as `read_fields`.
    """
    body.decode("utf-8")
    return _members.decode(body)


def members(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Give the members of an object within a body that was read before; none for any other value."""
    try:
        return _members.decode(raw)
    except NOT_READABLE:
        return {}


def word(raw: msgspec.Raw) -> str | None:
    """Give a JSON string that is neither empty nor longer than `LONGEST_WORD`; None for anything else."""
    # Longest when every character is a surrogate pair of escapes.
    if len(raw) > LONGEST_WORD * 12 + 2:
        return None
    try:
        text = _word.decode(raw)
    except NOT_READABLE:
        return None
    return text if 0 < len(text) <= LONGEST_WORD else None


def identifier(raw: msgspec.Raw) -> str | None:
    """Give a JSON string as `word` does, or a whole number in decimal digits; None for anything else."""
    text = word(raw)
    if text is not None or len(raw) > LONGEST_WORD:
        return text
    try:
        return str(_number.decode(raw))
    except NOT_READABLE:
        return None


def occurred_at(raw: msgspec.Raw) -> str | None:
    """Give a JSON string that is an RFC 3339 time, in UTC; None for anything else."""
    if len(raw) > LONGEST_WORD:
        return None
    try:
        return rfc3339(_moment.decode(raw).timestamp())
    except (*NOT_READABLE, OverflowError, OSError):
        return None


def body_digest(body: bytes) -> str:
    """Identify a delivery by what it says, where its provider gives it no identifier: ``sha256:`` and digits."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def sane(text: str | None) -> str | None:
    """Give a header's value, unless it is absent, empty, or longer than `LONGEST_WORD`."""
    return text if text is not None and 0 < len(text) <= LONGEST_WORD else None
