"""
The coordinator: adopts one generation after the other, each whole or not at all, each with a true report.

It holds which generation is live; everything that is done to that happens in its turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.connectors.gate import Sink
from harn.errors import GenerationUnknown, ManifestInvalid, PreconditionFailed, ShuttingDown, StageFailed
from harn.manifest.model import OrchestratorSettings
from harn.model.identifiers import uuid7
from harn.reload import answers
from harn.reload.adopt import adopt
from harn.reload.archive import Archive
from harn.reload.attempt import NOTING, Attempts, Before, Result
from harn.reload.build import Builder
from harn.reload.candidate import Held, Prepared, make_route
from harn.reload.connections import quiesce
from harn.reload.description import describe_generation
from harn.reload.drain import Drains
from harn.reload.generation import Candidate, Generation
from harn.reload.hooks import Finished, Hooks
from harn.reload.interfaces import IReloader, IRouteTable
from harn.reload.numbers import VersionNumbers
from harn.reload.ramping import RUNNING, RampRecord
from harn.reload.report import NEEDS_CONFIRMATION, PREVIOUS, UNSETTLED, ReloadReport, ReloadRequest
from harn.reload.revive import Reviver
from harn.reload.stages import Stages
from harn.reload.trials import START, Trials
from harn.reload.turns import Turns
from harn.store.interfaces import IGenerations
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
    ) -> None:
        self._clock = clock
        self._builder = builder
        self._generations = generations
        self._registry = registry
        self._table = table
        self._drains = drains
        self._sink = sink
        self._hooks = hooks
        self._reviver = reviver
        self._trials = trials
        trials.host = self
        self.archive = Archive(generations, builder.in_thread)
        self._attempts = Attempts(
            clock=clock,
            builder=builder,
            generations=generations,
            archive=self.archive,
            table=table,
            check=self._last_checks,
            adopt=self._adopt,
            describe=hooks.describe,
        )
        self.turns = Turns(self._reload)
        self._numbers = VersionNumbers({})
        self._highest = 0
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
        return etag_of(self.generation, "" if self.current is None else self.current.digest)

    # Asking

    def start(
        self,
        numbers: VersionNumbers,
        last_number: int,
        last_digest: str | None,
        *,
        recall: int | None = None,
        reason: str = "",
    ) -> Deferred[ReloadReport]:
        """
        Build and adopt the first generation.

        :param last_number: the highest generation number ever reserved; ``last_digest``: the digest last adopted.
        :param recall: adopt the content of this earlier generation, or `PREVIOUS`; ``reason``: why.
        """
        self._numbers = numbers
        self._highest = last_number
        request = ReloadRequest(source=START, actor=START, recall=recall, reason=reason)
        return self.turns.begin(self._start(request, last_digest))

    async def _start(self, request: ReloadRequest, last_digest: str | None) -> ReloadReport:
        records = await self._trials.load()

        async def revive(prepared: Prepared) -> Mapping[str, Held]:
            return await self._hold(records, prepared)

        async with self.turns.turn():
            if request.recall is None and self._highest and await self._is_rolled_back():
                log.warn("the files say what was rolled back from, and have not changed since: they are not adopted")
                again = evolve(request, recall=PREVIOUS, reason="what was rolled back to goes on")
                try:
                    report = await self._reload(again, 1, last_digest, revive)
                    if report.ok:
                        return report
                except GenerationUnknown as error:
                    log.error("what was rolled back to cannot go on, the files are adopted: {why}", why=str(error))
            return await self._reload(request, 1, last_digest, revive)

    async def _is_rolled_back(self) -> bool:
        """Tell whether the files still read as when the last generation took their place on purpose."""
        replaced = self._trials.replaced
        return bool(replaced) and await self._builder.plain_files_now(replaced) == replaced

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """See `IReloader.reload`."""
        return self.turns.ask(request)

    def describe(self) -> Deferred[dict[str, Any]]:
        """See `IReloader.describe`."""
        return Deferred.fromCoroutine(self._describe())

    async def _describe(self) -> dict[str, Any]:
        live = self.current
        files = {} if live is None else await self._builder.files_now(live.inputs)
        return {
            **describe_generation(live, self.last_failed, self.waiting, files),
            "probation": self._trials.probations.describe(),
            "ramps": self._trials.ramps.describe(),
        }

    async def unsettled(self, source: str, actor: str, why: str) -> None:
        """Report files that cannot be adopted as they are; nothing changes."""
        now = self._clock.seconds()
        report = evolve(answers.unsettled(self.current, source, actor, why), reload_id=f"reload_{uuid7(now)}", at=now)
        self.last = self.waiting = report
        await self._publish(Finished(report, {}, 1))

    def close(self) -> Deferred[None]:
        """Reload no more: what runs is cut off, and undone by not being done."""
        self._trials.close()
        return self.turns.close()

    async def release(self) -> None:
        """At the server's end: let go of the live generation, and wait until its connectors are closed."""
        live, self.current = self.current, None
        for shared in () if live is None else live.connectors.values():
            quiesce(shared.value)
            shared.release()
        await self._builder.connections.pool.idle()

    def renumber(self, numbers: VersionNumbers, highest: int) -> None:
        """Go on from these numbers: in this turn another program gave some."""
        self._numbers, self._highest = numbers, max(self._highest, highest)

    # Doing

    async def _reload(
        self,
        request: ReloadRequest,
        merged: int,
        last_digest: str | None = None,
        revive: Callable[[Prepared], Awaitable[Mapping[str, Held]]] | None = None,
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
            warnings: list[str] = []
            if self.current is not None and self.current is not before:
                warnings.extend(await self._note_adopted(self.current, request))
            warnings.extend(await self._publish(Finished(report, dict(stages.durations), merged)))
            return evolve(report, warnings=(*report.warnings, *warnings))
        finally:
            self._hooks.ended(report)

    async def _attempt(
        self,
        request: ReloadRequest,
        last_digest: str | None,
        revive: Callable[[Prepared], Awaitable[Mapping[str, Held]]] | None,
    ) -> tuple[ReloadReport, Stages]:
        started, live = self._clock.seconds(), self.current
        timeout = DEFAULT_TIMEOUT
        if live is not None:
            timeout = max(PARSING, live.inputs.manifest.orchestrator.reload.timeout)
        stages = Stages(self._clock, timeout)
        before = Before(
            live=live,
            numbers=self._numbers,
            highest=self._highest,
            last_digest=last_digest,
            revive=revive,
            started_with=self._started_with,
        )
        try:
            report = self._success(request, await self._attempts.run(request, stages, before))
        except (ManifestInvalid, StageFailed) as error:
            report = answers.failed(request, error, self.current)
        except CancelledError:
            if self.turns.closed:
                raise
            cut_off = StageFailed(stages.current, "what it waited for was cancelled")
            report = answers.failed(request, cut_off, self.current)
        now = self._clock.seconds()
        return evolve(report, reload_id=f"reload_{uuid7(now)}", duration_ms=(now - started) * 1000.0, at=now), stages

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
            if report.source != START or report.recalled is None:  # else the files are as bad as they were
                self.last_failed = None

    async def _note_adopted(self, generation: Generation, request: ReloadRequest) -> list[str]:
        """Note durably that the generation serves; if that fails, the next server gives it a new number."""
        try:
            standing = self._trials.standing(generation, request)
            noting = self._generations.adopted(generation.number, generation.since, standing)
            await noting.addTimeout(NOTING, self._clock)
        except Exception as error:
            return [f"that generation {generation.number} serves could not be noted: {_said(error)}"]
        return []

    async def _publish(self, finished: Finished) -> list[str]:
        try:
            return await self._hooks.publish(finished)
        except Exception as error:
            return [f"the reload could not be published: {_said(error)}"]

    async def _hold(self, records: Mapping[str, RampRecord], prepared: Prepared) -> Mapping[str, Held]:
        """At a start: bring back the stable versions of ramps whose fresh version the manifest still says."""
        wanted = {
            (trigger_id, record.stable): record
            for trigger_id, record in records.items()
            if trigger_id in prepared.definitions
            and self._numbers.kept(prepared.definitions[trigger_id]) == record.fresh
        }
        held = {
            stable.id: Held(stable, wanted[key].share if wanted[key].state == RUNNING else None)
            for key, stable in (await self._reviver.versions(tuple(wanted))).items()
        }
        self._trials.ramps.remember({trigger_id: records[trigger_id] for trigger_id in held})
        return held

    def _last_checks(self, request: ReloadRequest) -> None:
        self._check_precondition(request)
        if self.turns.closed:
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def _check_precondition(self, request: ReloadRequest) -> None:
        if request.if_match is not None and request.if_match not in ("*", self.etag):
            raise PreconditionFailed(f"the live generation is {self.etag}, not {request.if_match}")

    def _adopt(self, candidate: Candidate, live: Generation | None, request: ReloadRequest) -> None:
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
        try:
            self._trials.adopted(candidate, request, 0 if live is None else live.number)
        except Exception:
            log.failure("beginning the trials of generation {number} failed", number=generation.number)

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
            now = self._clock.seconds()
            bindings, routes = live.bindings.copy(), live.routes.copy()
            for winner in ending.values():
                bindings[winner.id] = winner
                route = make_route(winner, live.connectors[winner.id], None)
                if route is not None:
                    routes[route.path] = route
            tree = self._table.build(routes, live.tree)
            ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if ramp not in ending}
            # From here on nothing waits, as in `adopt`: it is the same generation with some routes changed.
            for winner in ending.values():
                self._registry.end_ramp(winner.id, winner, bindings, now)
            self._table.swap(tree, live.number)
            self.current = evolve(live, bindings=bindings, routes=routes, tree=tree, ramps=ramps)
            losers = [ramp.stable if winner is ramp.fresh else ramp.fresh for ramp, winner in ending.items()]
            self._drains.begin(live.number, losers, live.inputs.manifest.orchestrator.reload.drain_timeout)
            return frozenset(ending)


def _said(error: Exception) -> str:
    return "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def etag_of(number: int, digest: str) -> str:
    """Make the ``ETag`` of a generation."""
    return f'"{number}-{digest.removeprefix("sha256:")[:16]}"'
