"""The inbox: what accepts an event once, by dedupe key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

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


KeepingEnded: TypeAlias = tuple[Any, Kept | Exception]
"""What was passed to `IInbox.keep` with an acceptance, and what was kept, or the error that `IInbox.accept` raises."""


class Keepings(Protocol):
    """Takes the ends of acceptances that were begun with `IInbox.keep`, each of them once."""

    def keepings_ended(self, ended: Sequence[KeepingEnded]) -> None:
        """Called with acceptances that are on disk, or of which nothing was kept: those of one commit together."""


class IInbox(Interface):
    """Accepts events, each at most once for a dedupe key."""

    def keep(acceptance: Acceptance, waiting: Any, keepings: Keepings) -> None:
        """
        Keep an acceptance as `accept` does, and call ``keepings`` with ``waiting`` instead of firing a Deferred.

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
