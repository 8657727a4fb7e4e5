"""Log lines about refused requests: the first at once, then at most one a minute for each trigger and status."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.listener.problems import shown

EVERY = 60.0
"""Seconds between two lines for the same trigger and status."""

MOST = 1000
"""The most pairs of trigger and status that are tracked; beyond it nothing is logged until some are a minute old."""

log = Logger(namespace="harn.listener")


class Refusals:
    """Counts refused requests since the last line about them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: dict[tuple[str, int], tuple[float, int]] = {}

    def note(self, trigger_id: str, status: int, detail: str) -> None:
        """
        Record one refused request.

        :param detail: the text that its sender reads; logged for the request that causes a line.
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
