"""References to functions, destinations and secrets as a manifest names them; identifiers of events and versions."""

from __future__ import annotations

import keyword
import re
from collections import deque
from collections.abc import Callable
from secrets import token_bytes

from attrs import frozen

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


@frozen
class FunctionReference:
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


@frozen
class SecretReference:
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
    Return what is wrong with a reference, and what to write; None when it is valid.

    The message does not repeat it: the author may have written the secret itself.
    """
    try:
        parse_secret_reference(text)
    except ValueError:
        return "must be a secret reference", "write namespace/name, for example github/token"
    return None


_NOISE = 10
"""Random bytes in an identifier."""
_unused: deque[bytes] = deque()
"""Pieces of `_NOISE` random bytes that no identifier has yet."""


def _next_noise() -> bytes:
    """
    Return `_NOISE` random bytes, from a block that is read at once: a call of the system for each costs more.

    Bodies are examined in threads, too: taking a piece out is one step, so that no two identifiers have the same one.
    """
    while True:
        try:
            return _unused.popleft()
        except IndexError:
            block = token_bytes(256 * _NOISE)
            _unused.extend([block[start : start + _NOISE] for start in range(0, len(block), _NOISE)])


def uuid7(now: float, random: Callable[[], bytes] = _next_noise) -> str:
    """
    Make a version 7 UUID.

    :param now: seconds, Unix.
    :param random: returns ten random bytes.

    Source: RFC 9562, section 5.7.
    """
    stamp = f"{int(now * 1000):012x}"
    noise = int.from_bytes(random(), "big")
    version, variant = 0x7000 | (noise >> 64 & 0x0FFF), 0x8000 | (noise >> 48 & 0x3FFF)
    return f"{stamp[:8]}-{stamp[8:]}-{version:04x}-{variant:04x}-{noise & 0xFFFF_FFFF_FFFF:012x}"


def new_event_id(now: float) -> str:
    """Make the id of an event: ``trigger_evt_`` and a UUIDv7."""
    return "trigger_evt_" + uuid7(now)


def new_trace_id(now: float) -> str:
    """Make the id of a trace: ``trace_`` and a UUIDv7."""
    return "trace_" + uuid7(now)


def binding_key(trigger_id: str, version: int) -> str:
    """Return the key of a binding version, for example ``gh@v2``."""
    return f"{trigger_id}@v{version}"
