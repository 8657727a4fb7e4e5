"""The key that makes digests of secrets useless to others; made once for a state directory, kept in it."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_bytes

SIZE = 32


def read_or_make_key(state_dir: str) -> bytes:
    """
    Give the key of ``state_dir``. Blocks, once, at start.

    :raises OSError: it can be neither read nor written.
    """
    path = Path(state_dir) / "digest.key"
    try:
        key = path.read_bytes()
        if len(key) == SIZE:
            return key
    except FileNotFoundError:
        pass
    key = token_bytes(SIZE)
    beside = path.with_suffix(".tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    beside.replace(path)
    return key
