"""
The program of an interpreter's child process: its start, its data channel on the loop, its control channel on a thread.

The server starts this file as a script: ``python -P program.py ROOT...`` with its data channel as descriptor 3, its
control channel as 4 and the pipe of `harn.vm.child.guard` as 5. That process is the guard; a second one, which it
starts immediately, is the interpreter. ``ROOT...`` are the directories that hold harn and msgspec; they are on
``sys.path`` only while these are imported, so that handlers cannot import other files beside harn in a checkout.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    _arguments = sys.argv[1:]
    _roots = [root for root in _arguments if root not in sys.path]
    sys.path[:0] = _roots

    from harn.vm.child.guard import start_guarded

    start_guarded()

import asyncio
import asyncio.events
import atexit
import contextlib
import faulthandler
import gc
import os
import socket
import traceback
from _thread import start_new_thread
from collections.abc import Collection, Sequence
from threading import Event, get_ident
from types import FrameType

from harn.vm.child.calls import CURRENT, RunningCall
from harn.vm.child.forks import abandon_loop, end_copy, watch_forks
from harn.vm.child.guard import CONTROL, DATA
from harn.vm.child.output import capture_output, capture_records
from harn.vm.child.programs import end_programs, follow_programs
from harn.vm.child.session import ChildSession
from harn.vm.child.threads import Threads
from harn.vm.frames import (
    BLOCKED_BY_NO_CALL,
    LARGEST_TO_CHILD,
    LOOP_TURNS,
    FrameReader,
    FromChild,
    Load,
    PacketWriter,
    Ping,
    Pong,
    Ready,
    ToChild,
    packet,
)
from harn.vm.imports import prepare_spawned

THREADS = 64
"""Plain handlers that run at the same time; the time of waiting ones does not run."""
PATIENCE = 0.1
"""Seconds that a running loop has to answer."""
FAREWELL = 1.5
"""Seconds that the loop has to end without being killed once the server is gone."""

_HANDLE_RUN = asyncio.events.Handle._run.__code__
_CALL_START = RunningCall.start.__code__

if __name__ == "__main__":
    for _root in _roots:
        sys.path.remove(_root)
    sys.argv[1:] = []


class ChildProgram:
    """
    The child's end of the data channel, on its loop.

    :ivar ended: the server has closed the channel.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, data: socket.socket, control: socket.socket, roots: Sequence[str]
    ) -> None:
        self.ended = False
        self._roots = roots
        self._loop = loop
        self._data = data
        self._control = control
        self._frames = PacketWriter()
        self._outgoing = b""
        self._flushing = False
        self._reader = FrameReader(ToChild, LARGEST_TO_CHILD)
        self.session = ChildSession(loop, self, threads=Threads(THREADS))
        self.watchdog = LoopWatchdog(control, loop)
        loop.add_reader(data.fileno(), self._readable)

    def runs_here(self) -> bool:
        """Return True: every thread of this process may run a handler."""
        return True

    def abandon_copy(self) -> None:
        """Close the channel and the loop, in a copy of this process."""
        self._data.close()
        self._control.close()
        abandon_loop(self._loop)

    def send(self, frame: FromChild) -> None:
        """Send together with the other frames of this turn."""
        end_copy()
        self._frames.add(frame)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def send_now(self, frame: FromChild) -> None:
        """Send, and return only when the frame has left this process."""
        end_copy()
        self._frames.add(frame)
        self._data.setblocking(True)
        try:
            self._data.sendall(self._outgoing + b"".join(self._frames.take()))
        finally:
            self._data.setblocking(False)
        self._outgoing = b""

    def end_programs(self, programs: dict[int, int]) -> None:
        """Kill the programs that a call has started."""
        end_programs(programs)

    def _flush(self) -> None:
        """Send the frames that wait; while the server does not read them, later ones wait with them."""
        try:
            while data := self._outgoing or b"".join(self._frames.take()):
                self._outgoing = data  # kept, should the next line raise
                self._outgoing = data[self._data.send(data) :]
        except BlockingIOError:
            self._loop.add_writer(self._data.fileno(), self._writable)
            return
        except OSError:
            self._end()
            return
        self._flushing = False

    def _writable(self) -> None:
        self._loop.remove_writer(self._data.fileno())
        self._flush()

    def _readable(self) -> None:
        try:
            data = self._data.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._data.fileno())
            self._end()
            return
        try:
            for frame in self._reader.feed(data):
                self.session.handle(frame)
                if type(frame) is Load:
                    self._forget_directories()
                    prepare_spawned(frame, self._roots)
        except BaseException:  # a defect of harn, never of user code: the state can no longer be trusted
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
            os._exit(70)

    def _end(self) -> None:
        self.ended = True
        self._loop.stop()

    def _forget_directories(self) -> None:
        """
        Remove local directories from ``sys.path``, so that no local module is found on disk, wherever ``PYTHONPATH``
        points.
        """
        scope = self.session.scope
        local = set() if scope is None else {os.path.realpath(each) for each in scope.directories()}
        sys.path[:] = [each for each in sys.path if each and os.path.realpath(each) not in local]
        self.watchdog.paths = self.session.paths


class LoopWatchdog:
    """Watches the loop of the thread that made it."""

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop, paths: Collection[str] = ()) -> None:
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
                    self._control.sendall(packet(self._answer(ping)))
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
    Return whose code a loop's thread runs: of the call that is being started, or, by its context, of the handle that
    the loop is running.

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
        if frame.f_code is _CALL_START:
            return frame.f_locals["self"].number, where
        if frame.f_code is _HANDLE_RUN:
            context = getattr(frame.f_locals.get("self"), "_context", None)
            call = None if context is None else context.get(CURRENT)
            return (BLOCKED_BY_NO_CALL if call is None else call.number), where
        frame = frame.f_back
    return BLOCKED_BY_NO_CALL, where


def main(roots: Sequence[str]) -> None:
    """Run until the server closes the channel."""
    for descriptor in (DATA, CONTROL):
        os.set_inheritable(descriptor, False)
    data, control = socket.socket(fileno=DATA), socket.socket(fileno=CONTROL)
    data.setblocking(False)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    program = ChildProgram(loop, data, control, roots)
    start_new_thread(program.watchdog.run, ())
    watch_forks([program])
    follow_programs()
    faulthandler.enable(2)  # a crash writes its stack to the log
    capture_output(program.session)
    capture_records(program.session)
    program.send(Ready(os.getpid()))
    gc.collect()
    gc.freeze()
    while not program.ended:
        # sys.exit() in a task that a handler started ends up here; it ends only that task.
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            end_copy(error)
        end_copy()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    os._exit(0)


if __name__ == "__main__":
    main(_arguments)
