"""
The levels of log records, and bounds on their number: a flood of failures neither fills a disk nor slows the server.
"""

from __future__ import annotations

from attrs import define

LEVELS = ("debug", "info", "warn", "error", "critical")
"""The levels of ``twisted.logger``; listed here, so that a module which only names them need not import it."""

DEFAULT = "info"


BURST = 100
"""Lines that one key may write in one burst."""
RATE = 2.0
"""Lines a second that one key may write for long."""
BURST_OF_ALL = 1000
RATE_OF_ALL = 20.0
"""The same of all keys together."""
MOST_KEYS = 1024
"""Keys beyond which those that wrote nothing lately are dropped."""


@define
class Allowance:
    """
    Lines that may be written now: at most ``burst``, refilled at ``rate`` a second.

    :ivar at: when ``left`` was true (seconds).
    """

    burst: float
    rate: float
    left: float
    at: float

    def refill(self, now: float) -> float:
        """Return the lines that may be written at ``now``."""
        self.left = min(self.burst, self.left + max(0.0, now - self.at) * self.rate)
        self.at = now
        return self.left


class LineLimits:
    """The allowances of each key, and of all keys together."""

    def __init__(self, now: float) -> None:
        """Start with full allowances at ``now`` (seconds of any clock that never goes back)."""
        self._all = Allowance(BURST_OF_ALL, RATE_OF_ALL, BURST_OF_ALL, now)
        self._keys: dict[str, Allowance] = {}

    def take(self, key: str, now: float) -> bool:
        """Return whether ``key`` may write one more line, and count it."""
        own = self._keys.get(key)
        if own is None:
            self._drop_idle(now)
            own = self._keys[key] = Allowance(BURST, RATE, BURST, now)
        if own.refill(now) < 1 or self._all.refill(now) < 1:
            return False
        own.left -= 1
        self._all.left -= 1
        return True

    def _drop_idle(self, now: float) -> None:
        if len(self._keys) >= MOST_KEYS:
            self._keys = {key: each for key, each in self._keys.items() if each.refill(now) < each.burst}
