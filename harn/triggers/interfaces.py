"""The interface to the deliveries of binding versions, for the rooms above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred
from zope.interface import Interface

from harn.model.delivery import Workload
from harn.triggers.binding import BindingVersion


class IVersionDeliveries(Interface):
    """The deliveries that binding versions hold; provided by `harn.dispatch.dispatcher.Dispatcher`."""

    def workload(bindings: Iterable[BindingVersion]) -> Mapping[BindingVersion, Workload]:
        """Return the unfinished work of each of these versions."""

    def move_on(binding: BindingVersion) -> Deferred[int]:
        """Move deliveries that a version has not begun to the newest version; fires with their number, once on disk."""

    def stored(binding: BindingVersion) -> int:
        """Return how many of the deliveries that wait for a version are in the store alone."""

    def cancel(binding: BindingVersion) -> Deferred[int]:
        """Dead-letter all deliveries of a version; fires with their number, once on disk."""
