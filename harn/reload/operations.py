"""Operations on generations (reload, plan, roll back, show the live one) and draining versions (list, move, cancel)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, field

from harn.clocks import WallTime, rfc3339
from harn.errors import PayloadInvalid, PreconditionFailed
from harn.model.delivery import StoredDelivery, Workload
from harn.model.quantities import FailureLimit
from harn.operations.model import Caller, Get, Post, Reply, Result, Role, operation
from harn.operations.parameters import (
    IN_QUERY,
    FailureShare,
    Parameters,
    PartialShare,
    Period,
    in_header,
    number_of,
    shown_as,
)
from harn.reload.report import PREVIOUS, REPORTED, ReloadRequest, status_of_report
from harn.reload.results import LiveGenerationInfo, ReloadResult

if TYPE_CHECKING:
    from harn.reload.adopt import Draining, Drains
    from harn.reload.interfaces import IReloader
    from harn.store.deliveries import IDeliveries
    from harn.triggers.interfaces import IVersionDeliveries
    from harn.triggers.registry import Registry

DEFAULT_SOURCE, ROLLBACK_SOURCE = "admin_api", "rollback"
DEFAULT_MINIMUM = 20
"""Attempts below which failures revert nothing, where ``min`` does not say."""
_RESERVED = ("signal", "file_watch")
_LONGEST_SOURCE = 32
_UNFIT = re.compile(r"[^A-Za-z0-9_.:@/+-]")

Source = Annotated[str | None, Meta(description="A label of at most 32 characters for records.")]
Force = Annotated[bool, Meta(description="Reload even if nothing has changed."), IN_QUERY]
DryRun = Annotated[bool, Meta(description="Only say what would change."), IN_QUERY]
IfMatch = Annotated[
    str | None,
    Meta(description="Only if this is still the live generation (GET /admin/generation)."),
    in_header("If-Match"),
    shown_as("ETAG"),
]


class PlanReload(Parameters, frozen=True, kw_only=True):
    """The options of a reload or plan."""

    source: Source = None
    force: Force = False
    if_match: IfMatch = None
    ramp: Annotated[
        PartialShare | None,
        Meta(description="Let modified triggers take this share of new deliveries first; see `ramp`."),
        IN_QUERY,
    ] = None
    confirm_within: Annotated[
        Period | None,
        Meta(description="Roll back by itself unless `confirm` comes in this time, for example 60s."),
        IN_QUERY,
    ] = None
    revert_on_failures: Annotated[
        FailureShare | None,
        Meta(description="Roll back by itself when more attempts of the new versions fail, for example 20%."),
        IN_QUERY,
    ] = None
    minimum: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="With revert_on_failures: roll back only after N attempts; 20 if not given."),
        IN_QUERY,
    ] = field(name="min", default=None)
    watch_for: Annotated[
        Period | None,
        Meta(description="With revert_on_failures: for how long, if not what the manifest says."),
        IN_QUERY,
    ] = field(name="for", default=None)
    replay: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="In a dry run: try the new rules on the last N recorded events of each changed trigger."),
        IN_QUERY,
    ] = None

    def __post_init__(self) -> None:
        """Refuse the details of a limit of failures without the limit."""
        for key, value in (("min", self.minimum), ("for", self.watch_for)):
            if value is not None and self.revert_on_failures is None:
                raise ValueError(f"{key}: must come with revert_on_failures, got it alone")


class Reload(PlanReload, frozen=True, kw_only=True):
    """The same, and whether to reload, or only to say what would change."""

    dry_run: DryRun = False
    here: Annotated[bool, Meta(description="Of several servers, this one alone; see allow_split."), IN_QUERY] = False

    def __post_init__(self) -> None:
        """Refuse to replay without a dry run."""
        super().__post_init__()
        if self.replay is not None and not self.dry_run:
            raise ValueError("replay: must come with dry_run, got it alone; it changes nothing")


class Rollback(Parameters, frozen=True, kw_only=True):
    """Which generation to roll back to."""

    generation: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Its number; the last with other content if left out.")
    ] = None
    source: Source = None
    dry_run: DryRun = False
    force: Annotated[bool, Meta(description="Adopt it even if it is live already."), IN_QUERY] = False
    if_match: IfMatch = None


class ShowLive(Parameters, frozen=True, kw_only=True):
    """No parameters."""


@operation(
    "reload",
    role=Role.OPERATE,
    route=Post("/reload"),
    example={"source": "deploy"},
    audit=lambda done: {"generation": done.generation},
    also=REPORTED,
)
async def reload(reloader: IReloader, caller: Caller, wanted: Reload) -> Reply[ReloadResult]:
    """
    Reload the manifest and the code, or say what that would change.

    :raises PreconditionFailed: another reload came between.
    :raises ShuttingDown: the server is going down.
    """
    return await _carry_out(reloader, request_of(reloader, caller, wanted, dry_run=wanted.dry_run))


@operation("plan", role=Role.READ, route=Post("/plan"), example={"replay": 100}, also=REPORTED)
async def plan(reloader: IReloader, caller: Caller, wanted: PlanReload) -> Reply[ReloadResult]:
    """Return the changes that a reload would make, in every detail, and make none."""
    return await _carry_out(reloader, request_of(reloader, caller, wanted, dry_run=True))


@operation(
    "rollback",
    role=Role.OPERATE,
    route=Post("/rollback"),
    example={"generation": 1, "dry_run": True},
    audit=lambda done: {"generation": done.generation},
    also=REPORTED,
)
async def rollback(reloader: IReloader, caller: Caller, wanted: Rollback) -> Reply[ReloadResult]:
    """
    Adopt the content of an earlier generation as a new one, or say what that would change.

    :raises GenerationUnknown: its content is not kept.
    """
    asked = ReloadRequest(
        source=label(wanted.source, ROLLBACK_SOURCE),
        actor=caller.actor,
        force=wanted.force,
        dry_run=wanted.dry_run,
        if_match=tag_wanted(wanted.if_match, reloader.etag),
        recall=PREVIOUS if wanted.generation is None else wanted.generation,
    )
    return await _carry_out(reloader, asked)


@operation("generations.live", role=Role.READ, route=Get("/generation"))
async def show_live(reloader: IReloader, caller: Caller, wanted: ShowLive) -> Reply[LiveGenerationInfo]:
    """Show the live generation; its entity tag is for ``If-Match``, and names the generation alone."""
    etag = reloader.etag
    return Reply(await reloader.describe(), etag=etag)


async def _carry_out(reloader: IReloader, asked: ReloadRequest) -> Reply[ReloadResult]:
    try:
        report = await reloader.reload(asked)
    except PreconditionFailed as error:
        raise PreconditionFailed(str(error), if_match=asked.if_match, etag=reloader.etag) from error
    return Reply(report.to_result(), status=status_of_report(report), etag=reloader.etag)


def request_of(reloader: IReloader, caller: Caller, wanted: PlanReload, *, dry_run: bool) -> ReloadRequest:
    """
    Return the request for a reload.

    :raises PayloadInvalid: its source is the server's own.
    """
    minimum = DEFAULT_MINIMUM if wanted.minimum is None else wanted.minimum
    rate = wanted.revert_on_failures
    return ReloadRequest(
        source=label(wanted.source, DEFAULT_SOURCE),
        actor=caller.actor,
        force=wanted.force,
        dry_run=dry_run,
        here=isinstance(wanted, Reload) and wanted.here,
        if_match=tag_wanted(wanted.if_match, reloader.etag),
        replay=wanted.replay or 0,
        ramp=number_of(wanted.ramp),
        confirm_within=number_of(wanted.confirm_within),
        revert_limit=None if rate is None else FailureLimit(rate=float(rate), minimum=minimum),
        revert_for=number_of(wanted.watch_for),
    )


def label(source: str | None, default: str) -> str:
    """
    Return the label of a reload: at most 32 characters, those that are unfit to be shown replaced.

    :raises PayloadInvalid: it is one that only the server itself may use.
    """
    fit = _UNFIT.sub("_", (source or "").strip()[:_LONGEST_SOURCE])
    if fit in _RESERVED:
        raise PayloadInvalid(f"source: must not be the server's own, got {fit!r}")
    return fit or default


def tag_wanted(header: str | None, current: str) -> str | None:
    """
    Return the entity tag that ``If-Match`` insists on; None if on none in particular.

    :param current: that of the live generation; if the header names it among others, it is returned.
    """
    from werkzeug.http import parse_etags, quote_etag, unquote_etag  # slow to import, and only servers need it

    tags = parse_etags(header)
    if header is None or tags.star_tag:
        return None
    if tags.contains_weak(unquote_etag(current)[0]):
        return current
    return quote_etag(next(iter(tags.as_set(include_weak=True)), ""))


OPERATIONS = (reload, plan, rollback, show_live)
"""The operations of an `IReloader`."""


class DrainService(Struct, frozen=True, kw_only=True):
    """The parts that the operations on drains use."""

    wall: WallTime
    store: IDeliveries
    registry: Registry
    dispatcher: IVersionDeliveries
    drains: Drains


class ListDrains(Parameters, frozen=True, kw_only=True):
    """The number to list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N versions; else all.")] | None = None


