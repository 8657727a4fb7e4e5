"""
The coordinator: adopts one generation after the other, each whole or not at all, each with a true report.

It holds which generation is live; everything that is done to that happens in its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.gate import Sink
from harn.errors import ManifestInvalid, PreconditionFailed, ShuttingDown, StageFailed
from harn.manifest.settings import OrchestratorSettings
from harn.model.identifiers import uuid7
from harn.reload import answers
from harn.reload.adopt import adopt
from harn.reload.archive import Archive
from harn.reload.attempt import NOTING, Attempts, Before, Result
from harn.reload.beginning import Beginning, Begun, Revive
from harn.reload.build import Builder
from harn.reload.connections import quiesce
from harn.reload.description import describe_generation, files_now
from harn.reload.drain import Drains
from harn.reload.generation import Candidate, Generation
from harn.reload.hooks import Finished, Hooks
from harn.reload.interfaces import IReloader, IRouteTable
from harn.reload.numbers import VersionNumbers, read_again
from harn.reload.report import NEEDS_CONFIRMATION, UNSETTLED, ReloadReport, ReloadRequest
from harn.reload.reroute import reroute
from harn.reload.revive import Reviver
from harn.reload.stages import Stages
from harn.reload.start_hooks import StartHooks
from harn.reload.turns import Turns
from harn.rollout.trials import START, Trials
from harn.store.generations import IGenerations
from harn.triggers.binding import BindingVersion
from harn.triggers.ramp import Ramp
from harn.triggers.registry import Registry

log = Logger(namespace="harn.reload")

DEFAULT_TIMEOUT = 30.0
"""Seconds that each stage may take before a manifest has said otherwise."""
PARSING = 5.0
"""Seconds that parsing may take at least: a manifest that allows too little time must not keep out the next one."""


@implementer(IReloader)
class Coordinator:
    """
    Reloads on request.

    :ivar turns: who holds one keeps reloads out.
    :ivar current: the live generation, None before the first.
    :ivar last: the last report; ``last_failed``: the last report of a failure, until a reload succeeds.
    :ivar are_numbers_known: False when another program may have given some since; the next reload looks.
    :ivar waiting: the report of a reload that is held for confirmation, or of files that do not settle, until a reload
        is adopted or finds nothing changed.
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
        reviver: Reviver,
        trials: Trials,
        wall: WallTime | None = None,
    ) -> None:
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._builder = builder
        self._generations = generations
        self._registry = registry
        self._table = table
        self._drains = drains
        self._sink = sink
        self._hooks = hooks
        self._trials = trials
        trials.host = self
        self.archive = Archive(generations, builder.in_thread)
        self._attempts = Attempts(
            clock=clock,
            wall=self._wall,
            builder=builder,
            generations=generations,
            archive=self.archive,
            table=table,
            check=self._last_checks,
            adopt=self._adopt,
            describe=hooks.describe,
        )
        self.turns = Turns(self._reload)
        self._beginning = Beginning(builder=builder, reviver=reviver, trials=trials, reload=self._reload)
        self._waits, self.are_numbers_known = False, True
        self._start_hooks = StartHooks()
        self._begun: Begun | None = None
        self._numbers, self._highest = VersionNumbers({}), 0
        self._started_with: OrchestratorSettings | None = None
        self.current: Generation | None = None
        self.last: ReloadReport | None = None
        self.last_failed: ReloadReport | None = None
        self.waiting: ReloadReport | None = None

    @property
    def generation(self) -> int:
        """The number of the live generation; 0 before the first."""
        return 0 if self.current is None else self.current.number

    @property
    def etag(self) -> str:
        """Made of the live generation's number and digest."""
        digest = "" if self.current is None else self.current.digest
        return f'"{self.generation}-{digest.removeprefix("sha256:")[:16]}"'

    # Asking

    def start(
        self,
        numbers: VersionNumbers,
        last_number: int,
        last_digest: str | None,
        *,
        recall: int | None = None,
        reason: str = "",
        waits: bool = False,
    ) -> Deferred[ReloadReport]:
        """
        Build and adopt the first generation.

        :param last_number: the highest generation number ever reserved; ``last_digest``: the digest last adopted.
        :param recall: adopt the content of this earlier generation, or `PREVIOUS`; ``reason``: why.
        :param waits: it does not serve before `begin_serving` or `begin_rollouts`: numbers are reserved, and no more.
        """
        self._numbers = numbers
        self._highest = last_number
        self._waits = waits
        request = ReloadRequest(source=START, actor=START, recall=recall, reason=reason)
        return self.turns.begin(self._start(request, last_digest))

    async def _start(self, request: ReloadRequest, last_digest: str | None) -> ReloadReport:
        records = await self._trials.load()
        async with self.turns.turn():
            return await self._beginning.run(request, records, self._numbers, self._highest, last_digest)

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """See `IReloader.reload`."""
        return self.turns.ask(request)

    def describe(self) -> Deferred[dict[str, Any]]:
        """See `IReloader.describe`."""
        return Deferred.fromCoroutine(self._describe())

    async def _describe(self) -> dict[str, Any]:
        live = self.current
        return {
            **describe_generation(live, self.last_failed, self.waiting, await files_now(self._builder, live)),
            "probation": self._trials.probations.describe(),
            "ramps": self._trials.ramps.describe(),
        }

    async def unsettled(self, source: str, actor: str, why: str) -> None:
        """Report files that cannot be adopted as they are; nothing changes."""
        with suppress(ShuttingDown):  # the next server sees for itself
            async with self.turns.turn():
                now, report = self._wall.seconds(), answers.unsettled(self.current, source, actor, why)
                report = evolve(report, reload_id=f"reload_{uuid7(now)}", at=now)
                self._hooks.began()
                self.last = self.waiting = report
                await self._publish(Finished(report, {}, 1))
                self._hooks.ended(report)

    def close(self) -> Deferred[None]:
        """Reload no more: what runs is cut off, and undone by not being done; what was adopted is published."""
        self._trials.close()
        closed = self.turns.close()
        self._start_hooks.close()
        return closed

    async def begin_serving(self) -> None:
        """Serve the first generation, whose port is open: begin its trials, and note that it serves."""
        self.begin_rollouts()
        await self.note_serving()

    async def withdraw(self) -> None:
        """Take back the numbers of a first generation that was built and never came to serve: the start failed."""
        if self._begun is not None:
            await read_again(self._generations, None)

    async def release(self) -> None:
        """At the server's end: let go of the live generation, and wait until its connectors are closed."""
        live, self.current = self.current, None
        for shared in () if live is None else live.connectors.values():
            quiesce(shared.value)
            shared.release()
        await self._builder.connections.pool.idle()
        self._builder.files.close()

    async def read_rollouts(self) -> None:
        """Read again the rollouts of another program, which decides nothing more; `begin_rollouts` must follow."""
        await self._trials.catch_up()

    def begin_rollouts(self) -> None:
        """Go on with the rollouts of the first generation, which serves from now on."""
        self._waits = False
        self._trials.begin()

    async def note_serving(self) -> None:
        """Note durably, and publish, that the first generation serves, since `begin_serving` or `begin_rollouts`."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        async with self.turns.turn():
            probation, ramps = self._trials.probations.describe(), tuple(self._trials.ramps.describe())
            report = evolve(begun.finished.report, probation=probation, ramps=ramps)
            for warning in await self._note_adopted(begun.generation, begun.request):
                log.warn("{words}", words=warning)
            await self._publish(evolve(begun.finished, report=report))

    async def renumber(self) -> None:
        """
        Read again which numbers were given: another program gave some, and did not come to serve.

        :raises EventLogUnavailable: it is tried again before the next reload.
        """
        self.are_numbers_known = False
        self._numbers, highest = await read_again(self._generations, self.current)
        self._highest = max(self._highest, highest)
        self.are_numbers_known = True

    # Doing

    async def _reload(
        self,
        request: ReloadRequest,
        merged: int,
        last_digest: str | None = None,
        revive: Revive | None = None,
    ) -> ReloadReport:
        """Reload under the lock: every end of it but a cut-off or a refusal is a report."""
        self._check_precondition(request)
        if request.dry_run:
            return (await self._attempt(request, last_digest, revive))[0]
        report: ReloadReport | None = None
        self._hooks.began()
        try:
            before = self.current
            ended, stages = await self._attempt(request, last_digest, revive)
            report = ended
            self._remember(report)
            finished = Finished(report, dict(stages.durations), merged)
            if self._waits and report.ok and self.current is not None:
                self._begun = Begun(generation=self.current, request=request, finished=finished)
                return report
            if self.current is not None and self.current is not before:
                warnings = await self._note_adopted(self.current, request)
                report = evolve(report, warnings=(*report.warnings, *warnings))
            warnings = await self._publish(evolve(finished, report=report))
            return evolve(report, warnings=(*report.warnings, *warnings))
        finally:
            self._hooks.ended(report)

    async def _attempt(
        self, request: ReloadRequest, last_digest: str | None, revive: Revive | None
    ) -> tuple[ReloadReport, Stages]:
        started, live = self._clock.seconds(), self.current
        timeout = DEFAULT_TIMEOUT if live is None else live.inputs.manifest.orchestrator.reload.timeout
        stages = Stages(self._clock, max(PARSING, timeout), self._builder.doing)
        try:
            if not self.are_numbers_known and not request.dry_run:
                await stages.run("prepare", self.renumber())
            before = Before(
                live=live,
                numbers=self._numbers,
                highest=self._highest,
                last_digest=last_digest,
                revive=revive,
                started_with=self._started_with,
            )
            report = self._success(request, await self._attempts.run(request, stages, before))
        except (ManifestInvalid, StageFailed) as error:
            report = answers.failed(request, error, self.current)
        except CancelledError:
            if self.turns.closed:
                raise
            cut_off = StageFailed(stages.current, "what it waited for was cancelled")
            report = answers.failed(request, cut_off, self.current)
        now, spent = self._wall.seconds(), self._clock.seconds() - started
        return evolve(report, reload_id=f"reload_{uuid7(now)}", duration_ms=spent * 1000.0, at=now), stages

    def _success(self, request: ReloadRequest, result: Result) -> ReloadReport:
        live = self.current
        if result.torn:
            why = f"{', '.join(result.torn)}: written while it was read"
            return answers.unsettled(live, request.source, request.actor, why)
        if result.held and live is not None:
            return answers.held_back(request, result, live)
        adopted = result.adopted is not None
        return answers.succeeded(
            request,
            result,
            live,
            self._registry.draining(),
            self._started_with,
            probation=self._trials.probations.describe() if adopted else None,
            ramps=self._trials.ramps.describe() if adopted else (),
        )

    def _remember(self, report: ReloadReport) -> None:
        self.last = report
        if report.status in (NEEDS_CONFIRMATION, UNSETTLED):
            self.waiting = report
        elif not report.ok:
            self.last_failed = report
        else:
            self.waiting = None
            if not report.renews and (report.source != START or report.recalled is None):
                self.last_failed = None  # else the files are as bad as they were

    async def _note_adopted(self, generation: Generation, request: ReloadRequest) -> list[str]:
        """Note durably that it serves (if that fails, the next server gives it a new number), and run its hooks."""
        warnings: list[str] = []
        try:
            await self._trials.note(generation, request).addTimeout(NOTING, self._clock)
        except Exception as error:
            warnings.append(answers.not_noted(generation.number, error))
        return [*warnings, *await self._start_hooks.run(generation.interpreter.value)]

    async def _publish(self, finished: Finished) -> list[str]:
        try:
            return await self._hooks.publish(finished)
        except Exception as error:
            return [f"the reload could not be published: {answers.reason_of(error)}"]

    def _last_checks(self, request: ReloadRequest) -> None:
        self._check_precondition(request)
        if self.turns.closed:
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def _check_precondition(self, request: ReloadRequest) -> None:
        if request.if_match is not None and request.if_match not in ("*", self.etag):
            raise PreconditionFailed(f"the live generation is {self.etag}, not {request.if_match}")

    def _adopt(self, candidate: Candidate, live: Generation | None, request: ReloadRequest) -> None:
        now = self._wall.seconds()
        adopt(candidate, live, self._registry, self._table, self._sink, now)
        generation = candidate.generation
        self.current, self._highest = generation, max(self._highest, generation.number)
        changed = (*candidate.plan.added, *candidate.plan.modified)
        self._numbers.adopted(generation.bindings[trigger_id] for trigger_id in changed)
        settings = generation.inputs.manifest.orchestrator
        self._started_with = self._started_with or settings
        timeout, before = settings.reload.drain_timeout, 0 if live is None else live.number

        trials = self._trials.expect if self._waits else self._trials.adopted
        steps: Mapping[str, Callable[[], None]] = {
            "draining what was replaced": lambda: self._drains.begin(before, candidate.ended, timeout),
            "applying the settings": lambda: self._hooks.adopted(candidate),
            "beginning the trials": lambda: trials(candidate, request, before),
        }
        for what, step in steps.items():  # it serves: one that goes wrong keeps none of the others from their work
            try:
                step()
            except Exception:
                log.failure("{what} of generation {number} failed", what=what, number=generation.number)

    async def reroute(self, winners: Mapping[Ramp, BindingVersion]) -> frozenset[Ramp]:
        """
        Let one version of each ramp take all deliveries of its trigger from now on, and the other drain.

        :return: those that were still in force; in the place of the others a reload has put something else.
        """
        async with self.turns.turn():
            live = self.current
            ending = {
                ramp: winner
                for ramp, winner in winners.items()
                if live is not None and live.ramps.get(winner.id) is ramp
            }
            if live is None or not ending:
                return frozenset()
            self.current = reroute(live, ending, self._registry, self._table, self._drains, self._wall.seconds())
            return frozenset(ending)
