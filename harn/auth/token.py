"""
The token of a running server: an admin API key stored in the state directory, for commands of the same user. Read
access to the state directory already gives every event in it, and the ability to start a server on it, so the token
grants nothing new. It saves an operator on the same machine from creating a key first.
"""

from __future__ import annotations

import os
from secrets import token_urlsafe

from harn.files import read_regular

TOKEN = "token"  # noqa: S105 - the name of a file
SIZE = 32
"""The most bytes that such a file may have."""
LONGEST = 1024
"""Bytes that such a file may have."""


def token_path(state_dir: str) -> str:
    """Return the path of the file."""
    return os.path.join(state_dir, TOKEN)


def read_token(state_dir: str) -> bytes | None:
    """Return the token of the server on ``state_dir``; None if it does not exist or cannot be read."""
    try:
        return read_regular(token_path(state_dir), LONGEST).strip() or None
    except OSError:
        return None


def write_token(state_dir: str) -> bytes:
    """
    Write a new token, replacing the old one, and return it. Blocks, once, at start.

    :raises OSError: it cannot be written.
    """
    path = token_path(state_dir)
    token = token_urlsafe(SIZE).encode("ascii")
    beside = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # a temporary file left by a crash may have another mode
        file.write(token + b"\n")
    os.replace(beside, path)
    return token
