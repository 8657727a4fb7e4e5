"""
Statistics of a window of time: counts, rates and percentiles by trigger and handler, gathered slice by slice.

Reading ends when the whole window is read, or after `LONGEST`. The slices are read in an order in which the first so
many lie evenly over the window, whatever their number: where not all was read, what was read is a sample of all of it,
and counts are estimated from it. Each slice is one read of the store, with room for others between two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from math import ceil

from attrs import define, field, frozen

from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, Span

SLICE = 2_000
"""Rows of one read: some 12 ms of the store's reader, which others share."""
LONGEST = 2.0
"""Seconds after which what was read so far is taken as a sample."""


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


@frozen(order=True)
class Part:
    """
    One slice to read.

    :ivar share: how much of the ids of its kind come before it in the order of reading (0 to 1).
    :ivar of_attempts: whether it is a slice of attempts; else one of deliveries.
    """

    share: float
    of_attempts: bool
    span: Span


class Gathered:
    """
    The attempts and deliveries that were read of a window.

    :param attempts: the ids of its attempts, ``deliveries`` those of its deliveries.
    :ivar attempts: by binding version (trigger id, number); ``accepted`` and ``skipped`` by trigger id.
    """

    def __init__(self, attempts: Span, deliveries: Span) -> None:
        self.attempts: dict[tuple[str, int], AttemptTally] = {}
        self.accepted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._spans = {True: attempts, False: deliveries}
        self._read = {True: 0, False: 0}

    def parts(self) -> Iterator[Part]:
        """Yield the slices in the order in which to read them, attempts and deliveries side by side."""
        return merge(*(parts(span, of_attempts=of_attempts) for of_attempts, span in self._spans.items()))

    @property
    def read_share(self) -> float:
        """Return how much of the window was read, 0 to 1: the lesser of the shares of attempts and of deliveries."""
        return min(self._share(of_attempts) for of_attempts in self._spans)

    def add_attempts(self, part: Part, ended: Iterable[AttemptGroup], done: Iterable[DoneGroup]) -> None:
        """Add a slice of attempts."""
        self._read[True] += part.span.size
        for group in ended:
            tally = self._of(group.trigger_id, group.version)
            tally.outcomes[group.outcome] += group.count
            if group.outcome != "skipped":  # its predicate ran, its handler did not
                tally.handler.counts[group.seconds] += group.count
        for each in done:
            self._of(each.trigger_id, each.version).done.counts[each.seconds] += each.count

    def add_accepted(self, part: Part, groups: Iterable[AcceptedGroup]) -> None:
        """Add a slice of deliveries."""
        self._read[False] += part.span.size
        for group in groups:
            self.accepted[group.trigger_id] += group.count
            self.skipped[group.trigger_id] += group.skipped

    def all_attempts(self, count: int) -> int:
        """Return how many attempts the window has, where so many were read; an estimate of a sample."""
        return round(count / self._share(of_attempts=True))

    def all_deliveries(self, count: int) -> int:
        """Return how many deliveries the window has, where so many were read; an estimate of a sample."""
        return round(count / self._share(of_attempts=False))

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

    def _share(self, of_attempts: bool) -> float:
        size = self._spans[of_attempts].size
        return 1.0 if not size else self._read[of_attempts] / size


def parts(span: Span, *, of_attempts: bool) -> Iterator[Part]:
    """Yield the slices of a span, the newest first, and then so that at any time those so far lie evenly over it."""
    count = ceil(span.size / SLICE)
    for number, place in enumerate(spread(count)):
        last = span.last - place * SLICE
        yield Part(number / count, of_attempts, Span(max(span.first, last - SLICE + 1), last))


def spread(count: int) -> Iterator[int]:
    """Yield the numbers below ``count``, each halfway between others: with the bits reversed (van der Corput, 1935)."""
    bits = max(1, (count - 1).bit_length())
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2)
        if place < count:
            yield place


def whole(tallies: Sequence[AttemptTally]) -> AttemptTally:
    """Return the sum of several tallies."""
    found = AttemptTally()
    for each in tallies:
        found.add(each)
    return found
