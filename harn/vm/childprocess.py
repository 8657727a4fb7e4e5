"""
One child process: starting it, talking to it and ending it. Its owner decides what it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import harn
from harn.errors import StageFailed
from harn.processes import signals_blocked
from harn.vm.channel import Channel
from harn.vm.child.guard import CONTROL, DATA, HELD, LIFE
from harn.vm.frames import LARGEST_FROM_CHILD, FrameReader, FromChild, Ping, Pong, Ready
from harn.vm.handler_output import Printing

PROGRAM = Path(__file__).with_name("program.py")
START_LIMIT = 30.0
"""Seconds that a process may take to be ready."""
CLOSE_GRACE = 2.0
"""Seconds that a process has to end without being killed."""
KILL_GRACE = 6.0
"""
Seconds that a guard has to end everything: longer than its own `LAST_KILLS`; with `CLOSE_GRACE` less than the time that
the stopping server waits for its interpreters.
"""

_SECRETS = (
    "HARN_SECRET_",
    "HARN_ORCHESTRATOR_API_KEYS",
    "HARN_ORCHESTRATOR_HMAC_SECRET",
    "HARN_ORCHESTRATOR_STORE",
    "HARN_OTEL_HEADERS",
)
"""Prefixes of the names of variables with secrets."""
_SUPERVISION = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
)
"""Variables by which the service manager talks to the server."""
OUTPUT = 1
"""Descriptor of the child to which its C code prints; 2 is the same."""
DATA_BUFFER = 262_144
"""Bytes of each buffer of the data channel's sockets."""
_TAIL = 2000
"""Bytes of the latest raw output that are kept to explain a death."""


class ProcessOwner(Protocol):
    """The callbacks of a child process's owner."""

    def frames_received(self, frames: Sequence[FromChild]) -> None:
        """Called with frames of the data channel, those together that came together."""

    def pong_received(self, pong: Pong) -> None:
        """Called with the answer to a ping."""

    def process_gone(self, why: str) -> None:
        """Called when the process has ended unasked; ``why`` is for people."""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment of handlers: the server's, without its secrets, which handlers get by `Context.secret`, and
    without the service manager's variables, since a handler must not talk to it in the server's name. One process runs
    many calls, so the environment is the same for all: whether a delivery is a replay is in the context.
    """
    return {
        name: value for name, value in environ.items() if name not in _SUPERVISION and not name.startswith(_SECRETS)
    }


class Pipes(Struct, frozen=True, kw_only=True):
    """
    The server's ends of the pipes and sockets to a child, and the descriptors that the child inherits.

    :ivar output: for reading, of the child's descriptors 1 and 2.
    :ivar life: for writing; the guard kills everything when it is closed, or written to.
    :ivar inherited: our descriptor by the child's.
    """

    data: socket.socket
    control: socket.socket
    output: int
    life: int
    inherited: Mapping[int, int]


@contextlib.contextmanager
def child_pipes() -> Iterator[Pipes]:
    """
    Open the pipes and sockets to a child; on exit close the child's ends, and after an error the server's ends too.

    :raises OSError: too many descriptors are open.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:

        def pair() -> tuple[socket.socket, socket.socket]:
            one, other = socket.socketpair()
            ours.callback(one.close)
            theirs.callback(other.close)
            return one, other

        def pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
            reading, writing = os.pipe()
            reader.callback(os.close, reading)
            writer.callback(os.close, writing)
            return reading, writing

        data, their_data = pair()
        for each in (data, their_data):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                each.setsockopt(socket.SOL_SOCKET, option, DATA_BUFFER)
        control, their_control = pair()
        output, their_output = pipe(ours, theirs)
        their_life, life = pipe(theirs, ours)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs.callback(os.close, nothing)
        inherited = {
            0: nothing,
            1: their_output,
            2: their_output,
            DATA: their_data.fileno(),
            CONTROL: their_control.fileno(),
            LIFE: their_life,
        }
        yield Pipes(data=data, control=control, output=output, life=life, inherited=inherited)
        ours.pop_all()


