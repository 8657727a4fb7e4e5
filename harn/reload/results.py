"""
The results of operations on generations, as the admin API and the commands give them.

The report of a reload, the plan of a dry run in every detail, the live generation, the rollouts that are under way.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from harn.model.problem import Problem
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


class ProblemInfo(Result, frozen=True, kw_only=True):
    """One thing that is wrong with the manifest or what it names."""

    file: str
    line: int | None = None
    where: str = ""
    message: str
    hint: str = ""
    code: Annotated[str, Meta(description="The line of code that it is about: file:line[:column].")] | UnsetType = UNSET

    @classmethod
    def of(cls, problem: Problem) -> ProblemInfo:
        """Return a problem as a result."""
        return cls(
            file=problem.file,
            line=problem.line,
            where=problem.where,
            message=problem.message,
            hint=problem.hint,
            code=problem.code or UNSET,
        )


class Summary(Result, frozen=True, kw_only=True):
    """Triggers by what happened to them."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]


class ChangeCounts(Result, frozen=True, kw_only=True):
    """The numbers of triggers by what happened to them."""

    added: int
    modified: int
    removed: int
    unchanged: int | UnsetType = UNSET


class GenerationSummary(Result, frozen=True, kw_only=True):
    """The triggers that a generation changed: how many, and the first of them; empty in records of early versions."""

    added: tuple[str, ...] | UnsetType = UNSET
    modified: tuple[str, ...] | UnsetType = UNSET
    removed: tuple[str, ...] | UnsetType = UNSET
    counts: ChangeCounts | UnsetType = UNSET
    changes: (
        Annotated[dict[str, tuple[str, ...]], Meta(description="What changed of each that was modified.")] | UnsetType
    ) = UNSET
    split_from: (
        Annotated[int, Meta(description="One server of several adopted it alone; the others stayed on this one.")]
        | UnsetType
    ) = UNSET


class DrainingInfo(Result, frozen=True, kw_only=True):
    """A version that drains, and its leases."""

    binding: str
    in_flight: int


class ProbationInfo(Result, frozen=True, kw_only=True):
    """A probation that is under way, or whose generation is being rolled back (``verdict``)."""

    generation: int
    fallback: Annotated[int, Meta(description="The generation whose content replaces it if it fails.")]
    began_at: str
    confirm_by: Annotated[str, Meta(description="When it is rolled back unless it was confirmed.")] | UnsetType = UNSET
    revert_on_failures: Annotated[str, Meta(description="For example 20%.")] | UnsetType = UNSET
    minimum: int | UnsetType = field(name="min", default=UNSET)
    until: Annotated[str, Meta(description="When its failures are not watched any more.")] | UnsetType = UNSET
    verdict: Annotated[str, Meta(description="Why it is being rolled back.")] | UnsetType = UNSET
    attempts: Annotated[int, Meta(description="Attempts of its new versions so far.")] | UnsetType = UNSET
    failures: int | UnsetType = UNSET


class RampInfo(Result, frozen=True, kw_only=True, omit_defaults=True):
    """One trigger whose two versions share its deliveries, or whose last ramp was aborted."""

    trigger_id: str
    state: Annotated[str, Meta(description="running, finished, aborted or superseded.")]
    stable: Annotated[str, Meta(description="The previous version, for example gh@v2.")]
    fresh: Annotated[str, Meta(description="The new version.")]
    percent: Annotated[float, Meta(description="Of new deliveries, for the new version.")]
    step: float
    every: str | None
    max_failures: str | None
    began_at: str
    next_step_at: str | None
    why: Annotated[str, Meta(description="Why it ended.")] = ""
    attempts: Annotated[int, Meta(description="Attempts of the new version since it began.")] | UnsetType = UNSET
    failures: int | UnsetType = UNSET


class ServerAdoption(Result, frozen=True, kw_only=True):
    """One of several servers on a store, after a reload that they decided together."""

    id: Annotated[str, Meta(description="Its host and process id.")]
    generation: Annotated[int, Meta(description="The generation that it serves.")]
    status: Annotated[str, Meta(description="adopted, or pending; of one that failed: refused, silent or unchanged.")]


class ReloadResult(Result, frozen=True, kw_only=True):
    """The report of a reload: of one that went well, or would, what changed; of one that failed, the problems."""

    status: Annotated[str, Meta(description="ok, error, needs_confirmation or unsettled.")]
    source: str
    actor: str
    stage: str | UnsetType | None = UNSET
    error: str | UnsetType | None = UNSET
    problems: tuple[ProblemInfo, ...] | UnsetType = UNSET
    generation: Annotated[int, Meta(description="The generation that serves now.")]
    removed: tuple[str, ...] | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET
    changes: dict[str, tuple[str, ...]] | UnsetType = UNSET
    draining: tuple[DrainingInfo, ...] | UnsetType = UNSET
    requires_restart: tuple[str, ...] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET
    duration_ms: float | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    plan: ReloadPlan | UnsetType = UNSET
    recalled: int | UnsetType | None = UNSET
    drift: bool | UnsetType = UNSET
    drifted_files: tuple[str, ...] | UnsetType = UNSET
    renewed: tuple[str, ...] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    probation: ProbationInfo | UnsetType | None = UNSET
    ramps: tuple[RampInfo, ...] | UnsetType = UNSET
    servers: (
        Annotated[tuple[ServerAdoption, ...], Meta(description="Each server, where several serve on one store.")]
        | UnsetType
    ) = UNSET


class FailedReload(Result, frozen=True, kw_only=True):
    """The report of a reload that failed, or waits for an operator, and when it ended."""

    status: Annotated[str, Meta(description="error, needs_confirmation or unsettled.")]
    source: str
    actor: str
    stage: str | None
    error: str | None
    problems: tuple[ProblemInfo, ...]
    generation: Annotated[int, Meta(description="The generation that served then.")]
    removed: Annotated[tuple[str, ...], Meta(description="The triggers that it would remove.")] | UnsetType = UNSET
    at: str


class ManifestInfo(Result, frozen=True, kw_only=True):
    """A manifest."""

    path: str
    digest: str


class LiveGenerationInfo(Result, frozen=True, kw_only=True):
    """The live generation, whether the files differ from it (``drift``), and the rollouts that are under way."""

    generation: int
    digest: str | None
    source: str | UnsetType = UNSET
    actor: str | UnsetType = UNSET
    since: str | UnsetType = UNSET
    manifest: ManifestInfo | UnsetType = UNSET
    files: dict[str, str] | UnsetType = UNSET
    drift: bool | None
    drifted_files: tuple[str, ...] | UnsetType = UNSET
    drifted_digests: dict[str, str] | UnsetType = UNSET
    drift_unknown: str | UnsetType = UNSET
    hooks_failed: tuple[str, ...] | UnsetType = UNSET
    recalled: int | UnsetType | None = UNSET
    reason: str | UnsetType = UNSET
    pinned: Annotated[bool, Meta(description="After a rollback: the files are not adopted until they change.")] = False
    last_failed: FailedReload | None
    waiting: FailedReload | None
    probation: ProbationInfo | None
    ramps: tuple[RampInfo, ...]
