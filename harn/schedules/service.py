"""
The schedules of a server: one for each live trigger of kind ``cron``, whose ticks become events.

They belong to the trigger, not to a version: a reload that leaves a schedule as it is does not touch it. Each tick is
accepted together with the note that it was fired, in one durable unit, under a dedupe key made of its time. So it is
fired once, whatever restarts, upgrades and steps of the clock happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime, rfc3339
from harn.connectors.interfaces import IEventSink
from harn.connectors.providers.cron import CRON, SKIP, CronSettings, make_tick
from harn.errors import EventLogUnavailable, GateShut
from harn.model.delivery import Checkpoint
from harn.schedules.agenda import Agenda
from harn.schedules.cron_entry import Change, CronEntry, Firing
from harn.schedules.ticks import DAY, Owed, TickRecord, TickSpan, begins_at, owed
from harn.store.checkpoints import ICheckpoints
from harn.triggers.registry import Registry
from harn.waiting import retry

log = Logger(namespace="harn.schedules")

GRACE = 60.0
"""Seconds by which a tick may be late while the server runs; what is later counts as missed."""
PAUSE = 5.0
"""Seconds after which a tick that could not be kept is tried again."""
KEPT = 86400.0
"""Seconds for which it is kept what a removed trigger has fired."""
PREFIX = "cron/"
"""The names of the records in the store: followed by the trigger's id."""


