"""The inbox: what accepts an event once, by dedupe key."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

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


class Waiting(Protocol):
    """A waiter for an acceptance that was begun with `IInbox.keep`; one of its methods is called, once."""

    def kept(self, kept: Kept) -> None:
        """Called when the acceptance is on disk."""

    def not_kept(self, error: Exception) -> None:
        """Called when nothing of it was kept; ``error`` is one that `IInbox.accept` raises."""


class IInbox(Interface):
    """Accepts events, each at most once for a dedupe key."""

    def keep(acceptance: Acceptance, waiting: Waiting) -> None:
        """
        Keep an acceptance as `accept` does, and call ``waiting`` instead of firing a Deferred.

        It may be called before this returns. Thousands of requests come each second: they need no chain of callbacks.
        """

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
