"""
Figures of triggers: those that an inspection shows, and counts, rates and percentiles of a window of time. Pure.

A window is read slice by slice, until all of it is read, or for `LONGEST`. The slices are read in an order in which the
first so many lie evenly over the window, whatever their number: where not all was read, what was read is a sample of
all of it, and counts are estimated from it. Each slice is one read of the store, with room for others between two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from math import ceil
from typing import Protocol

from attrs import define, field, frozen
from msgspec import Struct

from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, IdRange, TriggerBacklog, TriggerTotal


class TotalSource(Protocol):
    """Something that has totals by trigger id."""

    def of(self, trigger_id: str) -> TriggerTotal:
        """Return the totals of a trigger; all are 0 where nothing ever happened to it."""

    def has(self, trigger_id: str) -> bool:
        """Return False where nothing ever happened to a trigger."""


class TriggerFigures(Struct, frozen=True):
    """
    The figures of a trigger, over reloads and restarts.

    :ivar accepted: deliveries accepted.
    :ivar refused: requests that were never events.
    :ivar running: handlers that run now.
    :ivar waiting: deliveries that wait for a due time, or are held.
    :ivar dead: dead letters now.
    :ivar last_success: seconds, Unix, or None.
    :ivar last_failure: seconds, Unix, or None.
    :ivar next_due: when the next of what waits is due (seconds, Unix), or None.
    """

    accepted: int = 0
    running: int = 0
    waiting: int = 0
    dead: int = 0
    refused: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    next_due: float | None = None


class StoredTotals:
    """Totals as they were read from a store."""

    def __init__(self, totals: Mapping[str, TriggerTotal] = {}, uncounted: Mapping[str, int] = {}) -> None:
        """
        Keep totals.

        :param uncounted: deliveries by trigger id that they do not count yet.
        """
        self._totals = totals
        self._uncounted = uncounted

    def of(self, trigger_id: str) -> TriggerTotal:
        """See `TotalSource.of`."""
        found = self._totals.get(trigger_id)
        more = self._uncounted.get(trigger_id, 0)
        if found is None:
            return TriggerTotal(trigger_id=trigger_id, accepted=more)
        return added(found, TriggerTotal(trigger_id=trigger_id, accepted=more)) if more else found

    def has(self, trigger_id: str) -> bool:
        """See `TotalSource.has`."""
        return trigger_id in self._totals or trigger_id in self._uncounted


@frozen(kw_only=True)
class Figures:
    """The figures of every trigger at one moment; each mapping is by trigger id."""

    totals: TotalSource = field(factory=StoredTotals)
    running: Mapping[str, int] = field(factory=dict)
    waiting: Mapping[str, int] = field(factory=dict)
    dead: Mapping[str, int] = field(factory=dict)
    backlogs: Mapping[str, TriggerBacklog] = field(factory=dict)

    def of(self, trigger_id: str) -> TriggerFigures:
        """Return those of one trigger."""
        total = self.totals.of(trigger_id)
        backlog = self.backlogs.get(trigger_id)
        return TriggerFigures(
            total.accepted,
            self.running.get(trigger_id, 0),
            self.waiting.get(trigger_id, 0),
            self.dead.get(trigger_id, 0),
            total.refused,
            total.last_success,
            total.last_failure,
            None if backlog is None else backlog.next_due,
        )


def added(total: TriggerTotal, more: TriggerTotal) -> TriggerTotal:
    """Return the sum of two totals of a trigger, with the later times."""
    return TriggerTotal(
        trigger_id=total.trigger_id,
        accepted=total.accepted + more.accepted,
        refused=total.refused + more.refused,
        last_success=later(total.last_success, more.last_success),
        last_failure=later(total.last_failure, more.last_failure),
    )


def later(one: float | None, other: float | None) -> float | None:
    """Return the later of two times that may be None."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


SLICE = 2_000
"""Rows of one read: some 12 ms of the store's reader, which others share."""
LONGEST = 2.0
"""Seconds after which what was read so far is taken as a sample."""


@define
class DurationCounts:
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
    handler: DurationCounts = field(factory=DurationCounts)
    done: DurationCounts = field(factory=DurationCounts)

    def add(self, other: AttemptTally) -> None:
        """Add another one."""
        self.outcomes += other.outcomes
        self.handler.counts += other.handler.counts
        self.done.counts += other.done.counts


class Slice(Struct, frozen=True, order=True):
    """
    One slice to read.

    :ivar share: how much of the ids of its kind come before it in the order of reading (0 to 1).
    :ivar of_attempts: whether it is a slice of attempts; else one of deliveries.
    """

    share: float
    of_attempts: bool
    span: IdRange


class Gathered:
    """
    The attempts and deliveries that were read of a window.

    :param attempts: the ids of its attempts, ``deliveries`` those of its deliveries.
    :ivar attempts: by binding version (trigger id, number); ``accepted`` and ``skipped`` by trigger id.
    """

    def __init__(self, attempts: IdRange, deliveries: IdRange) -> None:
        self.attempts: dict[tuple[str, int], AttemptTally] = {}
        self.accepted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._spans = {True: attempts, False: deliveries}
        self._read = {True: 0, False: 0}

    def parts(self) -> Iterator[Slice]:
        """Yield the slices in the order in which to read them, attempts and deliveries side by side."""
        return merge(*(parts(span, of_attempts=of_attempts) for of_attempts, span in self._spans.items()))

    @property
    def read_share(self) -> float:
        """Return how much of the window was read, 0 to 1: the lesser of the shares of attempts and of deliveries."""
        return min(self._share(of_attempts) for of_attempts in self._spans)

    def add_attempts(self, part: Slice, ended: Iterable[AttemptGroup], done: Iterable[DoneGroup]) -> None:
        """Add a slice of attempts."""
        self._read[True] += part.span.size
        for group in ended:
            tally = self._of(group.trigger_id, group.version)
            tally.outcomes[group.outcome] += group.count
            if group.outcome != "skipped":  # its predicate ran, its handler did not
                tally.handler.counts[group.seconds] += group.count
        for each in done:
            self._of(each.trigger_id, each.version).done.counts[each.seconds] += each.count

    def add_accepted(self, part: Slice, groups: Iterable[AcceptedGroup]) -> None:
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


def parts(span: IdRange, *, of_attempts: bool) -> Iterator[Slice]:
    """Yield the slices of a span, the newest first, and then so that at any time those so far lie evenly over it."""
    count = ceil(span.size / SLICE)
    for number, place in enumerate(spread(count)):
        last = span.last - place * SLICE
        yield Slice(number / count, of_attempts, IdRange(max(span.first, last - SLICE + 1), last))


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
