"""The outcome of a reload, as its caller reads it. Plain values; `ReloadReport.to_result` is the shape on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Struct, field, structs

from harn.clocks import rfc3339
from harn.model.problem import Problem
from harn.model.quantities import FailureLimit
from harn.reload.results import (
    DrainingInfo,
    FailedReload,
    ProbationInfo,
    ProblemInfo,
    RampInfo,
    ReloadPlan,
    ReloadResult,
    ServerAdoption,
    Summary,
)

STAGES = ("parse", "validate", "resolve", "prepare", "activate", "swap")
AUTHOR_STAGES = frozenset(("parse", "validate", "resolve"))
"""Stages whose failure the manifest's author can correct."""

OK, ERROR = "ok", "error"
NEEDS_CONFIRMATION = "needs_confirmation"
"""A reload that no caller asked for would remove most triggers: held until a reload is asked for."""
UNSETTLED = "unsettled"
"""The watched files do not stop changing, or are missing or empty: there is nothing to adopt."""

UNASKED = "file_watch"
"""The source of reloads by the watcher, which no caller asked for: these may not remove most triggers."""
PREVIOUS = 0
"""As `ReloadRequest.recall`: the last generation before the live one with another content."""
START = "start"
"""The source of a server's first generation."""
REVERT = "revert"
"""The source of a rollback that a generation brought about itself, on probation."""


class ReloadRequest(Struct, frozen=True, kw_only=True):
    """
    A request for a reload.

    :ivar source: a label of at most 32 characters: ``signal``, ``cli``, ``admin_api``, ``file_watch`` or another.
    :ivar actor: who asked: a credential's name, ``signal``, ``watch``; never from the request's body.
    :ivar if_match: reload only if the live generation has this ``ETag``.
    :ivar recall: adopt the content of this earlier generation, from the store, instead of the files; `PREVIOUS` for
        the last one before.
    :ivar replay: of a dry run: over how many recorded events of each trigger to evaluate the new rules.
    :ivar ramp: the share (0 to 1) of new deliveries that modified triggers take on first; None leaves it to the
        manifest.
    :ivar confirm_within: seconds after which it is undone unless it is confirmed; None leaves it to the manifest.
    :ivar revert_limit: failed attempts of the new versions at which it is undone; None leaves it to the manifest.
    :ivar revert_for: seconds for which these are counted; None leaves it to the manifest.
    :ivar reason: why it happens, for the record; empty when the request gave no reason.
    :ivar here: this server alone adopts it, though others serve on its store.
    :ivar expected: digests of manifest and modules by path, as the requester saw them stop changing: a file with
        another digest is being written, and is not adopted.
    """

    source: str
    actor: str
    force: bool = False
    dry_run: bool = False
    if_match: str | None = None
    recall: int | None = None
    replay: int = 0
    ramp: float | None = None
    confirm_within: float | None = None
    revert_limit: FailureLimit | None = None
    revert_for: float | None = None
    reason: str = ""
    here: bool = False
    expected: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether it may be merged with other plain requests."""
        return self == ReloadRequest(source=self.source, actor=self.actor)


class ReloadReport(Struct, frozen=True, kw_only=True):
    """
    The outcome of one reload.

    :ivar reload_id: names this run in records.
    :ivar status: `OK`, `ERROR`, `NEEDS_CONFIRMATION` or `UNSETTLED`.
    :ivar generation: the generation that serves now.
    :ivar stage: for an error: where it failed.
    :ivar timed_out: because the stage ran out of time.
    :ivar plan: of a dry run: what would change, in every detail (see `harn.history.plan`).
    :ivar recalled: the earlier generation whose content was adopted.
    :ivar drifted_files: the files that differ from it.
    :ivar renewed: secrets, and files of secrets, that have changed.
    :ivar probation: the conditions that undo it (see `harn.rollout.probation`).
    :ivar ramps: the triggers whose new version takes a share only.
    :ivar reason: why it happened.
    :ivar servers: each server, where several serve on one store.
    """

    reload_id: str = ""

    status: str
    source: str
    actor: str
    generation: int
    digest: str
    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    draining: tuple[DrainingInfo, ...] = ()
    requires_restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    duration_ms: float = 0.0
    dry_run: bool = False
    stage: str | None = None
    error: str | None = None
    problems: tuple[Problem, ...] = ()
    timed_out: bool = False
    at: float = 0.0
    plan: ReloadPlan | None = None
    recalled: int | None = None
    drifted_files: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    probation: ProbationInfo | None = None
    ramps: tuple[RampInfo, ...] = ()
    reason: str = ""
    servers: tuple[ServerAdoption, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the reload succeeded."""
        return self.status == OK

    @property
    def renews(self) -> bool:
        """Whether it only read secrets again beside recalled content: a failure of the files stays a failure."""
        return self.ok and self.recalled is not None and self.source == UNASKED

    def to_result(self) -> ReloadResult:
        """Return the answer of the admin API."""
        return self._result_of_success() if self.ok else self._result_of_failure()

    def to_failed(self) -> FailedReload:
        """Return a report that is not ok as part of the live generation's description."""
        return FailedReload(
            status=self.status,
            source=self.source,
            actor=self.actor,
            stage=self.stage,
            error=self.error,
            problems=tuple(map(ProblemInfo.of, self.problems)),
            generation=self.generation,
            removed=self.removed if self.status == NEEDS_CONFIRMATION else UNSET,
            at=rfc3339(self.at),
        )

    def _result_of_failure(self) -> ReloadResult:
        failed = structs.asdict(self.to_failed())
        del failed["at"]
        return ReloadResult(**failed, servers=self.servers or UNSET)

    def _result_of_success(self) -> ReloadResult:
        is_recalled = self.recalled is not None
        return ReloadResult(
            status=self.status,
            source=self.source,
            actor=self.actor,
            generation=self.generation,
            digest=self.digest,
            summary=Summary(added=self.added, modified=self.modified, removed=self.removed, unchanged=self.unchanged),
            changes=dict(self.changes),
            draining=self.draining,
            requires_restart=self.requires_restart,
            warnings=self.warnings,
            duration_ms=round(self.duration_ms, 3),
            dry_run=self.dry_run or UNSET,
            plan=self.plan or UNSET,
            recalled=self.recalled if is_recalled else UNSET,
            drift=bool(self.drifted_files) if is_recalled else UNSET,
            drifted_files=self.drifted_files if is_recalled else UNSET,
            renewed=self.renewed or UNSET,
            reason=self.reason or UNSET,
            probation=self.probation or UNSET,
            ramps=self.ramps or UNSET,
            servers=self.servers or UNSET,
        )


class Finished(Struct, frozen=True):
    """A reload that ended, for its record: how long each stage took (seconds), and how many requests it answers."""

    report: ReloadReport
    stages: Mapping[str, float]
    merged: int = 1


REPORTED = {
    409: "The live generation is on probation, or the outcome of an earlier reload is not settled.",
    422: "The manifest or the code has problems, which the report lists; the old generation serves on.",
    500: "The server failed; the old generation serves on.",
    504: "It took too long; the old generation serves on.",
}
"""Statuses that come with a report; see `status_of_report`."""


def status_of_report(report: ReloadReport) -> int:
    """Return the HTTP status of a report: 422 for the author's problems, 409 held, 504 out of time, else 500."""
    if report.ok:
        return 200
    if report.status in (NEEDS_CONFIRMATION, UNSETTLED):
        return 409
    if report.timed_out:
        return 504
    return 422 if report.stage in AUTHOR_STAGES else 500
