"""Failed sign-ins by address: after too many within a minute, its wrong keys are not even counted or recorded."""

from __future__ import annotations

from collections import OrderedDict, deque

from harn.clocks import WallTime

MOST_FAILURES = 10
"""Failures of one address within `WINDOW`; a further one must wait."""
WINDOW = 60.0
"""Seconds."""
MOST_RECORDED = 60
"""Failures of all addresses within `WINDOW` that get an audit record: whoever has many cannot fill the store."""
MOST_ADDRESSES = 10_000
"""Addresses that are remembered; above it, the one that failed longest ago is dropped."""


class Attempts:
    """Counts failed attempts in bounded memory."""

    def __init__(self, wall: WallTime) -> None:
        self._wall = wall
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._recorded: deque[float] = deque(maxlen=MOST_RECORDED)

    def wait(self, address: str) -> int:
        """Return the seconds until a wrong key of this address is counted again; 0 when it is now."""
        now = self._wall.seconds()
        failures = self._failures.get(address)
        if failures is None:
            return 0
        while failures and failures[0] <= now - WINDOW:
            failures.popleft()
        if not failures:
            del self._failures[address]
        if len(failures) < MOST_FAILURES:
            return 0
        return max(1, int(failures[0] + WINDOW - now + 0.999))

    def failed(self, address: str) -> None:
        """Count a failure."""
        failures = self._failures.setdefault(address, deque(maxlen=MOST_FAILURES))
        failures.append(self._wall.seconds())
        self._failures.move_to_end(address)
        while len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def may_record(self) -> bool:
        """Return whether a failure gets an audit record, and count it."""
        now, recorded = self._wall.seconds(), self._recorded
        if len(recorded) == MOST_RECORDED and recorded[0] > now - WINDOW:
            return False
        recorded.append(now)
        return True
