"""The old program's process, as the new program that takes its place sees it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import EventLogUnavailable, ShuttingDown, StateDirectoryUnusable
from harn.store.lock import StateDirectoryLock
from harn.upgrade.interfaces import IChannelUser, INewServer, IServerLife
from harn.upgrade.program import MAIN, READY, TAKE_OVER, TAKEN, HandoverChannel, Inheritance
from harn.waiting import retry

log = Logger(namespace="harn")

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
        await retry(
            self._reactor, lambda: self._recover(server), EventLogUnavailable, lambda _: RETRY_INTERVAL, _log_away
        )

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
