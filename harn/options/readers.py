"""Readers of the values of options: each makes a value of a text, or says what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROLES = ("single-tenant", "multi-tenant")
MOST_WORKERS = 64

Reader = Callable[[str], Any]
"""Makes a value of a text; raises ValueError with a message that says what is wanted."""

_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off", ""))


def one_of(choices: tuple[str, ...]) -> Reader:
    """Make a reader that takes one of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, got {text!r}")
        return text

    return read


def read_text(text: str) -> str:
    """Read any text that is not empty."""
    if not text:
        raise ValueError("the value is empty")
    return text


def read_switch(text: str) -> bool:
    """Read a truth value as environment variables spell it."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def read_count(text: str) -> int:
    """Read a whole number of at least 0."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def read_positive(text: str) -> int:
    """Read a whole number; 0 means 1."""
    return max(1, read_count(text))


def read_workers(text: str) -> int:
    """Read the number of server processes."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_WORKERS):
        raise ValueError(f"must be a number from 1 to {MOST_WORKERS}, got {text!r}")
    return int(text)


def read_seconds(text: str) -> float:
    """Read seconds, at least 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError(f"must be a number of seconds >= 0, got {text!r}")
    return seconds


def read_grace(text: str) -> float:
    """Read seconds, less than 1 meaning 1."""
    return max(1.0, read_seconds(text))


def read_role(text: str) -> str:
    """Read the role; there is one so far."""
    role: str = one_of(ROLES)(text)
    if role == "multi-tenant":
        raise ValueError("multi-tenant is not supported yet; use single-tenant")
    return role


def read_address(text: str) -> tuple[str, int]:
    """Read ``host:port``, with an IPv6 host in brackets; port 0 picks a free one."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not separator or not host or (":" in host and not bracketed):
        raise ValueError(f"must be an address, got {text!r}; write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"must have a port from 0 to 65535, got {text!r}; write HOST:PORT, for example 127.0.0.1:8080")
    return host, int(port)


def read_admin_address(text: str) -> tuple[str, int] | str:
    """Read ``host:port``, or the path of a UNIX socket after ``unix:``."""
    if not text.startswith("unix:"):
        return read_address(text)
    path = text.removeprefix("unix:")
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError(f"must have the path of a socket after unix:, got {text!r}; write unix:/run/harn/admin.sock")
    return path
