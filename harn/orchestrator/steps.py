"""
The steps of a server's start and end, and of an upgrade in place, in which it pauses or takes over.

A start builds the first generation, opens the port, takes over the unfinished deliveries of an earlier server, and
records that the server serves. An end lets running deliveries finish within a time limit, and leaves the others in the
store for the next server.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from harn.api_keys.service import NamedKeys
from harn.auth.authenticator import LiveCredentials
from harn.circuits.service import Circuits
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.pauses import Pauses
from harn.errors import EventLogUnavailable
from harn.listener.port import ServerPort
from harn.listener.site import HarnSite
from harn.orchestrator.publish import Publisher
from harn.orchestrator.recovery import RECOVERY_LIMIT, Predecessor, RecoveryService
from harn.orchestrator.status import identity, note_life, status_line, work_counts
from harn.reload.coordinator import Coordinator
from harn.reload.report import ReloadReport
from harn.rollout.feature import Startup
from harn.server import DRAINING, Server, ended_in_time
from harn.upgrade.interfaces import INewServer, IOldServer

log = Logger(namespace="harn")

TRUNCATED = (
    "drain truncated ({reason}): {dispatcher_in_flight} running, {dispatcher_queued} queued and"
    " {dispatcher_retry_queue_depth} waiting for a retry stay for the next server"
)
"""What a shutdown logs that could not finish all; the counts are those of `harn.orchestrator.status.WorkCounts`."""
PATIENCE = 2.0
"""Seconds that reading the gates again may take; connections wait in the socket's queue meanwhile."""


async def build_first_generation(server: Server) -> ReloadReport:
    """Build and adopt the first generation, which does not serve yet; see `Startup.run`."""
    server.started_at = server.wall.seconds()
    return await server[Startup].run(waits=True)


async def recover(server: Server, leaving: int | None = None, gone: int | None = None) -> int:
    """
    Take over the unfinished deliveries of earlier servers; only count them if the manifest leaves that to an operator.

    :param leaving: the incarnation of a server that still runs and finishes its own deliveries.
    :param gone: the incarnation of a server whose process has just ended.
    """
    limit = RECOVERY_LIMIT if server.settings.recover == "auto" else None
    return await server[RecoveryService].start(Predecessor(leaving, gone), limit)


def open_port(server: Server, inherited: int | None = None) -> str:
    """
    Listen with the certificate of the first generation; return the URL.

    :param inherited: the descriptor of a socket to listen on, in place of the address in the options.
    :raises ListenerUnusable: the server cannot listen; the message says what to do.
    """
    live = server[Coordinator].current
    return server[ServerPort].open(None if live is None else live.inputs.certificate, inherited)


async def note_start(server: Server, recovered: int) -> None:
    """
    Record that the server serves, and warn if its admin API is closed.

    :param recovered: how many deliveries of earlier servers were taken over.
    """
    await server[Publisher].save_state()
    await note_life(server, "startup", identity(server))
    await note_life(server, "startup_stranded_envelopes", count=recovered)
    if not server[LiveCredentials].are_configured:
        log.warn(
            "no credentials are configured: a2a-push routes answer 401, as does the admin API, except to commands"
            " on this state directory; set HARN_ORCHESTRATOR_API_KEYS or HARN_ORCHESTRATOR_HMAC_SECRET",
            announce=True,
        )


async def drain(server: Server, served_out: Deferred[None] | None, new_pid: int | None) -> None:
    """
    Finish the running work within the time limit of the options or settings.

    :param served_out: fires when all connections have been served, after an upgrade; None without one.
    :param new_pid: the process id of the new program after an upgrade; None without one.
    """
    ends_at = server.reactor.seconds() + server.options.shutdown_timeout
    if served_out is None:
        server.readiness.phase = DRAINING
    quiet = server[HarnSite].quiesce() if served_out is None else served_out
    await server.background.stopService()
    handed_over = {} if new_pid is None else {"handed_over_to": new_pid}
    await note_life(server, "draining", identity(server), work_counts(server), **handed_over)
    await ended_in_time(server.reactor, server[Coordinator].close)
    if served_out is not None:
        await ended_in_time(server.reactor, server[ServerPort].close)
    await _until(server.reactor, ends_at, quiet)
    await _drain_deliveries(server, ends_at)
    await server[Publisher].save_state()


async def end_unserved(server: Server) -> None:
    """
    Record the end of a server that was stopped before it served, in the state file if it has written that.

    There is no work to drain.
    """
    await ended_in_time(server.reactor, server[Coordinator].withdraw)
    server.stopped_at = server.wall.seconds()
    await server[Publisher].save_state()


async def _drain_deliveries(server: Server, ends_at: float) -> None:
    """
    Run queued deliveries until ``ends_at`` (reactor's seconds) or until the drain's limit; record how the drain ended.
    """
    dispatcher = server[Dispatcher]
    max_items, deadline = drain_limits(server)
    drain_by = min(ends_at, server.reactor.seconds() + deadline)
    in_time = await _until(server.reactor, drain_by, dispatcher.drain(max_items))
    left = work_counts(server)
    if not in_time or dispatcher.queued:
        reason = "max_items" if in_time else "deadline"
        log.warn(TRUNCATED, reason=reason, **msgspec.structs.asdict(left))
        await note_life(server, "drain_truncated", left, reason=reason)
    dispatcher.close()
    server.stopped_at = server.wall.seconds()
    await note_life(server, "stopped", identity(server), left, timed_out=not in_time)


def drain_limits(server: Server) -> tuple[int, float]:
    """Return how many more deliveries a shutdown begins, and its seconds; a flag takes precedence over the manifest."""
    options, drain = server.options, server.settings.drain
    items = drain.max_items if options.drain_max_items is None else options.drain_max_items
    seconds = drain.deadline_seconds if options.drain_deadline is None else options.drain_deadline
    return items, seconds


async def _until(reactor: Any, ends_at: float, work: Deferred[Any]) -> bool:
    """Wait for ``work`` until ``ends_at``; return whether it ended."""
    try:
        await work.addTimeout(max(0.01, ends_at - reactor.seconds()), reactor)
    except (TimeoutError, CancelledError):
        return False
    return True


@implementer(IOldServer, INewServer)
class UpgradableServer(Struct, frozen=True, eq=False):
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
        return open_port(self.server, descriptor)

    async def read_gates(self) -> None:
        """See `INewServer.read_gates`."""
        try:
            await Deferred.fromCoroutine(self._load_gates()).addTimeout(PATIENCE, self.server.reactor)
        except (EventLogUnavailable, TimeoutError) as error:
            why = str(error) or f"it took longer than {PATIENCE:g} s"
            log.warn(
                "pauses, circuits and named keys cannot be read again, and are as they were when this program"
                " started: {why}; look at `harn orchestrator inspect`",
                why=why,
            )

    async def _load_gates(self) -> None:
        await self.server[Pauses].load()
        await self.server[Circuits].load()
        await self.server[NamedKeys].load()

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
        return await recover(self.server, leaving, gone)

    def retry_start_hooks(self) -> None:
        """See `INewServer.retry_start_hooks`."""
        self.server.interpreters.try_hooks_again()
