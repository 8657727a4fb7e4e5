"""
The program of an interpreter's child process.

The server starts this file as a script: ``python -P program.py ROOT...`` with its data channel as descriptor 3, its
control channel as 4 and the pipe of `harn.vm.child.guard` as 5. That process is the guard; a second one, which it
starts at once, is the interpreter. ``ROOT...`` are the directories that hold harn and msgspec; they are on ``sys.path``
only while these are imported, so that handlers cannot import other files beside harn in a checkout.
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
import atexit
import contextlib
import faulthandler
import gc
import os
import socket
import traceback
from _thread import start_new_thread
from collections.abc import Sequence

from harn.vm.child.forks import abandon_loop, end_copy, watch_forks
from harn.vm.child.guard import CONTROL, DATA
from harn.vm.child.output import capture_output
from harn.vm.child.programs import end_programs, follow_programs
from harn.vm.child.records import capture_records
from harn.vm.child.session import ChildSession
from harn.vm.child.spawned import prepare_spawned
from harn.vm.child.threads import Threads
from harn.vm.child.watchdog import LoopWatchdog
from harn.vm.frames import LARGEST_TO_CHILD, FrameReader, FromChild, Load, Ready, ToChild, append_frame

THREADS = 64
"""Plain handlers that run at once; the time of waiting ones does not run."""

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
        self._outgoing = bytearray()
        self._flushing = False
        self._reader = FrameReader(ToChild, LARGEST_TO_CHILD)
        self.session = ChildSession(
            loop, self.send, threads=Threads(THREADS), send_now=self._send_now, end_programs=end_programs
        )
        self.watchdog = LoopWatchdog(control, loop)
        loop.add_reader(data.fileno(), self._readable)

    def abandon(self) -> None:
        """Close the channel and the loop, in a copy of this process."""
        self._data.close()
        self._control.close()
        abandon_loop(self._loop)

    def send(self, frame: FromChild) -> None:
        """Send together with the other frames of this turn."""
        end_copy()
        append_frame(self._outgoing, frame)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _send_now(self, frame: FromChild) -> None:
        end_copy()
        append_frame(self._outgoing, frame)
        self._data.setblocking(True)
        try:
            self._data.sendall(self._outgoing)
        finally:
            self._data.setblocking(False)
        self._outgoing.clear()

    def _flush(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._data.send(self._outgoing)]
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
    watch_forks(lambda: program.abandon)
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
