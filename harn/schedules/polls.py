"""
The polls of a server: one for each live trigger of kind ``poll``, whose function is called on a schedule.

The function runs in the interpreter of the live generation, like a handler, one call of a trigger at a time. Its events
and its next cursor are kept in one durable unit: a call that was interrupted before that, by a crash for example, is
made once more with the same cursor. A cursor belongs to the trigger: a reload neither loses nor resets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink
from harn.connectors.providers.poll import POLL, PollSettings, read_polled
from harn.errors import (
    AttemptFailed,
    CallInterrupted,
    EventLogUnavailable,
    GateShut,
    HandlerRetryAfter,
    PayloadInvalid,
    RouteUnknown,
    WrongState,
)
from harn.model.delivery import Checkpoint
from harn.reload.adopt import LiveGeneration
from harn.schedules.agenda import Agenda
from harn.schedules.cursors import (
    KEPT,
    LONGEST_ERROR,
    PREFIX,
    CursorRecord,
    PollFailure,
    describe_unknown_poll,
)
from harn.schedules.poll_entry import PAUSE, PollEntry, call_of, wait_after
from harn.store.checkpoints import ICheckpoints
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from harn.vm.calls import run_call

log = Logger(namespace="harn.schedules")

SHORTEST_PAUSE = 1.0
"""Seconds of the shortest wait that a function may ask for."""
MOST = 16
"""Calls that run at the same time."""


class PollClocks(Struct, frozen=True):
    """The reactor's time, and the time of day."""

    clock: IReactorTime
    wall: WallTime


