"""
The coordinator: adopts one generation after the other, each whole or not at all, and reports each.

The code of a reload reads from top to bottom: `Coordinator.reload`, its turn in the queue, the pipeline, the step that
adopts, the events, and the records that are written before the caller is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from harn.clocks import WallTime
from harn.errors import ManifestInvalid, PreconditionFailed, ShuttingDown, StageFailed
from harn.lifecycle import Lifecycle
from harn.model.references import uuid7
from harn.reload import reports
from harn.reload.adopt import LiveGeneration
from harn.reload.generation import Candidate, Generation
from harn.reload.interfaces import (
    Adopted,
    FirstServes,
    IDecision,
    IOtherServers,
    IReloader,
    IReloadPublisher,
    IRollouts,
    NoOtherServers,
    NoRollouts,
    PinEnded,
    ReloadBegan,
    ReloadEnded,
    ReloadsClosed,
)
from harn.reload.pipeline import NOTING, ReloadPipeline
from harn.reload.report import (
    NEEDS_CONFIRMATION,
    START,
    UNSETTLED,
    Finished,
    ReloadReport,
    ReloadRequest,
)
from harn.reload.results import LiveGenerationInfo
from harn.reload.runs import Batch, PipelineRun, ReloadQueue, RunResult, Stages, Start
from harn.reload.targets import StartHooks
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import SLICE
from harn.triggers.routing import Ramp

log = Logger(namespace="harn.reload")

DEFAULT_TIMEOUT = 30.0
"""Seconds that each stage may take before a manifest has set its own limit."""
NO_START = Start()
PARSING = 5.0
"""The shortest limit of parsing in seconds: a live manifest with a tiny limit must not prevent the next reload."""


@implementer(IReloader)
class Coordinator:
    """
    Reloads on request.

    :param wall: the source of time stamps.
    :ivar queue: runs one reload at a time; while other code holds it, no reload runs.
    :ivar rollouts: probation and ramps of the adopted generation; the feature ``rollout`` replaces the default.
    :ivar others: the other servers on the store; the feature ``servers`` replaces the default.
    :ivar last: the last report.
    :ivar last_failed: the report of the last failure; None after a reload that succeeded.
    :ivar waiting: the report of a reload that is held for confirmation, or of files that do not stop changing; None
        after a reload that was adopted or found nothing changed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        pipeline: ReloadPipeline,
        live: LiveGeneration,
        publisher: IReloadPublisher,
        lifecycle: Lifecycle,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._pipeline = pipeline
        self._live = live
        self.rollouts: IRollouts = NoRollouts(pipeline.generations)
        self.others: IOtherServers = NoOtherServers()
        self._publisher = publisher
        self._lifecycle = lifecycle
        self.queue = ReloadQueue()
        self.archive = pipeline.archive
        self.numbers = pipeline.numbers
        self._start_hooks = StartHooks()
        self._waits = False
        self._first: tuple[Generation, ReloadRequest, Finished] | None = None  # built, but not serving
        self.last: ReloadReport | None = None
        self.last_failed: ReloadReport | None = None
        self.waiting: ReloadReport | None = None

    @property
    def current(self) -> Generation | None:
        """The live generation; None before the first."""
        return self._live.current

    @property
    def generation(self) -> int:
        """The number of the live generation; 0 before the first."""
        return self._live.number

    @property
    def etag(self) -> str:
        """The entity tag of the live generation, made from its number and digest."""
        return self._live.etag

    # Asking

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """See `IReloader.reload`."""
        try:
            self.queue.check_open()
        except ShuttingDown:
            return fail()
        if not request.is_plain:
            return self.queue.spawn(self._reload_alone(request))
        if self.queue.following is None:
            self.queue.following = Batch()
            answer = self.queue.following.add(request)
            self.queue.spawn_batch(self._reload_batch(self.queue.following))
            return answer
        return self.queue.following.add(request)

    def follow(self, request: ReloadRequest, decision: IDecision) -> Deferred[ReloadReport]:
        """Prepare a generation that another server on the store proposes, and adopt it if the servers agree."""
        return self.queue.spawn(self._reload_alone(request, Start(decision=decision)))

    async def _reload_alone(self, request: ReloadRequest, start: Start = NO_START) -> ReloadReport:
        async with self.queue.exclusive():
            return await self._reload(request, start=start)

    async def _reload_batch(self, batch: Batch) -> None:
        try:
            async with self.queue.exclusive():
                self.queue.following = None
                report = await self._reload(batch.requests[0], len(batch.requests))
        except BaseException as error:
            self.queue.following = None if self.queue.following is batch else self.queue.following
            batch.fail(error)
        else:
            batch.succeed(report)

    def start(self, request: ReloadRequest, start: Start, *, waits: bool = False) -> Deferred[ReloadReport]:
        """
        Build and adopt the first generation. Call `GivenNumbers.read` first.

        :param waits: if True, the generation does not serve before `begin_serving` or `begin_rollouts`; until then the
            store has only its reserved numbers.
        """
        self._waits = waits
        return self.queue.spawn(self._reload_alone(request, start))

    def describe(self) -> Deferred[LiveGenerationInfo]:
        """See `IReloader.describe`."""
        builder, status = self._pipeline.builder, self.rollouts.status()
        return Deferred.fromCoroutine(reports.describe(builder, self.current, status, self.last_failed, self.waiting))

    async def is_pinned(self) -> bool:
        """Return whether a pin keeps the watcher and a restart from replacing the live generation; see `Pin`."""
        return await reports.is_pinned(self._pipeline.builder, self.current)

    # Doing

    async def _reload(self, request: ReloadRequest, merged: int = 1, start: Start = NO_START) -> ReloadReport:
        """Reload under the lock, and return a report; raise if the request is refused or the server ends."""
        self._check(request)
        if request.dry_run:
            return (await self._run(request, start))[0]
        report: ReloadReport | None = None
        self._lifecycle.emit(ReloadBegan(request))
        try:
            before = self.generation  # only the number: the generation must be freed in slices
            report, stages = await self._run(request, start)
            self._remember(report)
            finished = Finished(report, dict(stages.durations), merged)
            adopted = None if self.generation == before else self.current
            if self._waits and report.ok and adopted is not None:
                self._first = adopted, request, finished
                return report
            if adopted is None:
                warnings: Sequence[str] = await self._publish(finished)
                return replace(report, warnings=(*report.warnings, *warnings))
            return await self._complete(adopted, request, finished)
        finally:
            self._lifecycle.emit(ReloadEnded(report))

    async def _run(self, request: ReloadRequest, start: Start) -> tuple[ReloadReport, Stages]:
        """Run the pipeline, adopt its candidate, and return the report."""
        started = self._clock.seconds()
        stages = Stages(self._clock, max(PARSING, self._timeout()), self._pipeline.builder)
        try:
            report = await self._attempt(request, stages, start)
        except (ManifestInvalid, StageFailed) as error:
            report = reports.failed(request, error, self.current)
        except CancelledError:
            if self.queue.closed:
                raise
            cut_off = StageFailed(stages.current, "what it waited for was cancelled")
            report = reports.failed(request, cut_off, self.current)
        now, spent = self._wall.seconds(), self._clock.seconds() - started
        return replace(report, reload_id=f"reload_{uuid7(now)}", duration_ms=spent * 1000.0, at=now), stages

    def _timeout(self) -> float:
        """Return the seconds that a stage may take according to the live settings."""
        live = self.current
        return DEFAULT_TIMEOUT if live is None else live.inputs.manifest.orchestrator.reload.timeout

    async def _attempt(self, request: ReloadRequest, stages: Stages, start: Start) -> ReloadReport:
        decision = start.decision
        if decision is None and self.current is not None and not request.dry_run:
            decision = await stages.run("parse", self.others.begin(request))
        try:
            if not self.numbers.are_known and not request.dry_run:
                await stages.run("prepare", self.numbers.read_again(self.current))
            result = await self._run_and_adopt(request, stages, start, decision)
        finally:
            if decision is not None:
                decision.end()
        await self._settle()
        servers = () if decision is None or not result.is_adopted else await decision.outcome()
        if request.dry_run:
            await self._pipeline.idle()
        elif result.ends_pin(request) and not (decision and decision.splits) and self._live.end_pin():
            self._lifecycle.emit(PinEnded())
        status = self.rollouts.status() if result.is_adopted else None
        draining = self._live.registry.draining()
        report = reports.ended(request, result, self.current, draining, self._live.started_with, status)
        return replace(report, servers=tuple(servers))

    async def _run_and_adopt(
        self, request: ReloadRequest, stages: Stages, start: Start, decision: IDecision | None
    ) -> RunResult:
        """Run the pipeline, and adopt its candidate once the other servers have agreed."""
        follows, versions = None if decision is None else decision.follows, self.numbers.versions
        if follows is not None:
            versions = await stages.run("parse", self.numbers.as_of(follows))
        async with AsyncExitStack() as stack:
            result = await self._pipeline.run(
                PipelineRun(
                    request=request,
                    stages=stages,
                    stack=stack,
                    live=self.current,
                    versions=versions,
                    started_with=self._live.started_with,
                    last=start.last,
                    ramps=start.ramps,
                    joins=start.joins,
                    decision=decision,
                )
            )
            if result.candidate is not None:
                self._check(request)
                if self.queue.closed:
                    raise ShuttingDown("the server is shutting down", retry_after=5)
                if decision is not None:
                    await decision.agree(result.candidate, stages.timeout)
                # From here to the end of the step there is no await.
                stack.pop_all()
                self._adopt(result.candidate, request)
                result = result.adopted()
        return result

    def _adopt(self, candidate: Candidate, request: ReloadRequest) -> None:
        """Adopt in one step, then emit `Adopted`. If a subscriber raises, the others still run."""
        previous = self.generation
        self._live.adopt(candidate)
        self.numbers.adopted(candidate)
        self._lifecycle.emit(Adopted(candidate, request, previous, self._waits))

    async def _settle(self) -> None:
        """Complete an adopt of thousands of versions in later turns; at once if the server ends meanwhile."""
        with suppress(CancelledError):
            if self._live.is_unsettled:
                await deferLater(self._clock, 0)  # calls from threads may run in this turn first
            while self._live.is_unsettled:
                await deferLater(self._clock, 0)
                self._live.settle(SLICE)
        self._live.settle()

    def _check(self, request: ReloadRequest) -> None:
        if request.if_match is not None and request.if_match not in ("*", self.etag):
            raise PreconditionFailed(f"the live generation is {self.etag}, not {request.if_match}")

    def _remember(self, report: ReloadReport) -> None:
        self.last = report
        if report.status in (NEEDS_CONFIRMATION, UNSETTLED):
            self.waiting = report
        elif not report.ok:
            self.last_failed = report
        else:
            self.waiting = None
            if not report.renews and (report.source != START or report.recalled is None):
                self.last_failed = None  # otherwise the files still have their problems

    async def _complete(self, generation: Generation, request: ReloadRequest, finished: Finished) -> ReloadReport:
        """
        Record durably that a generation serves, run its hooks, and publish; return the report with all warnings.

        If the hooks end at once, the two records share one commit: a reload then waits for the disk three times, not
        four.
        """
        noting = Deferred.fromCoroutine(self._note_adopted(generation, request))
        warnings: Sequence[str] = await self._start_hooks.run(generation.interpreter.value)
        report = replace(finished.report, warnings=(*finished.report.warnings, *warnings))
        publishing = Deferred.fromCoroutine(self._publish(replace(finished, report=report)))
        noted = await noting
        for warning in noted:  # the published report does not have it
            log.warn("{words}", words=warning)
        return replace(report, warnings=(*finished.report.warnings, *noted, *warnings, *await publishing))

    async def _note_adopted(self, generation: Generation, request: ReloadRequest) -> tuple[str, ...]:
        """Record durably that a generation serves. If that fails, return a warning; the next server renumbers it."""
        try:
            await self.rollouts.note(generation, request).addTimeout(NOTING, self._clock)
        except Exception as error:
            return (reports.not_noted(generation.number, error),)
        return ()

    async def _publish(self, finished: Finished) -> list[str]:
        try:
            return await self._publisher.publish(finished)
        except Exception as error:
            return [f"the reload could not be published: {reports.reason_of(error)}"]

    async def unsettled(self, source: str, actor: str, why: str) -> None:
        """Report files that cannot be adopted in their current state. Nothing is reloaded."""
        with suppress(ShuttingDown):  # the next server reads the files itself
            async with self.queue.exclusive():
                now, report = self._wall.seconds(), reports.unsettled(self.current, source, actor, why)
                report = replace(report, reload_id=f"reload_{uuid7(now)}", at=now)
                self._lifecycle.emit(ReloadBegan(ReloadRequest(source=source, actor=actor)))
                self.last = self.waiting = report
                await self._publish(Finished(report, {}, 1))
                self._lifecycle.emit(ReloadEnded(report))

    async def end_ramps(self, winners: Mapping[Ramp, BindingVersion]) -> frozenset[Ramp]:
        """End ramps at a time when no reload runs; see `LiveGeneration.end_ramps`."""
        async with self.queue.exclusive():
            return self._live.end_ramps(winners)

    # The server's life

    async def begin_serving(self) -> None:
        """Serve the first generation, once its port is open: begin its rollouts, and record that it serves."""
        self.begin_rollouts()
        await self.note_serving()

    def begin_rollouts(self) -> None:
        """Begin to serve the first generation, and continue its rollouts."""
        self._waits = False
        self._lifecycle.emit(FirstServes())

    async def read_rollouts(self) -> None:
        """Read the rollouts again after the previous program wrote them last and stopped deciding them."""
        await self.rollouts.catch_up()

    async def note_serving(self) -> None:
        """Record durably, and publish, that the first generation serves. Called after it began to serve."""
        first, self._first = self._first, None
        if first is None:
            return
        generation, request, finished = first
        async with self.queue.exclusive():
            status = self.rollouts.status()
            report = replace(finished.report, probation=status.probation, ramps=status.ramps)
            await self._complete(generation, request, replace(finished, report=report))

    async def withdraw(self) -> None:
        """Mark the numbers of a first generation that never served as not used, because the start failed."""
        if self._first is not None:
            await self.numbers.read_again(None)

    def close(self) -> Deferred[None]:
        """Refuse further reloads and cancel the reload that runs; after its adopt, it still publishes its report."""
        self._lifecycle.emit(ReloadsClosed())
        self._start_hooks.close()
        return self.queue.close()