class Schedules(Service):
    """
    Fires the ticks of schedules while it runs.

    :param takes_over: the server takes the place of another program, which fires until it is paused: ticks from now on
        are on time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        checkpoints: ICheckpoints,
        registry: Registry,
        sink: IEventSink,
        *,
        takes_over: bool = False,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._checkpoints = checkpoints
        self._registry = registry
        self._sink = sink
        self._since = wall.seconds() if takes_over else None
        self._agenda = Agenda(clock, wall, self)
        self.entries: dict[str, CronEntry] = {}
        self._removed: dict[str, TickRecord] = {}  # by trigger id, the one that was removed first before the others
        self._is_loaded = False
        self._loading: Deferred[None] | None = None
        self._taking: set[Deferred[None]] = set()
        self._has_failed = False

    # Starting and ending

    def startService(self) -> None:
        """Read the records of earlier servers, then begin."""
        Service.startService(self)
        self._loading = Deferred.fromCoroutine(self._load())
        self._loading.addErrback(_not_started)

    def stopService(self) -> Deferred[None]:
        """Fire no tick any more. The Deferred fires when all fired ticks are durable."""
        Service.stopService(self)
        self._agenda.stop()
        if self._loading is not None:
            self._loading.cancel()
        return DeferredList(list(self._taking)).addCallback(lambda _: None)

    def pause(self) -> None:
        """Fire no tick any more: the server ends, or another program fires from now on."""
        self._agenda.stop()

    async def _read_records(self) -> Mapping[str, Any]:
        try:
            return await self._checkpoints.beginning(PREFIX)
        except EventLogUnavailable as error:
            log.warn("the records of schedules cannot be read, trying again: {why}", why=str(error))
            raise

    async def _load(self) -> None:
        records = await retry(self._clock, self._read_records, EventLogUnavailable, pause=PAUSE)
        self._is_loaded = True
        now = self._wall.seconds()
        since = now if self._since is None else self._since
        for trigger_id in self._registry.active:
            settings = self._settings_of(trigger_id)
            if settings is not None:
                self._begin(trigger_id, settings, TickRecord.read(records.get(PREFIX + trigger_id)), since)
        for name in records.keys() - {PREFIX + trigger_id for trigger_id in self.entries}:
            self._load_removed(name, TickRecord.read(records[name]), now)
        self._removed = dict(sorted(self._removed.items(), key=lambda item: item[1].removed_at or now))
        self._prune(now)
        self._agenda.start()

    def _load_removed(self, name: str, record: TickRecord | None, now: float) -> None:
        """Keep the record of a trigger that the manifest does not have."""
        if record is None:
            self._put(name, None)
            return
        if record.removed_at is None:  # removed while no server ran
            record = msgspec.structs.replace(record, removed_at=now)
            self._put(name, record)
        self._removed[name.removeprefix(PREFIX)] = record

    def _prune(self, now: float) -> None:
        """Delete the records of triggers that were removed long ago."""
        while self._removed:
            trigger_id, record = next(iter(self._removed.items()))
            if (record.removed_at or 0.0) + KEPT > now:
                break
            del self._removed[trigger_id]
            self._put(PREFIX + trigger_id, None)

    def _begin(self, trigger_id: str, settings: CronSettings, record: TickRecord | None, since: float) -> None:
        """Begin a schedule. The agenda finds its first tick later, since that takes long for thousands of schedules."""
        now = self._wall.seconds()
        entry = CronEntry(trigger_id, settings, since, since)
        entry.covered = begins_at(record, settings, now, since, entry.delay)
        entry.fired = None if record is None else record.fired
        self.entries[trigger_id] = entry
        if record is None or (record.schedule, record.timezone) != (settings.schedule, settings.timezone):
            self._note_beginning(entry)
        elif record.removed_at is not None:
            self._put(PREFIX + trigger_id, entry.record(entry.covered, entry.fired))
        self._agenda.set(trigger_id, now)

    def _note_beginning(self, entry: CronEntry) -> None:
        """Keep since when a schedule is in force, where a later server must know which ticks are still to be fired."""
        if entry.settings.catchup_mode != SKIP or entry.delay:
            self._put(PREFIX + entry.trigger_id, entry.record(entry.covered, entry.fired))

    def _put(self, name: str, record: TickRecord | None) -> None:
        putting = self._checkpoints.put(name, None if record is None else msgspec.to_builtins(record))
        putting.addErrback(lambda failure: log.warn("{name} is not kept: {why}", name=name, why=str(failure.value)))

    # Reloads

    def sync(self, trigger_ids: Iterable[str]) -> None:
        """Apply the changes that a reload, or the end of a ramp, made to these triggers."""
        if not self._is_loaded:
            return
        now = self._wall.seconds()
        self._prune(now)
        for trigger_id in trigger_ids:
            settings, entry = self._settings_of(trigger_id), self.entries.get(trigger_id)
            if settings is None:
                if entry is not None:
                    self._remove(entry, now)
            elif entry is None:
                self._begin(trigger_id, settings, self._removed.pop(trigger_id, None), now)
            elif settings != entry.newest:
                entry.changes.append(Change(settings, now))
                self._advance(entry)

    def _remove(self, entry: CronEntry, now: float) -> None:
        """Keep the record of a removed trigger for a day, so that a trigger that comes back continues from it."""
        del self.entries[entry.trigger_id]
        self._agenda.set(entry.trigger_id, None)
        record = msgspec.structs.replace(entry.record(entry.covered, entry.fired), removed_at=now)
        self._removed[entry.trigger_id] = record
        self._put(PREFIX + entry.trigger_id, record)

    def _advance(self, entry: CronEntry) -> int:
        """
        Use new settings: ticks before their time are those of the old schedule, later ones those of the new.

        :return: the number of ticks of the old schedule that were fired; if any, it continues when they are durable.
        """
        was, change = entry.settings, entry.changes[0]
        is_other = msgspec.structs.replace(was, catchup_mode=change.settings.catchup_mode) != change.settings
        if is_other or entry.firing is not None:
            count = self._fire(entry, change.at)  # a tick that the old jitter delays, too
            if count or entry.firing is not None:
                return count
        entry.changes.popleft()
        entry.apply(change.settings)
        if (was.schedule, was.timezone) != (change.settings.schedule, change.settings.timezone):
            entry.covered = change.at
        self._note_beginning(entry)
        self._plan(entry)
        return 0

    def _settings_of(self, trigger_id: str) -> CronSettings | None:
        """Return the settings of a live trigger; None unless it has a schedule."""
        binding = self._registry.active.get(trigger_id)
        if binding is None or binding.spec.kind != CRON or binding.spec.provider != CRON:
            return None
        return CronSettings.of(binding.spec.settings)

    # Firing

    def due(self, trigger_id: str) -> int:
        """See `harn.schedules.agenda.Owner`."""
        entry = self.entries.get(trigger_id)
        if entry is None:
            return 0
        return self._advance(entry) if entry.changes else self._fire(entry, self._wall.seconds() - entry.delay)

    def _fire(self, entry: CronEntry, until: float) -> int:
        """Fire the ticks of a schedule up to one of its times (seconds, Unix). Return their number."""
        if entry.is_taken:
            return 0
        if entry.firing is None:
            on_time_from = max(entry.since, self._wall.seconds() - GRACE) - entry.delay
            span = TickSpan(after=entry.covered, until=until, on_time_from=on_time_from)
            found = owed(entry.times, span, entry.settings.catchup_mode)
            if found.passed_over is not None:
                self._note_missed(entry, found)
            if not found.ticks:
                entry.covered = max(entry.covered, found.covered)
                self._plan(entry)
                return 0
            entry.firing = _firing(entry, found)
        firing = entry.firing
        self._take(entry, firing)
        return len(firing.events)

    def _take(self, entry: CronEntry, firing: Firing) -> None:
        entry.is_taken = True
        taking = self._sink.take_all(entry.trigger_id, firing.events, firing.checkpoint)
        taking.addCallbacks(
            lambda _: self._fired(entry, firing), lambda failure: self._not_fired(failure, entry, firing)
        )
        if not taking.called:
            self._taking.add(taking)
            taking.addBoth(lambda _: self._taking.discard(taking))

    def _fired(self, entry: CronEntry, firing: Firing) -> None:
        entry.firing, entry.is_taken = None, False
        # No further than to now, unless the clock was set back since: what was passed over may come once more.
        covered = min(firing.covered, max(firing.fired, self._wall.seconds()))
        entry.covered, entry.fired = max(entry.covered, covered), firing.fired
        self._has_failed = False
        self._plan(entry)

    def _not_fired(self, failure: Failure, entry: CronEntry, firing: Firing) -> None:
        entry.is_taken = False
        if failure.check(EventLogUnavailable) is not None:
            if not self._has_failed:
                log.warn("ticks cannot be kept and are tried again: {why}", why=failure.getErrorMessage())
            self._has_failed = True
            if self.entries.get(entry.trigger_id) is entry:
                self._agenda.set(entry.trigger_id, self._wall.seconds() + PAUSE)
            return
        if failure.check(GateShut) is None:
            log.failure("a tick of {trigger} cannot be accepted", failure, trigger=entry.trigger_id)
        self._fired(entry, firing)  # so that it does not fail again and again

    def _plan(self, entry: CronEntry) -> None:
        """Set when an entry is due next."""
        if self.entries.get(entry.trigger_id) is not entry or entry.is_taken:
            return
        if entry.changes:
            self._agenda.set(entry.trigger_id, self._wall.seconds())
        else:
            following = entry.times.following(entry.covered)
            self._agenda.set(entry.trigger_id, None if following is None else following + entry.delay)

    def _note_missed(self, entry: CronEntry, found: Owed) -> None:
        entry.missed += 1
        log.warn(
            '{trigger}: ticks from {first} on were missed and are passed over (catchup_mode = "{mode}")',
            trigger=entry.trigger_id,
            first=rfc3339(found.passed_over or 0.0),
            mode=entry.settings.catchup_mode,
        )

    def set_back(self, looked_at: float) -> None:
        """See `harn.schedules.agenda.Owner`: what was passed over comes once more, what has fired does not."""
        for entry in self.entries.values():
            entry.since = min(entry.since, looked_at)
            begin = looked_at - entry.delay
            if entry.covered > begin:
                is_right = entry.fired is not None and entry.fired - begin <= DAY  # else the clock was wrong by days
                entry.covered = max(begin, entry.fired or 0.0) if is_right else begin
            elif entry.firing is None:
                continue
            self._agenda.set(entry.trigger_id, self._wall.seconds())

    # Looking

    def next_of(self, trigger_id: str) -> float | None:
        """Return when a trigger fires next (seconds, Unix)."""
        return self._agenda.at(trigger_id)


def _not_started(failure: Failure) -> None:
    if failure.check(CancelledError) is None:
        log.failure("the schedules cannot be started", failure)


def _firing(entry: CronEntry, found: Owed) -> Firing:
    """Return the events of ticks, and the checkpoint that they were fired."""
    last = found.ticks[-1]
    return Firing(
        events=tuple(
            make_tick(entry.trigger_id, entry.settings, at, is_late=index < found.late)
            for index, at in enumerate(found.ticks)
        ),
        checkpoint=Checkpoint(PREFIX + entry.trigger_id, msgspec.json.encode(entry.record(last, last))),
        covered=found.covered,
        fired=last,
    )
