"""Operations on a server as a whole: its state, its versions, its records; recovery of unfinished deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from harn.clocks import rfc3339
from harn.errors import EventLogUnavailable
from harn.observability.counts import NO_COUNTS, VersionCounts
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Duration, Parameters, shown_as
from harn.orchestrator.record_operations import read_events

if TYPE_CHECKING:
    from harn.dispatch.dispatcher import Dispatcher
    from harn.observability.metrics import Metrics
    from harn.orchestrator.recovery import RecoveryService
    from harn.orchestrator.status import ServerStatus
    from harn.reload.coordinator import Coordinator
    from harn.statistics.gauges import Backlogs
    from harn.store.event_log import Record
    from harn.store.interfaces import IStore
    from harn.triggers.binding import BindingVersion
    from harn.triggers.registry import Registry
    from harn.waiting import ReactorThreads

OUTBOX = "trigger.outbox"
RECENT = 20
"""Attempts that an inspection shows, unless it is asked for another number."""


class ServerService(Struct, frozen=True, kw_only=True):
    """The service behind the operations on a server."""

    store: IStore
    metrics: Metrics
    registry: Registry
    dispatcher: Dispatcher
    coordinator: Coordinator
    recovery: RecoveryService
    backlogs: Backlogs
    status: ServerStatus
    threads: ReactorThreads


class NoParameters(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class Inspect(Parameters, frozen=True, kw_only=True):
    """Which triggers to show: all of them, in the order of the manifest, when nothing is given; else by their ids."""

    trigger: Annotated[str, shown_as("ID"), Meta(description="Only this trigger.")] | None = None
    search: Annotated[str, shown_as("TEXT"), Meta(description="With this text in their id or provider.")] | None = None
    busy: Annotated[
        bool,
        Meta(
            description="Only those of which something runs or waits, that are paused, whose circuit is not closed, or"
            " that have several versions; those with most to do first."
        ),
    ] = False
    offset: Annotated[int, Meta(ge=0, description="Pass over the first N triggers.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N triggers; else all.")] | None = None
    recent: Annotated[int, Meta(ge=0, le=100, description="The last N attempts.")] = RECENT


class TriggerInfo(msgspec.Struct, frozen=True, gc=False):
    """
    One live or draining version, and the figures of its trigger. A quarter of what a dict costs to make.

    Of the version, since the server's start: ``received``, ``dispatched``, ``failed``, ``dlq``, ``in_flight``. Of its
    trigger, over reloads and restarts: ``accepted``, ``running`` and ``waiting`` now, ``dead`` letters now, ``refused``
    (requests that were never events), the times of the last success, the last failure and the next due delivery, and
    whether it is ``paused``, and the state of its ``circuit``, null where it has none.

    :ivar share: percent of its trigger's new deliveries that the version takes; left out where there is no ramp.
    """

    id: str
    provider: str = ""
    kind: str = ""
    handler: str = ""
    version: int = 0
    state: str = ""
    share: float | UnsetType = UNSET
    received: int = 0
    refused: int = 0
    dispatched: int = 0
    failed: int = 0
    dlq: int = 0
    in_flight: int = 0
    accepted: int = 0
    running: int = 0
    waiting: int = 0
    dead: int = 0
    last_success: str | None = None
    last_failure: str | None = None
    next_due: str | None = None
    paused: bool = False
    circuit: str | None = None


class BindingInfo(Result, frozen=True, kw_only=True):
    """One live or draining version, its counts, and what waits for it."""

    id: str
    provider: str
    kind: str
    handler: str
    version: int
    state: str
    share: Annotated[float, Meta(description="Percent of its trigger's new deliveries.")]
    received: int
    refused: int
    dispatched: int
    failed: int
    dlq: int
    in_flight: int
    binding: Annotated[str, Meta(description="For example gh@v2.")]
    path: str | None
    handler_name: str
    queued_in_store: int
    waiting_retries: int
    draining_since: str | None
    fingerprint: str


class BindingList(Result, frozen=True, kw_only=True):
    """Every live or draining version."""

    bindings: tuple[BindingInfo, ...]


class Activation(Result, frozen=True, kw_only=True):
    """The number of live triggers of one provider."""

    provider: str
    binding_count: int


class LastReload(Result, frozen=True, kw_only=True):
    """The last reload."""

    source: str
    actor: str
    status: str
    at: str
    error: str | None


class Snapshot(Result, frozen=True, kw_only=True):
    """The live generation and routes."""

    status: str | None
    bind: str | None = None
    generation: int | None = None
    digest: str | None = None
    pinned: Annotated[bool, Meta(description="After a rollback: the files are not adopted until they change.")] = False
    last_reload: LastReload | None = None


class InHand(Result, frozen=True, kw_only=True):
    """The work under way."""

    in_flight: int
    queued: int
    waiting_retries: int


class InspectedCounts(Result, frozen=True, kw_only=True):
    """Numbers of triggers, of those that were asked for, and of dead letters, also those of removed triggers."""

    triggers: int
    matched: int
    dead: int


class Inspection(Result, frozen=True, kw_only=True):
    """The state of a server; of one that does not run, without what is under way."""

    triggers: tuple[TriggerInfo, ...]
    counts: InspectedCounts | UnsetType = UNSET
    connectors: tuple[str, ...]
    activations: tuple[Activation, ...]
    snapshot: Snapshot
    dispatcher: InHand | UnsetType = UNSET
    recent_dispatches: Annotated[
        tuple[dict[str, Any], ...],
        Meta(description="The last records of trigger.outbox: kind, occurred_at_ms, and what the record holds."),
    ]


class Recover(Parameters, frozen=True, kw_only=True):
    """The deliveries to recover."""

    envelope_age: Annotated[Duration, Meta(description="Only what is older, for example 5m.")]
    dry_run: Annotated[bool, Meta(description="Only list what would be recovered.")] = False


class UnfinishedDelivery(Result, frozen=True, kw_only=True):
    """One delivery that an earlier server left unfinished; ``status`` says what happened to it."""

    event_id: str
    trigger_id: str
    binding_version: int
    provider: str
    kind: str
    state: str
    age_seconds: float
    received_at: str
    inbox_offset: int
    status: str | UnsetType = UNSET


class Recovered(Result, frozen=True, kw_only=True):
    """The number of unfinished deliveries, the oldest 1000 of them, and how many continue."""

    dry_run: bool
    min_envelope_age_seconds: float
    stranded_envelopes: int
    candidates: tuple[UnfinishedDelivery, ...]
    recovered: int


@operation("bindings.list", role=Role.READ, route=Get("/bindings"))
async def list_bindings(server: ServerService, caller: Caller, wanted: NoParameters) -> BindingList:
    """List every live and draining version, its counts, and what waits for it."""
    registry, versions = server.registry, server.metrics.versions
    return BindingList(
        bindings=tuple(
            describe_version(each, versions.get(each.key, NO_COUNTS), registry, server.dispatcher.stored(each))
            for each in registry
        )
    )


@operation(
    "inspect",
    role=Role.READ,
    route=Get("/inspect"),
    example={"search": "gh", "limit": 20},
)
async def inspect(server: ServerService, caller: Caller, wanted: Inspect) -> Inspection:
    """Show the state of the server: triggers, connectors, what is under way, the last attempts."""
    from harn.orchestrator.inspection import inspected

    with suppress(EventLogUnavailable):  # then it shows what was known a moment ago
        await server.backlogs.refresh()
    pinned = await server.coordinator.is_pinned()
    recent = await _newest(server, wanted.recent)
    found = inspected(server.status.snapshot(), wanted)
    head = found.head
    return Inspection(
        triggers=found.triggers,
        counts=found.counts,
        connectors=head.connectors,
        activations=head.activations,
        snapshot=Snapshot(
            status=head.status,
            bind=head.bind,
            generation=head.generation,
            digest=head.digest,
            pinned=pinned,
            last_reload=head.last_reload,
        ),
        dispatcher=InHand(
            in_flight=len(server.dispatcher.in_progress),
            queued=server.dispatcher.queued,
            waiting_retries=sum(server.registry.waiting.values()),
        ),
        recent_dispatches=tuple(
            {"kind": record.kind, "occurred_at_ms": int(record.occurred_at * 1000), **record.payload}
            for record in recent
        ),
    )


async def _newest(server: ServerService, count: int) -> Sequence[Record]:
    """Return the last records of attempts."""
    if not count:
        return ()
    newest = await server.store.event_log.latest(OUTBOX)
    records: Sequence[Record] = await server.store.event_log.read(OUTBOX, max(0, newest - count), count)
    return records


@operation(
    "recover",
    role=Role.OPERATE,
    route=Post("/recover"),
    example={"envelope_age": "1h", "dry_run": True},
    audit=lambda done: {"recovered": done.recovered},
)
async def recover(server: ServerService, caller: Caller, wanted: Recover) -> Recovered:
    """Take over the deliveries that an earlier server left unfinished, or only list them."""
    return await server.recovery.on_request(wanted.envelope_age, dry_run=wanted.dry_run)


def describe_version(binding: BindingVersion, counts: VersionCounts, registry: Registry, stored: int) -> BindingInfo:
    """Return the description of a version; ``stored`` is how many of its deliveries are in the store alone."""
    return BindingInfo(
        id=binding.id,
        provider=binding.spec.provider,
        kind=binding.spec.kind,
        handler="local",
        version=binding.version,
        state=binding.state,
        share=round(registry.share(binding) * 100.0, 4),
        received=counts.received,
        refused=counts.refused,
        dispatched=counts.dispatched,
        failed=counts.failed,
        dlq=counts.dead,
        in_flight=binding.in_flight,
        binding=binding.key,
        path=binding.spec.path,
        handler_name=binding.spec.handler,
        queued_in_store=stored,
        waiting_retries=registry.waiting[binding.id],
        draining_since=None if binding.draining_since is None else rfc3339(binding.draining_since),
        fingerprint=binding.definition.fingerprint,
    )


OPERATIONS = (list_bindings, inspect, read_events, recover)
"""Those of a `ServerService`."""
