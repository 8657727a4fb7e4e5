"""
Publication of a server's state: records on its own topics, the state file, metrics, notices to the service manager.

A failure to publish does not end the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import UNSET, UnsetType, structs, to_builtins
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.lifecycle import Lifecycle, ServerStarted
from harn.model.display import list_some
from harn.observability.counts import NO_COUNTS
from harn.observability.metrics import Metrics
from harn.orchestrator.state_directory import StateFile
from harn.orchestrator.status import (
    ServerFacts,
    ServerState,
    ServerStatus,
    encode_state,
    entry_of,
    head_of,
    share_on_ramp,
)
from harn.reload.interfaces import IReloadPublisher, ReloadBegan, ReloadEnded
from harn.reload.report import ERROR, NEEDS_CONFIRMATION, OK, START, UNSETTLED, Finished, ReloadReport
from harn.reload.results import ProbationInfo, ProblemInfo, RampInfo
from harn.rollout.model import RolloutRecorded
from harn.server import RecordWriter, Server
from harn.store.holds import ALL
from harn.store.lock import state_path
from harn.systemd import LONGEST_STATUS, ServiceManager, shortened
from harn.triggers.binding import BindingVersion

log = Logger(namespace="harn")

MOST_RAMPS = 100
"""The largest number of ramps that the record of a reload describes."""
MOST_PROBLEMS = 100
"""The largest number of problems that the record of a reload lists."""

MANIFEST = "orchestrator.manifest"
KINDS = {
    OK: "reload_succeeded",
    ERROR: "reload_failed",
    NEEDS_CONFIRMATION: "reload_held",
    UNSETTLED: "reload_unsettled",
}
"""The kind of a reload's record, by the status of its report."""
MOST_NAMED = 20
"""The largest number of triggers that the log line of a start names."""
PATIENCE = 5.0
"""Seconds that a caller waits at most for a record or the state file to be written."""


class SummaryCounts(msgspec.Struct, frozen=True, kw_only=True):
    """
    The ids of the triggers that a reload changed.

    :ivar unchanged: the number of triggers that it did not change.
    """

    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int


class ReloadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The payload of a reload's record on ``orchestrator.manifest``.

    :ivar merged_requests: the number of requests that the reload answers.
    :ivar stages_ms: the milliseconds that each stage took, by stage.
    :ivar ramps: the ramps that are under way, at most `MOST_RAMPS` of them.
    :ivar ramping: the number of all ramps that are under way.
    """

    reload_id: str
    status: str
    source: str
    actor: str
    generation: int
    merged_requests: int
    duration_ms: float
    stages_ms: Mapping[str, float]
    recalled: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    stage: str | UnsetType | None = UNSET
    error: str | UnsetType | None = UNSET
    problems: tuple[ProblemInfo, ...] | UnsetType = UNSET
    would_remove: tuple[str, ...] | UnsetType = UNSET
    drifted_files: tuple[str, ...] | UnsetType = UNSET
    renewed: tuple[str, ...] | UnsetType = UNSET
    probation: ProbationInfo | UnsetType = UNSET
    ramps: tuple[RampInfo, ...] | UnsetType = UNSET
    ramping: int | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    summary: SummaryCounts | UnsetType = UNSET
    changes: Mapping[str, tuple[str, ...]] | UnsetType = UNSET
    requires_restart: tuple[str, ...] | UnsetType = UNSET


def record_of(finished: Finished) -> ReloadRecord:
    """Return the payload of a record on ``orchestrator.manifest``; unchanged triggers are only counted."""
    report = finished.report
    common = ReloadRecord(
        reload_id=report.reload_id,
        status=report.status,
        source=report.source,
        actor=report.actor,
        generation=report.generation,
        merged_requests=finished.merged,
        duration_ms=round(report.duration_ms, 3),
        stages_ms={stage: round(seconds * 1000.0, 3) for stage, seconds in finished.stages.items()},
        recalled=UNSET if report.recalled is None else report.recalled,
        reason=report.reason or UNSET,
    )
    return _with_success(common, report) if report.ok else _with_failure(common, report)


def _with_failure(record: ReloadRecord, report: ReloadReport) -> ReloadRecord:
    return structs.replace(
        record,
        stage=report.stage,
        error=report.error,
        problems=tuple(map(ProblemInfo.of, report.problems[:MOST_PROBLEMS])),
        would_remove=report.removed or UNSET,
    )


def _with_success(record: ReloadRecord, report: ReloadReport) -> ReloadRecord:
    return structs.replace(
        record,
        drifted_files=report.drifted_files or UNSET,
        renewed=report.renewed or UNSET,
        probation=report.probation or UNSET,
        ramps=report.ramps[:MOST_RAMPS] or UNSET,
        ramping=len(report.ramps) or UNSET,
        digest=report.digest,
        summary=SummaryCounts(
            added=report.added,
            modified=report.modified,
            removed=report.removed,
            unchanged=len(report.unchanged),
        ),
        changes=report.changes,
        requires_restart=report.requires_restart,
    )


def announce(report: ReloadReport) -> None:
    """Log the outcome of a reload, or the generation that the server starts with."""
    if report.ok and report.source == START:
        named = list_some(report.added, MOST_NAMED)
        log.info(
            "registered triggers ({count}): {named}; generation {generation}",
            count=len(report.added),
            named=named or "none",
            generation=report.generation,
        )
    elif report.ok:
        log.info(
            "manifest reload ({source}) applied: +{added} ~{modified} -{removed}, generation {generation}{renewed}",
            source=report.source,
            added=len(report.added),
            modified=len(report.modified),
            removed=len(report.removed),
            generation=report.generation,
            renewed=named_as_renewed(report),
        )
    elif report.status in (NEEDS_CONFIRMATION, UNSETTLED):
        log.warn(
            "manifest reload ({source}) {status}; generation {generation} goes on serving: {why}",
            source=report.source,
            status=report.status,
            generation=report.generation,
            why=report.error,
        )
    elif report.source != START:  # a start that failed is logged by `Orchestrator` itself
        log.error(
            "manifest reload ({source}) failed; generation {generation} goes on serving:\n{why}",
            source=report.source,
            why="\n".join(str(problem) for problem in report.problems) or report.error,
            generation=report.generation,
        )
    for warning in report.warnings:
        log.warn("{words}", words=warning)


def named_as_renewed(report: ReloadReport) -> str:
    """Return the end of a log line that names the secrets which were read again and have changed."""
    more = f" and {len(report.renewed) - MOST_NAMED} more" if len(report.renewed) > MOST_NAMED else ""
    return f"; read again: {', '.join(report.renewed[:MOST_NAMED])}{more}" if report.renewed else ""


def reason_of(error: Exception) -> str:
    """Return why a record or file could not be written; the text of a `TimeoutError` is replaced."""
    return f"it took longer than {PATIENCE:g} s" if isinstance(error, TimeoutError) else str(error)


@implementer(IReloadPublisher)
class Publisher:
    """Publishes reloads and the server's life."""

    def __init__(self, clock: IReactorTime, records: RecordWriter, state_file: StateFile, metrics: Metrics) -> None:
        self._clock = clock
        self._records = records
        self._state_file = state_file
        self._metrics = metrics

    def rollout_recorded(self, event: RolloutRecorded) -> None:
        """Append the record of a rollout's event; do not wait until it is written."""
        noting = Deferred.fromCoroutine(self._records.note(MANIFEST, event.kind, to_builtins(event.payload)))
        noting.addErrback(lambda failure: log.failure("recording {kind} failed", failure, kind=event.kind))

    async def save_state(self) -> str | None:
        """Replace the state file; return a warning if that failed, else None."""
        try:
            await Deferred.fromCoroutine(self._state_file.save()).addTimeout(PATIENCE, self._clock)
        except (OSError, TimeoutError) as error:
            why = reason_of(error)
            log.warn("cannot write {path}: {why}", path=self._state_file.path, why=why)
            return f"the state file {self._state_file.path} could not be written: {why}"
        return None

    def publish(self, finished: Finished) -> Deferred[list[str]]:
        """See `IReloadPublisher.publish`."""
        return Deferred.fromCoroutine(self._publish(finished))

    async def _publish(self, finished: Finished) -> list[str]:
        report = finished.report
        announce(report)
        # A start from the last good generation is not a success for its operator.
        is_good = report.ok and not (report.source == START and report.recalled is not None)
        is_good = self._metrics.last_ok if report.renews else is_good
        self._metrics.reload_finished(
            report.source, report.status, finished.stages, report.generation, report.at, is_good
        )
        kind = KINDS[report.status]
        if report.source == START and report.ok:
            kind = "generation_started"
        noted = Deferred.fromCoroutine(self._records.note(MANIFEST, kind, record_of(finished)))
        saved = Deferred.fromCoroutine(self.save_state())
        return [warning for warning in (await noted, await saved) if warning is not None]

    def take_state(self) -> None:
        """Write the state file from now on."""
        self._state_file.is_ours = True

    async def leave_state(self) -> None:
        """Stop writing the state file, which another program takes over; return once no write is under way."""
        self._state_file.is_ours = False
        await self._state_file.close()

    async def close(self) -> None:
        """Wait until the write in progress has ended."""
        await self._state_file.close()


