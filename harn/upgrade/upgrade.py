"""
The upgrade in place, as the old program runs it, and the process of the new program.

It starts a new program beside this one, waits until that could serve, and hands over to it. Until then nothing changes
here but that reloads wait. The step in which the new program takes over has no ``await`` in it, like the one that
adopts a generation; until the new program has said that it did so, this one can continue as before.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import ShuttingDown
from harn.processes import CAUGHT, signals_blocked
from harn.store.lock import StateDirectoryLock
from harn.systemd import ServiceManager
from harn.upgrade.interfaces import IChannelUser, IOldServer, IServerLife
from harn.upgrade.program import (
    CHANNEL,
    DIRECTORY,
    LISTENING,
    LOCK,
    MAIN,
    READY,
    TAKE_OVER,
    TAKEN,
    HandoverChannel,
    HandoverFailed,
    Inheritance,
    Program,
    program_environment,
)

log = Logger(namespace="harn")
FIRST = 1
"""The process id of the process with which its container ends."""
START_LIMIT = 60.0
"""Seconds that a new program may take until it could serve."""
TAKE_LIMIT = 5.0
"""Seconds that it may take to take over then: meanwhile connections wait in the socket's queue."""


@implementer(IChannelUser)
class NewProcess(ProcessProtocol):
    """
    The new program's process.

    :ivar ready: fires when it could serve; fails with `HandoverFailed` when it ends before.
    :ivar taken: fires when it has taken over; fails with `HandoverFailed` when it ends before.
    :ivar was_handed_over: it was asked to take over.
    :ivar pid: its process id; 0 before it is started.
    :ivar is_alive: it runs.
    :ivar end: how it ended.
    """

    def __init__(self, reactor: Any) -> None:
        """Start nothing yet. ``reactor`` is an ``IReactorProcess`` and ``IReactorSocket``."""
        self.ready: Deferred[None] = Deferred()
        self.taken: Deferred[None] = Deferred()
        self.was_handed_over = False
        self.pid = 0
        self.is_alive = False
        self.end = ""
        self._waiting_for_end: list[Deferred[None]] = []
        self._reactor = reactor
        self._channel: HandoverChannel | None = None

    def spawn(
        self,
        program: Program,
        environ: Mapping[str, str],
        inheritance: Inheritance,
        listening: int,
        lock: StateDirectoryLock,
    ) -> None:
        """
        Start it.

        :param listening: our descriptor of the listening socket.
        :param lock: must be held.
        :raises HandoverFailed: the system cannot start it.
        """
        assert lock.descriptor is not None
        given = {LISTENING: listening, LOCK: lock.descriptor}
        if lock.of_directory is not None:
            given[DIRECTORY] = lock.of_directory
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, signals_blocked(CAUGHT):
                transport = self._reactor.spawnProcess(
                    self,
                    program.executable,
                    list(program.arguments),
                    env=program_environment(environ, inheritance),
                    path=program.directory,
                    childFDs={0: 0, 1: 1, 2: 2, CHANNEL: theirs.fileno(), **given},
                )
                self.pid = transport.pid
                self.is_alive = not self.end
                self._channel = HandoverChannel.open(self._reactor, ours.detach(), self)
        except OSError as error:
            raise HandoverFailed(f"{program.executable} could not be started: {error}") from None

    def hand_over(self) -> None:
        """Request it to take over."""
        assert self._channel is not None
        self.was_handed_over = True
        self._channel.send(TAKE_OVER)

    def confirm_main(self) -> None:
        """Send that the service manager was given its process id."""
        assert self._channel is not None
        self._channel.send(MAIN)

    def send_signal(self, name: str) -> None:
        """Send it a signal, for example ``HUP``, unless it has ended."""
        if self.is_alive and self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)

    def kill(self) -> Deferred[None]:
        """Kill it; fires when it has ended."""
        ended: Deferred[None] = Deferred()
        self._waiting_for_end.append(ended)
        if not self.is_alive:
            self._fire_ended()
        self.send_signal("KILL")
        if self._channel is not None:
            self._channel.close()
        return ended

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Called when the process has ended."""
        self.is_alive = False
        self.end = f"it ended {_how_ended(reason)} before it took over"
        self._fail(self.ready, self.end)
        self._fail(self.taken, self.end)
        self._fire_ended()

    def processEnded(self, reason: Failure) -> None:
        """Drop the transport, which refers to this object."""
        self.transport = None

    def message_received(self, message: bytes) -> None:
        """See `IChannelUser.message_received`."""
        if message == READY and not self.ready.called:
            self.ready.callback(None)
        elif message == TAKEN and self.was_handed_over and not self.taken.called:
            self.taken.callback(None)

    def channel_lost(self) -> None:
        """See `IChannelUser.channel_lost`."""
        # Before the hand-over, the end of the process follows, and says more.
        if self.was_handed_over:
            self._fail(self.taken, "it closed the channel before it took over")

    @staticmethod
    def _fail(waiting: Deferred[None], why: str) -> None:
        if not waiting.called:
            waiting.errback(Failure(HandoverFailed(why)))
            waiting.addErrback(lambda failure: failure.trap(HandoverFailed) and None)  # in case nothing awaits it

    def _fire_ended(self) -> None:
        waiting, self._waiting_for_end = self._waiting_for_end, []
        for ended in waiting:
            ended.callback(None)


def _how_ended(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal:
        return f"by signal {error.signal}"
    return f"with status {0 if isinstance(error, ProcessDone) else getattr(error, 'exitCode', None)}"


class Upgrade:
    """
    Hands over to a new program, or continues as if nothing had happened.

    :param program: how this program was started; None when that is not known.
    :param environ: the environment for the new program.
    :param life: is asked whether this server ends, and called with the outcome.
    """

    def __init__(
        self,
        reactor: Any,
        program: Program | None,
        environ: Mapping[str, str],
        lock: StateDirectoryLock,
        service_manager: ServiceManager,
        life: IServerLife,
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._environ = environ
        self._lock = lock
        self._service_manager = service_manager
        self._life = life
        self._task: Deferred[None] | None = None

    @property
    def is_running(self) -> bool:
        """Return whether a new program is being started."""
        return self._task is not None

    def begin(self, server: IOldServer) -> None:
        """Start the new program, unless one is being started."""
        if self._program is None:
            log.error(
                "SIGUSR2: only a server that was started by `harn orchestrator serve` can be upgraded in place;"
                " restart this one, or, of several workers, send the signal to the process that supervises them"
            )
        elif os.getpid() == FIRST:
            log.error(
                "SIGUSR2: this server is process 1 of its container, which would end with it; restart the container"
            )
        elif self._task is not None:
            log.warn("SIGUSR2: an upgrade is under way; this signal is ignored")
        else:
            self._task = Deferred()  # the task may have ended when it is returned
            task = Deferred.fromCoroutine(self._run(server, self._program))
            if self._task is not None:
                self._task = task
            task.addErrback(lambda failure: log.failure("the upgrade ended in an unexpected way", failure))

    def cancel(self) -> None:
        """End the new program, if one is being started: this server ends."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, server: IOldServer, program: Program) -> None:
        new = NewProcess(self._reactor)
        try:
            async with server.exclusive():
                why = await self._try(server, program, new)
                if why is None:
                    self._hand_over(new)
                else:
                    await self._go_on(server, new, why)
        except ShuttingDown:  # also when the task is cancelled
            self._give_up(server, new)
            return
        finally:
            self._task = None
        if why is not None:
            self._life.not_handed_over()

    async def _try(self, server: IOldServer, program: Program, new: NewProcess) -> str | None:
        """
        Start the new program, wait until it could serve, let it take over; return why it did not, or None.

        :raises ShuttingDown: this server ends.
        """
        directory = None if self._lock.of_directory is None else DIRECTORY
        inheritance = Inheritance(pid=os.getpid(), incarnation=server.incarnation, directory=directory)
        limit = f"it could not serve within {START_LIMIT:g} s"
        try:
            new.spawn(program, self._environ, inheritance, server.listening_descriptor, self._lock)
            log.info("upgrade: process {pid} starts: {command}", pid=new.pid, command=shlex.join(program.arguments))
            self._service_manager.status(f"process {new.pid} starts to take over; {server.status}")
            await new.ready.addTimeout(START_LIMIT, self._reactor)
            await server.disown_state_file()
            if not new.is_alive:  # it may have ended while the state file was being written
                return new.end
            self._check_ending()
            limit = f"it did not take over within {TAKE_LIMIT:g} s"
            server.pause_listening()
            new.hand_over()
            await new.taken.addTimeout(TAKE_LIMIT, self._reactor)
            self._check_ending()
        except (CancelledError, ShuttingDown):
            raise
        except TimeoutError:
            return limit
        except HandoverFailed as error:
            return str(error)
        except Exception as error:
            log.failure("the upgrade failed in an unexpected way")
            return str(error) or type(error).__name__
        return None

    def _check_ending(self) -> None:
        if self._life.is_ending:
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def _hand_over(self, new: NewProcess) -> None:
        self._service_manager.main_pid(new.pid)
        new.confirm_main()
        self._life.handed_over(new)
        log.info("process {pid} serves now; this one finishes its deliveries", pid=new.pid, announce=True)

    def _give_up(self, server: IOldServer, new: NewProcess) -> None:
        """End the new program: this server ends, and was to end with all that it started."""
        if new.was_handed_over:
            new.send_signal("TERM")  # it may have taken requests
        else:
            new.kill()
        server.own_state_file()
        log.info("the upgrade was given up: this server ends")

    async def _go_on(self, server: IOldServer, new: NewProcess, why: str) -> None:
        """End the new program, and serve as before."""
        ended = new.kill()
        if new.was_handed_over:
            server.resume_listening()
        server.own_state_file()
        log.error(
            "the upgrade failed, and this process goes on serving: the new program: {why}", why=why, announce=True
        )
        self._service_manager.status(f"upgrade failed: {why}; {server.status}")
        server.mark_numbers_unknown()
        try:
            await ended.addTimeout(TAKE_LIMIT, self._reactor)  # until then it may give numbers
            await server.read_numbers()
        except CancelledError:
            raise
        except Exception as error:  # the next reload tries it again
            log.warn("numbers that the new program gave are not known yet: {why}", why=str(error) or "it still runs")
        await server.save_state()
