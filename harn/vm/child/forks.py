"""
Copies of an interpreter that handlers make with ``os.fork``, directly or through a library.

A copy holds the interpreter's channel and its loop, and every running call; it may use none of them. It continues the
code that forked, has the signal handlers of a fresh process, and ends when that code returns: it never answers a call,
and never reads the interpreter's frames.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import traceback
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from selectors import SelectSelector
from threading import get_ident
from typing import Any, Protocol

from harn.vm.child.guard import HELD

_copied = False


def is_copy() -> bool:
    """Return whether this process is a copy."""
    return _copied


class Forkable(Protocol):
    """An interpreter whose handlers may fork; both methods are called in the new process."""

    def runs_here(self) -> bool:
        """Return whether this thread runs its handlers, so that one of them has forked."""

    def abandon_copy(self) -> None:
        """Close all that the copy shares with the interpreter."""


def watch_forks(interpreters: Iterable[Forkable]) -> None:
    """Mark each fork by a handler of ``interpreters`` as a copy from now on; for the life of the process."""
    # A signal that comes before the copy has its own handlers must be pending until then, or it would be lost.
    masks: dict[int, set[int]] = {}

    def hold_signals() -> None:
        masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)

    def release_signals() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident(), ()))

    def begin_process() -> None:
        try:
            for interpreter in interpreters:
                if interpreter.runs_here():
                    begin_copy(interpreter)
                    break
        finally:
            release_signals()

    def begin_copy(interpreter: Forkable) -> None:
        global _copied
        _copied = True
        # Exit functions registered before belong to the interpreter: the copy must not remove its temporary files.
        atexit._clear()
        for number in HELD:
            signal.signal(number, signal.SIG_DFL)
        interpreter.abandon_copy()

    os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=begin_process)


def abandon_loop(loop: AbstractEventLoop) -> None:
    """
    Stop a loop in a copy, after the callback that runs now.

    The copy's selector is the interpreter's own (the kernel shares it over a fork), so it must not even be changed.
    """
    inside: Any = loop  # asyncio has no public API for this
    for handle in tuple(getattr(inside, "_ready", ())):
        handle.cancel()
    selector = getattr(inside, "_selector", None)
    if selector is not None:
        inside._selector = SelectSelector()
        selector.close()
    for name in ("_ssock", "_csock"):
        wakes = getattr(inside, name, None)
        if wakes is not None:
            wakes.close()
    executor = getattr(inside, "_default_executor", None)
    if executor is not None:
        executor.shutdown(wait=False)  # a copy that was made on one of its threads ends with that thread's job
    loop.stop()


def end_copy(error: BaseException | None = None) -> None:
    """
    End this process if it is a copy whose handler has returned, as Python ends one; else do nothing.

    :param error: the exception that the forking code raised.
    """
    if not _copied:
        return
    status = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code & 0xFF
        elif error.code is not None:
            status = 1
            _say(f"{error.code}\n")
    elif error is not None:
        status = 1
        with contextlib.suppress(BaseException):
            _say("".join(traceback.format_exception(error)))
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # those of the copy itself
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def write_raw(descriptor: int, data: bytes) -> None:
    """Write past the channel, to the raw output that the server reads; data that cannot be written is dropped."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


def _say(text: str) -> None:
    write_raw(2, text.encode("utf-8", "replace"))
