"""
The coordinator: one reload at a time, each whole or not at all, each with a true report.

Plain requests that come while a reload runs share one following reload, so that every caller gets the report of a
reload that began after it asked. A reload is a task of its own: whatever hangs in it is cut off, and never holds up a
signal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.connectors.gate import Sink
from harn.errors import (
    ManifestInvalid,
    PreconditionFailed,
    ShuttingDown,
    StageFailed,
    StageTimedOut,
)
from harn.manifest.changes import settings_requiring_restart
from harn.manifest.model import OrchestratorSettings
from harn.reload.adopt import adopt
from harn.reload.build import Builder
from harn.reload.connections import quiesce
from harn.reload.description import describe_generation
from harn.reload.drain import Drains
from harn.reload.generation import Candidate, Generation
from harn.reload.inputs import Inputs
from harn.reload.interfaces import IReloader, IRouteTable
from harn.reload.numbers import VersionNumbers
from harn.reload.report import Draining, ReloadReport, ReloadRequest
from harn.reload.stages import Stages
from harn.store.interfaces import IGenerations
from harn.triggers.reconcile import Plan
from harn.triggers.registry import Registry

log = Logger(namespace="harn.reload")

DEFAULT_TIMEOUT = 30.0
"""Seconds that each stage may take before a manifest has said otherwise."""
PARSING = 5.0
"""Seconds that parsing may take at least: a manifest that allows too little time must not keep out the next one."""
NOTING = 5.0
"""Seconds that a caller waits for the note that a generation serves."""


@frozen
class Finished:
    """What observers learn of a reload that ended: its report, and how long each stage took (seconds)."""

    report: ReloadReport
    stages: dict[str, float]
    merged: int = 1


@frozen(kw_only=True)
class Hooks:
    """
    What the coordinator's composer wants to do at its turns.

    :ivar adopted: right after the swap, in the same turn: apply the generation's settings. Must not raise; is logged
        if it does.
    :ivar publish: before the caller is answered: record and state file; gives warnings, one for each failure.
    """

    adopted: Callable[[Candidate], None]
    publish: Callable[[Finished], Deferred[list[str]]]


@implementer(IReloader)
class Coordinator:
    """
    Reloads on request.

    :ivar current: the live generation, None before the first.
    :ivar last: the last report; ``last_failed``: the last report of a failure, until a reload succeeds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        builder: Builder,
        generations: IGenerations,
        registry: Registry,
        table: IRouteTable,
        drains: Drains,
        sink: Sink,
        hooks: Hooks,
    ) -> None:
        self._clock = clock
        self._builder = builder
        self._generations = generations
        self._registry = registry
        self._table = table
        self._drains = drains
        self._sink = sink
        self._hooks = hooks
        self._lock = DeferredLock()
        self._following: list[tuple[ReloadRequest, Deferred[ReloadReport]]] | None = None
        self._numbers = VersionNumbers({})
        self._highest = 0
        self._tasks: set[Deferred[Any]] = set()
        self._closed = False
        self._started_with: OrchestratorSettings | None = None
        self.current: Generation | None = None
        self.last: ReloadReport | None = None
        self.last_failed: ReloadReport | None = None

    @property
    def generation(self) -> int:
        """The number of the live generation; 0 before the first."""
        return 0 if self.current is None else self.current.number

    @property
    def etag(self) -> str:
        """Made of the live generation's number and digest."""
        return etag_of(self.generation, "" if self.current is None else self.current.digest)

    # Asking

    def start(self, numbers: VersionNumbers, last_number: int, last_digest: str | None) -> Deferred[ReloadReport]:
        """
        Build and adopt the first generation.

        :param last_number: the highest generation number ever reserved; ``last_digest``: the digest last adopted.
        """
        self._numbers = numbers
        self._highest = last_number
        request = ReloadRequest(source="start", actor="start")
        return self._begin(self._run_alone(request, last_digest))

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """See `IReloader.reload`."""
        if self._closed:
            return fail(ShuttingDown("the server is shutting down; it reloads no more", retry_after=5))
        if not request.is_plain:
            return self._begin(self._run_alone(request, None))
        answer: Deferred[ReloadReport] = Deferred()
        if self._following is not None:
            self._following.append((request, answer))
            return answer
        self._following = [(request, answer)]
        self._spawn(self._run_following(self._following))
        return answer

    def describe(self) -> Deferred[dict[str, Any]]:
        """See `IReloader.describe`."""
        return Deferred.fromCoroutine(self._describe())

    async def _describe(self) -> dict[str, Any]:
        live = self.current
        files = {} if live is None else await self._builder.files_now(live.inputs)
        return describe_generation(live, self.last_failed, files)

    def close(self) -> Deferred[None]:
        """Reload no more: what runs is cut off, and undone by not being done."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        return self._lock.run(lambda: None)

    async def release(self) -> None:
        """At the server's end: let go of the live generation, and wait until its connectors are closed."""
        live, self.current = self.current, None
        for shared in () if live is None else live.connectors.values():
            quiesce(shared.value)
            shared.release()
        await self._builder.connections.pool.idle()

    def _begin(self, work: Any) -> Deferred[ReloadReport]:
        """Begin a reload; who stops waiting for its report does not end it."""
        answer: Deferred[ReloadReport] = Deferred()
        self._spawn(work).addCallbacks(answer.callback, answer.errback)
        return answer

    def _spawn(self, work: Any) -> Deferred[Any]:
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def ended(result: Any) -> Any:
            self._tasks.discard(task)
            return result

        return task.addBoth(ended)

    async def _run_following(self, requests: list[tuple[ReloadRequest, Deferred[ReloadReport]]]) -> None:
        try:
            async with self._turn():
                self._following = None
                report = await self._reload(requests[0][0], len(requests), None)
        except BaseException as error:
            self._following = None if self._following is requests else self._following
            for _, answer in requests:
                answer.errback(error)
            return
        for request, answer in requests:
            answer.callback(evolve(report, source=request.source, actor=request.actor))

    async def _run_alone(self, request: ReloadRequest, last_digest: str | None) -> ReloadReport:
        async with self._turn():
            return await self._reload(request, 1, last_digest)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the reloads before; a wait or a reload that is cut off is so because the server ends."""
        try:
            await self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()
        except CancelledError:
            raise ShuttingDown("the server is shutting down; the reload was cut off", retry_after=5) from None

    # Doing

    async def _reload(self, request: ReloadRequest, merged: int, last_digest: str | None) -> ReloadReport:
        """Reload under the lock: every end of it but a cut-off is a report."""
        started = self._clock.seconds()
        timeout = DEFAULT_TIMEOUT
        if self.current is not None:
            timeout = max(PARSING, self.current.inputs.manifest.orchestrator.reload.timeout)
        stages = Stages(self._clock, timeout)
        self._check_precondition(request)
        before = self.current
        try:
            report = await self._attempt(request, stages, last_digest)
        except (ManifestInvalid, StageFailed) as error:
            report = self._failure(request, error)
        except CancelledError:
            if self._closed:
                raise
            report = self._failure(request, StageFailed(stages.current, "what it waited for was cancelled"))
        elapsed = (self._clock.seconds() - started) * 1000.0
        report = evolve(report, duration_ms=elapsed, at=self._clock.seconds())
        if request.dry_run:
            return report
        self.last = report
        self.last_failed = None if report.ok else report
        warnings: list[str] = []
        if self.current is not None and self.current is not before:
            warnings.extend(await self._note_adopted(self.current))
        warnings.extend(await self._publish(Finished(report, dict(stages.durations), merged)))
        return evolve(report, warnings=(*report.warnings, *warnings))

    async def _note_adopted(self, generation: Generation) -> list[str]:
        """Note durably that the generation serves; if that fails, the next server gives it a new number."""
        try:
            await self._generations.adopted(generation.number, generation.since).addTimeout(NOTING, self._clock)
        except Exception as error:
            return [f"that generation {generation.number} serves could not be noted: {_said(error)}"]
        return []

    async def _publish(self, finished: Finished) -> list[str]:
        try:
            return await self._hooks.publish(finished)
        except Exception as error:
            return [f"the reload could not be published: {_said(error)}"]

    async def _attempt(self, request: ReloadRequest, stages: Stages, last_digest: str | None) -> ReloadReport:
        live, builder = self.current, self._builder
        async with AsyncExitStack() as stack:
            loaded = await stages.run("parse", builder.load(None if live is None else live.inputs.loaded))
            stages.timeout = loaded.manifest.orchestrator.reload.timeout
            inputs = await stages.run("resolve", builder.read(loaded, live))
            if live is not None and inputs.digest == live.digest and not request.force:
                return self._success(request, live, Plan(unchanged=tuple(sorted(live.bindings))))
            prepared = await stages.run("resolve", builder.resolve(inputs, live, stack, afresh=request.force))
            connectors = await stages.run("prepare", builder.connect(prepared, live, stack))
            if request.dry_run:
                return self._success(request, live, prepared.plan, next_inputs=prepared.inputs)
            keeps_number = live is None and last_digest == inputs.digest
            keeps_number = keeps_number and self._numbers.keeps(prepared.definitions.values())
            number = self._highest if keeps_number else self._highest + 1
            building = builder.candidate(
                prepared, connectors, live, self._numbers, number, request, self._table, self._clock.seconds()
            )
            candidate = await stages.run("swap", building)
            if not keeps_number:
                await stages.run("prepare", builder.reserve(self._generations, candidate, live))
            try:
                await stages.run("activate", builder.connections.activate(connectors, inputs))
                await stages.run("swap", self._last_checks(request))
            except Exception:
                if not keeps_number:
                    await self._withdraw(candidate)
                raise
            # From here to the end of the step there is no await.
            stack.pop_all()
            self._adopt(candidate, live)
            return self._success(request, candidate.generation, prepared.plan)

    async def _withdraw(self, candidate: Candidate) -> None:
        """Note that the reserved numbers were never used; if that fails, the next server leaves them out."""
        try:
            withdrawing = Deferred.fromCoroutine(self._builder.withdraw(self._generations, candidate))
            await withdrawing.addTimeout(NOTING, self._clock)
        except Exception as error:
            log.warn("generation {number} stays reserved: {why}", number=candidate.generation.number, why=_said(error))

    async def _last_checks(self, request: ReloadRequest) -> None:
        self._check_precondition(request)
        if self._closed:
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def _check_precondition(self, request: ReloadRequest) -> None:
        if request.if_match is not None and request.if_match not in ("*", self.etag):
            raise PreconditionFailed(f"the live generation is {self.etag}, not {request.if_match}")

    def _adopt(self, candidate: Candidate, live: Generation | None) -> None:
        now = self._clock.seconds()
        adopt(candidate, live, self._registry, self._table, self._sink, now)
        generation = candidate.generation
        self.current = generation
        self._highest = max(self._highest, generation.number)
        changed = (*candidate.plan.added, *candidate.plan.modified)
        self._numbers.adopted(generation.bindings[trigger_id] for trigger_id in changed)
        settings = generation.inputs.manifest.orchestrator
        self._started_with = self._started_with or settings
        timeout = settings.reload.drain_timeout
        self._drains.begin(0 if live is None else live.number, candidate.ended, timeout)
        try:
            self._hooks.adopted(candidate)
        except Exception:
            log.failure("applying the settings of generation {number} failed", number=generation.number)

    # Saying

    def _success(
        self,
        request: ReloadRequest,
        generation: Generation | None,
        plan: Plan,
        *,
        next_inputs: Inputs | None = None,
    ) -> ReloadReport:
        """:param next_inputs: of a dry run: what would be adopted."""
        inputs = next_inputs or (None if generation is None else generation.inputs)
        restart: tuple[str, ...] = ()
        if self._started_with is not None and inputs is not None:
            # As long as it waits for a restart, also when this reload did not bring it.
            restart = settings_requiring_restart(self._started_with, inputs.manifest.orchestrator)
        return ReloadReport(
            status="ok",
            source=request.source,
            actor=request.actor,
            generation=0 if generation is None else generation.number,
            digest="" if generation is None else generation.digest,
            added=plan.added,
            modified=plan.modified,
            removed=plan.removed,
            unchanged=plan.unchanged,
            changes=plan.changes,
            draining=tuple(
                Draining(binding=binding.key, in_flight=binding.in_flight) for binding in self._registry.draining()
            ),
            requires_restart=restart,
            dry_run=request.dry_run,
        )

    def _failure(self, request: ReloadRequest, error: ManifestInvalid | StageFailed) -> ReloadReport:
        problems = error.problems
        if isinstance(error, ManifestInvalid):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            line = f"{problems[0]}{more}"
        else:
            line = str(error)
        return ReloadReport(
            status="error",
            source=request.source,
            actor=request.actor,
            generation=self.generation,
            digest="" if self.current is None else self.current.digest,
            stage=error.stage,
            error=line,
            problems=problems,
            timed_out=isinstance(error, StageTimedOut),
        )


def _said(error: Exception) -> str:
    return "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def etag_of(number: int, digest: str) -> str:
    """Make the ``ETag`` of a generation."""
    return f'"{number}-{digest.removeprefix("sha256:")[:16]}"'
