"""The status of a server: in the state file, in records of its life, and in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from harn.circuits.service import Circuits
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.pauses import Pauses
from harn.listener.port import ServerPort
from harn.listener.site import HarnSite
from harn.orchestrator.state_file import ServerFacts, ServerState, describe
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.statistics.backlogs import Backlogs
from harn.statistics.totals import TriggerTotals
from harn.triggers.registry import Registry

LIFECYCLE = "orchestrator.lifecycle"
"""The topic of a server's start and end."""


def status_line(server: Server) -> str:
    """Return in one line what serves."""
    return f"generation {server[Coordinator].generation} serves"


class InHand(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the work under way, as records of a server's end have them."""

    http_in_flight: int
    dispatcher_in_flight: int
    dispatcher_queued: int
    dispatcher_retry_queue_depth: int


def in_hand(server: Server) -> InHand:
    """Count what is under way."""
    dispatcher = server[Dispatcher]
    return InHand(
        http_in_flight=server[HarnSite].in_flight,
        dispatcher_in_flight=len(dispatcher.in_progress),
        dispatcher_queued=dispatcher.queued,
        dispatcher_retry_queue_depth=sum(server[Registry].waiting.values()),
    )


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which server it is, as records of its life have it."""

    bind: str
    manifest: str
    role: str
    state_dir: str
    pid: int
    generation: int
    trigger_count: int
    tls_enabled: bool


def identity(server: Server) -> Identity:
    """Return which server this is."""
    coordinator, port, options = server[Coordinator], server[ServerPort], server.options
    live = coordinator.current
    return Identity(
        bind="" if port.listening is None else str(port.bind),
        manifest=options.manifest,
        role=options.role,
        state_dir=options.state_dir,
        pid=os.getpid(),
        generation=coordinator.generation,
        trigger_count=0 if live is None else len(live.bindings),
        tls_enabled=port.has_tls,
    )


async def note_life(server: Server, kind: str, *facts: msgspec.Struct, **more: object) -> None:
    """Append a record about the server's life, with the fields of ``facts`` and ``more``."""
    payload = {name: value for each in facts for name, value in msgspec.structs.asdict(each).items()}
    await server.note(LIFECYCLE, kind, {**payload, **more})


def snapshot(server: Server) -> Callable[[], dict[str, Any]]:
    """
    Read the state of the server, and return what makes the state file's document of it.

    That may be called in a thread: it takes a while for ten thousand triggers.
    """
    coordinator, port, registry, options = server[Coordinator], server[ServerPort], server[Registry], server.options
    live = coordinator.current
    facts = ServerFacts(
        host=port.bind.host,
        port=port.bind.port,
        tls=port.has_tls,
        manifest_path=options.manifest,
        state_dir=options.state_dir,
        started_at=server.started_at,
        pid=os.getpid(),
        secret_provider_chain="" if live is None else live.inputs.secret_chain,
        event_log_backend=server.store.backend,
        event_log_location=server.store.location,
        role=options.role,
    )
    state = ServerState(
        generation=coordinator.generation,
        digest="" if live is None else live.digest,
        pinned=live is not None and live.pin is not None,
        bindings=list(registry),
        counts=server.metrics.versions,
        paused=server[Pauses].names(),
        circuits=server[Circuits].states(),
        figures=server[Backlogs].figures(server[TriggerTotals]),
        ramps=registry.ramps,
        last_reload=coordinator.last,
        stopped_at=server.stopped_at,
    )
    return partial(describe, facts, state)