class DrainOf(Parameters, frozen=True, kw_only=True):
    """A version that drains."""

    binding: Annotated[str, Meta(min_length=1, description="The version, for example gh@v1.")]


class OldestEvent(Result, frozen=True, kw_only=True):
    """The unfinished delivery of a version that was accepted first."""

    event_id: str
    received_at: str


class Drain(Result, frozen=True, kw_only=True):
    """One version that drains."""

    binding: str
    trigger_id: str
    version: int
    generation: Annotated[int, Meta(description="The generation that it served last; 0 for an earlier server's.")]
    draining_since: str
    age_seconds: float
    deadline: Annotated[
        str | None, Meta(description="When deliveries that have not begun are moved; null once that was done.")
    ]
    in_flight: Annotated[int, Meta(description="Requests and deliveries that hold it.")]
    running: int
    queued: int
    waiting: Annotated[int, Meta(description="Retries that wait for their time and will run on it.")]
    moved: bool
    oldest_event: OldestEvent | None


class DrainList(Result, frozen=True, kw_only=True):
    """Versions that drain, the longest draining first; ``total`` counts all."""

    drains: tuple[Drain, ...]
    total: int


class DrainCancelled(Result, frozen=True, kw_only=True):
    """The number of deliveries that became dead letters."""

    binding: str
    cancelled: int


