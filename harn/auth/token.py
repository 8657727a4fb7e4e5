"""
The token of a running server: a key of the admin API that lies in the state directory, for its owner's commands.

Whoever may read the state directory may read every event in it, and start a server on it: the token gives them nothing
new, and saves an operator who is on the machine from making up a key first.
"""

from __future__ import annotations

import os
from secrets import token_urlsafe

from harn.files import read_regular

TOKEN = "token"  # noqa: S105 - the name of a file
SIZE = 32
"""Random bytes; the file holds them as text."""
LONGEST = 1024
"""Bytes that such a file may have."""


def token_path(state_dir: str) -> str:
    """Return the path of the file."""
    return os.path.join(state_dir, TOKEN)


def read_token(state_dir: str) -> bytes | None:
    """Return the token of the server on ``state_dir``; None when there is none, or we may not read it."""
    try:
        return read_regular(token_path(state_dir), LONGEST).strip() or None
    except OSError:
        return None


def write_token(state_dir: str) -> bytes:
    """
    Make a new token, which takes the old one's place; return it. Blocks, once, at start.

    :raises OSError: it cannot be written.
    """
    path = token_path(state_dir)
    token = token_urlsafe(SIZE).encode("ascii")
    beside = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # one that a crash left may have another
        file.write(token + b"\n")
    os.replace(beside, path)
    return token
