"""Identifiers: events and traces (UUIDv7, so that they sort by time), and binding keys ``id@vN``."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes


def uuid7(now: float, random: Callable[[int], bytes] = token_bytes) -> str:
    """
    Make a version 7 UUID.

    :param now: seconds, Unix.
    :param random: returns that many random bytes.

    Source: RFC 9562, section 5.7.
    """
    stamp = int(now * 1000).to_bytes(6, "big")
    noise = int.from_bytes(random(10), "big")
    tail = ((0x7000 | (noise >> 64 & 0x0FFF)) << 64) | (0x8000_0000_0000_0000 | (noise & 0x3FFF_FFFF_FFFF_FFFF))
    text = stamp.hex() + f"{tail:020x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_event_id(now: float) -> str:
    """Make the id of an event: ``trigger_evt_`` and a UUIDv7."""
    return "trigger_evt_" + uuid7(now)


def new_trace_id(now: float) -> str:
    """Make the id of a trace: ``trace_`` and a UUIDv7."""
    return "trace_" + uuid7(now)


def binding_key(trigger_id: str, version: int) -> str:
    """Return the key of a binding version, for example ``gh@v2``."""
    return f"{trigger_id}@v{version}"
