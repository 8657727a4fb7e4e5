"""The value of ``--data``: a text, the content of a file, or standard input."""

from __future__ import annotations

import os
import sys

from harn.errors import HarnError

LONGEST = 60
"""Characters of a text that a message quotes."""


class DataWrong(HarnError):
    """A value of ``--data`` that a command cannot send."""


def read_data(given: str) -> bytes:
    """
    Return the bytes that ``TEXT``, ``@FILE`` or ``-`` stand for; ``@-`` is standard input, too.

    :raises DataWrong: the file cannot be read.
    """
    if given in ("-", "@-"):
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return os.fsencode(given)
    path = given[1:]
    try:
        with open(path, "rb") as file:  # a pipe, as of <(...) in a shell, is as good as a file
            return file.read()
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DataWrong(f"--data: {path or 'the file after @'} cannot be read: {why}") from None


def shortened(text: str) -> str:
    """Return the beginning of a text, for a message."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
