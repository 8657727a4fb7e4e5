"""The end of a server that serves: what is in hand ends within its time, and the rest stays for the next server."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger

from harn.dispatch.dispatcher import Dispatcher
from harn.listener.port import ServerPort
from harn.listener.site import HarnSite
from harn.orchestrator.publish import Publisher
from harn.orchestrator.status import identity, in_hand, note_life
from harn.reload.coordinator import Coordinator
from harn.server import DRAINING, Server, ended_in_time

log = Logger(namespace="harn")

TRUNCATED = (
    "drain truncated ({reason}): {dispatcher_in_flight} running, {dispatcher_queued} queued and"
    " {dispatcher_retry_queue_depth} waiting for a retry stay for the next server"
)
"""What a shutdown logs that could not finish all; the counts are those of `harn.orchestrator.status.InHand`."""


async def drain(server: Server, served_out: Deferred[None] | None, new_pid: int | None) -> None:
    """
    Finish the work under way, within the time of the options and settings.

    :param served_out: of a server that handed over: fires when its connections are served out.
    :param new_pid: the process id of the program that it handed over to.
    """
    ends_at = server.reactor.seconds() + server.options.shutdown_timeout
    if served_out is None:
        server.readiness.phase = DRAINING
    quiet = server[HarnSite].quiesce() if served_out is None else served_out
    await server.background.stopService()
    handed_over = {} if new_pid is None else {"handed_over_to": new_pid}
    await note_life(server, "draining", identity(server), in_hand(server), **handed_over)
    await ended_in_time(server.reactor, server[Coordinator].close)
    if served_out is not None:
        await ended_in_time(server.reactor, server[ServerPort].close)
    await _until(server.reactor, ends_at, quiet)
    await _drain_deliveries(server, ends_at)
    await server[Publisher].save_state()


async def end_unserved(server: Server) -> None:
    """
    Record in the state file, if this server has written it already, that it ended.

    Of a server that is stopped before it serves: there is nothing to drain.
    """
    await ended_in_time(server.reactor, server[Coordinator].withdraw)
    server.stopped_at = server.wall.seconds()
    await server[Publisher].save_state()


async def _drain_deliveries(server: Server, ends_at: float) -> None:
    """Run what is queued, until ``ends_at`` (reactor's seconds) or a limit of the drain, and note how that ended."""
    dispatcher = server[Dispatcher]
    max_items, deadline = drain_limits(server)
    drain_by = min(ends_at, server.reactor.seconds() + deadline)
    in_time = await _until(server.reactor, drain_by, dispatcher.drain(max_items))
    left = in_hand(server)
    if not in_time or dispatcher.queued:
        reason = "max_items" if in_time else "deadline"
        log.warn(TRUNCATED, reason=reason, **msgspec.structs.asdict(left))
        await note_life(server, "drain_truncated", left, reason=reason)
    dispatcher.close()
    server.stopped_at = server.wall.seconds()
    await note_life(server, "stopped", identity(server), left, timed_out=not in_time)


def drain_limits(server: Server) -> tuple[int, float]:
    """Return how many deliveries a shutdown still begins, and for how many seconds; a flag wins over the manifest."""
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
