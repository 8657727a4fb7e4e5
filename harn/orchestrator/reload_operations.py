"""What an operator may ask about generations, beside adopting one; each answer is a JSON value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from harn.connectors.catalog import Catalog
from harn.history.comparing import make_recorded
from harn.history.differences import Recorded, generation_diff
from harn.history.recorded import describe_recorded
from harn.listener.interfaces import IReloadOperations
from harn.reload.archive import InThread
from harn.reload.coordinator import Coordinator
from harn.rollout.trials import Trials


@implementer(IReloadOperations)
@frozen(kw_only=True)
class ReloadOperations:
    """
    The operations of one server.

    :ivar manifest: the manifest's absolute path.
    """

    coordinator: Coordinator
    trials: Trials
    catalog: Catalog
    manifest: str
    in_thread: InThread

    def show(self, number: int, sources: bool) -> Deferred[Mapping[str, Any]]:
        """See `IReloadOperations.show`."""
        return Deferred.fromCoroutine(self._show(number, sources))

    async def _show(self, number: int, sources: bool) -> Mapping[str, Any]:
        content = await self.coordinator.archive.content(number)
        text, live = content.manifest.decode("utf-8", "replace"), self.coordinator.generation

        def describe() -> Mapping[str, Any]:
            return describe_recorded(content.record, text, content.bundle, live, sources=sources)

        described: Mapping[str, Any] = await self.in_thread(describe)
        return described

    def diff(self, old: int, new: int) -> Deferred[Mapping[str, Any]]:
        """See `IReloadOperations.diff`."""
        return Deferred.fromCoroutine(self._diff(old, new))

    async def _diff(self, old: int, new: int) -> Mapping[str, Any]:
        contents = [await self.coordinator.archive.content(number) for number in (old, new)]

        def compare() -> Mapping[str, Any]:
            before, after = (self._recorded(content.record.number, content) for content in contents)
            return generation_diff(before, after)

        found: Mapping[str, Any] = await self.in_thread(compare)
        return found

    def _recorded(self, number: int, content: Any) -> Recorded:
        live = self.coordinator.current
        loaded = (
            None if live is None else live.inputs.loaded
        )  # most of an earlier manifest is in it: see `check_document`
        return make_recorded(number, content.manifest, content.bundle, self.manifest, self.catalog.providers, loaded)

    def confirm(self, generation: int | None, actor: str) -> Deferred[Mapping[str, Any]]:
        """See `IReloadOperations.confirm`."""
        return Deferred.fromCoroutine(self._confirm(generation, actor))

    async def _confirm(self, generation: int | None, actor: str) -> Mapping[str, Any]:
        trial = self.trials.probations.hold(generation)  # its time does not run out while this waits for its turn
        try:
            # In a turn, so that no other program takes over what it does not know of.
            async with self.coordinator.turns.turn():
                number = await self.trials.confirm(generation, actor)
        finally:
            self.trials.probations.let_go(trial)
        return {"generation": number, "status": "confirmed"}

    def ramps(self) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IReloadOperations.ramps`."""
        return succeed(self.trials.ramps.describe())

    def finish_ramp(self, trigger_id: str | None, actor: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IReloadOperations.finish_ramp`."""
        return Deferred.fromCoroutine(self.trials.ramps.finish(trigger_id, actor))

    def abort_ramp(self, trigger_id: str | None, actor: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IReloadOperations.abort_ramp`."""
        return Deferred.fromCoroutine(self.trials.ramps.abort(trigger_id, actor))
