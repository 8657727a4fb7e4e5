"""Canonical JSON and digests: equal values have equal bytes, in every process."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_canonical = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> bytes:
    """
    Encode with sorted keys and no white space.

    :raises TypeError: ``value`` holds something without a JSON form.
    """
    return _canonical.encode(value)


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:`` and 64 lower-case hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_value(value: Any) -> str:
    """Digest the canonical JSON of ``value``."""
    return digest_bytes(canonical_json(value))
