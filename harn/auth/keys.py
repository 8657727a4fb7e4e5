"""
Named keys of the admin API, one for each person or program, with a role; and the ring of valid ones.

A key is made of 256 random bits, so its SHA-256 is kept and nothing slower: there is nothing to guess. The key itself
is shown once, to its maker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

import msgspec

from harn.errors import RouteUnknown, WrongState
from harn.operations.model import Role

KEYS = "keys"
"""The name of their record in the store."""
PREFIX = "harn_"
"""How each begins, so that scanners of secrets find it."""
SIZE = 32
"""Random bytes."""
MOST = 200
"""Named keys that a server may have."""
LONGEST_NAME = 40
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_OF_ENVIRONMENT = re.compile(r"[0-9a-f]{8}", re.ASCII)


class NamedKey(msgspec.Struct, frozen=True, kw_only=True):
    """
    One key, as the store holds it.

    :ivar digest: SHA-256 in hexadecimal digits.
    :ivar made_at: seconds, Unix.
    :ivar made_by: the actor.
    """

    name: str
    role: Role
    digest: str
    made_at: float
    made_by: str

    @property
    def actor(self) -> str:
        """The name of its holder in reports and audit records."""
        return f"key:{self.name}"

    def __repr__(self) -> str:
        return f"<NamedKey {self.name} {self.role.value}>"


def make_key() -> str:
    """Return a new key."""
    return PREFIX + token_urlsafe(SIZE)


def digest_key(key: str) -> str:
    """Return the digest of a key."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def fault_of_name(name: str) -> str:
    """Return the fault of a name for a key; empty when there is none."""
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        return (
            f"must be 1 to {LONGEST_NAME} lower-case letters, digits, dots, dashes and underscores, with a letter or"
            f" digit first and last, got {name!r}"
        )
    if _OF_ENVIRONMENT.fullmatch(name):
        return f"must not be 8 hexadecimal digits, which name keys of the environment, got {name!r}"
    return ""


def read_keys(value: Any) -> tuple[NamedKey, ...]:
    """Return the keys of a record in the store; what is damaged is left out: it opens nothing."""
    found = []
    for each in value if isinstance(value, list) else ():
        try:
            found.append(msgspec.convert(each, NamedKey))
        except msgspec.ValidationError:
            continue
    return tuple(found)


def with_key(keys: Sequence[NamedKey], made: NamedKey) -> tuple[NamedKey, ...]:
    """
    Return keys with a further one, by name.

    :raises WrongState: there is one of that name, or there are too many.
    """
    if any(each.name == made.name for each in keys):
        raise WrongState(f"there is a key named {made.name!r} already; revoke it first, or choose another name")
    if len(keys) >= MOST:
        raise WrongState(f"there are {MOST} named keys, which is the limit; revoke those that are not used any more")
    return tuple(sorted((*keys, made), key=lambda each: each.name))


def without_key(keys: Sequence[NamedKey], name: str) -> tuple[NamedKey, ...]:
    """
    Return keys without the one of a name.

    :raises RouteUnknown: there is none; says which there are.
    """
    if all(each.name != name for each in keys):
        known = ", ".join(each.name for each in keys) or "none"
        raise RouteUnknown(f"there is no key named {name!r}; there are: {known}")
    return tuple(each for each in keys if each.name != name)


class KeyRing:
    """The named keys in force."""

    def __init__(self) -> None:
        self._keys: tuple[NamedKey, ...] = ()

    def __iter__(self) -> Iterator[NamedKey]:
        return iter(self._keys)

    def replace(self, keys: Iterable[NamedKey]) -> None:
        """Accept these from now on, and no others."""
        self._keys = tuple(keys)

    def holder(self, digest: str) -> NamedKey | None:
        """Return the key of a digest; compares with all of them, in constant time."""
        found = None
        for each in self._keys:
            if compare_digest(each.digest, digest):
                found = each
        return found
