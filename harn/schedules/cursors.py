"""The cursors of polls as the store keeps them, each with how the last calls of its function went. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from harn.errors import PayloadInvalid
from harn.model.display import list_some

PREFIX = "poll/"
"""The names of the records in the store: followed by the trigger's id."""
KEPT = 86400.0
"""Seconds for which the cursor of a removed trigger is kept."""
FIRST = b"null"
"""The cursor of a first call, as JSON."""
LARGEST = 1024 * 1024
"""Bytes of the longest cursor, as JSON."""
LONGEST_ERROR = 1000
"""Characters of an error that are kept."""


class PollFailure(msgspec.Struct, frozen=True, kw_only=True):
    """
    The calls of a function that failed since its last successful call.

    :ivar at: when the last of these calls ended (seconds, Unix).
    :ivar count: the number of these calls.
    """

    at: float
    error: str
    count: int = 1


class CursorRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The record of a poll in the store: its cursor, as any JSON value.

    :ivar polled_at: when the call that returned the cursor ended (seconds, Unix).
    :ivar removed_at: when its trigger was removed (seconds, Unix); None while it is there.
    :ivar failure: None unless the last call failed.
    """

    cursor: msgspec.Raw = msgspec.Raw(FIRST)
    polled_at: float | None = None
    removed_at: float | None = None
    failure: PollFailure | None = None

    @classmethod
    def of(cls, value: Any, now: float) -> CursorRecord:
        """
        Read the stored record. Return one without a cursor for None, and for a trigger that was removed too long ago.

        :param now: seconds, Unix.
        """
        if value is None:
            return cls()
        try:
            read = msgspec.json.decode(msgspec.json.encode(value), type=cls)
        except msgspec.ValidationError:
            return cls()
        return cls() if read.removed_at is not None and read.removed_at + KEPT <= now else read

    def encoded(self) -> bytes:
        """Return the record as JSON, for a checkpoint."""
        return msgspec.json.encode(self)

    def value(self) -> Any:
        """Return the cursor as a JSON value."""
        return msgspec.json.decode(self.encoded())


def encode_cursor(value: Any) -> bytes:
    """
    Return a cursor as JSON.

    :raises PayloadInvalid: it is too long.
    """
    encoded = msgspec.json.encode(value)
    if len(encoded) > LARGEST:
        raise PayloadInvalid(f"a cursor must have at most {LARGEST} bytes of JSON, got {len(encoded)}")
    return encoded


def describe_unknown_poll(trigger_id: str, known: Collection[str]) -> str:
    """Return a message that no trigger of this id polls, which names the triggers that do."""
    return f"no trigger {trigger_id!r} polls; triggers of kind poll: {list_some(sorted(known)) or 'none'}"
