"""Output of commands: results on standard output, errors on standard error, neither able to steer a terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import click

from harn.errors import HarnError
from harn.model.display import visible_lines

_OF_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG, errno.EDQUOT)
"""What writing to a terminal or a file fails with."""

UNCHANGED, CHANGES, PROBLEMS = 0, 1, 2
"""Exit statuses of a dry run: nothing would change, something would, it could not be made or found problems."""

Line = tuple[str, str]
"""A line for people: its text, and a style of rich."""


def print_error(text: str) -> None:
    """Print ``error: ...`` on standard error; where that cannot be written to, the exit status has to do."""
    warn(f"error: {text}")


@contextmanager
def ending_dry_run(dry_run: bool) -> Iterator[None]:
    """End the process with `PROBLEMS` when a dry run fails: 1 means that something would change."""
    try:
        yield
    except (HarnError, OSError) as error:
        if not dry_run or isinstance(error, BrokenPipeError):
            raise
        print_error(describe(error) if isinstance(error, OSError) else str(error))
        sys.exit(PROBLEMS)


def describe(error: OSError) -> str:
    """Return a description of an error of the system."""
    why = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {why}"
    if error.errno in _OF_OUTPUT:
        return f"standard output cannot be written to: {why}"
    return f"the system refused: {why}"


def warn(text: str) -> None:
    """Print a text on standard error."""
    with suppress(OSError):
        for line in visible_lines(text):
            click.echo(line, err=True)


def print_lines(lines: Iterable[Line], *, is_error: bool = False) -> None:
    """Print lines, on stdout or stderr: in colours where that is a terminal."""
    stream = sys.stderr if is_error else sys.stdout
    if stream.isatty():
        from harn.cli.terminal import print_styled

        print_styled(lines, stream)
    elif is_error:
        for text, _ in lines:
            warn(text)
    else:
        for text, _ in lines:
            click.echo(text)
