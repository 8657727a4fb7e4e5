"""
A worker's connection to its supervisor: the end of a socket pair, with one message a line.

The worker sends `READY` when it serves, `RELOADED` after each reload, and `ALIVE` now and then. The supervisor sends
`STOP`, or `RETIRE` where the other workers continue. A signal would not do: a service manager sends SIGTERM to each
process of a service, and a second one ends a server at once. When the supervisor is gone, the kernel closes its end,
and the worker ends.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.application.internet import TimerService
from twisted.logger import Logger
from zope.interface import implementer

from harn.lifecycle import ServerStarted
from harn.reload.interfaces import ReloadEnded
from harn.server import Server
from harn.upgrade.interfaces import IChannelUser
from harn.upgrade.program import HandoverChannel

log = Logger(namespace="harn")

READY, RELOADED, ALIVE, STOP, RETIRE = b"ready", b"reloaded", b"alive", b"stop", b"retire"
"""As sent. A version never changes them: after a restart of the workers one by one, the supervisor may be older."""
LAST = 8.0
"""Seconds that a worker may take to end when its supervisor is gone."""


class IWorkerLife(Protocol):
    """The life of the server that is a worker."""

    @property
    def is_ending(self) -> bool:
        """Return whether it was asked to end."""

    def terminate(self) -> None:
        """Begin to end it."""

    def retire(self) -> None:
        """Begin to end it, without a refusal: others accept the new connections."""

    def end_at_once(self) -> None:
        """End the process, whatever it has under way."""


@implementer(IChannelUser)
class SupervisorLink:
    """
    The worker's end.

    :param reactor: an ``IReactorSocket`` and ``IReactorTime``.
    :param silence: see `Assignment.silence`.
    """

    def __init__(self, reactor: Any, descriptor: int, silence: float = 0.0) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._life: IWorkerLife | None = None
        self._channel: HandoverChannel | None = None
        self._is_closed = False
        self._pulse = TimerService(silence / 2.0, self._send, ALIVE) if silence else None

    def install(self, server: Server) -> None:
        """Send from now on when the server serves, and when a reload has ended; close with the server's services."""
        server.services.add_closing(self)
        server.lifecycle.subscribe(ServerStarted, lambda event: self._send(READY))
        server.lifecycle.subscribe(ReloadEnded, lambda event: self._send(RELOADED))

    def begin(self, life: IWorkerLife) -> None:
        """
        Listen to the supervisor.

        :raises HandoverFailed: the descriptor is not an end of a channel.
        """
        self._life = life
        self._channel = HandoverChannel.open(self._reactor, self._descriptor, self)
        if self._pulse is not None:
            self._pulse.clock = self._reactor
            self._pulse.startService()

    def close(self) -> None:
        """Close this end: the server has ended."""
        self._is_closed = True
        if self._pulse is not None and self._pulse.running:
            self._pulse.stopService()
        if self._channel is not None:
            self._channel.close()

    def _send(self, message: bytes) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def message_received(self, message: bytes) -> None:
        """See `IChannelUser.message_received`."""
        life = self._life
        assert life is not None
        if life.is_ending:
            return
        if message == STOP:
            life.terminate()
        elif message == RETIRE:
            life.retire()

    def channel_lost(self) -> None:
        """See `IChannelUser.channel_lost`."""
        life = self._life
        assert life is not None
        if self._is_closed:
            return
        if life.is_ending:
            life.end_at_once()  # the supervisor did not wait for it: it ended at once
            return
        log.error("the supervising process is gone; this worker ends")
        self._reactor.callLater(LAST, life.end_at_once)
        life.terminate()
