"""Keyed hashes of secrets: they show whether a value changed, and nothing else about it."""

from __future__ import annotations

import hashlib

from attrs import field, frozen

SHORTEST_KEY = 16


def secret_hash(key: bytes, value: bytes) -> str:
    """
    Return ``keyed:`` and 64 hexadecimal digits; equal for equal values under one key.

    :param key: 16 to 64 random bytes, kept by the caller for as long as hashes are compared; without it, guesses of a
        weak secret cannot be tested against a recorded digest.
    :raises ValueError: the key is too short or too long.

    Source: RFC 7693, section 2.9 (keyed BLAKE2).
    """
    if not SHORTEST_KEY <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError(f"the key of secret hashes must have {SHORTEST_KEY} to 64 bytes, got {len(key)}")
    return "keyed:" + hashlib.blake2b(value, key=key, digest_size=32, person=b"harn-secret").hexdigest()


@frozen
class KnownSecrets:
    """
    The hashes of the secrets of one reading: recognizes the values without holding them.

    :ivar key: the key of the hashes.
    """

    key: bytes = field(repr=False)
    hashes: frozenset[str] = field(repr=False)

    def include(self, value: bytes) -> bool:
        """Return whether ``value`` is one of them."""
        return secret_hash(self.key, value) in self.hashes
