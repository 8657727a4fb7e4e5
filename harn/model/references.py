"""References to functions, destinations and secrets as a manifest names them; identifiers of events and versions."""

from __future__ import annotations

import keyword
import re
from collections import deque
from functools import lru_cache
from secrets import token_bytes

from msgspec import Struct

_SECRET = re.compile(
    r"(?P<namespace>[A-Za-z0-9_.-]+)/(?P<name>[A-Za-z0-9_./-]+?)(?:@(?P<version>[A-Za-z0-9_.-]+))?", re.ASCII
)


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


LOCAL = "local"
"""The scheme of a handler that names none: a function of the user's."""


def scheme_of(handler: str) -> str:
    """Return the scheme of a manifest's handler: what stands before ``://``, else `LOCAL`."""
    scheme, separator, _ = handler.partition("://")
    return scheme if separator else LOCAL


class FunctionReference(Struct, frozen=True):
    """A user's function: ``module`` is a dotted name, ``function`` a plain one."""

    module: str
    function: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


def parse_function_reference(text: str) -> FunctionReference:
    """
    Read ``module:function``, ``module::function``, ``module.function`` or ``function`` (of module ``lib``).

    :raises ValueError: none of these; the message says what to write.
    """
    if "://" in text:
        raise ValueError(f"must be a Python function, got {text!r}; write module:function, as handlers:on_issue")
    if ":" in text:
        module, _, function = text.replace("::", ":").partition(":")
    elif "." in text:
        module, _, function = text.rpartition(".")
    else:
        module, function = "lib", text
    if not (function.isidentifier() and not keyword.iskeyword(function) and _is_dotted_name(module)):
        raise ValueError(f"must be a Python function, got {text!r}; write module:function, as handlers:on_issue")
    return FunctionReference(module, function)


class SecretReference(Struct, frozen=True):
    """A secret by name: ``namespace/name`` or ``namespace/name@version``; never its value."""

    namespace: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f"@{self.version}" if self.version else "")


def parse_secret_reference(text: str) -> SecretReference:
    """
    Read ``namespace/name[@version]``.

    :raises ValueError: malformed; the message says what to write.
    """
    found = _SECRET.fullmatch(text)
    if found is None:
        raise ValueError(f"must be a secret reference, got {text!r}; write namespace/name, as github/webhook-secret")
    return SecretReference(found["namespace"], found["name"], found["version"])


def fault_of_secret(text: str) -> tuple[str, str] | None:
    """
    Return the fault of a reference, and a hint; None when it is valid.

    The message does not repeat it: the author may have written the secret itself.
    """
    try:
        parse_secret_reference(text)
    except ValueError:
        return "must be a secret reference", "write namespace/name, for example github/token"
    return None


_NOISE = 10
"""Random bytes of an identifier."""
_PER_BLOCK = 256
"""Identifiers of which the random bytes are read, and written as digits, together."""
_RANDOM_BITS = b"\x0f\xff\x3f" + b"\xff" * 7
"""Which bits of these bytes stay random: not the four of the version, and the two of the variant."""
_FIXED_BITS = b"\x70\x00\x80" + bytes(7)
_GROUPS = re.compile("(.{4})(.{4})(.{12})")
_unused: deque[str] = deque()
"""Random ends of UUIDs that no identifier has yet."""


def _next_end() -> str:
    """
    Return the random end of a UUID, from a block that is made in one call: one call of the system for each costs more.

    Bodies are examined in threads, too: taking an end out is one step, so that no two identifiers have the same one.
    """
    while True:
        try:
            return _unused.popleft()
        except IndexError:
            _unused.extend(_ends_of(token_bytes(_PER_BLOCK * _NOISE)))


def _ends_of(noise: bytes) -> list[str]:
    """
    Return version, variant and random digits of a UUID for each ten bytes.

    The whole block is one number, so that it takes as many steps as a single identifier.
    """
    count = len(noise) // _NOISE
    random_bits = int.from_bytes(_RANDOM_BITS * count, "big")
    fixed_bits = int.from_bytes(_FIXED_BITS * count, "big")
    number = int.from_bytes(noise, "big") & random_bits | fixed_bits
    return list(map("-".join, _GROUPS.findall(number.to_bytes(len(noise), "big").hex())))


@lru_cache(maxsize=64)
def _beginning_of(milliseconds: int) -> str:
    """Return the time in a UUID; kept, as many are made in one millisecond."""
    stamp = f"{milliseconds:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-"


def uuid7(now: float, random: bytes | None = None) -> str:
    """
    Make a version 7 UUID.

    :param now: seconds, Unix.
    :param random: ten random bytes; None for the system's.

    Source: RFC 9562, section 5.7.
    """
    return _beginning_of(int(now * 1000)) + (_next_end() if random is None else _ends_of(random)[0])


def new_event_id(now: float) -> str:
    """Make the id of an event: ``trigger_evt_`` and a UUIDv7."""
    return "trigger_evt_" + _beginning_of(int(now * 1000)) + _next_end()


def new_trace_id(now: float) -> str:
    """Make the id of a trace: ``trace_`` and a UUIDv7."""
    return "trace_" + _beginning_of(int(now * 1000)) + _next_end()


def new_ids(now: float) -> tuple[str, str]:
    """Make the id of an event, and that of its trace: the pair that nearly every request needs."""
    beginning = _beginning_of(int(now * 1000))
    return "trigger_evt_" + beginning + _next_end(), "trace_" + beginning + _next_end()


def binding_key(trigger_id: str, version: int) -> str:
    """Return the key of a binding version, for example ``gh@v2``."""
    return f"{trigger_id}@v{version}"
