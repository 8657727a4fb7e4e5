"""
Beginning: a server's first generation goes on with what an earlier server left, its ramps and its rollback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from harn.errors import FilesHang, GenerationUnknown
from harn.reload.build import Builder
from harn.reload.candidate import Held, Prepared
from harn.reload.generation import Generation
from harn.reload.hooks import Finished
from harn.reload.numbers import VersionNumbers
from harn.reload.report import PREVIOUS, ReloadReport, ReloadRequest
from harn.reload.revive import Reviver
from harn.rollout.ramp_record import RUNNING, RampRecord
from harn.rollout.trials import Trials

log = Logger(namespace="harn.reload")

LONGEST_LOOK = 30.0
"""Seconds that it may take to see whether the files changed since a rollback; then that goes on."""

Revive = Callable[[Prepared], Awaitable[Mapping[str, Held]]]
"""Gives the earlier versions that are in force again, by trigger id."""


@frozen(kw_only=True)
class Begun:
    """A first generation that could serve, while another program still does: what is noted once it takes over."""

    generation: Generation
    request: ReloadRequest
    finished: Finished


class Start(Protocol):
    """Runs one reload that is the first; see `Coordinator.start`."""

    def __call__(
        self, request: ReloadRequest, merged: int, last_digest: str | None, revive: Revive
    ) -> Awaitable[ReloadReport]:
        """Run it."""


@frozen(kw_only=True)
class Beginning:
    """
    Begins, in a turn.

    :ivar reload: builds and adopts.
    """

    builder: Builder
    reviver: Reviver
    trials: Trials
    reload: Start

    async def run(
        self,
        request: ReloadRequest,
        records: Mapping[str, RampRecord],
        numbers: VersionNumbers,
        last_number: int,
        last_digest: str | None,
    ) -> ReloadReport:
        """
        Adopt the files, or what they were rolled back to if they have not changed since.

        :param records: the ramps that an earlier server left.
        """

        async def revive(prepared: Prepared) -> Mapping[str, Held]:
            return await self._held(records, numbers, prepared)

        if request.recall is None and last_number and await self._is_rolled_back():
            log.warn("the files say what was rolled back from, and have not changed since: they are not adopted")
            again = evolve(request, recall=PREVIOUS, reason="what was rolled back to goes on")
            try:
                report = await self.reload(again, 1, last_digest, revive)
                if report.ok:
                    return report
            except GenerationUnknown as error:
                log.error("what was rolled back to cannot go on, the files are adopted: {why}", why=str(error))
        return await self.reload(request, 1, last_digest, revive)

    async def _is_rolled_back(self) -> bool:
        """Tell whether the files still read as when the last generation took their place on purpose."""
        replaced = self.trials.replaced
        if not replaced:
            return False
        reading = Deferred.fromCoroutine(self.builder.plain_files_now(replaced))
        try:
            return await reading.addTimeout(LONGEST_LOOK, self.builder.files.reactor) == replaced
        except (TimeoutError, FilesHang) as error:
            log.warn(
                "the files do not say whether they changed since the rollback: {why}",
                why=self.builder.doing() or str(error),
            )
            return True

    async def _held(
        self, records: Mapping[str, RampRecord], numbers: VersionNumbers, prepared: Prepared
    ) -> Mapping[str, Held]:
        """Bring back the stable versions of ramps whose fresh version the manifest still says."""
        wanted = {
            (trigger_id, record.stable): record
            for trigger_id, record in records.items()
            if trigger_id in prepared.definitions and numbers.kept(prepared.definitions[trigger_id]) == record.fresh
        }
        held = {
            stable.id: Held(stable, wanted[key].share if wanted[key].state == RUNNING else None)
            for key, stable in (await self.reviver.versions(tuple(wanted))).items()
        }
        self.trials.ramps.remember({trigger_id: records[trigger_id] for trigger_id in held})
        return held
