"""Recovery: unfinished deliveries of servers that are gone, and how another server takes them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import Interface

from harn.model.delivery import RECOVERY_LIMIT, DeadLetter, StoredDelivery
from harn.store.deliveries import Backlog

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@frozen(kw_only=True)
class Recovery:
    """
    The result of recovery: how many unfinished deliveries continue, and how many were given up at the limit.

    :ivar crashed: how many of both were running when their server crashed.
    :ivar backlog: those that go on, counted for each binding version.
    """

    recovered: int
    dead: int
    crashed: int = 0
    backlog: tuple[Backlog, ...] = ()


def recovery_limit(limit: int) -> DeadLetter:
    """Return the dead letter of a delivery that was running at ``limit`` crashes of its server."""
    error = f"it was running at {limit} crashes of its server"
    return DeadLetter(reason=RECOVERY_LIMIT, error_class=RECOVERY_LIMIT, error=error)


class IRecovery(Interface):
    """Takes over what servers that are gone left unfinished; deliveries of servers that live stay theirs."""

    def recover(
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """
        Take over every unfinished delivery of servers that are gone, as one unit (``owner``).

        Those that ran when their server crashed count that (``crashes`` + 1), and become dead letters
        (``recovery_limit``) at ``limit``. A server is gone when its heartbeat has lapsed; where a lock keeps other
        servers off, also when it was not renewed since this one started. `close` drops its notes, so that a clean end
        counts as no crash.

        :param received_before: only those received earlier (seconds, Unix); None for all.
        :param leaving: the incarnation of a server that still runs and ends its deliveries: not those.
        :param gone: that of a server whose process is known to have ended: those in any case.
        """

    def keep_begun(trigger_id: str, version: int, to_version: int) -> Deferred[tuple[int, int]]:
        """
        Move those ready deliveries of a version to a later one that never ran when a server crashed, if any did.

        :return: how many stay, and how many were moved; if none stays, none is moved.
        """

    def stranded(
        older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """
        Return unfinished deliveries of servers that are gone, which wait for a `recover`, by id; without their bytes.

        :param older_than: only those received earlier (seconds, Unix).
        :param leaving: see `recover`; so is ``gone``.
        """

    def count_stranded(older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """Count what `stranded` would list without a limit. Cost grows with what is unfinished."""
