"""
Statistics of a window of time: counts, rates and percentiles by trigger and handler, gathered slice by slice.

At most `MOST` attempts, and as many deliveries, are read, the newest: a window that has more says so, and from when on
it is complete. Each slice is one read of the store, with room for others between two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from attrs import define, field

from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, Span

SLICE = 5_000
"""Rows of one read: some 30 ms of the store's reader, which others share."""
MOST = 1_000_000
"""Attempts, and deliveries, that are read for one answer."""


@define
class Durations:
    """Durations (seconds) with how often each was seen."""

    counts: Counter[float] = field(factory=Counter)

    def percentile(self, share: float) -> float | None:
        """Return the smallest duration that ``share`` (0 to 1) of all do not exceed; None without any."""
        rank, seen = ceil(self.counts.total() * share), 0
        for seconds in sorted(self.counts):
            seen += self.counts[seconds]
            if seen >= rank:
                return seconds
        return None


@define
class AttemptTally:
    """Attempts by how they ended, with the times of handlers and those from accepted to done."""

    outcomes: Counter[str] = field(factory=Counter)
    handler: Durations = field(factory=Durations)
    done: Durations = field(factory=Durations)

    def add(self, other: AttemptTally) -> None:
        """Add another one."""
        self.outcomes += other.outcomes
        self.handler.counts += other.handler.counts
        self.done.counts += other.done.counts


class Gathered:
    """
    The attempts and deliveries that were read of a window.

    :ivar attempts: by binding version (trigger id, number); the others by trigger id.
    """

    def __init__(self) -> None:
        self.attempts: dict[tuple[str, int], AttemptTally] = {}
        self.accepted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    def add_attempts(self, ended: Iterable[AttemptGroup], done: Iterable[DoneGroup]) -> None:
        """Add a slice of attempts."""
        for group in ended:
            tally = self._of(group.trigger_id, group.version)
            tally.outcomes[group.outcome] += group.count
            if group.outcome != "skipped":  # its predicate ran, its handler did not
                tally.handler.counts[group.seconds] += group.count
        for each in done:
            self._of(each.trigger_id, each.version).done.counts[each.seconds] += each.count

    def add_accepted(self, groups: Iterable[AcceptedGroup]) -> None:
        """Add a slice of deliveries."""
        for group in groups:
            self.accepted[group.trigger_id] += group.count
            self.skipped[group.trigger_id] += group.skipped

    def by_handler(self, trigger_id: str, handlers: Mapping[tuple[str, int], str]) -> Mapping[str, AttemptTally]:
        """Return the attempts of a trigger by the handler that its versions had; ``v3`` where that is not known."""
        found: dict[str, AttemptTally] = {}
        for (each, version), tally in sorted(self.attempts.items()):
            if each == trigger_id:
                found.setdefault(handlers.get((each, version), f"v{version}"), AttemptTally()).add(tally)
        return found

    def trigger_ids(self) -> set[str]:
        """Return the triggers that were seen."""
        return {*self.accepted, *(trigger_id for trigger_id, _ in self.attempts)}

    def _of(self, trigger_id: str, version: int) -> AttemptTally:
        return self.attempts.setdefault((trigger_id, version), AttemptTally())


def newest(span: Span) -> Span:
    """Return the part of a span that is read."""
    return Span(max(span.first, span.last - MOST + 1), span.last)


def slices(span: Span) -> Iterator[Span]:
    """Yield the pieces of a span, the newest first."""
    last = span.last
    while last >= span.first:
        first = max(span.first, last - SLICE + 1)
        yield Span(first, last)
        last = first - 1


def whole(tallies: Sequence[AttemptTally]) -> AttemptTally:
    """Return the sum of several tallies."""
    found = AttemptTally()
    for each in tallies:
        found.add(each)
    return found
