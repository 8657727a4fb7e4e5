"""
The demo value of secrets that are not set: random, in the state directory, for ``harn dev`` and ``harn send`` alone.

It is a key of Standard Webhooks, which every scheme that signs by an HMAC takes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from secrets import token_bytes

NAME = "dev-secret"
_PREFIX = "HARN_SECRET_"
_SETTINGS = ("HARN_SECRET_PROVIDERS", "HARN_SECRET_NAMESPACE")


def read_demo_secret(state_dir: str) -> str | None:
    """Return the value, None if no ``harn dev`` has served on the state directory."""
    try:
        with open(os.path.join(state_dir, NAME), encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def make_demo_secret(state_dir: str) -> str:
    """
    Return the value, made at the first time.

    :raises OSError: it cannot be written.
    """
    found = read_demo_secret(state_dir)
    if found is not None:
        return found
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    value = "whsec_" + base64.b64encode(token_bytes(24)).decode("ascii")
    path = os.path.join(state_dir, NAME)
    descriptor = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
    os.replace(path + ".tmp", path)
    return value


class DemoEnvironment(Mapping[str, str]):
    """
    An environment in which every secret has a value: its own, or the demo value.

    :ivar filled: the variables that were read and had none.
    """

    def __init__(self, environ: Mapping[str, str], value: str) -> None:
        self.filled: set[str] = set()
        self._environ = environ
        self._value = value

    def __getitem__(self, name: str) -> str:
        found = self._environ.get(name)
        if found is not None:
            return found
        is_secret = name.startswith(_PREFIX) and name not in _SETTINGS and not name.endswith("_FILE")
        if not is_secret or f"{name}_FILE" in self._environ:
            raise KeyError(name)
        self.filled.add(name)
        return self._value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)
