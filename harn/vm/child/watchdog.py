"""
The child's thread that answers the server whatever its loop does, and ends the process when the server is gone.
"""

from __future__ import annotations

import asyncio.events
import os
import socket
import sys
from asyncio import AbstractEventLoop
from collections.abc import Collection
from threading import Event, get_ident
from types import FrameType

from harn.vm.child.calls import CURRENT
from harn.vm.frames import BLOCKED_BY_NO_CALL, LARGEST_TO_CHILD, LOOP_TURNS, FrameReader, Ping, Pong, append_frame

PATIENCE = 0.1
"""Seconds that a running loop has to answer."""
FAREWELL = 1.5
"""Seconds that the loop has to end without being killed once the server is gone."""

_HANDLE_RUN = asyncio.events.Handle._run.__code__


class LoopWatchdog:
    """Watches the loop of the thread that made it."""

    def __init__(self, control: socket.socket, loop: AbstractEventLoop, paths: Collection[str] = ()) -> None:
        self.paths = paths
        self._control = control
        self._loop = loop
        self._watched = get_ident()
        self._over = Event()

    def loop_ended(self) -> None:
        """Called when the loop has ended."""
        self._over.set()

    def run(self) -> None:
        """Answer pings until the server closes the channel; then end the process."""
        reader = FrameReader(Ping, LARGEST_TO_CHILD)
        try:
            while data := self._control.recv(4096):
                for ping in reader.feed(data):
                    answer = bytearray()
                    append_frame(answer, self._answer(ping))
                    self._control.sendall(answer)
        except (OSError, ValueError, RuntimeError):
            pass  # the server, or the loop, is gone
        self._over.wait(FAREWELL)
        os._exit(0)

    def _answer(self, ping: Ping) -> Pong:
        beat = Event()
        self._loop.call_soon_threadsafe(beat.set)
        if beat.wait(PATIENCE):
            return Pong(ping.number, LOOP_TURNS)
        culprit, where = find_culprit(sys._current_frames().get(self._watched), self.paths)
        return Pong(ping.number, culprit, where)


def find_culprit(frame: FrameType | None, paths: Collection[str]) -> tuple[int, str]:
    """
    Return whose code a loop's thread runs, by the context of the handle that the loop is running.

    This works for handlers, tasks and callbacks that they started alike. A handle's context is private to asyncio;
    without it, or outside any handle, the result is `BLOCKED_BY_NO_CALL`.

    :param frame: the thread's innermost frame.
    :param paths: the user's files, to report the line.
    :return: the call's number or `BLOCKED_BY_NO_CALL`, and ``file:line``.
    """
    where = ""
    while frame is not None:
        if not where and frame.f_code.co_filename in paths:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if frame.f_code is _HANDLE_RUN:
            context = getattr(frame.f_locals.get("self"), "_context", None)
            call = None if context is None else context.get(CURRENT)
            return (BLOCKED_BY_NO_CALL if call is None else call.number), where
        frame = frame.f_back
    return BLOCKED_BY_NO_CALL, where
