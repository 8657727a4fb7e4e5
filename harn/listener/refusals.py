"""
Log lines about refused requests: for each source one at once, then one a minute while it is refused further.

A source is a network of addresses, a target and a status. Only `SOURCES_OF_ONE` sources of one target and status, and
`SOURCES` in all, have their own lines. Requests of other sources are counted together, so that a sender with many
addresses does not fill the log.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.listener.problems import shown

EVERY = 60.0
"""Seconds between two lines for the same source."""
SOURCES_OF_ONE = 20
"""Sources of one target and status that have their own lines in `EVERY` seconds."""
SOURCES = 1000
"""Sources in all that have their own lines; also the number of targets whose other sources are counted separately."""
TRIGGER = "trigger "
NO_TARGET = "no trigger"
MANY = "many targets"
LOGGED = frozenset((400, 401, 403))
"""The statuses of refusals without a trigger that are logged: not 404, for unknown paths."""
_STRANGE = frozenset((404, 405))

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest

Key = tuple[str, int, str]

log = Logger(namespace="harn.listener")


@define
class _Source:
    """
    The refused requests of one source since its last line.

    :ivar since: the time of that line (seconds of the clock).
    """

    since: float
    detail: str
    more: int = 0


@define
class _Others:
    """Refused requests of sources without lines of their own; ``last`` is the address of the last one."""

    since: float
    detail: str
    last: str
    count: int = 0
    networks: set[str] = field(factory=set)


class Refusals:
    """Counts refused requests by source, and writes the lines."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._sources: dict[Key, _Source] = {}
        self._of_one: Counter[tuple[str, int]] = Counter()
        self._others: dict[tuple[str, int], _Others] = {}
        self._timer: IDelayedCall | None = None

    def note(self, target: str, status: int, detail: str, address: str, network: str) -> None:
        """
        Record one refused request.

        :param target: the requested trigger or page, for example ``trigger gh``.
        :param status: the status code of the response.
        :param detail: the detail of the problem document; a line has that of the last request that it counts.
        :param address: the address of the sender.
        :param network: the network of the address; addresses of one network are one source.
        """
        now = self._clock.seconds()
        key = (target, status, network)
        source = self._sources.get(key)
        if source is not None:
            source.more += 1
            source.detail = detail
            return
        if self._timer is None:
            self._timer = self._clock.callLater(EVERY, self._due)
        of_one = (target, status)
        if len(self._sources) >= SOURCES or self._of_one[of_one] >= SOURCES_OF_ONE:
            self._note_other(of_one, detail, address, network, now)
            return
        self._sources[key] = _Source(now, detail)
        self._of_one[of_one] += 1
        _write("{who}: a request from {address} was refused with {status}: {detail}", target, status, detail, address)

    def close(self) -> None:
        """Write the last lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_more(0.0)

    def _note_other(self, of_one: tuple[str, int], detail: str, address: str, network: str, now: float) -> None:
        if of_one not in self._others and len(self._others) >= SOURCES:
            of_one = (MANY, of_one[1])
        others = self._others.get(of_one)
        if others is None:
            others = self._others[of_one] = _Others(now, detail, address)
        others.count += 1
        others.detail, others.last = detail, address
        if len(others.networks) < SOURCES:
            others.networks.add(network)

    def _due(self) -> None:
        self._timer = None
        self._write_more(EVERY)
        if self._sources:
            self._timer = self._clock.callLater(EVERY, self._due)

    def _write_more(self, age: float) -> None:
        """
        Write a line for each source with further refusals whose last line is at least ``age`` seconds old.

        Remove the sources without further refusals.
        """
        now = self._clock.seconds()
        others, self._others = self._others, {}
        for (target, status), each in others.items():
            count = f"{len(each.networks)}{'' if len(each.networks) < SOURCES else ' or more'}"
            text = "{who}: {count} more requests from {others} further addresses were refused with {status} in"
            text += " {seconds} s, the last one from {address}: {detail}"
            more = {"count": each.count, "others": count, "seconds": round(now - each.since)}
            _write(text, target, status, each.detail, each.last, **more)
        for key, source in list(self._sources.items()):
            if now - source.since < age:
                continue
            target, status, network = key
            if source.more:
                text = "{who}: {count} more requests from {address} were refused with {status} in {seconds} s: {detail}"
                more = {"count": source.more, "seconds": round(now - source.since)}
                _write(text, target, status, source.detail, network, **more)
                source.since, source.more = now, 0
                continue
            del self._sources[key]
            self._of_one[target, status] -= 1
            if not self._of_one[target, status]:
                del self._of_one[target, status]


def note_refusal(request: HarnRequest, status: int, detail: str) -> None:
    """Log the refusal of a request for a trigger, or with a status of `LOGGED`; the number of lines is limited."""
    channel, route = request.channel, request.route
    if channel is None or request.answered is not None:
        return
    if route is not None:
        if status not in _STRANGE:
            channel.note_refusal(TRIGGER + route.binding.id, status, detail)
    elif status in LOGGED:
        page = "" if request.place is None else request.place.endpoint(request).split("/")[1]
        channel.note_refusal(f"page /{page}" if page else NO_TARGET, status, detail)


def _write(text: str, target: str, status: int, detail: str, address: str, **more: Any) -> None:
    trigger = {"trigger_id": target.removeprefix(TRIGGER)} if target.startswith(TRIGGER) else {}
    log.warn(text, who=target, status=status, detail=shown(detail), address=address, **trigger, **more)
