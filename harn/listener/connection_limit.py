"""
The limit of connections: beyond it a waiting connection is closed, or the new one is answered with 503.

Each connection holds a descriptor, and descriptors are also needed for interpreters, reloads and the event log, however
many clients there are. Connections are closed in this order: after their last response, without a byte received, idle
between requests, with an incomplete head, with an incomplete body; within each group, the one that has waited longest
is closed first. A connection whose request is being handled is never closed for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from heapq import nsmallest
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from harn.listener.channel import HarnChannel

SURPLUS = 16
"""Connections beyond the limit: those that get 503, and those that are being closed. Further ones are not accepted."""
_AT_ONCE = 256
"""Number of connections chosen at a time, so that not every new connection scans all of them."""
_HOLDS_FOR = 0.25
"""Seconds for which the chosen connections are used before others are chosen, even if none was found."""
_SAY_EVERY = 60.0
_PATIENCE = (0.25, 0.25, 1.0, 1.0, 5.0)
"""Seconds that a connection may wait before it is closed, by its rank (`harn.listener.channel.HarnChannel.waiting`)."""

log = Logger(namespace="harn.listener")


class ConnectionLimit:
    """
    Enforces the limit.

    :param channels: all open connections.
    :param configured: the limit until `apply`.
    """

    def __init__(self, clock: IReactorTime, channels: Collection[HarnChannel], configured: int) -> None:
        self._clock = clock
        self._channels = channels
        self._configured = configured
        self._allowed: int | None = None
        self._chosen: deque[tuple[HarnChannel, tuple[int, float]]] = deque()
        self._was_full = False
        self._chosen_at = -_HOLDS_FOR
        self._said_at: float | None = None

    @property
    def most(self) -> int:
        """Return the limit: the configured one, or that of open files if it is lower."""
        return self._configured if self._allowed is None else min(self._configured, self._allowed)

    @property
    def room(self) -> int:
        """Return the number of connections that may still be accepted."""
        return self.most + SURPLUS - len(self._channels)

    def apply(self, configured: int) -> None:
        """Use another limit from the next connection on."""
        self._configured = configured

    def allow(self, number: int) -> None:
        """Set the number of connections that the limit of open files allows."""
        self._allowed = number

    def admit(self) -> bool:
        """
        Apply the limit after a connection was added: close a waiting one if there are too many.

        :return: whether the new connection may stay; if not, it must be answered with 503.
        """
        if len(self._channels) <= self.most:
            return True
        self._say()
        channel = self._least_used()
        if channel is None:
            return False
        channel.give_up_place()
        return True

    def relieve(self) -> None:
        """Called when a connection waits to be accepted and the limit is reached: close up to `SURPLUS` others."""
        self._say()
        for _ in range(SURPLUS):
            channel = self._least_used()
            if channel is None:
                return
            channel.give_up_place()

    def _least_used(self) -> HarnChannel | None:
        """Return the next connection to close, in the order that the module describes; None if there is none."""
        now = self._clock.seconds()
        if now - self._chosen_at >= _HOLDS_FOR:
            self._choose(now)
        found = self._next_chosen()
        if found is None and self._was_full:
            self._choose(now)
            found = self._next_chosen()
        return found

    def _choose(self, now: float) -> None:
        ranked = ((channel, channel.waiting) for channel in self._channels)
        usable = (each for each in ranked if _has_waited(each[1], now))
        self._chosen = deque(nsmallest(_AT_ONCE, usable, key=lambda each: each[1]))
        self._chosen_at, self._was_full = now, len(self._chosen) == _AT_ONCE

    def _next_chosen(self) -> HarnChannel | None:
        """Return the next chosen connection whose state has not changed."""
        while self._chosen:
            channel, found = self._chosen.popleft()
            if channel in self._channels and channel.waiting == found:
                return channel
        return None

    def _say(self) -> None:
        """Log a warning, at most once a minute."""
        now = self._clock.seconds()
        if self._said_at is not None and now < self._said_at + _SAY_EVERY:
            return
        self._said_at = now
        log.warn(
            "there are {count} connections, which is the limit: those that wait longest are closed, else new ones get"
            " 503; {hint}",
            count=self.most,
            hint="raise max_connections in [orchestrator.admission]"
            if self.most == self._configured
            else "raise the limit of open files (ulimit -n; LimitNOFILE= of a systemd unit)",
        )


def _has_waited(waiting: tuple[int, float], now: float) -> bool:
    rank, since = waiting
    return rank < len(_PATIENCE) and now - since >= _PATIENCE[rank]
