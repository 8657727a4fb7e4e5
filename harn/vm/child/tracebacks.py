"""Formatting of the user's exceptions: one line for records, and the user's own frames for logs."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator
from types import TracebackType

LONGEST_LINE = 4096
LONGEST_TRACEBACK = 16384


def plain_text(text: str, longest: int) -> str:
    """Make ``text`` encodable as UTF-8, and shorten it."""
    if len(text) > longest:
        text = text[:longest] + " ..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def message_of(error: BaseException) -> str:
    """Return an exception's message."""
    try:
        said = str(error)
    except BaseException:  # a __str__ of the user may do anything
        return "(its message cannot be shown)"
    return plain_text(said, LONGEST_LINE)


def one_line(error: BaseException) -> str:
    """Write ``Type: message``, or the type alone when there is no message."""
    name, said = type(error).__name__, message_of(error)
    return plain_text(f"{name}: {said}" if said else name, LONGEST_LINE)


def user_frames(trace: TracebackType | None, paths: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield file and line of each frame in the user's files, outermost first."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in paths:
            yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def user_traceback(error: BaseException, paths: Collection[str]) -> str:
    """Format the traceback from the user's first frame on; bounded."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename not in paths:
        trace = trace.tb_next
    try:
        lines = traceback.format_exception(type(error), error, trace, limit=-50)
    except BaseException:
        return one_line(error)
    text = "".join(lines)
    if len(text) > LONGEST_TRACEBACK:  # the end has the cause
        text = "... " + text[-LONGEST_TRACEBACK:]
    return plain_text(text.rstrip(), LONGEST_TRACEBACK + 8)
