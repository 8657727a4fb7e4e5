"""What an operator may ask about generations, beside adopting one; each answer is a JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from harn.connectors.catalog import Catalog
from harn.history.comparing import make_recorded
from harn.history.differences import Recorded, generation_diff
from harn.history.recorded import describe_recorded
from harn.listener.interfaces import IReloadOperations
from harn.reload.archive import InThread
from harn.reload.coordinator import Coordinator


@implementer(IReloadOperations)
@frozen(kw_only=True)
class ReloadOperations:
    """
    The operations of one server.

    :ivar manifest: the manifest's absolute path.
    """

    coordinator: Coordinator
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
