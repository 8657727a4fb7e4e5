"""
Which servers live, as one of them sees it: decisions on plain values, without a clock, a store or the network.

A server is silent when its heartbeat has not changed for a while, by the clock of whoever looks: times in the rows are
of other machines, and are only compared with each other. A look that comes late says nothing about the time before it:
when the store was away, or this process was stopped, the others could not renew their heartbeats either, or were not
looked at. To be wrong about that is harmless: a server that is fenced while it lives continues under a new number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct, field

from harn.store.servers import ServerRow

BEAT = 2.0
"""Seconds between two heartbeats of a server."""
LOOK = 1.0
"""Seconds between two looks at the others."""
SILENCE = 4.5
"""
Seconds without a new heartbeat after which a server is fenced. It is noticed one look later at most: within three
heartbeats of its death.
"""
LATE = 2.5
"""Seconds between two looks above which the later one says nothing about the time between."""


class Sight(Struct, frozen=True):
    """The heartbeat of a server that was seen last, and since when it has been that one (seconds of who looks)."""

    beat: float
    since: float


class Sights(Struct, frozen=True):
    """
    The heartbeats of the other servers that one has seen so far.

    :ivar looked_at: when it looked last (its own seconds); None before.
    """

    by_number: Mapping[int, Sight] = field(default_factory=dict)
    looked_at: float | None = None

    def looked(self, beats: Mapping[int, float], now: float, *, is_blind: bool = False) -> Sights:
        """
        Return the sights after one more look.

        :param beats: by number the heartbeat of each other server that has neither ended nor been fenced.
        :param is_blind: this server could not renew its own heartbeat meanwhile, so that the others may not have been
            able to, either.
        """
        before = {} if is_blind or self.looked_at is None or now - self.looked_at > LATE else self.by_number
        return Sights({number: seen_again(before.get(number), beat, now) for number, beat in beats.items()}, now)

    def silent(self, now: float) -> dict[int, float]:
        """Return by number the heartbeats of the servers that are to be fenced."""
        return {number: each.beat for number, each in self.by_number.items() if now - each.since >= SILENCE}


def seen_again(before: Sight | None, beat: float, now: float) -> Sight:
    """Return the sight of a server whose heartbeat is ``beat`` at ``now``."""
    return before if before is not None and before.beat == beat else Sight(beat, now)


def left_behind(owners: Collection[int], living: Iterable[int]) -> frozenset[int]:
    """Return the servers that are gone and have left deliveries: owners that do not live."""
    return frozenset(owners).difference(living)


def leader(own: ServerRow, others: Iterable[ServerRow], draining: Collection[int]) -> int:
    """
    Return the number of the server that does what one of them all does: of those that serve, the one that came first.

    So a server that comes never takes it from another, and no two lead at the same time: who comes later sees who came
    before, and who is fenced writes nothing. Another server on the same state directory is the program which this one
    replaces, and does not count.

    :param draining: numbers of those that end.
    """
    serving = (each.incarnation for each in others if each.home != own.home and each.incarnation not in draining)
    return min((own.incarnation, *serving))
