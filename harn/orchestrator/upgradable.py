"""The server as an upgrade in place sees it: what it pauses, hands over and takes over."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from harn.circuits.service import Circuits
from harn.dispatch.pauses import Pauses
from harn.errors import EventLogUnavailable
from harn.listener.port import ServerPort
from harn.orchestrator import startup
from harn.orchestrator.publish import Publisher
from harn.orchestrator.status import status_line
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.upgrade.interfaces import INewServer, IOldServer

log = Logger(namespace="harn")

PATIENCE = 2.0
"""Seconds that reading the gates again may take: meanwhile connections wait in the socket's queue."""


@implementer(IOldServer, INewServer)
@frozen(eq=False)
class UpgradableServer:
    """See `IOldServer` and `INewServer`."""

    server: Server

    @property
    def incarnation(self) -> int:
        """See `IOldServer.incarnation`."""
        return self.server.store.incarnation

    @property
    def status(self) -> str:
        """See `IOldServer.status`."""
        return status_line(self.server)

    @property
    def listening_descriptor(self) -> int:
        """See `IOldServer.listening_descriptor`."""
        listening = self.server[ServerPort].listening
        assert listening is not None
        return listening.descriptor

    def pause_listening(self) -> None:
        """See `IServing.pause_listening`."""
        self.server[ServerPort].pause()

    def resume_listening(self) -> None:
        """See `IServing.resume_listening`."""
        self.server[ServerPort].resume()

    def own_state_file(self) -> None:
        """See `IServing.own_state_file`."""
        self.server[Publisher].take_state()

    async def disown_state_file(self) -> None:
        """See `IOldServer.disown_state_file`."""
        await self.server[Publisher].leave_state()

    async def save_state(self) -> None:
        """See `IServing.save_state`."""
        await self.server[Publisher].save_state()

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """See `IOldServer.exclusive`."""
        return self.server[Coordinator].queue.exclusive()

    def mark_numbers_unknown(self) -> None:
        """See `IOldServer.mark_numbers_unknown`."""
        self.server[Coordinator].numbers.are_known = False

    async def read_numbers(self) -> None:
        """See `IOldServer.read_numbers`."""
        coordinator = self.server[Coordinator]
        await coordinator.numbers.read_again(coordinator.current)

    async def open_port(self, descriptor: int) -> str:
        """See `INewServer.open_port`."""
        return startup.open_port(self.server, descriptor)

    async def read_gates(self) -> None:
        """See `INewServer.read_gates`."""
        try:
            await Deferred.fromCoroutine(self._load_gates()).addTimeout(PATIENCE, self.server.reactor)
        except (EventLogUnavailable, TimeoutError) as error:
            why = str(error) or f"it took longer than {PATIENCE:g} s"
            log.warn(
                "pauses and circuits cannot be read again, and are as they were when this program started: {why};"
                " look at `harn orchestrator inspect`",
                why=why,
            )

    async def _load_gates(self) -> None:
        await self.server[Pauses].load()
        await self.server[Circuits].load()

    async def read_rollouts(self) -> None:
        """See `INewServer.read_rollouts`."""
        await self.server[Coordinator].read_rollouts()

    def begin_rollouts(self) -> None:
        """See `INewServer.begin_rollouts`."""
        self.server[Coordinator].begin_rollouts()

    async def note_serving(self) -> None:
        """See `INewServer.note_serving`."""
        await self.server[Coordinator].note_serving()

    async def recover(self, leaving: int | None, gone: int | None) -> int:
        """See `INewServer.recover`."""
        return await startup.recover(self.server, leaving, gone)

    def retry_start_hooks(self) -> None:
        """See `INewServer.retry_start_hooks`."""
        self.server.interpreters.try_hooks_again()
