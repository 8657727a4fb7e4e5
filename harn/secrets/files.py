"""Reading one small file that an environment variable names, with an error that says why it cannot be read."""

from __future__ import annotations

from harn.errors import SecretUnavailable
from harn.files import NotRegular, TooLarge, read_regular

LARGEST = 64 * 1024
"""Bytes; no secret is larger, so a larger file is a mistake."""


def read_secret_file(variable: str, path: str) -> bytes:
    """
    Return the file's bytes without one trailing newline. Blocks: call it in a thread.

    :param variable: the environment variable that names the file, for the message.
    :raises SecretUnavailable: not a regular file, not readable, or larger than 64 KiB; never quotes the content.
    """
    try:
        content = read_regular(path, LARGEST)
    except NotRegular as error:
        raise SecretUnavailable(f"{variable} names {path!r}, which is not a regular file") from error
    except TooLarge as error:
        raise SecretUnavailable(f"{variable} names {path!r}, which is larger than {LARGEST // 1024} KiB") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SecretUnavailable(f"{variable} names {path!r}, which cannot be read: {reason}") from error
    return content.removesuffix(b"\r\n" if content.endswith(b"\r\n") else b"\n")
