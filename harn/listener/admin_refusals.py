"""
Audit records of requests that the admin API refuses: at most one a minute for each source.

A source is a network, a credential and a reason. The number of records a minute of all sources together is limited too,
so that a client with many addresses cannot fill the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import Refused
from harn.listener.problems import shown
from harn.operations.model import Caller
from harn.operations.registry import FAILED, TOPIC, AuditRecord, Records, new_record_id

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest

REFUSED = "admin.refused"
"""The kind of these records."""
ANONYMOUS = "anonymous"
"""The actor of a request without accepted credentials."""
EVERY = 60.0
"""Seconds between two records of one source."""
MOST = 60
"""The most records of all sources within that time."""

Source = tuple[str, str, type[Refused]]

log = Logger(namespace="harn.listener")


@define
class _Noted:
    """A source that has a record: when it was written (reactor's seconds), and how many were refused since."""

    at: float
    since: int = 0


class AdminRefusals:
    """Records refused requests, within these limits."""

    def __init__(self, clock: IReactorTime, wall: WallTime, records: Records) -> None:
        self._clock = clock
        self._wall = wall
        self._records = records
        self._noted: dict[Source, _Noted] = {}

    def note(self, request: HarnRequest, error: Refused, caller: Caller | None = None) -> None:
        """
        Record a refused request; only count it if its source has a record of this minute.

        :param caller: the sender of the request; None if unknown.
        """
        channel = request.channel
        network = "" if channel is None else channel.source
        actor = ANONYMOUS if caller is None else caller.actor
        source, now = (network, actor, type(error)), self._clock.seconds()
        noted = self._noted.get(source)
        if noted is not None and now - noted.at < EVERY:
            noted.since += 1
            return
        before = 0 if noted is None else noted.since
        self._drop_old(now)
        if source not in self._noted and len(self._noted) >= MOST:
            return
        self._noted[source] = _Noted(now)
        record = AuditRecord(
            id=new_record_id(self._wall.seconds()),
            actor=actor,
            role=UNSET if caller is None else caller.role.value,
            operation=REFUSED,
            parameters={
                "address": "" if channel is None else channel.address,
                "method": shown(request.method.decode("latin-1")),
            },
            filter={},
            outcome=FAILED,
            counts={"refused": before + 1},
            error=shown(str(error)),
        )
        writing = Deferred.fromCoroutine(self._records.note(TOPIC, REFUSED, record))
        writing.addErrback(lambda failure: log.failure("a refused request was not recorded", failure))

    def _drop_old(self, now: float) -> None:
        """Drop the sources whose record is older than a minute."""
        self._noted = {source: noted for source, noted in self._noted.items() if now - noted.at < EVERY}
