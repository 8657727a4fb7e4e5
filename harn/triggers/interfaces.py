"""The interface through which the packages above use the deliveries of binding versions."""

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
        """
        Move the deliveries that a version has not begun to the trigger's newest version.

        :return: fires with their number when the move is on disk.
        """

    def stored(binding: BindingVersion) -> int:
        """Return how many of the deliveries queued for a version are in the store and not in memory."""

    def cancel(binding: BindingVersion) -> Deferred[int]:
        """
        Dead-letter all deliveries of a version.

        :return: fires with their number when they are dead letters on disk.
        """
