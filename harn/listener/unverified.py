"""
The limit of bytes in memory whose sender is not verified yet. When it is reached, the slowest body is refused.

It is separate from the limit of verified bytes that are not durable yet (`harn.listener.admission`), so that senders
without a valid signature cannot use up the memory of those with one. Of the limit, one network of addresses, which many
senders may share, can use at most three quarters.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Protocol

from attrs import define
from twisted.internet.interfaces import IReactorTime

from harn.errors import Saturated

PERIOD = 1.0
"""Seconds over which the rate of a body is measured; no body counts as slow before it."""
SLOW = 65536.0
"""Bytes a second below which a body is refused for any other. At this rate 2 MB take as long as a body may."""
_LITTLE = 65536
"""Bytes up to which other bodies are refused for this one, whatever their rates."""
_SHARE = 0.75
_SLACK = 1 / 16
"""Share of the limit that is freed in addition, so that not all bodies are scanned at each further piece."""


class IUnverifiedBody(Protocol):
    """
    A body that is being read, or a head. ``began_at`` and ``source`` do not change while it is counted.

    :ivar unverified: the bytes that are counted for it; set by `UnverifiedBodies`.
    """

    unverified: int

    @property
    def began_at(self) -> float:
        """Return when its headers were complete; for a head, when it began (seconds of the clock)."""

    @property
    def source(self) -> str:
        """Return its sender's network."""

    def give_way(self) -> None:
        """Called when its memory is needed: refuse the request, close, and call `UnverifiedBodies.release`."""


@define
class _Progress:
    """
    The progress of a body.

    :ivar last_at: when the last bytes arrived (seconds of the clock).
    :ivar before: a time about one `PERIOD` ago, and the bytes received until then.
    :ivar mark: the value that ``before`` has next.
    """

    last_at: float
    before: tuple[float, int]
    mark: tuple[float, int]

    def note(self, now: float, length: int) -> None:
        """Record the number of bytes received so far."""
        self.last_at = now
        if now - self.mark[0] >= PERIOD:
            self.before, self.mark = self.mark, (now, length)


class UnverifiedBodies:
    """
    The count of unverified bytes, with its limit.

    :ivar total: the unverified bytes of all bodies and heads.
    :ivar bound: the limit of ``total``.
    """

    def __init__(self, clock: IReactorTime, bound: int) -> None:
        self._clock = clock
        self.bound = bound
        self.total = 0
        self._shares: dict[str, int] = {}
        self._reading: dict[IUnverifiedBody, _Progress | None] = {}

    def apply(self, bound: int, largest: int) -> None:
        """
        Set another limit, at least twice the largest body, so that one body cannot use all of it.

        :param bound: the configured limit (bytes).
        :param largest: the size of the largest allowed body (bytes).
        """
        self.bound = max(bound, 2 * largest)

    def grow(self, body: IUnverifiedBody, length: int) -> None:
        """
        Count bytes that have arrived, and free memory if the limit is exceeded.

        :raises Saturated: not enough other bodies may be refused; these bytes are counted until `release` all the same.
        """
        if not body.unverified:
            self._reading[body] = None  # most bodies arrive in one piece, and need no more state
            body.unverified = length
        else:
            body.unverified += length
            self._note(body)
        self.total += length
        source = body.source
        share = self._shares[source] = self._shares.get(source, 0) + length
        if self.total > self.bound or share > self.bound * _SHARE:
            self._make_room(body)

    def complete(self, body: IUnverifiedBody) -> None:
        """Called when a body is complete: it is verified next, and may no longer be refused for others."""
        self._reading.pop(body, None)

    def release(self, body: IUnverifiedBody) -> None:
        """Called when a body is verified, or its request has ended: stop counting its bytes."""
        length, body.unverified = body.unverified, 0
        if not length:
            return
        self._reading.pop(body, None)
        self.total -= length
        left = self._shares.get(body.source, 0) - length
        if left > 0:
            self._shares[body.source] = left
        else:
            self._shares.pop(body.source, None)

    def _make_room(self, newcomer: IUnverifiedBody) -> None:
        others = [body for body in self._reading if body is not newcomer]
        excess = self._shares[newcomer.source] - int(self.bound * _SHARE)
        if excess > 0:
            self._free(excess, [body for body in others if body.source == newcomer.source], newcomer)
        excess = self.total - self.bound
        if excess > 0:
            self._free(excess, [body for body in others if body.unverified], newcomer)

    def _free(self, needed: int, candidates: Sequence[IUnverifiedBody], newcomer: IUnverifiedBody) -> None:
        """
        Refuse the slowest of the candidates until enough memory is free.

        For a large body only slow ones are refused: if many are fast, some of them must be read to their end.
        """
        if newcomer.unverified > _LITTLE:
            candidates = [body for body in candidates if self._slowness(body) < (False, SLOW)]
        if sum(body.unverified for body in candidates) < needed:
            raise Saturated("too many bodies are being read at once; send the request again", retry_after=1)
        freed, wanted = 0, needed + int(self.bound * _SLACK)
        for body in sorted(candidates, key=self._slowness):
            freed += body.unverified
            body.give_way()
            if freed >= wanted:
                return

    def _note(self, body: IUnverifiedBody) -> None:
        progress = self._reading.get(body)
        if progress is None:
            start = body.began_at, 0
            progress = self._reading[body] = _Progress(body.began_at, start, start)
        progress.note(self._clock.seconds(), body.unverified)

    def _slowness(self, body: IUnverifiedBody) -> tuple[bool, float, float]:
        """
        Return a sort key that puts the slowest first: by the rate of the last `PERIOD`, then by size.

        New bodies follow: first those that have held the most bytes for the longest time without a new byte.
        """
        now = self._clock.seconds()
        progress = self._reading[body]
        last_at, (before_at, before) = (
            (body.began_at, (body.began_at, 0)) if progress is None else (progress.last_at, progress.before)
        )
        idle = now - last_at
        if now - body.began_at < PERIOD:
            return True, 0.0, -body.unverified * (idle + 0.001)
        pace = 0.0 if idle >= PERIOD else (body.unverified - before) / (now - before_at)
        return False, pace, -body.unverified


def network_of(host: str) -> str:
    """Return the network of ``host``: for IPv6 its first 64 bits, which one customer has; else the whole address."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64)) if mapped is None else str(mapped)
