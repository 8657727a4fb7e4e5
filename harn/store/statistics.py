"""
Figures of triggers: counts and durations within a window of time, totals over all servers, and their unfinished work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted


class IdRange(Struct, frozen=True):
    """Ids from ``first`` to ``last``, both included; empty where ``last`` is less."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """The number of ids, at most as many as there are rows."""
        return max(0, self.last - self.first + 1)


class AttemptGroup(Struct, frozen=True):
    """
    Attempts of one binding version that ended alike and took as long.

    :ivar outcome: ``success``, ``skipped``, ``failed``, or ``retry_after`` (ended by its handler's own choice).
    :ivar seconds: rounded to two digits.
    :ivar count: how many there are.
    """

    trigger_id: str
    version: int
    outcome: str
    seconds: float
    count: int


class DoneGroup(Struct, frozen=True):
    """Deliveries of one binding version that took ``seconds`` (two digits) from accepted to done."""

    trigger_id: str
    version: int
    seconds: float
    count: int


class AcceptedGroup(Struct, frozen=True):
    """Deliveries of a trigger that were accepted, and those of them that were ``skipped``."""

    trigger_id: str
    count: int
    skipped: int


class IStatistics(Interface):
    """Reads that never look at more than a slice of the rows."""

    def attempts_since(since: float) -> Deferred[IdRange]:
        """Return the ids of attempts that ended at ``since`` (seconds, Unix) or later: found in a few steps."""

    def deliveries_since(since: float) -> Deferred[IdRange]:
        """Return the ids of deliveries that were received at ``since`` (seconds, Unix) or later."""

    def attempts(span: IdRange, since: float) -> Deferred[tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]]:
        """Group the attempts of a span that ended at ``since`` or later."""

    def accepted(span: IdRange, since: float) -> Deferred[Sequence[AcceptedGroup]]:
        """Count the deliveries of a span that were received at ``since`` or later, by trigger."""

    def died(since: float) -> Deferred[Mapping[str, int]]:
        """
        Count by trigger id what became a dead letter at ``since`` (seconds, Unix) or later, whatever followed.

        Cost grows with dead letters, and with those that were replayed or discarded.
        """

    def refused(since: float) -> Deferred[Mapping[str, int]]:
        """Count refused requests by trigger id, from the minute of ``since`` (seconds, Unix) on."""

    def handlers(versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], str]]:
        """Return the handler of each version (trigger id, number) that is known."""


class TriggerTotal(Struct, frozen=True, kw_only=True):
    """
    The totals of one trigger, or what is to be added to them.

    :ivar accepted: deliveries accepted.
    :ivar refused: requests that were never events.
    :ivar last_success: when a handler last succeeded (seconds, Unix; None if none did).
    :ivar last_failure: when an attempt last failed.
    """

    trigger_id: str
    accepted: int = 0
    refused: int = 0
    last_success: float | None = None
    last_failure: float | None = None


class RefusedCount(Struct, frozen=True, kw_only=True):
    """Requests to a trigger that were refused for a reason within a minute (minutes, Unix)."""

    trigger_id: str
    minute: int
    reason: str
    count: int


class TriggerBacklog(Struct, frozen=True, kw_only=True):
    """
    The oldest unfinished deliveries of a trigger that do not run: times in seconds, Unix; None for none.

    :ivar oldest_ready: since when the oldest one could run: it was received then, or its retry was due then.
    :ivar oldest_waiting: when the oldest one that waits was received.
    :ivar next_due: when the next one that waits is due.
    """

    trigger_id: str
    oldest_ready: float | None = None
    oldest_waiting: float | None = None
    next_due: float | None = None


class TriggerUnfinished(Struct, frozen=True, kw_only=True):
    """Numbers of a trigger's deliveries that are ready and that wait, as the store holds them."""

    trigger_id: str
    ready: int
    waiting: int


class ITotals(Interface):
    """Totals by trigger id. They are added to in groups; what a crash lost is counted again from the deliveries."""

    def totals() -> Deferred[Mapping[str, TriggerTotal]]:
        """Return the totals of every trigger that ever had any, by its id."""

    def add(totals: Sequence[TriggerTotal], refused: Sequence[RefusedCount], counted: int) -> Deferred[None]:
        """
        Add to the totals, in one durable unit.

        :param counted: the highest id of a delivery that the totals count now.
        """

    def count_on(until: int, limit: int) -> Deferred[int]:
        """
        Count up to ``limit`` deliveries, in order, with ids above the last that was counted and at most ``until``.

        :return: how many there were; less than ``limit`` says that all are counted.
        """

    def highest() -> Deferred[int]:
        """Return the highest id of a delivery, 0 for none."""

    def latest_attempts(limit: int) -> Deferred[Mapping[str, TriggerTotal]]:
        """Return by trigger id when the newest success and failure were, among the newest ``limit`` attempts of all."""

    def uncounted(limit: int) -> Deferred[Mapping[str, int]]:
        """Return by trigger id how many of the first ``limit`` deliveries after the last counted one there are."""

    def dead() -> Deferred[Mapping[str, int]]:
        """Count dead letters by trigger id; cost grows with the dead letters alone."""

    def unfinished() -> Deferred[Sequence[TriggerUnfinished]]:
        """Count ready and waiting deliveries by trigger. Only for commands: cost grows with them."""

    def backlogs(now: float, running: Collection[int]) -> Deferred[Mapping[str, TriggerBacklog]]:
        """
        Return by trigger id its oldest unfinished deliveries, without those that run.

        A few steps in an index for each binding version that has any, however many there are.

        :param now: seconds, Unix: what is due by then is ready.
        """
