"""The stored states of alerts, which survive restarts: one checkpoint for each, written soon after a change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.alerts.board import BoardEntry
from harn.alerts.model import PREFIX, AlertRecord
from harn.clocks import WallTime
from harn.errors import EventLogUnavailable
from harn.store.checkpoints import ICheckpoints

log = Logger(namespace="harn.alerts")

SOON = 1.0
"""Seconds for which changes are collected and then written together."""
RETRY = 10.0
"""Seconds until a failed write is retried."""


def record_of(entry: BoardEntry, now: float) -> AlertRecord:
    """Return the record to store for an alert."""
    rule, spec = entry.rule, entry.rule.spec
    return AlertRecord(
        name=rule.name,
        trigger_id=rule.trigger_id,
        on=spec.on,
        to=spec.to,
        target=entry.target.shown,
        threshold=spec.threshold,
        within=spec.within,
        every=spec.every,
        saved_at=now,
        state=entry.state,
        silence=None if entry.silence is None else entry.silence.record(),
    )


def read_records(kept: Mapping[str, Any]) -> dict[str, AlertRecord]:
    """Return the records of alerts among checkpoints, by key; damaged ones are left out, and logged."""
    found = {}
    for name, value in kept.items():
        try:
            found[name.removeprefix(PREFIX)] = msgspec.convert(value, AlertRecord)
        except msgspec.ValidationError as error:
            log.error("discarding the unreadable state {name!r}: {why}", name=name, why=str(error))
    return found


class Keeper:
    """Writes the states of alerts."""

    def __init__(self, clock: IReactorTime, wall: WallTime, checkpoints: ICheckpoints) -> None:
        self._clock = clock
        self._wall = wall
        self._checkpoints = checkpoints
        self._dirty: dict[str, BoardEntry] = {}
        self._timer: Any = None
        self._closed = False
        self._failed = False

    async def load(self) -> dict[str, AlertRecord]:
        """
        Return the records of an earlier server, by key.

        :raises EventLogUnavailable: the store cannot be read.
        """
        return read_records(await self._checkpoints.beginning(PREFIX))

    def mark(self, entry: BoardEntry) -> None:
        """Write the record of an alert soon; remove it if the alert is not in force and has no message to send."""
        self._dirty[entry.rule.key] = entry
        self._plan(SOON)

    async def save(self) -> None:
        """Write the changes now. A failed write is retried later, and logged the first time."""
        dirty, self._dirty = self._dirty, {}
        now = self._wall.seconds()
        writes = [(entry, self._checkpoints.put(PREFIX + key, _value(entry, now))) for key, entry in dirty.items()]
        for entry, write in writes:
            try:
                await write
            except EventLogUnavailable as error:
                self._dirty.setdefault(entry.rule.key, entry)
                if not self._failed:
                    log.warn("the state of alerts cannot be kept, trying again: {why}", why=str(error))
                self._failed = True
            else:
                self._failed = False
        if self._dirty:
            self._plan(RETRY)

    async def remove(self, keys: list[str]) -> None:
        """Remove stored records by key, of alerts that an earlier server had and that are not in force."""
        for write in [self._checkpoints.put(PREFIX + key, None) for key in keys]:
            try:
                await write
            except EventLogUnavailable:
                return  # they are removed at the next start

    def close(self) -> None:
        """Stop writing."""
        self._closed = True
        self._dirty.clear()
        self._cancel()

    def _plan(self, seconds: float) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(seconds, self._save_planned)

    def _save_planned(self) -> None:
        self._timer = None
        saving = Deferred.fromCoroutine(self.save())
        saving.addErrback(lambda failure: log.failure("saving the state of alerts failed", failure))

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _value(entry: BoardEntry, now: float) -> AlertRecord | None:
    return None if entry.is_retired and not entry.state.pending else record_of(entry, now)