class ChildProcess(ProcessProtocol):
    """
    A process that runs `harn.vm.program`: a guard, and the interpreter below it.

    :ivar owner: called with the frames, and at the end; None while the process is an unused spare.
    :ivar ready: fires with this object once the process can accept a bundle, or fails with `StageFailed`.
    :param printing: gets the output of C code in the process on descriptors 1 and 2.
    """

    def __init__(self, reactor: Any, printing: Printing) -> None:
        """Start nothing yet. ``reactor`` is an ``IReactorProcess``, ``IReactorFDSet`` and ``IReactorTime``."""
        self.owner: ProcessOwner | None = None
        self.ready: Deferred[ChildProcess] = Deferred()
        self._printing = printing
        self._reactor = reactor
        self._frames = FrameReader(FromChild, LARGEST_FROM_CHILD)
        self._pongs = FrameReader(Pong, LARGEST_FROM_CHILD)
        self._is_ready = False
        self._tail = b""
        self._timer: Any = None
        self._alive = False
        self._closing = False
        self._broken = ""
        self._gone: list[Deferred[None]] = []
        self._pid = 0
        self._interpreter = 0
        self._life = -1
        self._data: Channel | None = None
        self._control: Channel | None = None
        self._output: Channel | None = None

    @property
    def pid(self) -> int | None:
        """The guard's id while it lives."""
        return self._pid if self._alive else None

    def spawn(self) -> None:
        """
        Start the process.

        :raises OSError: the system cannot start a process.
        """
        roots = dict.fromkeys(str(Path(module.__path__[0]).parent) for module in (harn, msgspec))
        with signals_blocked(HELD), child_pipes() as pipes:
            transport = self._reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-P", str(PROGRAM), *roots],
                env=child_environment(os.environ),
                childFDs=pipes.inherited,
            )
        self._alive = True
        self._pid = transport.pid
        self._life = pipes.life
        self._data = Channel(self._reactor, pipes.data.detach(), self, DATA)
        self._control = Channel(self._reactor, pipes.control.detach(), self, CONTROL)
        self._output = Channel(self._reactor, pipes.output, self, OUTPUT)
        self._timer = self._reactor.callLater(START_LIMIT, self.kill, f"it was not ready within {START_LIMIT:g} s")

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame on the data channel; do nothing if the process is gone."""
        if self._data is not None:
            self._data.send(frame)

    def exchange(self) -> None:
        """Handle the frames that have come, and send those that wait, before this turn of the reactor ends."""
        if self._data is not None:
            self._data.exchange()

    def ping(self, number: int) -> None:
        """Send a `Ping`."""
        if self._control is not None:
            self._control.send(Ping(number))

    def kill(self, why: str = "") -> None:
        """Make the guard kill the interpreter, and all processes that handlers have started in it, immediately."""
        self._broken = self._broken or why
        if not self._alive or self._life < 0:
            return
        with contextlib.suppress(OSError):  # it is ending already
            os.write(self._life, b"k")
        self._close_life()
        self._stop_timer()
        self._timer = self._reactor.callLater(KILL_GRACE, self._kill_guard)

    def _close_life(self) -> None:
        if self._life >= 0:
            life, self._life = self._life, -1
            os.close(life)

    def _kill_guard(self) -> None:
        """Kill a guard that does not react (it was stopped, for example); the kernel then ends the interpreter."""
        if self._alive and self.transport is not None:
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def close(self) -> Deferred[None]:
        """End the process in order, or by force after `CLOSE_GRACE`; fires when it is gone."""
        gone: Deferred[None] = Deferred()
        if not self._alive:
            gone.callback(None)
            return gone
        self._gone.append(gone)
        if not self._closing:
            self._closing = True
            self.owner = None
            self._stop_timer()
            self._timer = self._reactor.callLater(CLOSE_GRACE, self.kill)
            for channel in (self._data, self._control):
                if channel is not None:
                    channel.close()
        return gone

    # Frames from the process

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's names
        """See `IChannelUser.childDataReceived`."""
        if childFD == DATA:
            self._data_received(data)
        elif childFD == CONTROL:
            self._control_received(data)
        else:
            self._output_received(data)

    def childConnectionLost(self, childFD: int) -> None:  # noqa: N802, N803 - Twisted's names
        """See `IChannelUser.childConnectionLost`. One that is not the data channel's means nothing by itself."""
        if childFD != DATA or self._life < 0:  # its end was requested
            return
        # Either it is about to be reaped, or a handler closed the descriptors and the process cannot be reached.
        self._stop_timer()
        self._timer = self._reactor.callLater(CLOSE_GRACE, self.kill, "it closed its channel")

    def _data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except ValueError as error:
            self.kill(f"it broke the protocol: {error}")
            return
        if self.owner is not None:
            self.owner.frames_received(frames)
            return
        for frame in frames:
            if type(frame) is Ready and not self._is_ready:
                self._is_ready = True
                self._interpreter = frame.pid
                self._stop_timer()
                self.ready.callback(self)

    def _control_received(self, data: bytes) -> None:
        try:
            pongs = self._pongs.feed(data)
        except ValueError as error:
            self.kill(f"it broke the protocol: {error}")
            return
        for pong in pongs:
            if self.owner is not None:
                self.owner.pong_received(pong)

    def _output_received(self, data: bytes) -> None:
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]
        self._printing.raw(data)

    # Its end

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Read the remaining output, and notify the owner and all waiters."""
        self._alive = False
        self._stop_timer()
        self._close_life()
        self._end_what_is_left(reason)
        for channel in (self._data, self._control, self._output):
            if channel is not None:
                channel.finish()
        self._stop_timer()
        self._data = self._control = self._output = None
        why = self._explain(reason)
        owner, self.owner = self.owner, None
        if not self._is_ready:
            self._is_ready = True
            tail = self._tail.decode("utf-8", "replace").strip()
            said = f"no interpreter: {why} before it was ready" + (f": {tail}" if tail else "")
            self.ready.errback(Failure(StageFailed("resolve", said)))
        if owner is not None and not self._closing:
            owner.process_gone(why)
        waiting, self._gone = self._gone, []
        for gone in waiting:
            gone.callback(None)

    def processEnded(self, reason: Failure) -> None:
        """Release the transport, which references this object."""
        self.transport = None

    def _end_what_is_left(self, reason: Failure) -> None:
        """Kill the interpreter's group if the guard may have been killed before it could do so."""
        if self._interpreter and getattr(reason.value, "signal", None) == signal.SIGKILL:
            with contextlib.suppress(OSError):
                os.killpg(self._interpreter, signal.SIGKILL)

    def _explain(self, reason: Failure) -> str:
        error = reason.value
        if self._broken:
            return f"the interpreter's process was killed: {self._broken}"
        if isinstance(error, ProcessTerminated) and error.signal:
            try:
                name = signal.Signals(error.signal).name
            except ValueError:
                name = str(error.signal)
            return f"the interpreter's process was ended by signal {name}"
        status = 0 if isinstance(error, ProcessDone) else getattr(error, "exitCode", None)
        return f"the interpreter's process exited with status {status}"

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
