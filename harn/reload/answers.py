"""From what an attempt came to, to the report that its caller reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import TimeoutError

from harn.errors import FilesUnsettled, ManifestInvalid, StageFailed, StageTimedOut
from harn.manifest.changes import settings_requiring_restart
from harn.manifest.settings import OrchestratorSettings
from harn.reload.attempt import Result
from harn.reload.generation import Generation
from harn.reload.report import ERROR, NEEDS_CONFIRMATION, OK, UNSETTLED, DrainingVersion, ReloadReport, ReloadRequest
from harn.triggers.binding import BindingVersion

MOST_NAMED = 10
"""Triggers or files that one line names."""


def succeeded(
    request: ReloadRequest,
    result: Result,
    live: Generation | None,
    draining: Iterable[BindingVersion],
    started_with: OrchestratorSettings | None,
    *,
    probation: Mapping[str, Any] | None = None,
    ramps: Iterable[Mapping[str, Any]] = (),
) -> ReloadReport:
    """
    Report a reload that went well, or would.

    :param live: what serves now.
    :param started_with: the settings of the first generation: what differs from them and waits for a restart is named
        for as long as it does, also when this reload did not bring it.
    """
    plan = result.plan
    settings = result.inputs.manifest.orchestrator
    warnings = list(result.warnings)
    if result.adopted is None and not request.dry_run and _has_terms(request):
        warnings.append("nothing changed, so no probation and no ramp begins")
    return ReloadReport(
        status=OK,
        source=request.source,
        actor=request.actor,
        generation=0 if live is None else live.number,
        digest="" if live is None else live.digest,
        added=plan.added,
        modified=plan.modified,
        removed=plan.removed,
        unchanged=plan.unchanged,
        changes=plan.changes,
        draining=tuple(DrainingVersion(binding=binding.key, in_flight=binding.in_flight) for binding in draining),
        requires_restart=() if started_with is None else settings_requiring_restart(started_with, settings),
        warnings=tuple(warnings),
        dry_run=request.dry_run,
        plan=result.details,
        recalled=result.recalled,
        drifted_files=result.drifted,
        renewed=result.renewed,
        probation=probation,
        ramps=tuple(ramps),
        reason=request.reason,
    )


def held_back(request: ReloadRequest, result: Result, live: Generation) -> ReloadReport:
    """Report a reload that nobody asked for and that would remove most triggers."""
    removed = result.plan.removed
    named = ", ".join(removed[:MOST_NAMED]) + (", ..." if len(removed) > MOST_NAMED else "")
    return ReloadReport(
        status=NEEDS_CONFIRMATION,
        source=request.source,
        actor=request.actor,
        generation=live.number,
        digest=live.digest,
        added=result.plan.added,
        modified=result.plan.modified,
        removed=removed,
        error=(
            f"it would remove {len(removed)} of {len(live.bindings)} triggers ({named}); "
            "if that is meant, reload explicitly, else mend the manifest"
        ),
    )


def unsettled(live: Generation | None, source: str, actor: str, why: str, stage: str | None = None) -> ReloadReport:
    """Report files that cannot be adopted as they are, and have not been for a while; ``stage`` saw it."""
    return ReloadReport(
        status=UNSETTLED,
        source=source,
        actor=actor,
        generation=0 if live is None else live.number,
        digest="" if live is None else live.digest,
        stage=stage,
        error=why,
    )


def failed(request: ReloadRequest, error: ManifestInvalid | StageFailed, live: Generation | None) -> ReloadReport:
    """Report a reload that failed; what serves is what served before."""
    if isinstance(error, FilesUnsettled):
        return unsettled(live, request.source, request.actor, str(error), error.stage)
    problems = error.problems
    if isinstance(error, ManifestInvalid):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line = f"{problems[0]}{more}"
    else:
        line = str(error)
    return ReloadReport(
        status=ERROR,
        source=request.source,
        actor=request.actor,
        generation=0 if live is None else live.number,
        digest="" if live is None else live.digest,
        stage=error.stage,
        error=line,
        problems=problems,
        timed_out=isinstance(error, StageTimedOut),
        reason=request.reason,
    )


def _has_terms(request: ReloadRequest) -> bool:
    return (request.ramp, request.confirm_within, request.revert_limit) != (None, None, None)


def not_noted(number: int, error: Exception) -> str:
    """Say that the store does not know that a generation serves, and why."""
    return f"that generation {number} serves could not be noted: {reason_of(error)}"


def reason_of(error: Exception) -> str:
    """Return why something could not be done; a time-out's own text says nothing to people."""
    return "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
