"""Statistics of attempts and deliveries: counts and rounded durations by trigger and version, in slices of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted


@frozen
class Span:
    """Ids from ``first`` to ``last``, both included; empty where ``last`` is less."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """The number of ids, at most as many as there are rows."""
        return max(0, self.last - self.first + 1)


@frozen
class AttemptGroup:
    """
    Attempts of one binding version that ended alike and took as long.

    :ivar outcome: ``success``, ``skipped``, ``failed``, or ``retry_after`` (ended by its handler's own choice).
    :ivar seconds: rounded to two digits; ``count``: how many there are.
    """

    trigger_id: str
    version: int
    outcome: str
    seconds: float
    count: int


@frozen
class DoneGroup:
    """Deliveries of one binding version that took ``seconds`` (two digits) from accepted to done."""

    trigger_id: str
    version: int
    seconds: float
    count: int


@frozen
class AcceptedGroup:
    """Deliveries of a trigger that were accepted, and those of them that were ``skipped``."""

    trigger_id: str
    count: int
    skipped: int


class IStatistics(Interface):
    """Reads that never look at more than a slice of the rows."""

    def attempts_since(since: float) -> Deferred[Span]:
        """Return the ids of attempts that ended at ``since`` (seconds, Unix) or later: found in a few steps."""

    def deliveries_since(since: float) -> Deferred[Span]:
        """Return the ids of deliveries that were received at ``since`` (seconds, Unix) or later."""

    def attempts(span: Span, since: float) -> Deferred[tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]]:
        """Group the attempts of a span that ended at ``since`` or later."""

    def accepted(span: Span, since: float) -> Deferred[Sequence[AcceptedGroup]]:
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
