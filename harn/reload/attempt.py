"""
One attempt at the next generation: its stages in order, up to a candidate that is ready, or to what a dry run wants.

Nothing live is touched here. Whatever a stage acquires lies on an exit stack that unwinds unless the candidate is
adopted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.manifest.model import RolloutSpec
from harn.manifest.settings import OrchestratorSettings
from harn.reload.archive import Archive, Content
from harn.reload.build import Builder
from harn.reload.candidate import Held, Making, Prepared, make_candidate
from harn.reload.generation import Candidate, Generation
from harn.reload.guard import would_remove_most
from harn.reload.inputs import Inputs, renewed_since
from harn.reload.interfaces import IRouteTable
from harn.reload.numbers import VersionNumbers
from harn.reload.report import PREVIOUS, UNASKED, ReloadRequest
from harn.reload.rollout import plan_rollouts
from harn.reload.settling import read_settled
from harn.reload.stages import Stages
from harn.store.generations import IGenerations
from harn.triggers.reconcile import Plan

log = Logger(namespace="harn.reload")

NOTING = 5.0
"""Seconds that a caller waits for a note in the store."""


@frozen(kw_only=True)
class Before:
    """
    What an attempt goes out from.

    :ivar highest: the highest generation number ever reserved.
    :ivar last_digest: at a start: the digest that served last, whose number is kept if it is found again.
    :ivar started_with: the settings of the server's first generation, once there was one.
    :ivar revive: at a start: gives the earlier versions that are in force again, by trigger id.
    """

    live: Generation | None
    numbers: VersionNumbers
    highest: int
    last_digest: str | None = None
    started_with: OrchestratorSettings | None = None
    revive: Callable[[Prepared], Awaitable[Mapping[str, Held]]] | None = None


@frozen(kw_only=True)
class Result:
    """
    What an attempt came to.

    :ivar inputs: what it found. ``adopted``: the candidate, if it was adopted. ``held``: it was not, since it would
        remove most triggers and nobody asked for it.
    :ivar torn: files that were written while they were read; nothing was adopted.
    :ivar details: of a dry run.
    :ivar drifted: files that say something else than what was adopted.
    :ivar renewed: the secrets, and files of secrets, that read otherwise than those that were live.
    """

    plan: Plan
    inputs: Inputs
    adopted: Candidate | None = None
    held: bool = False
    torn: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] | None = None
    recalled: int | None = None
    drifted: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()


@frozen(kw_only=True)
class Draft:
    """What a dry run has when it stops: everything that would be adopted, not yet put together."""

    live: Generation | None
    prepared: Prepared
    rollouts: Mapping[str, RolloutSpec]
    request: ReloadRequest
    numbers: VersionNumbers
    started_with: OrchestratorSettings | None


@frozen(kw_only=True)
class Attempts:
    """
    Makes attempts.

    :ivar check: the last checks before the step; raises what forbids it.
    :ivar adopt: the step itself.
    :ivar describe: makes the details of a dry run.
    """

    clock: IReactorTime
    wall: WallTime
    builder: Builder
    generations: IGenerations
    archive: Archive
    table: IRouteTable
    check: Callable[[ReloadRequest], None] = field(repr=False)
    adopt: Callable[[Candidate, Generation | None, ReloadRequest], None] = field(repr=False)
    describe: Callable[[Draft], Awaitable[Mapping[str, Any]]] = field(repr=False)

    async def run(self, request: ReloadRequest, stages: Stages, before: Before) -> Result:
        """
        Run all stages.

        :raises ManifestInvalid, StageFailed: of the stage that failed; nothing has changed.
        :raises GenerationUnknown: the generation to be recalled is not kept.
        """
        async with AsyncExitStack() as stack:
            result = await self._run(request, stages, before, stack)
        if request.dry_run:
            # What it made is gone before anybody is told: nothing at all has changed.
            await self.builder.resolution.pool.idle()
            await self.builder.connections.pool.idle()
        return result

    async def _run(self, request: ReloadRequest, stages: Stages, before: Before, stack: AsyncExitStack) -> Result:
        live, builder = before.live, self.builder
        content = await stages.run("parse", self._content(request, live))
        recalled = None if content is None else content.record.number
        renews = live is not None and content is not None and request.source == UNASKED
        if content is not None and (live is None or renews):
            # A restart, and a watcher that has the secrets read anew, recall what was recalled already.
            recalled = content.record.recalled or recalled
        source, inputs = await read_settled(builder, stages, None if live is None else live.inputs, content)
        files, expected = inputs.files, request.expected
        torn = tuple(sorted(path for path in inputs.plain_files if expected.get(path, files[path]) != files[path]))
        if torn:
            return Result(plan=Plan(), inputs=inputs, torn=torn)
        replaced: Mapping[str, str] = {}
        if live is not None and renews:
            replaced = live.replaced  # what was replaced on purpose then; files that say something else are news
        elif content is not None:
            paths = inputs.plain_files | (frozenset() if live is None else live.inputs.plain_files)
            replaced = await stages.run("resolve", builder.plain_files_now(paths))
        drifted = tuple(sorted(path for path in files if replaced.get(path, files[path]) != files[path]))
        if live is not None and inputs.digest == live.digest and not request.force and not request.dry_run:
            plan = Plan(unchanged=tuple(sorted(live.bindings)))
            return Result(plan=plan, inputs=inputs, recalled=recalled, drifted=drifted)
        # Recorded events are replayed in an interpreter that serves nobody: a predicate may bring it down.
        afresh = request.force or request.replay > 0
        resolving = builder.resolve(inputs, live, stack, afresh=afresh, spare=not request.dry_run)
        prepared = await stages.run("resolve", resolving)
        plan = prepared.plan
        if (
            live is not None
            and request.source == UNASKED
            and not request.dry_run
            and would_remove_most(len(plan.removed), len(live.bindings))
        ):
            return Result(plan=plan, inputs=inputs, held=True)
        rollouts: Mapping[str, RolloutSpec] = {}
        warnings = inputs.warnings
        if live is not None:
            rollouts, about_rollouts = plan_rollouts(plan, live, inputs.manifest.triggers, request)
            warnings = (*warnings, *about_rollouts)
        connectors = await stages.run("prepare", builder.connect(prepared, live, stack))
        if request.dry_run:
            draft = Draft(
                live=live,
                prepared=prepared,
                rollouts=rollouts,
                request=request,
                numbers=before.numbers,
                started_with=before.started_with,
            )
            details = await stages.run("resolve", _wait(self.describe(draft)))
            return Result(
                plan=plan, inputs=inputs, warnings=warnings, details=details, recalled=recalled, drifted=drifted
            )
        keeps_number = live is None and before.last_digest == inputs.digest
        keeps_number = keeps_number and before.numbers.keeps(prepared.definitions.values())
        held: Mapping[str, Held] = {}
        if before.revive is not None:
            held = await stages.run("resolve", _wait(before.revive(prepared)))
            for each in held.values():
                stack.callback(_let_go, each)
        making = Making(
            prepared=prepared,
            connectors=connectors,
            live=live,
            numbers=before.numbers,
            number=before.highest if keeps_number else before.highest + 1,
            request=request,
            now=self.wall.seconds(),
            recalled=recalled,
            rollouts=rollouts,
            held=held,
            replaced=replaced,
        )
        candidate = await stages.run("swap", self._make(making))
        try:
            if not keeps_number:
                # What takes too long may be written yet; the store works in order, so that withdrawing it comes after.
                await stages.run("prepare", builder.reserve(self.generations, candidate, source.data, live))
            await stages.run("activate", builder.connections.activate(connectors, inputs))
            await stages.run("swap", self._last_checks(request))
        except Exception:
            if not keeps_number:
                await self._withdraw(candidate)
            raise
        # From here to the end of the step there is no await.
        stack.pop_all()
        self.adopt(candidate, live, request)
        return Result(
            plan=plan,
            inputs=inputs,
            adopted=candidate,
            warnings=warnings,
            recalled=recalled,
            drifted=drifted,
            renewed=() if live is None else renewed_since(live.inputs, inputs),
        )

    async def _content(self, request: ReloadRequest, live: Generation | None) -> Content | None:
        if request.recall is None:
            return None
        number = request.recall
        if number == PREVIOUS:
            if live is None:
                number = await self.archive.newest()
            else:
                number = await self.archive.before(live.number, live.inputs)
        return await self.archive.content(number)

    async def _make(self, making: Making) -> Candidate:
        return make_candidate(making, self.table)

    async def _last_checks(self, request: ReloadRequest) -> None:
        self.check(request)

    async def _withdraw(self, candidate: Candidate) -> None:
        """Note that the numbers, if they were reserved, were never used; if that fails, they are not given again."""
        try:
            withdrawing = Deferred.fromCoroutine(self.builder.withdraw(self.generations, candidate))
            await withdrawing.addTimeout(NOTING, self.clock)
        except Exception as error:
            log.warn("generation {number} may stay reserved: {why}", number=candidate.generation.number, why=str(error))


async def _wait(work: Awaitable[Any]) -> Any:
    return await work


def _let_go(held: Held) -> None:
    """Release the interpreter of a version that was revived for a reload that failed."""
    interpreter, held.stable.interpreter = held.stable.interpreter, None
    if interpreter is not None:
        interpreter.release()
