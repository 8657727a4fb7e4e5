"""
Log lines about refused requests: one immediately for each source, and one a minute while it continues.

A source is an address and what it asked for. Of one target so many sources have lines of their own, and so many of all;
the others are counted together, so that a stranger with many addresses writes no more than one with a few.
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
"""Sources of one target and status that have lines of their own in that time."""
SOURCES = 1000
"""Sources of all targets that have; also the targets whose other sources are counted apart."""
TRIGGER = "trigger "
NO_TARGET = "no trigger"
MANY = "many targets"
LOGGED = frozenset((400, 401, 403))
"""Refusals by pages, and of bytes that are not HTTP, that are logged: not the paths that strangers try."""
_STRANGE = frozenset((404, 405))

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest

Key = tuple[str, int, str]

log = Logger(namespace="harn.listener")


@define
class _Source:
    """
    Refused requests of one source since its last line.

    :ivar since: when that was (seconds of the clock).
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

        :param target: what it asked for, for example ``trigger gh``.
        :param detail: the text that its sender reads; logged for the request that causes a line.
        :param network: of the address; all of one network are one source.
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
        Write the counts since the last lines, of sources whose line is so many seconds old; drop those that ended.
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
    """Log that a request is refused, within bounds: by a trigger, or with a status of `LOGGED`."""
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
