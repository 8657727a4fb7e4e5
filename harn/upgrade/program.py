"""
The programs of an upgrade: starting the new one with its inheritance, the channel between the two, and the old process
as the new one sees it.

The channel is a socket pair with one message a line. The new program sends `READY` when it could serve. When the old
one accepts no more connections, it sends `TAKE_OVER`; the new one then accepts them, and sends `TAKEN`: until then the
old one can continue. `MAIN` says that the service manager was given the new program's process id. That the channel
closes says that the other program has ended or given up.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import EventLogUnavailable, HarnError, ShuttingDown, StateDirectoryUnusable
from harn.store.lock import StateDirectoryLock
from harn.systemd import PASSED_COUNT, PASSED_NAMES, PASSED_PID, WATCHDOG_PID
from harn.upgrade.interfaces import IChannelUser, INewServer, IServerLife
from harn.waiting import retry

log = Logger(namespace="harn")


VARIABLE = "HARN_HANDOVER"
LISTENING, LOCK, CHANNEL, DIRECTORY = 3, 4, 5, 6
"""Descriptors in the new program."""
_SCRIPT_HEAD = 1024
_OF_THIS_PROCESS = frozenset((PASSED_COUNT, PASSED_PID, PASSED_NAMES, WATCHDOG_PID))
"""Environment variables that hold for one process alone."""
READY, TAKE_OVER, TAKEN, MAIN = b"serves", b"yours", b"taken", b"main"
"""As sent. A version never changes them: the other program may be an older or newer one."""
LONGEST_MESSAGE = 64


class HandoverFailed(HarnError):
    """A new program could not take over; the message says why."""


class Program(Struct, frozen=True):
    """
    The command line and environment of a program.

    :ivar executable: its path.
    :ivar arguments: begin with its name.
    :ivar directory: the working directory in which it is started.
    """

    executable: str
    arguments: tuple[str, ...]
    directory: str

    @classmethod
    def of(cls, original: Sequence[str], interpreter: str, directory: str) -> Program:
        """
        Return the command that starts the program of this process again.

        A script that was started by its own first line is started by that again: with a new version, another
        interpreter may stand there.

        :param original: ``sys.orig_argv``.
        :param interpreter: ``sys.executable``.
        """
        if len(original) > 1 and _names_interpreter(os.path.join(directory, original[1]), original[0]):
            return cls(original[1], tuple(original[1:]), directory)
        return cls(interpreter, (interpreter, *original[1:]), directory)


def _names_interpreter(path: str, interpreter: str) -> bool:
    """Return whether a file is a script that runs itself with this interpreter."""
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_SCRIPT_HEAD)
    except OSError:
        return False
    # Where the path is too long for a first line, the second one has it.
    return head.startswith(b"#!") and os.fsencode(interpreter) in b"\n".join(head.split(b"\n")[:2])


class Inheritance(msgspec.Struct, frozen=True, kw_only=True, rename={"channel": "pair"}):
    """
    The inheritance of a new program. Unknown members of the JSON text are ignored: another version wrote it.

    :ivar pid: of the old program.
    :ivar incarnation: the ``owner`` of the deliveries that the old program finishes itself.
    :ivar listening: the descriptor of the listening socket.
    :ivar lock: the descriptor of the state directory's lock file.
    :ivar channel: the descriptor of the new program's end of the channel, named ``pair`` in the JSON text.
    :ivar directory: the descriptor of the state directory; None when the old program has not locked that.
    """

    pid: int
    incarnation: int
    listening: int = LISTENING
    lock: int = LOCK
    channel: int = CHANNEL
    directory: int | None = None

    def encode(self) -> str:
        """Return it as the value of `VARIABLE`."""
        return msgspec.json.encode(self).decode("ascii")

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """
        Read and remove it from the environment; None if it is not set.

        :raises HandoverFailed: the variable does not come from an old program, or a descriptor in it is not open.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        what_to_do = "the server sets it for the new program of an upgrade; take it out of the environment"
        try:
            found = msgspec.json.decode(text, type=cls)
        except ValueError as error:  # msgspec's errors are ValueErrors
            raise HandoverFailed(f"{VARIABLE} cannot be read ({error}); {what_to_do}") from None
        for descriptor in (found.listening, found.lock, found.channel, found.directory):
            if descriptor is None:
                continue
            try:
                os.set_inheritable(descriptor, False)
            except (OSError, OverflowError):
                raise HandoverFailed(
                    f"{VARIABLE} names descriptor {descriptor}, which is not open; {what_to_do}"
                ) from None
        return found


def program_environment(environ: Mapping[str, str], inheritance: Inheritance) -> dict[str, str]:
    """Return the new program's environment: that of this process, without what holds for this process alone."""
    kept = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
    return {**kept, VARIABLE: inheritance.encode()}


