"""
The reload pipeline: its stages in order, up to a candidate that is ready to be adopted, or to the plan of a dry run.

No stage changes anything live. Everything that a stage acquires is put on an exit stack, which unwinds unless the
candidate is adopted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import GenerationUnknown, StageFailed
from harn.manifest.model import RolloutSpec
from harn.model.display import list_some
from harn.reload.archive import Archive, ArchivedContent, Reviver
from harn.reload.build import Builder
from harn.reload.candidate import CandidateParts, RevivedVersion, Terms, make_candidate
from harn.reload.changes import changes_of_restart, plan_rollouts, renumbered
from harn.reload.connections import RunningConnector
from harn.reload.generation import Adoption, Candidate, Generation, GivenNumbers, Pin, Prepared
from harn.reload.inputs import Inputs, renewed_since
from harn.reload.interfaces import DryRun, IPlanner, IRouteTable
from harn.reload.report import PREVIOUS, UNASKED, ReloadRequest
from harn.reload.results import ReloadPlan
from harn.reload.runs import ContentRead, PipelineRun, RunResult
from harn.reload.targets import GenerationTargets
from harn.store.generations import IGenerations
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan, would_remove_most

log = Logger(namespace="harn.reload")

NOTING = 5.0
"""Seconds that a caller waits at most for the store to record that a generation serves or was withdrawn."""


class ReloadPipeline:
    """Runs the stages of a reload."""

    def __init__(
        self,
        wall: WallTime,
        builder: Builder,
        generations: IGenerations,
        reviver: Reviver,
        table: IRouteTable,
        planner: IPlanner,
    ) -> None:
        self._wall = wall
        self.builder = builder
        self.generations = generations
        self._reviver = reviver
        self._table = table
        self._planner = planner
        self.archive = Archive(generations, builder.threads)
        self.numbers = GivenNumbers(generations)

    async def run(self, run: PipelineRun) -> RunResult:
        """
        Run all stages.

        :raises ManifestInvalid, StageFailed: a stage failed; nothing has changed.
        :raises GenerationUnknown: the generation to be recalled is not kept.
        """
        request, stages, live = run.request, run.stages, run.live
        read = await self._read(run)
        changed = read.changed_while_reading(request)
        if changed:
            return RunResult(plan=Plan(), read=read, changed_while_reading=changed)
        needs_run = request.force or request.dry_run or run.reunites
        if live is not None and read.inputs.digest == live.digest and not needs_run:
            return RunResult(plan=Plan(unchanged=tuple(sorted(live.bindings))), read=read)
        prepared = await self._resolve(run, read.inputs)
        plan = prepared.plan
        self._check_numbers(run, prepared)
        if not run.may_remove_most and live is not None and would_remove_most(len(plan.removed), len(live.bindings)):
            return RunResult(plan=plan, read=read, held=True)
        rollouts, warnings = await stages.run("resolve", self._plan_rollouts(run, prepared))
        connectors = await stages.run("prepare", self.builder.connect(prepared, live, run.stack))
        targets = await stages.run("prepare", self.builder.aim(prepared, run.stack))
        if request.dry_run:
            details = await stages.run("resolve", self._describe(run, prepared, rollouts))
            return RunResult(plan=plan, read=read, warnings=warnings, details=details)
        candidate = await self._make(run, read, prepared, connectors, targets, rollouts)
        await stages.run("activate", self.builder.connections.activate(connectors, read.inputs))
        return RunResult(
            plan=plan,
            read=read,
            candidate=candidate,
            warnings=warnings,
            renewed=() if live is None else renewed_since(live.inputs, read.inputs),
        )

    async def idle(self) -> None:
        """Wait until all that a dry run opened is closed."""
        await self.builder.resolution.pool.idle()
        await self.builder.connections.pool.idle()
        await self.builder.targets.pool.idle()

    # Reading

    async def _read(self, run: PipelineRun) -> ContentRead:
        """Read the files, or the content of an earlier generation with the present secrets and certificate."""
        request, live = run.request, run.live
        content = await run.stages.run("parse", self._content(request, live, follows=run.follows))
        source, inputs = await self.builder.read_settled(run.stages, None if live is None else live.inputs, content)
        if content is None:
            return ContentRead(source=source, inputs=inputs)
        recalled = content.record.number
        if run.joins or (run.follows is not None and content.record.recalled is None):
            return ContentRead(source=source, inputs=inputs, recalled=content.record.recalled)
        if live is not None and request.source == UNASKED:
            # The watcher only has changed secrets read again: the pin and the recalled generation stay the same.
            return ContentRead(source=source, inputs=inputs, recalled=content.record.recalled or recalled, pin=live.pin)
        if live is None or run.follows is not None:
            recalled = content.record.recalled or recalled
        paths = inputs.plain_files | (frozenset() if live is None else live.inputs.plain_files)
        pin = Pin(await run.stages.run("resolve", self.builder.plain_files_now(paths)))
        return ContentRead(source=source, inputs=inputs, recalled=recalled, pin=pin)

    async def _content(
        self, request: ReloadRequest, live: Generation | None, *, follows: int | None
    ) -> ArchivedContent | None:
        if follows is not None:
            return await self.archive.proposed(follows)
        number = request.recall
        if number is None:
            return None
        if number == PREVIOUS and live is None:
            number = await self.archive.newest()
        elif number == PREVIOUS and live is not None:
            number = await self.archive.before(live.number, live.inputs)
        return await self.archive.content(number)

    # Resolving and planning

    async def _resolve(self, run: PipelineRun, inputs: Inputs) -> Prepared:
        request = run.request
        # Recorded events are replayed in an interpreter that runs no deliveries: a predicate may crash it.
        afresh = request.force or request.replay > 0
        work = self.builder.resolve(inputs, run.live, run.stack, afresh=afresh, spare=not request.dry_run)
        prepared = await run.stages.run("resolve", work)
        if run.live is None or run.decision is None or request.dry_run:
            return prepared
        unchanged = len(prepared.plan.unchanged)
        return await self.builder.beside(unchanged, renumbered, prepared, run.live, run.versions)

    async def _plan_rollouts(
        self, run: PipelineRun, prepared: Prepared
    ) -> tuple[Mapping[str, RolloutSpec], tuple[str, ...]]:
        """Return the rollouts of modified triggers, and all warnings."""
        inputs, plan = prepared.inputs, prepared.plan
        if run.live is None:
            return {}, inputs.warnings
        rollouts, warnings = await self.builder.beside(
            len(plan.modified), plan_rollouts, plan, run.live, inputs.manifest.triggers, run.request
        )
        return rollouts, (*inputs.warnings, *warnings)

    async def _describe(self, run: PipelineRun, prepared: Prepared, rollouts: Mapping[str, RolloutSpec]) -> ReloadPlan:
        dry_run = DryRun(
            live=run.live,
            prepared=prepared,
            rollouts=rollouts,
            request=run.request,
            versions=run.versions,
            started_with=run.started_with,
        )
        return await self._planner.describe(dry_run)

    # Putting together

    async def _make(
        self,
        run: PipelineRun,
        read: ContentRead,
        prepared: Prepared,
        connectors: Mapping[str, Shared[RunningConnector]],
        targets: GenerationTargets,
        rollouts: Mapping[str, RolloutSpec],
    ) -> Candidate:
        """Put the candidate together, and reserve its numbers. If the disk is full, the reload fails here."""
        stages, numbers = run.stages, self.numbers
        keeps_number = run.joins or (
            run.live is None
            and run.last.digest == read.inputs.digest
            and run.versions.keeps(prepared.definitions.values())
        )
        terms = Terms(
            request=run.request,
            adoption=(keeps_number and run.last.adoption)
            or Adoption(run.request.source, run.request.actor, self._wall.seconds()),
            recalled=read.recalled,
            pin=read.pin,
            split_from=run.split_from,
            rollouts=rollouts,
            revived=await stages.run("resolve", self._revive(run, prepared)),
        )
        parts = CandidateParts(
            prepared=prepared,
            connectors=connectors,
            targets=targets,
            live=run.live,
            number=run.follows or (numbers.highest if keeps_number else numbers.highest + 1),
            versions=run.versions,
            terms=terms,
        )
        candidate = await stages.run("swap", self._put_together(parts))
        if not keeps_number and run.follows is None:
            # A reservation may still be written after its time-out. The store writes in order: the withdrawal follows.
            run.stack.push_async_exit(self._withdrawing(candidate))
            since = (
                prepared.plan if run.live is not None else await stages.run("prepare", self._since_last(run, prepared))
            )
            reserving = self.builder.reserve(self.generations, candidate, read.source.data, run.live, since)
            await stages.run("prepare", reserving)
        return candidate

    def _check_numbers(self, run: PipelineRun, prepared: Prepared) -> None:
        """
        Check that this server reads the same triggers from the content as the servers that serve or propose it.

        :raises StageFailed: it reads others, because the plugins or the versions of harn differ.
        """
        live, versions, plan = run.live, run.versions, prepared.plan
        differing: list[str] = []
        if run.joins:
            differing = sorted(each.spec.id for each in prepared.definitions.values() if versions.kept(each) is None)
        elif live is not None and run.follows is not None:
            differing = [each for each in plan.added if not versions.newest(each)]
            differing += [each for each in plan.modified if versions.newest(each) <= live.bindings[each].version]
        if differing:
            raise StageFailed(
                "resolve",
                f"this server reads {list_some(differing)} otherwise than those that serve on the store; install the"
                " same version of harn and the same plugins here",
            )

    async def _put_together(self, parts: CandidateParts) -> Candidate:
        """Make the candidate; in a thread for many triggers, since even a small change copies entries of all."""
        return await self.builder.beside(len(parts.prepared.definitions), make_candidate, parts, self._table)

    async def _since_last(self, run: PipelineRun, prepared: Prepared) -> Plan:
        """Compare the candidate of a start with the generation that served last, for the history."""
        if run.last.digest is None:
            return prepared.plan
        try:
            before = await self.archive.content(run.last.number)
        except GenerationUnknown:
            return prepared.plan
        return await self.builder.threads.call(changes_of_restart, before.manifest, prepared.definitions, run.versions)

    async def _revive(self, run: PipelineRun, prepared: Prepared) -> Mapping[str, RevivedVersion]:
        """Revive, at a start, the stable versions of ramps whose fresh version the manifest still defines."""
        definitions, kept = prepared.definitions, run.versions.kept
        wanted = {
            (trigger_id, ramp.stable): ramp
            for trigger_id, ramp in run.ramps.items()
            if trigger_id in definitions and kept(definitions[trigger_id]) == ramp.fresh
        }
        versions = await self._reviver.versions(tuple(wanted))
        revived = {stable.id: RevivedVersion(stable, wanted[key].share) for key, stable in versions.items()}
        for each in revived.values():
            run.stack.callback(each.release)
        return revived

    def _withdrawing(self, candidate: Candidate) -> Any:
        """Return the function that the exit stack calls unless the candidate is adopted; it withdraws its numbers."""

        async def withdraw(
            kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> bool:
            if kind is not None and not issubclass(kind, Exception):
                return False  # this coroutine is being closed and must not await
            try:
                withdrawing = Deferred.fromCoroutine(self.builder.withdraw(self.generations, candidate))
                await withdrawing.addTimeout(NOTING, self.builder.files.reactor)
            except Exception as failure:  # the numbers stay reserved and are skipped
                number = candidate.generation.number
                log.warn("generation {number} may stay reserved: {why}", number=number, why=str(failure))
            return False

        return withdraw
