"""
Reading a whole file that somebody named, without ever waiting for what is no file.

A named pipe without a writer would keep the thread that opens it for ever, and a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat


class NotRegular(OSError):
    """A pipe, a socket or a device: nothing that can be read to its end at once."""


class TooLarge(OSError):
    """More bytes than the caller takes for sensible."""


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """
    Give the bytes of a regular file; links are followed. Blocks: call it in a thread.

    :param limit: bytes; a larger file is refused, most of it unread.
    :raises NotRegular: it is a pipe, a socket or a device.
    :raises TooLarge: it holds more than ``limit`` bytes.
    :raises OSError: it cannot be opened or read; for a directory, `IsADirectoryError`. A path with a NUL in it names
        nothing: `FileNotFoundError`.
    """
    try:
        # A socket cannot be opened at all, so that its kind must be asked for first.
        _refuse_special(os.stat(path).st_mode, path)
        with open(path, "rb", opener=_open_now) as file:
            found = os.fstat(file.fileno())
            _refuse_special(found.st_mode, path)
            data = file.read(limit + 1) if found.st_size <= limit else None
    except ValueError:
        raise FileNotFoundError(errno.ENOENT, "no file has a null byte in its name", path) from None
    if data is None or len(data) > limit:
        raise TooLarge(errno.EFBIG, f"it is larger than {_in_words(limit)}", path)
    return data


def _open_now(path: str, flags: int) -> int:
    """Open without waiting for anybody at the other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_special(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a directory `open` itself says what it is
        raise NotRegular(errno.EINVAL, "it is no regular file", path)


def _in_words(count: int) -> str:
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"
