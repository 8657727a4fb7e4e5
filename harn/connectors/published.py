"""
The addresses that senders publish, by name, for ``allow_from``: fetched each hour, the last good one kept for restarts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from attrs import define
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.connectors.fetching import DocumentState, DocumentUnavailable, IFetcher
from harn.errors import EventLogUnavailable
from harn.model.networks import PUBLISHED, Network
from harn.store.checkpoints import ICheckpoints

log = Logger(namespace="harn.connectors")

HOUR = 3600.0
"""Seconds between two fetches of a list."""
PAUSE = 60.0
"""Seconds until the second try after a failure; each further wait is twice as long, an hour at most."""
PREFIX = "addresses/"
"""The names of the records in the store: followed by the list's name."""
MOST = 10_000
LEAST_BITS = {4: 8, 6: 16}
"""The shortest prefix that a list may have: a list of nearly all addresses is a mistake, and would open a route."""


def read_published(document: bytes, member: str) -> tuple[Network, ...]:
    """
    Return the networks of a published list.

    :param member: the member of the document that has them.
    :raises ValueError: it has another shape, or a network that cannot be right.
    """
    try:
        texts = msgspec.convert(msgspec.json.decode(document), dict[str, Any]).get(member)
        return read_texts(msgspec.convert(texts, list[str]))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it has no list of addresses under {member}: {error}") from None


def read_texts(texts: Iterable[str]) -> tuple[Network, ...]:
    """
    Return the networks of texts.

    :raises ValueError: there are none, or too many, or one cannot be a sender's.
    """
    found = tuple(ipaddress.ip_network(text) for text in texts)
    if not 0 < len(found) <= MOST:
        raise ValueError(f"it must have from 1 to {MOST} networks, got {len(found)}")
    for each in found:
        if each.prefixlen < LEAST_BITS[each.version]:
            raise ValueError(f"{each} cannot be a sender's: it is a large part of all addresses")
    return found


class ListRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a list in the store: ``fetched_at`` is seconds, Unix."""

    networks: list[str]
    fetched_at: float


@define(eq=False)
class Known:
    """
    A list that is used.

    :ivar networks: the last good ones, fetched at ``fetched_at`` (seconds, Unix); None until there are some.
    :ivar error: of the last fetch; empty where that succeeded.
    :ivar due_at: when it is to be fetched again (seconds of the clock).
    :ivar timer: until the next fetch.
    :ivar running: what is under way.
    """

    name: str
    networks: tuple[Network, ...] | None = None
    fetched_at: float | None = None
    failures: int = 0
    error: str = ""
    due_at: float = 0.0
    timer: IDelayedCall | None = None
    running: Deferred[None] | None = None


class ListClocks(Struct, frozen=True):
    """The reactor's time, and the time of day."""

    clock: IReactorTime
    wall: WallTime