def install(server: Server) -> None:
    """Add the state file and the publisher of reloads."""
    path = state_path(server.options.state_dir)
    status = server.add(ServerStatus(server, StateLines()))
    state_file = server.add(StateFile(path, server.reactor, server.threads, status))
    state_file.follow(server.lifecycle)
    publisher = Publisher(server.reactor, server.records, state_file, server.metrics)
    server.add(publisher, Publisher, IReloadPublisher)
    server.lifecycle.subscribe(RolloutRecorded, publisher.rollout_recorded)
    server.services.add_closing(publisher)
    Notices(server[ServiceManager], server.lifecycle)


class Notices:
    """Notifies ``service_manager`` of the server's start, and of each reload: that it runs, and how it ended."""

    def __init__(self, service_manager: ServiceManager, lifecycle: Lifecycle) -> None:
        self._service_manager = service_manager
        lifecycle.subscribe(ServerStarted, self._started)
        lifecycle.subscribe(ReloadBegan, self._began)
        lifecycle.subscribe(ReloadEnded, self._ended)

    def _started(self, event: ServerStarted) -> None:
        self._service_manager.ready(f"generation {event.generation} serves")

    def _began(self, event: ReloadBegan) -> None:
        self._service_manager.reloading()

    def _ended(self, event: ReloadEnded) -> None:
        self._service_manager.reloaded(None if event.report is None else status_of(event.report))


def status_of(report: ReloadReport) -> str:
    """Return one line with the outcome of a reload and the number of the live generation."""
    serves = f"generation {report.generation} serves"
    if report.ok:
        return serves
    why = shortened(report.error or "unknown", LONGEST_STATUS - len(serves) - 60)
    what = f"reload failed at {report.stage or 'unknown'}" if report.status == ERROR else f"reload {report.status}"
    return f"{what}: {why}; {serves}"


_encode = msgspec.json.Encoder().encode

Seen = tuple[object, ...]
"""The values that an entry was made from, apart from the binding version itself."""


class StateLines:
    """The encoded entries of the last state file, each with the values it was made from. Not safe for two threads."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Seen, bytes]] = {}  # by the version's key

    def encode(self, facts: ServerFacts, state: ServerState) -> bytes:
        """Return the text of the state file."""
        bindings = list(state.bindings)
        return encode_state(head_of(facts, state, bindings), self._lines(state, bindings))

    def _lines(self, state: ServerState, bindings: list[BindingVersion]) -> Iterator[bytes]:
        before, kept = self._kept, {}
        is_all_paused, busy = ALL in state.paused, _busy(state)
        counts, circuit, has_totals = state.counts, state.circuits.get, state.figures.totals.has
        for binding in bindings:
            key, trigger_id = binding.key, binding.id
            paused = is_all_paused or trigger_id in state.paused
            is_idle = not binding.in_flight and key not in counts and trigger_id not in busy
            if is_idle and not has_totals(trigger_id):
                seen: Seen = (binding.state, paused, circuit(trigger_id))
            else:
                seen = _seen(state, binding, paused)
            line = before.get(key)
            if line is None or line[0] != seen:
                line = seen, _encode(entry_of(state, binding, paused))
            kept[key] = line
            yield line[1]
        self._kept = kept


def _busy(state: ServerState) -> set[str]:
    """Return the triggers that have deliveries that run or wait, dead letters, or a ramp."""
    figures = state.figures
    return {*figures.running, *figures.waiting, *figures.dead, *figures.backlogs, *state.ramps}


def _seen(state: ServerState, binding: BindingVersion, paused: bool) -> Seen:
    figures, trigger_id = state.figures, binding.id
    counts = state.counts.get(binding.key, NO_COUNTS)
    backlog = figures.backlogs.get(trigger_id)
    return (
        binding.state,
        paused,
        state.circuits.get(trigger_id),
        binding.in_flight,
        counts.received,
        counts.dispatched,
        counts.failed,
        counts.dead,
        figures.totals.of(trigger_id),
        figures.running.get(trigger_id),
        figures.waiting.get(trigger_id),
        figures.dead.get(trigger_id),
        None if backlog is None else backlog.next_due,
        share_on_ramp(binding, state.ramps),
    )
