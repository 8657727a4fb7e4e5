"""The server as an upgrade in place sees it: what it pauses, hands over and takes over."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager

from attrs import frozen
from zope.interface import implementer

from harn.orchestrator.parts import Parts
from harn.upgrade.interfaces import INewServer, IOldServer

RECOVERY_LIMIT = 10
"""Restarts at which a delivery may be unfinished until it is given up."""


@implementer(IOldServer, INewServer)
@frozen(eq=False)
class UpgradableServer:
    """See `IOldServer` and `INewServer`."""

    parts: Parts

    @property
    def incarnation(self) -> int:
        """See `IOldServer.incarnation`."""
        return self.parts.store.incarnation

    @property
    def status(self) -> str:
        """See `IOldServer.status`."""
        return self.parts.status

    @property
    def listening_descriptor(self) -> int:
        """See `IOldServer.listening_descriptor`."""
        assert self.parts.listening is not None
        return self.parts.listening.descriptor

    def pause_listening(self) -> None:
        """See `IServing.pause_listening`."""
        if self.parts.listening is not None:
            self.parts.listening.pause()

    def resume_listening(self) -> None:
        """See `IServing.resume_listening`."""
        if self.parts.listening is not None:
            self.parts.listening.resume()

    def own_state_file(self) -> None:
        """See `IServing.own_state_file`."""
        self.parts.publisher.take_state()

    async def disown_state_file(self) -> None:
        """See `IOldServer.disown_state_file`."""
        await self.parts.publisher.leave_state()

    async def save_state(self) -> None:
        """See `IServing.save_state`."""
        await self.parts.publisher.save_state()

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """See `IOldServer.exclusive`."""
        return self.parts.coordinator.turns.turn()

    def mark_numbers_unknown(self) -> None:
        """See `IOldServer.mark_numbers_unknown`."""
        self.parts.coordinator.are_numbers_known = False

    async def read_numbers(self) -> None:
        """See `IOldServer.read_numbers`."""
        await self.parts.coordinator.renumber()

    def open_port(self, descriptor: int) -> Awaitable[str]:
        """See `INewServer.open_port`."""
        return self.parts.open_port(descriptor)

    async def read_rollouts(self) -> None:
        """See `INewServer.read_rollouts`."""
        await self.parts.coordinator.read_rollouts()

    def begin_rollouts(self) -> None:
        """See `INewServer.begin_rollouts`."""
        self.parts.coordinator.begin_rollouts()

    async def note_serving(self) -> None:
        """See `INewServer.note_serving`."""
        await self.parts.coordinator.note_serving()

    async def recover(self, leaving: int | None, gone: int | None) -> int:
        """See `INewServer.recover`."""
        return await self.parts.recover(RECOVERY_LIMIT, leaving, gone)

    def retry_start_hooks(self) -> None:
        """See `INewServer.retry_start_hooks`."""
        self.parts.interpreters.try_hooks_again()