class Polls(Service):
    """Calls the functions while it runs."""

    def __init__(
        self, clocks: PollClocks, checkpoints: ICheckpoints, registry: Registry, live: LiveGeneration, sink: IEventSink
    ) -> None:
        self._wall = clocks.wall
        self._checkpoints = checkpoints
        self._registry = registry
        self._live = live
        self._sink = sink
        self._agenda = Agenda(clocks.clock, clocks.wall, self)
        self.entries: dict[str, PollEntry] = {}
        self._leaving: dict[str, PollEntry] = {}  # removed, while something of them still runs
        self._running = 0
        self._leads = True

    # Starting, ending, reloads

    def startService(self) -> None:
        """Begin to call the functions. A trigger's cursor is read before its first call."""
        Service.startService(self)
        self.sync(self._registry.active)
        self._prune()
        if self._leads:
            self._agenda.start()

    def lead(self, *, leads: bool) -> None:
        """
        Begin to call the functions, or stop: of several servers on a store one calls them, and has their cursors.

        Until it does, a server keeps no cursor in memory, which another one changes.
        """
        if not leads or not self._leads:
            for entry in self.entries.values():
                if entry.running is None:
                    entry.record = None
        if leads is self._leads:
            return
        self._leads = leads
        if not self.running:
            return
        if leads:
            now = self._wall.seconds()
            for entry in self.entries.values():
                if entry.running is None:
                    self._plan(entry, now)
            self._agenda.start()
        else:
            self.pause()

    def stopService(self) -> Deferred[None]:
        """End the calls under way, which the next server makes again. Fires when nothing is being written."""
        Service.stopService(self)
        self.pause()
        entries = [*self.entries.values(), *self._leaving.values()]
        return DeferredList([entry.over() for entry in entries]).addCallback(lambda _: None)

    def pause(self) -> None:
        """Call no function any more: the server ends, or another program polls from now on."""
        self._agenda.stop()
        for entry in self.entries.values():
            entry.cut_off()

    def sync(self, trigger_ids: Iterable[str]) -> None:
        """Apply the changes that a start, a reload, or the end of a ramp made to these triggers."""
        if not self.running:
            return
        now = self._wall.seconds()
        for trigger_id in list(trigger_ids):
            binding, entry = self._registry.active.get(trigger_id), self.entries.get(trigger_id)
            spec = None if binding is None or binding.spec.kind != POLL else binding.spec
            if spec is None:
                if entry is not None:
                    self._remove(entry, now)
                continue
            settings = PollSettings.of(spec.settings)
            if entry is None:
                entry = self._leaving.pop(trigger_id, None) or PollEntry(trigger_id, settings, after=now)
                self.entries[trigger_id] = entry
            elif settings == entry.settings:
                continue
            entry.apply(settings)
            if entry.running is None:
                self._plan(entry, now)

    def _remove(self, entry: PollEntry, now: float) -> None:
        """Keep the cursor of a removed trigger for a day, so that a trigger that comes back continues from it."""
        del self.entries[entry.trigger_id]
        self._agenda.set(entry.trigger_id, None)
        if entry.running is None:
            self._note_removed(entry, now)
            return
        self._leaving[entry.trigger_id] = entry
        entry.cut_off()

    def _note_removed(self, entry: PollEntry, now: float) -> None:
        if entry.record is not None:
            entry.record = msgspec.structs.replace(entry.record, removed_at=now)
            self._put(PREFIX + entry.trigger_id, entry.record.value())

    def _put(self, name: str, value: Any) -> None:
        putting = self._checkpoints.put(name, value)
        putting.addErrback(lambda failure: log.warn("{name} is not kept: {why}", name=name, why=str(failure.value)))

    def _prune(self) -> None:
        """Delete the cursors of triggers that were removed long ago."""

        def found(records: Any) -> None:
            now = self._wall.seconds()
            for name, value in records.items():
                if name.removeprefix(PREFIX) in self.entries:
                    continue
                if value.get("removed_at") is None:  # removed while no server ran
                    self._put(name, {**value, "removed_at": now})
                elif value["removed_at"] + KEPT <= now:
                    self._put(name, None)

        reading = self._checkpoints.beginning(PREFIX).addCallback(found)
        reading.addErrback(lambda failure: log.warn("cursors cannot be read: {why}", why=str(failure.value)))

    def set_back(self, looked_at: float) -> None:
        """See `harn.schedules.agenda.Owner`."""
        now = self._wall.seconds()
        for entry in self.entries.values():
            if entry.running is None:
                self._plan(entry, now, wait_after(entry.failures) if entry.failures else None)

    # Calling

    def due(self, trigger_id: str) -> int:
        """See `harn.schedules.agenda.Owner`."""
        entry, binding = self.entries.get(trigger_id), self._registry.active.get(trigger_id)
        if entry is None or binding is None or entry.running is not None or entry.lock.locked:
            return 0
        if self._running >= MOST:
            self._agenda.set(trigger_id, self._wall.seconds() + 1.0)
            return 0
        self._running += 1
        running = Deferred.fromCoroutine(self._poll(entry, binding))
        if not running.called:
            entry.running = running
        running.addBoth(self._over, entry)
        return 1

    def _over(self, wait: object, entry: PollEntry) -> None:
        """Plan the next call after ``wait`` seconds or as scheduled; or note that the trigger was removed."""
        self._running -= 1
        entry.running = None
        now = self._wall.seconds()
        if self._leaving.get(entry.trigger_id) is entry:
            del self._leaving[entry.trigger_id]
            self._note_removed(entry, now)
        elif self.entries.get(entry.trigger_id) is entry:
            self._plan(entry, now, wait if isinstance(wait, float) else None)

    async def _poll(self, entry: PollEntry, binding: BindingVersion) -> float | None:
        """Call the function once. Return the seconds until the next call; None for the schedule's next time."""
        try:
            wait = await self._call_and_keep(entry, binding)
            entry.unkept = 0
            return wait
        except (CallInterrupted, EventLogUnavailable) as error:
            if isinstance(error, EventLogUnavailable):
                entry.unkept += 1
            wait = wait_after(entry.unkept)
            log.warn(
                "{binding}: the poll is made again in {wait:g} s: {why}", binding=binding.key, wait=wait, why=str(error)
            )
            return wait
        except (AttemptFailed, PayloadInvalid) as error:
            return self._failed(entry, binding, error)
        except (CancelledError, GateShut):
            return None
        except Exception:
            log.failure("{binding}: the poll failed", binding=binding.key)
            return PAUSE

    def _failed(self, entry: PollEntry, binding: BindingVersion, error: Exception) -> float:
        """Count, log and store a failure of the function. Return the seconds to wait."""
        entry.failed += 1
        entry.calls += 1
        now, kind = self._wall.seconds(), getattr(error, "error_class", type(error).__name__)
        failure = PollFailure(at=now, error=f"{kind}: {error}"[:LONGEST_ERROR], count=entry.failures + 1)
        entry.record = msgspec.structs.replace(entry.record or CursorRecord(), failure=failure)
        self._put(PREFIX + entry.trigger_id, entry.record.value())
        wait = wait_after(failure.count)
        if isinstance(error, HandlerRetryAfter) and error.seconds is not None:
            wait = max(SHORTEST_PAUSE, error.seconds)
        log.warn(
            "{binding}: the poll failed ({failures} in a row), and its cursor stays; the next is made in {wait:g} s:"
            " {kind}: {why}",
            binding=binding.key,
            failures=failure.count,
            wait=wait,
            kind=kind,
            why=str(error),
        )
        return wait

    async def _call_and_keep(self, entry: PollEntry, binding: BindingVersion) -> float | None:
        """
        Call the function, and write what it returned. Return the seconds until the next call; None for the schedule's.

        When the function has returned, nothing is interrupted any more: the commit may be durable already.
        """
        entry.asking = asking = Deferred.fromCoroutine(self._ask(entry, binding))
        try:
            before, result = await asking
        finally:
            entry.asking = None
        cursor = bytes(before.cursor)
        polled = read_polled(result, entry.trigger_id, cursor)
        now = self._wall.seconds()
        if polled.events or polled.cursor != cursor:
            record = CursorRecord(cursor=msgspec.Raw(polled.cursor), polled_at=now)
            await self._sink.take_all(
                entry.trigger_id, polled.events, Checkpoint(PREFIX + entry.trigger_id, record.encoded())
            )
            entry.record = record
        elif before.failure is not None:
            entry.record = msgspec.structs.replace(before, failure=None)
            self._put(PREFIX + entry.trigger_id, entry.record.value())
        entry.polled_at = now
        entry.calls += 1
        return 0.0 if polled.more and polled.cursor != cursor else None

    async def _ask(self, entry: PollEntry, binding: BindingVersion) -> tuple[CursorRecord, bytes]:
        """Return the record with the cursor, and what the function returned for that cursor."""
        record = await self._record_of(entry)
        return record, await self._call(entry, binding, bytes(record.cursor))

    async def _record_of(self, entry: PollEntry) -> CursorRecord:
        """Return the record of a trigger; the first time, read it from the store."""
        return entry.record or self._read(entry, await self._checkpoints.get(PREFIX + entry.trigger_id))

    def _read(self, entry: PollEntry, value: Any) -> CursorRecord:
        """Use the stored record. Of a trigger that is there again, remove the time of its removal."""
        found = CursorRecord.of(value, self._wall.seconds())
        entry.record = msgspec.structs.replace(found, removed_at=None)
        entry.polled_at = entry.polled_at or found.polled_at
        if found.removed_at is not None:
            self._put(PREFIX + entry.trigger_id, entry.record.value())
        return entry.record

    async def _call(self, entry: PollEntry, binding: BindingVersion, cursor: bytes) -> bytes:
        live = self._live.current
        if live is None:
            raise GateShut("no generation is live")
        interpreter = live.interpreter.retain()
        try:
            returned = await run_call(interpreter.value, call_of(binding, cursor, entry.failures + 1))
        finally:
            interpreter.release()
        return returned.result or b"null"

    def _plan(self, entry: PollEntry, now: float, wait: float | None = None) -> None:
        """Set when the function is called next: after ``wait`` seconds, or as scheduled if that is None."""
        entry.after = now - entry.delay
        if wait is not None:
            self._agenda.set(entry.trigger_id, now + wait)
            return
        following = entry.times.following(entry.after)
        self._agenda.set(entry.trigger_id, None if following is None else following + entry.delay)

    # Looking, and setting cursors

    def entry(self, trigger_id: str) -> PollEntry:
        """
        Return the polls of a trigger.

        :raises RouteUnknown: no trigger has that id, or the trigger does not poll.
        """
        entry = self.entries.get(trigger_id)
        if entry is None:
            raise RouteUnknown(describe_unknown_poll(trigger_id, self.entries))
        return entry

    async def records(self, trigger_ids: Iterable[str]) -> Mapping[str, CursorRecord]:
        """
        Return the records of these polls that are stored.

        :raises EventLogUnavailable: one cannot be read.
        """
        entries = [entry for each in trigger_ids if (entry := self.entries.get(each)) is not None]
        if any(entry.record is None for entry in entries):
            kept = await self._checkpoints.beginning(PREFIX)
            for entry in entries:
                if entry.record is None:
                    self._read(entry, kept.get(PREFIX + entry.trigger_id))
        return {entry.trigger_id: entry.record for entry in entries if entry.record is not None}

    async def set_cursor(self, trigger_id: str, cursor: bytes) -> CursorRecord:
        """
        Set the cursor that the next call gets; a call that runs is interrupted, unless it has returned already.

        :param cursor: as JSON.
        :return: the earlier record.
        :raises RouteUnknown: there is no such poll.
        :raises WrongState: another server on the store calls it.
        :raises EventLogUnavailable: the store refused the cursor; the earlier one stays.
        """
        entry = self.entry(trigger_id)
        if not self._leads:
            raise WrongState(
                f"another server calls the poll of {trigger_id!r}, and has its cursor: set it there, on the one that"
                " `harn orchestrator servers` shows as leading"
            )
        await entry.lock.acquire()
        try:
            entry.cut_off()
            await entry.over()
            before = await self._record_of(entry)
            record = CursorRecord(cursor=msgspec.Raw(cursor), polled_at=before.polled_at)
            await self._checkpoints.put(PREFIX + trigger_id, record.value())
            entry.record, entry.unkept = record, 0
        finally:
            entry.lock.release()
            now = self._wall.seconds()
            if self.entries.get(trigger_id) is entry:
                self._plan(entry, now)
            elif entry.record is not None:
                self._note_removed(entry, now)
        return before

    def next_of(self, trigger_id: str) -> float | None:
        """Return when a trigger is called next (seconds, Unix)."""
        return self._agenda.at(trigger_id)
