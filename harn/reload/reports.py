"""The reports of reloads, made from the pipeline's results; and the live generation as the admin API shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import UNSET, structs
from twisted.internet.defer import Deferred, TimeoutError

from harn.clocks import rfc3339
from harn.errors import FilesHang, FilesUnsettled, ManifestInvalid, StageFailed, StageTimedOut
from harn.manifest.changes import settings_requiring_restart
from harn.manifest.settings import OrchestratorSettings
from harn.model.display import list_some
from harn.reload.build import Builder
from harn.reload.generation import Generation
from harn.reload.interfaces import NotAgreed, RolloutStatus
from harn.reload.report import ERROR, NEEDS_CONFIRMATION, OK, UNSETTLED, ReloadReport, ReloadRequest
from harn.reload.results import DrainingInfo, LiveGenerationInfo, ManifestInfo
from harn.reload.runs import RunResult
from harn.triggers.binding import BindingVersion

PATIENCE = 2.0
"""Seconds that reading the files may take; after that, drift counts as unknown."""


def ended(
    request: ReloadRequest,
    result: RunResult,
    live: Generation | None,
    draining: Iterable[BindingVersion],
    started_with: OrchestratorSettings | None,
    status: RolloutStatus | None,
) -> ReloadReport:
    """
    Return the report of a run of the pipeline that did not fail.

    :param live: the live generation.
    :param draining: the versions that drain.
    :param started_with: the settings of the first generation. The report names every setting that differs from them and
        needs a restart, even if an earlier reload changed it.
    :param status: the rollouts that are under way; None if nothing was adopted.
    """
    if result.changed_while_reading:
        why = f"{', '.join(result.changed_while_reading)}: written while it was read"
        return unsettled(live, request.source, request.actor, why)
    if result.held and live is not None:
        return held_back(request, result, live)
    plan, read = result.plan, result.read
    warnings = list(result.warnings)
    if not result.is_adopted and not request.dry_run and _has_terms(request):
        warnings.append("nothing changed, so no probation and no ramp begins")
    settings = read.inputs.manifest.orchestrator
    status = status or RolloutStatus()
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
        draining=tuple(DrainingInfo(binding=binding.key, in_flight=binding.in_flight) for binding in draining),
        requires_restart=() if started_with is None else settings_requiring_restart(started_with, settings),
        warnings=tuple(warnings),
        dry_run=request.dry_run,
        plan=result.details,
        recalled=read.recalled,
        drifted_files=read.drifted,
        renewed=result.renewed,
        probation=status.probation,
        ramps=status.ramps,
        reason=request.reason,
    )


def held_back(request: ReloadRequest, result: RunResult, live: Generation) -> ReloadReport:
    """Return the report of a reload that no caller requested and that would remove most triggers."""
    removed = result.plan.removed
    named = list_some(removed)
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
            "if that is meant, reload explicitly, else correct the manifest"
        ),
    )


def unsettled(live: Generation | None, source: str, actor: str, why: str, stage: str | None = None) -> ReloadReport:
    """Return the report of files that keep changing, or are missing or empty; ``stage`` is the stage that failed."""
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
    """Return the report of a reload that failed; the live generation continues to serve."""
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
        servers=error.servers if isinstance(error, NotAgreed) else (),
        reason=request.reason,
    )


def _has_terms(request: ReloadRequest) -> bool:
    return (request.ramp, request.confirm_within, request.revert_limit) != (None, None, None)


def not_noted(number: int, error: Exception) -> str:
    """Return the warning that the store could not record that a generation serves."""
    return f"that generation {number} serves could not be recorded: {reason_of(error)}"


def reason_of(error: Exception) -> str:
    """Return the text of an error for people; a time-out, or an error without a text, gets a text here."""
    return "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


async def files_now(builder: Builder, live: Generation | None) -> Mapping[str, str] | str:
    """Return the current digests of a generation's files; if they cannot be read in time, the reason as a text."""
    if live is None:
        return {}
    try:
        return await Deferred.fromCoroutine(builder.files_now(live.inputs)).addTimeout(PATIENCE, builder.files.reactor)
    except TimeoutError:
        return builder.files.doing() or f"the files were not read within {PATIENCE:g} s"
    except FilesHang as error:
        return str(error)


async def is_pinned(builder: Builder, live: Generation | None) -> bool:
    """Return whether the pin of a generation holds; True as long as its files cannot be read."""
    if live is None or live.pin is None:
        return False
    reading = Deferred.fromCoroutine(builder.plain_files_now(live.pin.files))
    try:
        return live.pin.holds(await reading.addTimeout(PATIENCE, builder.files.reactor))
    except (TimeoutError, FilesHang):
        return True


async def describe(
    builder: Builder,
    live: Generation | None,
    status: RolloutStatus,
    last_failed: ReloadReport | None,
    waiting: ReloadReport | None,
) -> LiveGenerationInfo:
    """Describe the live generation, with the reports of earlier reloads. Reads its files."""
    now = await files_now(builder, live)
    described = describe_generation(live, now, status, pinned=await is_pinned(builder, live))
    return structs.replace(
        described,
        last_failed=None if last_failed is None else last_failed.to_failed(),
        waiting=None if waiting is None else waiting.to_failed(),
    )


def describe_generation(
    live: Generation | None, files_now: Mapping[str, str] | str, status: RolloutStatus, *, pinned: bool
) -> LiveGenerationInfo:
    """
    Describe the live generation; the reports of earlier reloads are left out.

    :param files_now: the current digests of its files, to find drift; or the reason why they could not be read.
    :param pinned: whether its pin holds; see `is_pinned`.
    """
    nothing = LiveGenerationInfo(
        generation=0,
        digest=None,
        drift=False,
        last_failed=None,
        waiting=None,
        probation=status.probation,
        ramps=status.ramps,
    )
    if live is None:
        return nothing
    manifest, files = live.inputs.manifest, live.inputs.files
    unknown, now = (files_now, files) if isinstance(files_now, str) else (None, files_now)
    drifted = sorted(path for path, digest in files.items() if now.get(path) != digest)
    return structs.replace(
        nothing,
        generation=live.number,
        digest=live.digest,
        source=live.source,
        actor=live.actor,
        since=rfc3339(live.since),
        manifest=ManifestInfo(path=manifest.path, digest=manifest.digest),
        files=dict(files),
        drift=None if unknown is not None else bool(drifted),
        drifted_files=tuple(drifted),
        drifted_digests={path: now[path] for path in drifted if path in now},
        drift_unknown=UNSET if unknown is None else unknown,
        hooks_failed=tuple(live.interpreter.value.hook_failures),
        recalled=live.recalled,
        pinned=pinned,
        reason=live.reason,
    )
