"""The plan of a dry run: what a reload would change, in every detail, as the admin API gives it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from harn.operations.model import Result


class FieldChange(Result, frozen=True, kw_only=True):
    """A key of a trigger, dotted, and its values as people write them; null where there is none."""

    key: str
    old: Any
    new: Any


class SettingChange(Result, frozen=True, kw_only=True):
    """A key of ``[orchestrator]``, its values as people write them, and whether a reload or a restart applies it."""

    key: str
    old: Any
    new: Any
    applies: Annotated[str, Meta(description="reload or restart.")]


class FileChange(Result, frozen=True, kw_only=True):
    """A file that was added, modified or removed, with its digests; null where there is none."""

    path: str
    change: str
    old: str | None
    new: str | None
    diff: str | UnsetType = UNSET


class SecretChange(Result, frozen=True, kw_only=True):
    """A secret's reference, and the beginning of its keyed digests; null where it is not named."""

    reference: str
    old: str | None
    new: str | None


class VersionChange(Result, frozen=True, kw_only=True):
    """The version of a trigger that is live, and the one that would be; null where there is none."""

    live: str | None
    next: str | None


class TriggerChange(Result, frozen=True, kw_only=True):
    """The changes of one trigger, and the unfinished work of its versions."""

    action: Annotated[str, Meta(description="added, modified or removed.")]
    fields: tuple[FieldChange, ...]
    code: tuple[FileChange, ...]
    versions: VersionChange
    in_flight: int = 0
    running: int = 0
    queued: int = 0
    waiting: int = 0


class ConnectorChange(Result, frozen=True, kw_only=True):
    """A connector that would be started, replaced or stopped, and why."""

    trigger_id: str
    action: Annotated[str, Meta(description="start, replace or stop.")]
    why: tuple[str, ...]


class PlannedRamp(Result, frozen=True, kw_only=True):
    """A ramp that would begin."""

    trigger_id: str
    stable: str
    fresh: str
    percent: float
    step: float
    every: str | None
    max_failures: str | None = None


class ProbationTerms(Result, frozen=True, kw_only=True):
    """The conditions under which the new generation would be rolled back, and the time in which they count."""

    confirm_within: str | UnsetType = UNSET
    revert_on_failures: str | UnsetType = UNSET
    minimum: int | UnsetType = field(name="min", default=UNSET)
    watch_for: str | UnsetType = field(name="for", default=UNSET)


class ReplayDifference(Result, frozen=True, kw_only=True):
    """A recorded event that the new rules would treat differently."""

    event_id: str
    kind: str
    received_at: str = ""
    before: str
    now: str
    error: str | UnsetType = UNSET


class ReplayComparison(Result, frozen=True, kw_only=True):
    """The recorded events of one trigger under its new rules; ``more`` are different and not listed."""

    trigger_id: str
    events: int
    same: int
    undecided: int
    different: tuple[ReplayDifference, ...]
    more: int


class ReloadPlan(Result, frozen=True, kw_only=True):
    """The changes that a reload would make."""

    triggers: dict[str, TriggerChange] = field(default_factory=dict)
    connectors: tuple[ConnectorChange, ...] = ()
    secrets: tuple[SecretChange, ...] = ()
    files: tuple[FileChange, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    requires_restart: Annotated[tuple[str, ...], Meta(description="Also what has waited for a restart before.")] = ()
    would_hold: Annotated[bool, Meta(description="The watcher would not adopt it before a reload is asked for.")] = (
        False
    )
    ramps: tuple[PlannedRamp, ...] = ()
    probation: ProbationTerms | UnsetType = UNSET
    replay: tuple[ReplayComparison, ...] | UnsetType = UNSET