class DrainMoved(Result, frozen=True, kw_only=True):
    """The number of deliveries that were moved, and the version that they went to; null for the dead letters."""

    binding: str
    moved: int
    to: str | None


@operation("drains.list", role=Role.READ, route=Get("/drains"), example={"limit": 20})
async def list_drains(service: DrainService, caller: Caller, wanted: ListDrains) -> DrainList:
    """List the versions that drain."""
    asked = [each.version for each in service.drains.describe()[: wanted.limit]]
    oldest = await service.store.oldest(asked) if asked else {}
    # Described again, at one moment: some may have ended while the store was read.
    now, draining = service.wall.seconds(), service.drains.describe()
    loads = service.dispatcher.workload([each.binding for each in draining[: wanted.limit]])
    drains = (
        describe_draining(each, now, loads[each.binding], _waiting(service, each), oldest.get(each.version))
        for each in draining[: wanted.limit]
    )
    return DrainList(drains=tuple(drains), total=len(draining))


@operation(
    "drains.cancel",
    role=Role.OPERATE,
    route=Post("/drains/cancel"),
    example={"binding": "gh@v1"},
    audit=lambda done: {"cancelled": done.cancelled},
)
async def cancel_drain(service: DrainService, caller: Caller, wanted: DrainOf) -> DrainCancelled:
    """
    Dead-letter every delivery of a draining version, also those that run.

    :raises RouteUnknown: no such version drains.
    """
    binding = service.drains.find(wanted.binding)
    return DrainCancelled(binding=binding.key, cancelled=await service.dispatcher.cancel(binding))


@operation(
    "drains.move",
    role=Role.OPERATE,
    route=Post("/drains/move"),
    example={"binding": "gh@v1"},
    audit=lambda done: {"moved": done.moved},
)
async def move_drain(service: DrainService, caller: Caller, wanted: DrainOf) -> DrainMoved:
    """
    Move the deliveries that a draining version has not begun to the newest version, as its deadline would.

    :raises RouteUnknown: no such version drains.
    """
    binding = service.drains.find(wanted.binding)
    moving = service.dispatcher.move_on(binding)
    live = service.registry.active.get(binding.id)  # in the step that chose the target; a reload may come between
    return DrainMoved(binding=binding.key, moved=await moving, to=None if live is None else live.key)


DRAIN_OPERATIONS = (list_drains, cancel_drain, move_drain)
"""The operations of a `DrainService`."""


def describe_draining(
    draining: Draining, now: float, load: Workload, waiting: int, oldest: StoredDelivery | None
) -> Drain:
    """Return the result for a draining version; ``oldest`` is its unfinished delivery that was accepted first."""
    binding = draining.binding
    event = None if oldest is None else OldestEvent(event_id=oldest.event_id, received_at=rfc3339(oldest.received_at))
    return Drain(
        binding=binding.key,
        trigger_id=binding.id,
        version=binding.version,
        generation=draining.generation,
        draining_since=rfc3339(draining.since),
        age_seconds=round(max(0.0, now - draining.since), 3),
        deadline=None if draining.deadline is None else rfc3339(draining.deadline),
        in_flight=binding.in_flight,
        running=load.running,
        queued=load.queued,
        waiting=waiting,
        moved=binding.is_closed,
        oldest_event=event,
    )


def _waiting(service: DrainService, draining: Draining) -> int:
    """Count the retries that will run on it: those of a removed trigger run on its last version until it is moved."""
    binding, registry = draining.binding, service.registry
    is_last = binding.id not in registry.active and registry.newest(binding.id) is binding
    return registry.waiting[binding.id] if is_last and not binding.is_closed else 0
