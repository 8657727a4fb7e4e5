"""
The programs that a call has started, so that they end with it when its time has run out.

Programs started by `subprocess`, asyncio, `os.fork`, ``os.posix_spawn`` and `multiprocessing` belong to the call whose
code starts them, with all that they start in turn; workers of process pools belong to no call, as later calls use them
too.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import signal
import subprocess
from collections.abc import Callable
from functools import wraps
from typing import Any

from harn.processes import descendants_of, parent_and_start
from harn.vm.child.calls import CURRENT

POOLS = ("multiprocessing.pool", "concurrent.futures.process")
"""Modules of the functions that workers of pools run."""


def follow_programs() -> None:
    """Record from now on which call starts which program. For the life of the process."""
    _follow_popen()
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
        plain = getattr(os, name, None)
        if plain is not None:
            setattr(os, name, _following(plain))
    _follow_multiprocessing()


def _note(pid: int) -> None:
    call = CURRENT.get()
    if call is not None and pid > 0:
        call.programs[pid] = parent_and_start(pid)[1]


def _following(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def start(*arguments: Any, **options: Any) -> Any:
        started = plain(*arguments, **options)
        _note(started[0] if isinstance(started, tuple) else started)
        return started

    return start


def _follow_popen() -> None:
    plain = subprocess.Popen.__init__

    @wraps(plain)
    def start(self: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options)
        _note(self.pid)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def _follow_multiprocessing() -> None:
    plain = multiprocessing.process.BaseProcess.start

    @wraps(plain)
    def start(self: multiprocessing.process.BaseProcess) -> None:
        target = getattr(self, "_target", None)
        if getattr(target, "__module__", None) not in POOLS:
            plain(self)
            _note(self.pid or 0)
            return
        kept = CURRENT.set(None)
        try:
            plain(self)
        finally:
            CURRENT.reset(kept)

    multiprocessing.process.BaseProcess.start = start  # type: ignore[method-assign]


def end_programs(programs: dict[int, int]) -> None:
    """
    Kill programs and all that they have started.

    :param programs: by number, when each was started. Another process may have that number by now; if the start time of
        a process is unknown, none is killed.
    """
    while programs:
        pid, started = programs.popitem()
        if not started or parent_and_start(pid)[1] != started:
            continue
        for each in (*descendants_of(pid)[::-1], pid):
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
