"""
Rollouts as a feature of a server, and the start of the server's first generation.

The first generation is built from the files; from the stored generation, if a rollback has pinned it; or, if the files
are invalid and ``--last-good`` is given, from the last generation that served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from harn.dispatch.dispatcher import Dispatcher
from harn.errors import FilesHang, GenerationUnknown, WrongState
from harn.model.display import list_some
from harn.reload.build import Builder
from harn.reload.candidate import ContinuedRamp
from harn.reload.coordinator import Coordinator
from harn.reload.generation import Adoption, LastGeneration, Pin
from harn.reload.report import PREVIOUS, START, ReloadReport, ReloadRequest
from harn.reload.reports import files_now
from harn.reload.runs import Start
from harn.rollout.model import RUNNING, RampRecord
from harn.rollout.operations import OPERATIONS, RolloutService
from harn.rollout.probation import Reverter
from harn.rollout.rollouts import Rollouts
from harn.server import Server
from harn.triggers.registry import Registry

log = Logger(namespace="harn.rollout")


LONGEST_LOOK = 30.0
"""Seconds to read the files, to find whether they changed since a rollback; after that the pin stays in force."""


class Startup(Struct, frozen=True, kw_only=True):
    """
    Builds and adopts the first generation of a server.

    :ivar last_good: whether to start from the last generation that served if the files are invalid.
    """

    coordinator: Coordinator
    rollouts: Rollouts
    builder: Builder
    last_good: bool = False

    async def run(self, *, waits: bool = False) -> ReloadReport:
        """
        Build and adopt the first generation; it continues the numbers of generations and versions in the store.

        :param waits: whether the generation is adopted without serving yet; see `Coordinator.start`.
        :raises EventLogUnavailable: the store cannot be read.
        """
        await self.coordinator.others.settled()
        last = await self.coordinator.numbers.read()
        records = await self.rollouts.load()
        start = Start(last=last, ramps=continued(records))
        others = await self.coordinator.others.serving()
        if others and last.number:
            return await self._join(start, records, others, waits=waits)
        if last.number and await self._is_pinned():
            log.warn("files unchanged since the rollback: starting from the generation that was rolled back to")
            reason = "the generation that was rolled back to continues"
            try:
                report = await self._recall(start, reason, waits=waits)
                if report.ok:
                    return report
            except GenerationUnknown as error:
                log.error(
                    "the generation that was rolled back to cannot serve, so the files are adopted: {why}",
                    why=str(error),
                )
        report = await self.coordinator.start(ReloadRequest(source=START, actor=START), start, waits=waits)
        if report.ok or not self.last_good:
            return report
        return await self._last_good(report, start, waits=waits)

    async def _join(
        self, start: Start, records: Mapping[str, RampRecord], others: Sequence[str], *, waits: bool
    ) -> ReloadReport:
        """
        Adopt, from the store, the generation that the other servers on it serve; the files are not used.

        :raises WrongState: a probation or a ramp of that generation runs on the other servers.
        :raises EventLogUnavailable: the store cannot be read.
        :raises GenerationUnknown: the store has no longer the content of that generation.
        """
        named = ", ".join(others)
        if self.rollouts.is_undecided or any(each.state == RUNNING for each in records.values()):
            raise WrongState(
                f"a probation or ramp of the live generation is under way on {named}: finish or confirm it there, and"
                " start this server then"
            )
        (serving,) = await self.coordinator.archive.newest_adopted()
        start = evolve(
            start,
            joins=True,
            last=LastGeneration(
                serving.number, serving.digest, Adoption(serving.source, serving.actor, serving.adopted_at or 0.0)
            ),
        )
        await self.coordinator.numbers.join(serving.number)
        reason = f"the generation that {named} serves"
        request = ReloadRequest(source=START, actor=START, recall=serving.number, reason=reason)
        report = await self.coordinator.start(request, start, waits=waits)
        await self._note_drift(named)
        return report

    async def _note_drift(self, named: str) -> None:
        """Log which files of this server differ from the generation that it adopted at its start."""
        live = self.coordinator.current
        now = await files_now(self.builder, live)
        if live is None or isinstance(now, str):
            return
        differing = sorted(path for path in live.inputs.plain_files if now.get(path) != live.inputs.files[path])
        log.info("generation {number} serves, as on {others}", number=live.number, others=named, announce=True)
        if differing:
            log.warn(
                "these files differ from that generation, and do not serve: {files}",
                files=list_some(differing),
                announce=True,
            )

    async def _recall(self, start: Start, reason: str, *, waits: bool) -> ReloadReport:
        """
        Adopt the stored content of the generation that served last.

        :raises GenerationUnknown: the store has no longer that content.
        """
        request = ReloadRequest(source=START, actor=START, recall=PREVIOUS, reason=reason)
        return await self.coordinator.start(request, start, waits=waits)

    async def _is_pinned(self) -> bool:
        """Return whether the files are the same as when a rollback pinned the server to a stored generation."""
        pin = self.rollouts.pin
        return pin is not None and await self._holds(pin)

    async def _holds(self, pin: Pin) -> bool:
        reading = Deferred.fromCoroutine(self.builder.plain_files_now(pin.files))
        try:
            return pin.holds(await reading.addTimeout(LONGEST_LOOK, self.builder.files.reactor))
        except (TimeoutError, FilesHang) as error:
            log.warn(
                "cannot tell whether the files changed since the rollback: {why}",
                why=self.builder.doing() or str(error),
            )
            return True

    async def _last_good(self, broken: ReloadReport, start: Start, *, waits: bool) -> ReloadReport:
        """Start from the last generation that served; return ``broken`` if there is none or it cannot serve either."""
        # The record names this start as the actor, not the operator who adopted that generation at first.
        start = evolve(start, last=replace(start.last, adoption=None))
        try:
            report = await self._recall(start, f"the files are broken: {broken.error}", waits=waits)
        except GenerationUnknown as error:
            log.error("--last-good: {why}", why=str(error), announce=True)
            return broken
        if not report.ok:
            log.error("--last-good: the last generation cannot serve: {why}", why=report.error, announce=True)
            return broken
        log.warn(
            "--last-good: generation {generation} serves (the content of {recalled}), not the files: {why}",
            generation=report.generation,
            recalled=report.recalled,
            why=broken.error,
            announce=True,
        )
        return report


def continued(records: Mapping[str, RampRecord]) -> dict[str, ContinuedRamp]:
    """Return the ramps that the first generation continues, from the records that an earlier server stored."""
    return {
        trigger_id: ContinuedRamp(record.stable, record.fresh, record.share if record.state == RUNNING else None)
        for trigger_id, record in records.items()
    }


def install(server: Server) -> None:
    """Add automatic rollback, ramps, and the start of the first generation to a server."""
    coordinator, registry = server[Coordinator], server[Registry]
    rollouts = server.add(
        Rollouts(
            server.reactor,
            server.wall,
            server.store.generations,
            server.store.checkpoints,
            registry,
            coordinator,
            server.lifecycle,
        )
    )
    dispatcher, probations = server[Dispatcher], rollouts.probations
    server.add(Reverter(server.reactor, registry, dispatcher, coordinator, probations, server.lifecycle))
    server.add(
        Startup(
            coordinator=coordinator,
            rollouts=rollouts,
            builder=server[Builder],
            last_good=server.options.last_good,
        )
    )
    server.operations.add(RolloutService(rollouts=rollouts, coordinator=coordinator), *OPERATIONS)
