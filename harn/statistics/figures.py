"""
Figures of triggers: those of an inspection, and the counts and percentiles of a window of time. No I/O.

A window is read in slices, until all are read or `LONGEST` has passed. Each slice is one read of the store, and other
reads may run between two. The order of the slices is such that those read so far are always distributed evenly over the
window. So a window that was read in part gives a sample, from which the counts are estimated.
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
    """A source of totals by trigger id."""

    def of(self, trigger_id: str) -> TriggerTotal:
        """Return the totals of a trigger; all are 0 if nothing was counted for it."""

    def has(self, trigger_id: str) -> bool:
        """Return whether anything was counted for a trigger."""


class TriggerFigures(Struct, frozen=True):
    """
    The figures of a trigger. Totals include those before reloads and restarts.

    :ivar accepted: the number of deliveries accepted.
    :ivar running: the number of handlers that run now.
    :ivar waiting: the number of deliveries that wait for a due time, or are held.
    :ivar dead: the number of dead letters now.
    :ivar refused: the number of requests that were refused.
    :ivar last_success: the time of the last attempt that succeeded (seconds, Unix); None without one.
    :ivar last_failure: the time of the last attempt that failed (seconds, Unix); None without one.
    :ivar next_due: when the next waiting delivery is due (seconds, Unix); None without one.
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
    """Totals read from a store."""

    def __init__(self, totals: Mapping[str, TriggerTotal] = {}, uncounted: Mapping[str, int] = {}) -> None:
        """
        Keep totals.

        :param totals: the stored totals by trigger id.
        :param uncounted: the numbers of deliveries by trigger id that ``totals`` do not include yet.
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
    """
    The figures of all triggers at one moment; each mapping is by trigger id.

    :ivar totals: the totals.
    :ivar running: the numbers of handlers that run.
    :ivar waiting: the numbers of deliveries that wait for a due time, or are held.
    :ivar dead: the numbers of dead letters.
    :ivar backlogs: the oldest unfinished deliveries, and the next due time.
    """

    totals: TotalSource = field(factory=StoredTotals)
    running: Mapping[str, int] = field(factory=dict)
    waiting: Mapping[str, int] = field(factory=dict)
    dead: Mapping[str, int] = field(factory=dict)
    backlogs: Mapping[str, TriggerBacklog] = field(factory=dict)

    def of(self, trigger_id: str) -> TriggerFigures:
        """Return the figures of one trigger."""
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
    """Return the sum of two totals of a trigger; of each time, the later one."""
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
"""Rows of one read, which takes some 12 ms of the store's shared reader."""
LONGEST = 2.0
"""Seconds after which reading ends, and the slices read so far are used as a sample."""


@define
class DurationCounts:
    """
    A distribution of durations.

    :ivar counts: the number of occurrences of each duration (seconds).
    """

    counts: Counter[float] = field(factory=Counter)

    def percentile(self, share: float) -> float | None:
        """Return the least duration that a share (0 to 1) of all durations does not exceed; None without durations."""
        rank, seen = ceil(self.counts.total() * share), 0
        for seconds in sorted(self.counts):
            seen += self.counts[seconds]
            if seen >= rank:
                return seconds
        return None


@define
class AttemptTally:
    """
    Counts and durations of attempts.

    :ivar outcomes: the number of attempts by outcome.
    :ivar handler: the durations of handlers.
    :ivar done: the durations from the acceptance to the end of deliveries.
    """

    outcomes: Counter[str] = field(factory=Counter)
    handler: DurationCounts = field(factory=DurationCounts)
    done: DurationCounts = field(factory=DurationCounts)

    def add(self, other: AttemptTally) -> None:
        """Add the counts of another tally to this one."""
        self.outcomes += other.outcomes
        self.handler.counts += other.handler.counts
        self.done.counts += other.done.counts


class Slice(Struct, frozen=True, order=True):
    """
    One slice to read.

    :ivar share: the share (0 to 1) of the slices of its kind that are read before it.
    :ivar of_attempts: whether it is a slice of attempts; if not, of deliveries.
    :ivar span: the ids of its rows.
    """

    share: float
    of_attempts: bool
    span: IdRange


class Gathered:
    """
    The attempts and deliveries of a window that were read so far.

    :param attempts: the ids of the window's attempts.
    :param deliveries: the ids of the window's deliveries.
    :ivar attempts: the attempts by binding version (trigger id, number).
    :ivar accepted: the number of accepted deliveries by trigger id.
    :ivar skipped: the number of skipped deliveries by trigger id.
    """

    def __init__(self, attempts: IdRange, deliveries: IdRange) -> None:
        self.attempts: dict[tuple[str, int], AttemptTally] = {}
        self.accepted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._spans = {True: attempts, False: deliveries}
        self._read = {True: 0, False: 0}

    def parts(self) -> Iterator[Slice]:
        """Yield the slices in the order in which they are read, those of attempts and of deliveries in turn."""
        return merge(*(parts(span, of_attempts=of_attempts) for of_attempts, span in self._spans.items()))

    @property
    def read_share(self) -> float:
        """Return the share (0 to 1) of the window that was read: the lesser of those of attempts and deliveries."""
        return min(self._share(of_attempts) for of_attempts in self._spans)

    def add_attempts(self, part: Slice, ended: Iterable[AttemptGroup], done: Iterable[DoneGroup]) -> None:
        """Add a slice of attempts."""
        self._read[True] += part.span.size
        for group in ended:
            tally = self._of(group.trigger_id, group.version)
            tally.outcomes[group.outcome] += group.count
            if group.outcome != "skipped":  # then the predicate ran, and the handler did not
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
        """Return the number of attempts in the window if ``count`` were read; for a sample, an estimate."""
        return round(count / self._share(of_attempts=True))

    def all_deliveries(self, count: int) -> int:
        """Return the number of deliveries in the window if ``count`` were read; for a sample, an estimate."""
        return round(count / self._share(of_attempts=False))

    def by_handler(self, trigger_id: str, handlers: Mapping[tuple[str, int], str]) -> Mapping[str, AttemptTally]:
        """Return the attempts of a trigger by handler; if that of a version is unknown, by the version (``v3``)."""
        found: dict[str, AttemptTally] = {}
        for (each, version), tally in sorted(self.attempts.items()):
            if each == trigger_id:
                found.setdefault(handlers.get((each, version), f"v{version}"), AttemptTally()).add(tally)
        return found

    def trigger_ids(self) -> set[str]:
        """Return the ids of the triggers whose attempts or deliveries were read."""
        return {*self.accepted, *(trigger_id for trigger_id, _ in self.attempts)}

    def _of(self, trigger_id: str, version: int) -> AttemptTally:
        return self.attempts.setdefault((trigger_id, version), AttemptTally())

    def _share(self, of_attempts: bool) -> float:
        size = self._spans[of_attempts].size
        return 1.0 if not size else self._read[of_attempts] / size


def parts(span: IdRange, *, of_attempts: bool) -> Iterator[Slice]:
    """Yield the slices of a span: the newest, then the others, so that those yielded are always distributed evenly."""
    count = ceil(span.size / SLICE)
    for number, place in enumerate(spread(count)):
        last = span.last - place * SLICE
        yield Slice(number / count, of_attempts, IdRange(max(span.first, last - SLICE + 1), last))


def spread(count: int) -> Iterator[int]:
    """Yield the numbers below ``count``, each halfway between earlier ones: by reversed bits (van der Corput, 1935)."""
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
