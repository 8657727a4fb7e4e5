"""Says in the log that requests are refused: at once, then at most once a minute for each trigger and status."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.listener.problems import shown

EVERY = 60.0
"""Seconds between two lines about the same."""

MOST = 1000
"""Pairs of trigger and status that are remembered; beyond it nothing is said until some are a minute old."""

log = Logger(namespace="harn.listener")


class Refusals:
    """Counts what was refused since the last line about it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: dict[tuple[str, int], tuple[float, int]] = {}

    def note(self, trigger_id: str, status: int, detail: str) -> None:
        """
        Note one refused request.

        :param detail: what its sender reads; shown of the request that is at hand when a line is due.
        """
        now = self._clock.seconds()
        key = (trigger_id, status)
        said = self._since.get(key)
        if said is None and len(self._since) >= MOST:
            self._since = {key: each for key, each in self._since.items() if now - each[0] < EVERY}
            if len(self._since) >= MOST:
                return
        if said is not None and now - said[0] < EVERY:
            self._since[key] = (said[0], said[1] + 1)
            return
        more = 0 if said is None else said[1]
        self._since[key] = (now, 0)
        log.warn(
            "trigger {trigger_id}: a request was refused with {status}{more}: {detail}",
            trigger_id=trigger_id,
            status=status,
            more=f" ({more} more since the last line like this)" if more else "",
            detail=shown(detail),
        )
