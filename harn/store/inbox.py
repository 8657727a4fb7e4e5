"""The inbox: what accepts an event once, by dedupe key."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from zope.interface import Interface

from harn.model.delivery import Acceptance

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted


class Kept(tuple[int | None, ...]):
    """
    For each delivery of an acceptance, in order, its id (rises with each commit), or None for a duplicate.

    :ivar repeats: by id, the dead letter's event that a delivery repeats: it took the claim which that had released.
    """

    repeats: Mapping[int, str] = MappingProxyType({})


class IInbox(Interface):
    """Accepts events, each at most once for a dedupe key."""

    def accept(acceptance: Acceptance) -> Deferred[Kept]:
        """
        Keep all deliveries with their claims and events in one durable unit.

        A delivery whose claim a dead letter released names that one (``replay_of``), and the dead letter, no longer
        one, the delivery (``replayed_as``).

        :raises ClaimTaken: the acceptance's guard was taken before; nothing was kept.
        :raises EventLogUnavailable: nothing was kept, no claim is used up.
        """

    def claim(scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """Acquire one claim durably; return False if it is taken (and not expired) already."""
