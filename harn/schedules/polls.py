"""
The polls of a server: one for each live trigger of kind ``poll``, whose function is called on a schedule.

The function runs in the interpreter of the live generation, like a handler, one call of a trigger at a time. Its events
and its next cursor are kept in one durable unit: a call that was interrupted before that, by a crash for example, is
made once more with the same cursor. A cursor belongs to the trigger: a reload neither loses nor resets it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.connectors.interfaces import IEventSink
from harn.connectors.providers.poll import POLL, PollSettings, read_polled
from harn.connectors.schedule import Schedule, delay_of
from harn.errors import AttemptFailed, CallInterrupted, EventLogUnavailable, GateShut, HandlerRetryAfter, PayloadInvalid
from harn.manifest.model import TriggerSpec
from harn.model.delivery import Checkpoint
from harn.reload.adopt import LiveGeneration
from harn.schedules.agenda import Agenda
from harn.schedules.upcoming import Timed
from harn.store.generations import ICheckpoints
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from harn.vm.calls import run_call
from harn.vm.interfaces import Call

log = Logger(namespace="harn.schedules")

PREFIX = "poll/"
"""The names of the records in the store: followed by the trigger's id."""
KEPT = 86400.0
"""Seconds for which the cursor of a removed trigger is kept."""
PAUSE = 5.0
"""Seconds until a call is made again that was interrupted by something else, or could not be kept."""
SHORTEST_PAUSE = 1.0
"""Seconds of the shortest wait that a function may ask for."""
LONGEST_PAUSE = 900.0
"""Seconds of the longest wait after failures."""
MOST = 16
"""Calls that run at once."""


class CursorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The record of a poll in the store: its cursor, as any JSON value.

    :ivar removed_at: when its trigger was removed (seconds, Unix); None while it is there.
    """

    cursor: msgspec.Raw
    polled_at: float | None = None
    removed_at: float | None = None


@define(eq=False)
class Entry:
    """
    The polls of one trigger.

    :ivar cursor: as JSON; None until it was read. ``polled_at``: when the last call ended (seconds, Unix).
    :ivar running: the call that runs, or what it returned on its way to the store.
    :ivar unkept: calls in a row whose answers could not be kept.
    :ivar failures: calls in a row that failed. ``failed``: all of them; ``calls``: all calls that ended.
    """

    trigger_id: str
    settings: PollSettings
    after: float
    cursor: bytes | None = None
    polled_at: float | None = None
    running: Deferred[None] | None = None
    unkept: int = 0
    failures: int = 0
    failed: int = 0
    calls: int = 0
    times: Schedule = field(init=False)
    delay: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.apply(self.settings)

    def apply(self, settings: PollSettings) -> None:
        """Put settings in force."""
        self.settings = settings
        self.times = settings.times()
        self.delay = delay_of(self.trigger_id, settings.longest_delay())

    def timed(self) -> Timed:
        """Return its next tick."""
        return timed_of(self.trigger_id, self.settings, self.after)


def timed_of(trigger_id: str, settings: PollSettings, after: float) -> Timed:
    """Return the schedule of a trigger, of which everything up to ``after`` (seconds, Unix) is dealt with."""
    return Timed(
        trigger_id=trigger_id,
        times=settings.times(),
        delay=delay_of(trigger_id, settings.longest_delay()),
        after=after,
        schedule=settings.schedule or f"every {settings.every}",
        timezone=settings.timezone,
    )


@frozen
class PollClocks:
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
        self.entries: dict[str, Entry] = {}
        self._running = 0

    # Starting, ending, reloads

    def startService(self) -> None:
        """Begin; cursors are read before the first call of each trigger."""
        Service.startService(self)
        self.sync(self._registry.active)
        self._prune()
        self._agenda.start()

    def stopService(self) -> Deferred[None]:
        """End the calls that run, which are made again by the next server; fires when nothing is on its way."""
        Service.stopService(self)
        self.pause()
        running = [entry.running for entry in self.entries.values() if entry.running is not None]
        return DeferredList(running).addCallback(lambda _: None)

    def pause(self) -> None:
        """Call nothing more: the server ends, or another program polls from now on."""
        self._agenda.stop()
        for entry in self.entries.values():
            if entry.running is not None:
                entry.running.cancel()

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
                entry = self.entries[trigger_id] = Entry(trigger_id, settings, after=now)
                self._plan(entry, now)
            elif settings != entry.settings:
                entry.apply(settings)
                if entry.running is None:
                    self._plan(entry, now)

    def _remove(self, entry: Entry, now: float) -> None:
        """Keep the cursor for a day: a trigger that comes back goes on."""
        del self.entries[entry.trigger_id]
        self._agenda.set(entry.trigger_id, None)
        if entry.running is not None:
            entry.running.cancel()
        if entry.cursor is not None:
            record = CursorRecord(cursor=msgspec.Raw(entry.cursor), polled_at=entry.polled_at, removed_at=now)
            self._put(PREFIX + entry.trigger_id, msgspec.json.decode(msgspec.json.encode(record)))

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
        if entry is None or binding is None or entry.running is not None:
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

    def _over(self, result: object, entry: Entry) -> None:
        self._running -= 1
        entry.running = None

    async def _poll(self, entry: Entry, binding: BindingVersion) -> None:
        """Call the function once, and set when it is called next."""
        wait: float | None = None
        try:
            wait = await self._call_and_keep(entry, binding)
            entry.failures = entry.unkept = 0
        except (CallInterrupted, EventLogUnavailable) as error:
            if isinstance(error, EventLogUnavailable):
                entry.unkept += 1
            wait = wait_after(entry.unkept)
            log.warn(
                "{binding}: the poll is made again in {wait:g} s: {why}", binding=binding.key, wait=wait, why=str(error)
            )
        except (AttemptFailed, PayloadInvalid) as error:
            wait = self._failed(entry, binding, error)
        except (CancelledError, GateShut):
            return
        except Exception:
            log.failure("{binding}: the poll failed", binding=binding.key)
            wait = PAUSE
        now = self._wall.seconds()
        entry.running = None
        if self.entries.get(entry.trigger_id) is entry:
            self._plan(entry, now, wait)

    def _failed(self, entry: Entry, binding: BindingVersion, error: Exception) -> float:
        """Count and log a failure of the function; return the seconds to wait."""
        entry.failures += 1
        entry.failed += 1
        entry.calls += 1
        wait = wait_after(entry.failures)
        if isinstance(error, HandlerRetryAfter) and error.seconds is not None:
            wait = max(SHORTEST_PAUSE, error.seconds)
        log.warn(
            "{binding}: the poll failed ({failures} in a row), and its cursor stays; the next is made in {wait:g} s:"
            " {kind}: {why}",
            binding=binding.key,
            failures=entry.failures,
            wait=wait,
            kind=getattr(error, "error_class", type(error).__name__),
            why=str(error),
        )
        return wait

    async def _call_and_keep(self, entry: Entry, binding: BindingVersion) -> float | None:
        """Call the function, and keep what it returned; return the seconds until the next call if not as scheduled."""
        cursor = await self._cursor_of(entry)
        result = await self._call(entry, binding, cursor)
        polled = read_polled(result, entry.trigger_id, cursor)
        now = self._wall.seconds()
        if polled.events or polled.cursor != cursor:
            record = CursorRecord(cursor=msgspec.Raw(polled.cursor), polled_at=now)
            checkpoint = Checkpoint(PREFIX + entry.trigger_id, msgspec.json.encode(record))
            await self._sink.take_all(entry.trigger_id, polled.events, checkpoint)
            entry.cursor = polled.cursor
        entry.polled_at = now
        entry.calls += 1
        return 0.0 if polled.more and polled.cursor != cursor else None

    async def _cursor_of(self, entry: Entry) -> bytes:
        """Return the cursor as JSON, at first from the store; ``null`` where there is none yet."""
        if entry.cursor is None:
            value = await self._checkpoints.get(PREFIX + entry.trigger_id)
            removed_at = None if value is None else value.get("removed_at")
            if removed_at is not None and removed_at + KEPT <= self._wall.seconds():
                value = None  # removed too long ago
            entry.cursor = b"null" if value is None else msgspec.json.encode(value.get("cursor"))
            entry.polled_at = None if value is None else value.get("polled_at")
        return entry.cursor

    async def _call(self, entry: Entry, binding: BindingVersion, cursor: bytes) -> bytes:
        live = self._live.current
        if live is None:
            raise GateShut("no generation is live")
        interpreter = live.interpreter.retain()
        try:
            returned = await run_call(interpreter.value, call_of(binding, cursor, entry.failures + 1))
        finally:
            interpreter.release()
        return returned.result or b"null"

    def _plan(self, entry: Entry, now: float, wait: float | None = None) -> None:
        """Set when the function is called next: as scheduled, after ``wait`` seconds, or at once with 0."""
        entry.after = now - entry.delay
        if wait is not None:
            self._agenda.set(entry.trigger_id, now + wait)
            return
        following = entry.times.following(entry.after)
        self._agenda.set(entry.trigger_id, None if following is None else following + entry.delay)

    def next_of(self, trigger_id: str) -> float | None:
        """Return when a trigger is called next (seconds, Unix)."""
        return self._agenda.at(trigger_id)


def wait_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return min(LONGEST_PAUSE, PAUSE * 2.0 ** min(max(failures - 1, 0), 20))


def call_of(binding: BindingVersion, cursor: bytes, attempt: int) -> Call:
    """Return the call of a trigger's function."""
    spec: TriggerSpec = binding.spec
    return Call(
        binding=binding.key,
        trigger_id=spec.id,
        event_id="poll",
        handler=spec.poll,
        predicate=None,
        envelope=b"",
        body=cursor,
        attempt=attempt,
        timeout=spec.timeout,
        secrets=spec.handler_secrets,
    )