class PublishedLists(Service):
    """Keeps the lists that triggers use, while it runs; the lists stay in memory after that."""

    def __init__(self, clocks: ListClocks, fetcher: IFetcher, checkpoints: ICheckpoints) -> None:
        self._clock = clocks.clock
        self._wall = clocks.wall
        self._fetcher = fetcher
        self._checkpoints = checkpoints
        self._known: dict[str, Known] = {}
        self._warmed: dict[str, Known] = {}  # fetched for a generation that is not adopted yet, or never was

    def warm(self, names: Iterable[str]) -> list[Deferred[None]]:
        """Fetch those of these lists that are not known, once; return what is under way."""
        for name in names:
            if name in PUBLISHED and name not in self._known and name not in self._warmed:
                self._warmed[name] = Known(name)
                self._run(self._warmed[name], is_first=True, is_wanted=True)
        return [each.running for each in self._warmed.values() if each.running is not None]

    def states(self) -> Iterator[DocumentState]:
        """Yield how fetching goes, of each list in use."""
        for known in self._known.values():
            age = None if known.fetched_at is None else max(0.0, self._wall.seconds() - known.fetched_at)
            yield DocumentState(name=known.name, url=PUBLISHED[known.name][0], age=age, error=known.error)

    def networks(self, name: str) -> tuple[Network, ...] | None:
        """Return the networks of a list; None while none is known."""
        known = self._known.get(name)
        return None if known is None else known.networks

    def use(self, names: Iterable[str]) -> None:
        """Keep these lists from now on, too."""
        for name in names:
            if name in PUBLISHED and name not in self._known:
                known = self._known[name] = self._warmed.pop(name) if name in self._warmed else Known(name)
                if known.networks is not None:
                    self._wait(known)
                elif known.running is None:
                    self._begin(known)

    def startService(self) -> None:
        """Fetch the lists from now on; those in use already are read from the store before."""
        Service.startService(self)
        for known in self._known.values():
            if known.running is None and known.timer is None:
                self._begin(known)

    def stopService(self) -> None:
        """Fetch nothing more."""
        Service.stopService(self)
        for known in (*self._known.values(), *self._warmed.values()):
            if known.timer is not None and known.timer.active():
                known.timer.cancel()
            if known.running is not None:
                known.running.cancel()

    def _begin(self, known: Known) -> None:
        self._run(known, is_first=True)

    def _run(self, known: Known, *, is_first: bool = False, is_wanted: bool = False) -> None:
        known.timer = None
        running = Deferred.fromCoroutine(self._keep(known, is_first=is_first, is_wanted=is_wanted))
        if not running.called:
            known.running = running
        running.addErrback(_ended, known.name)

    async def _keep(self, known: Known, *, is_first: bool, is_wanted: bool) -> None:
        """Read the record, if there is no list yet, and fetch one unless that is new enough; set the next time."""
        try:
            wait = await self._read(known) if is_first else 0.0
            if (self.running or is_wanted) and wait <= 0:
                wait = await self._fetch(known)
        finally:
            known.running = None
        known.due_at = self._clock.seconds() + wait
        self._wait(known)

    def _wait(self, known: Known) -> None:
        """Set the time of the next fetch of a list that is in use."""
        if self.running and known.timer is None and self._known.get(known.name) is known:
            known.timer = self._clock.callLater(max(0.0, known.due_at - self._clock.seconds()), self._run, known)

    async def _read(self, known: Known) -> float:
        """Use the record of an earlier server; return the seconds for which it is new enough."""
        try:
            record = msgspec.convert(await self._checkpoints.get(PREFIX + known.name), ListRecord)
            known.networks, known.fetched_at = read_texts(record.networks), record.fetched_at
        except (EventLogUnavailable, ValueError, msgspec.ValidationError):
            return 0.0
        return min(HOUR, record.fetched_at + HOUR - self._wall.seconds())

    async def _fetch(self, known: Known) -> float:
        """Fetch a list; return the seconds until the next fetch."""
        url, member = PUBLISHED[known.name]
        try:
            known.networks = read_published(await self._fetcher.fetch(url), member)
        except (DocumentUnavailable, ValueError) as error:
            return self._failed(known, error if isinstance(error, DocumentUnavailable) else f"{url}: {error}")
        known.failures, known.error, known.fetched_at = 0, "", self._wall.seconds()
        record = ListRecord(networks=[str(each) for each in known.networks], fetched_at=known.fetched_at)
        try:
            await self._checkpoints.put(PREFIX + known.name, msgspec.to_builtins(record))
        except EventLogUnavailable as error:
            log.warn("the addresses of {name} are not kept for a restart: {why}", name=known.name, why=str(error))
        return HOUR

    def _failed(self, known: Known, why: object) -> float:
        wait = min(HOUR, PAUSE * 2.0 ** min(known.failures, 10))
        known.failures += 1
        known.error = str(why)
        kept = "the last list stays in use" if known.networks is not None else "its triggers answer 503 until then"
        log.warn(
            "the addresses of {name} cannot be fetched, and are tried again in {wait:g} s: {why}; {kept}",
            name=known.name,
            wait=wait,
            why=str(why),
            kept=kept,
        )
        return wait


def _ended(failure: Any, name: str) -> None:
    if failure.check(CancelledError) is None:
        log.failure("keeping the addresses of {name} failed", failure, name=name)