class HandoverChannel(Protocol):
    """One end of the channel."""

    def __init__(self, user: IChannelUser) -> None:
        self._user = user
        self._buffer = b""

    @classmethod
    def open(cls, reactor: Any, descriptor: int, user: IChannelUser) -> HandoverChannel:
        """
        Begin to read from an end; the descriptor is taken over.

        :param reactor: an ``IReactorSocket``.
        :raises HandoverFailed: it is not an end of a socket pair.
        """
        channel = cls(user)
        try:
            with socket.socket(fileno=descriptor) as end:
                end.setblocking(False)
                reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _ChannelFactory(channel))
        except OSError as error:
            raise HandoverFailed(
                f"descriptor {descriptor} must be an end of a socket pair, got: {error.strerror}"
            ) from None
        return channel

    def send(self, message: bytes) -> None:
        """Send a message; nothing is sent once the other end is closed."""
        if self.transport is not None:
            self.transport.write(message + b"\n")

    def close(self) -> None:
        """Close this end."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Buffer input and pass on complete lines; the rest of a line that is too long is dropped."""
        *messages, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[:LONGEST_MESSAGE]
        for message in messages:
            self._user.message_received(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the other end is closed."""
        self.transport = None
        self._user.channel_lost()


class _ChannelFactory(Factory):
    """Returns the one protocol that there is."""

    noisy = False

    def __init__(self, channel: HandoverChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: IAddress | None) -> HandoverChannel:  # noqa: N802 - Twisted's name
        return self._channel


PATIENCE = 2.0
"""Seconds that the old program may take to give the service manager our process id."""
RETRY_INTERVAL = 1.0
"""Seconds until deliveries are taken over that could not be, since the event log was not available."""


@implementer(IChannelUser)
class OldProcess:
    """
    The old program: serves until this one could, then finishes its deliveries; what it leaves is taken over at its end.

    :ivar has_ended: its process has ended, in whatever way.
    """

    def __init__(self, reactor: Any, inheritance: Inheritance) -> None:
        """Open nothing yet. ``reactor`` is an ``IReactorSocket`` and ``IReactorTime``."""
        self.has_ended = False
        self._inheritance = inheritance
        self._reactor = reactor
        self._channel: HandoverChannel | None = None
        self._may_take_over: Deferred[None] = Deferred()
        self._is_main: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._tasks: list[Deferred[None]] = []  # two at most
        self._closed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._inheritance.pid

    def inherit(self, lock: StateDirectoryLock) -> None:
        """
        Hold the state directory together with it, and open the channel to it.

        :raises StateDirectoryUnusable: the lock that was inherited is that of another directory.
        :raises HandoverFailed: the descriptor that was inherited is not an end of a channel.
        """
        lock.inherit(self._inheritance.lock, self._inheritance.directory)
        self._channel = HandoverChannel.open(self._reactor, self._inheritance.channel, self)

    async def take_over(self, server: INewServer, lock: StateDirectoryLock, life: IServerLife) -> tuple[str, int]:
        """
        Serve in its place.

        :return: the URL, and how many deliveries of still earlier servers were taken over.
        """
        assert self._channel is not None
        url = await server.open_port(self._inheritance.listening)
        server.pause_listening()
        self._channel.send(READY)
        await self._may_take_over
        await server.read_gates()
        await server.read_rollouts()
        # The step in which this program takes over: no ``await`` until `TAKEN` is sent.
        life.serve()
        server.begin_rollouts()
        server.resume_listening()
        self._channel.send(TAKEN)
        # From here on this is the only server: what can be done later must not fail it.
        try:
            lock.claim()
        except StateDirectoryUnusable as error:
            log.warn("the lock still names the old program: {why}", why=str(error))
        recovered = await self._begin_ownership(server)
        # What we tell the service manager counts only once it has our process id, which the old program gives it.
        await self._is_main.addTimeout(PATIENCE, self._reactor, onTimeoutCancel=lambda *_: None)
        return url, recovered

    async def _begin_ownership(self, server: INewServer) -> int:
        """Write down that this program serves, and take over deliveries; try again what fails."""
        try:
            server.own_state_file()
            await server.note_serving()
            await server.save_state()
            return await self._recover(server)
        except (CancelledError, ShuttingDown):
            raise  # the server ends
        except Exception as error:
            if not isinstance(error, EventLogUnavailable):
                log.failure("taking over from the old program is not complete, and is tried again")
            self._begin_recovering(server)
            return 0

    def take_over_rest(self, server: INewServer) -> None:
        """Called when it has ended: take over its deliveries, and run the start hooks that could not run beside it."""

        def go_on(_: object) -> None:
            if not self._closed:
                server.retry_start_hooks()
            self._begin_recovering(server)

        self._ended.addCallback(go_on)

    def close(self) -> None:
        """Close the channel, and take nothing over."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._channel is not None:
            self._channel.close()

    def _begin_recovering(self, server: INewServer) -> None:
        if not self._closed:
            task = Deferred.fromCoroutine(self._keep_recovering(server))
            self._tasks.append(task)
            task.addErrback(self._not_recovered)

    async def _keep_recovering(self, server: INewServer) -> None:
        async def recover() -> int:
            try:
                return await self._recover(server)
            except EventLogUnavailable as error:
                _log_away(error)
                raise

        await retry(self._reactor, recover, EventLogUnavailable, pause=RETRY_INTERVAL)

    async def _recover(self, server: INewServer) -> int:
        incarnation = self._inheritance.incarnation
        if self.has_ended:
            return await server.recover(leaving=None, gone=incarnation)
        return await server.recover(leaving=incarnation, gone=None)

    @staticmethod
    def _not_recovered(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("taking over from the old program failed", failure)

    def message_received(self, message: bytes) -> None:
        """See `IChannelUser.message_received`."""
        if message == TAKE_OVER and not self._may_take_over.called:
            self._may_take_over.callback(None)
        elif message == MAIN and not self._is_main.called:
            self._is_main.callback(None)

    def channel_lost(self) -> None:
        """See `IChannelUser.channel_lost`."""
        self.has_ended = True
        if not self._may_take_over.called:
            log.warn("the old program (pid {pid}) ended, or gave up the upgrade, before it handed over", pid=self.pid)
            self._may_take_over.callback(None)
        if not self._is_main.called:
            self._is_main.callback(None)
        if not self._ended.called:
            self._ended.callback(None)


def _log_away(error: Exception) -> None:
    log.warn("deliveries of the old program are not taken over yet: {why}", why=str(error))
