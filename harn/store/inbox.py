"""The inbox: what accepts an event once, by dedupe key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

from harn.model.delivery import Acceptance

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted


class IInbox(Interface):
    """Accepts events, each at most once for a dedupe key."""

    def accept(acceptance: Acceptance) -> Deferred[tuple[int | None, ...]]:
        """
        Keep all deliveries with their claims and events in one durable unit.

        :return: for each delivery, in order, its id (rises with each commit), or None for a duplicate.
        :raises ClaimTaken: the acceptance's guard was taken before; nothing was kept.
        :raises EventLogUnavailable: nothing was kept, no claim is used up.
        """

    def claim(scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """Acquire one claim durably; return False if it is taken (and not expired) already."""
