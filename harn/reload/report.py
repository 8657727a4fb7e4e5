"""The request for a reload and the report of its outcome. `ReloadReport.to_result` is the shape on the wire."""

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
"""The status of a reload by the watcher that would remove most triggers: held until a caller requests a reload."""
UNSETTLED = "unsettled"
"""The status if the watched files do not stop changing, or are missing or empty, so that nothing can be adopted."""

UNASKED = "file_watch"
"""The source of reloads by the watcher, which no caller requested: these may not remove most triggers."""
PREVIOUS = 0
"""The value of `ReloadRequest.recall` for the last generation before the live one with another content."""
START = "start"
"""The source of a server's first generation."""
REVERT = "revert"
"""The source of an automatic rollback of a generation on probation."""


class ReloadRequest(Struct, frozen=True, kw_only=True):
    """
    A request for a reload.

    :ivar source: a label of at most 32 characters: ``signal``, ``cli``, ``admin_api``, ``file_watch`` or another.
    :ivar actor: the name of the requester's credential, ``signal`` or ``watch``; never from the request's body.
    :ivar if_match: reload only if the live generation has this ``ETag``; None for any.
    :ivar recall: adopt the content of this earlier generation from the store instead of the files; `PREVIOUS` for the
        last generation with another content.
    :ivar replay: for a dry run, the number of recorded events of each trigger on which to evaluate the new rules.
    :ivar ramp: the share (0 to 1) of new deliveries that new versions of modified triggers take at first; None for the
        manifest's setting.
    :ivar confirm_within: seconds after which the generation is rolled back unless it was confirmed; None for the
        manifest's setting.
    :ivar revert_limit: the failed attempts of new versions at which the generation is rolled back; None for the
        manifest's setting.
    :ivar revert_for: seconds for which these attempts are counted; None for the manifest's setting.
    :ivar reason: the reason for the reload, for the record; empty if the request gave none.
    :ivar here: if True, this server alone adopts the generation, though others serve on its store.
    :ivar expected: the digests of manifest and modules, by path, after the requester saw them stop changing: a file
        with another digest is being written, and is not adopted.
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
        """Whether the request may be merged with other plain requests."""
        return self == ReloadRequest(source=self.source, actor=self.actor)


class ReloadReport(Struct, frozen=True, kw_only=True):
    """
    The outcome of one reload.

    :ivar reload_id: the id of this reload in records.
    :ivar status: `OK`, `ERROR`, `NEEDS_CONFIRMATION` or `UNSETTLED`.
    :ivar generation: the number of the generation that serves now.
    :ivar stage: the stage that failed; None if none did.
    :ivar timed_out: whether the stage failed because its time was up.
    :ivar plan: the plan of a dry run with all changes (see `harn.history.plan`); else None.
    :ivar recalled: the earlier generation whose content was adopted; None for content from files.
    :ivar drifted_files: the files that differ from the recalled content.
    :ivar renewed: the secrets, and the files that hold secrets, that have changed.
    :ivar probation: the conditions that roll the generation back (see `harn.rollout.probation`).
    :ivar ramps: the triggers whose new version takes only a share of the deliveries.
    :ivar reason: the reason in the request; empty if it gave none.
    :ivar servers: the status of each server, if several serve on one store.
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
        """Whether it only read the secrets of recalled content again; an earlier failure of the files then remains."""
        return self.ok and self.recalled is not None and self.source == UNASKED

    def to_result(self) -> ReloadResult:
        """Return the answer of the admin API."""
        return self._result_of_success() if self.ok else self._result_of_failure()

    def to_failed(self) -> FailedReload:
        """Return the report of a reload that did not succeed, for the description of the live generation."""
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
    """
    A reload that has ended, for its record.

    :ivar stages: the seconds that each stage took, by stage.
    :ivar merged: the number of requests that the reload answers.
    """

    report: ReloadReport
    stages: Mapping[str, float]
    merged: int = 1


REPORTED = {
    409: "The live generation is on probation, or the outcome of an earlier reload is not settled.",
    422: "The manifest or the code has problems, which the report lists; the old generation serves on.",
    500: "The server failed; the old generation serves on.",
    504: "It took too long; the old generation serves on.",
}
"""The HTTP statuses of answers that hold a report; see `status_of_report`."""


def status_of_report(report: ReloadReport) -> int:
    """Return the HTTP status of a report: 422 for the author's problems, 409 held, 504 out of time, else 500."""
    if report.ok:
        return 200
    if report.status in (NEEDS_CONFIRMATION, UNSETTLED):
        return 409
    if report.timed_out:
        return 504
    return 422 if report.stage in AUTHOR_STAGES else 500
