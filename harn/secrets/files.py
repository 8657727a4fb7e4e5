"""Reads one small file that an environment variable names, and says clearly why it cannot."""

from __future__ import annotations

import os
import stat

from harn.errors import SecretUnavailable

LARGEST = 64 * 1024
"""Bytes; no secret is larger, so a larger file is a mistake."""


def read_secret_file(variable: str, path: str) -> bytes:
    """
    Give the file's bytes without one trailing newline. Blocks: call it in a thread.

    :param variable: the environment variable that names the file, for the message.
    :raises SecretUnavailable: no regular file, not readable, or larger than 64 KiB; never quotes what is in it.
    """
    try:
        with open(path, "rb", opener=_open_now) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SecretUnavailable(f"{variable} names {path!r}, which is no regular file")
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SecretUnavailable(f"{variable} names {path!r}, which cannot be read: {reason}") from error
    if len(content) > LARGEST:
        raise SecretUnavailable(f"{variable} names {path!r}, which is larger than {LARGEST // 1024} KiB")
    return content.removesuffix(b"\r\n" if content.endswith(b"\r\n") else b"\n")


def _open_now(path: str, flags: int) -> int:
    """Open without waiting, so that a named pipe is refused and not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
