"""
The watcher's service: after a quiet time it reads the files, and requests a reload when it reads the same new bytes
twice.

Only the content decides, never a time stamp or the number of events.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from harn.errors import FilesHang
from harn.reload.reader import FileReader
from harn.watch.directories import Directories, EventFilter, IEventReceiver
from harn.watch.files import (
    Classification,
    FileStatus,
    IWatchedServer,
    ReloadOutcome,
    Seen,
    Watched,
    classify,
    look,
    restless,
)

log = Logger(namespace="harn.watch")

QUIET = 0.2
"""Seconds without an event after which the changed files are read."""
LONGEST_WAIT = 2.0
"""Seconds after the first event when they are read in any case."""
SETTLE = 0.05
"""Seconds between two readings that must be equal."""
POLL = 5.0
"""Seconds between looks without any event."""
IDLE = 20
"""
The least pause between looks without events, as a multiple of the last look's duration: it limits the load of slow
disks.
"""
UNSETTLED = 30.0
"""Seconds for which the files on disk cannot be adopted before that is reported."""
FIRST_PAUSE = 5.0
"""Seconds before the same content is tried again after a failure that may pass; it doubles each time,"""
LONGEST_PAUSE = 300.0
"""but is never longer than this."""
WATCHED = "the watched files"
"""What is read, for messages; in the thread that reads files, in its turn, however long a file hangs."""


class LastRequest(Struct, frozen=True, kw_only=True):
    """
    The last requested reload, while its content is not live.

    :ivar again_at: when to request the same again (seconds, Unix); None: not until the bytes change.
    """

    seen: Seen
    pause: float = FIRST_PAUSE
    again_at: float | None = None

    def rests(self, seen: Seen, now: float) -> bool:
        """Return whether this is the same content, and it is not time to request it again."""
        return seen == self.seen and (self.again_at is None or now < self.again_at)


class UnsettledPeriod(Struct, frozen=True):
    """A time in which nothing on disk can be adopted; ``since``: the reactor's seconds; ``reported``: it was logged."""

    since: float
    reported: bool = False


@implementer(IEventReceiver)
class FileWatcher(Service):
    """
    Requests a reload when a file of the live generation has changed.

    :param files: reads the files; its reactor is used for time.
    :param server: is asked for reloads.
    """

    def __init__(self, files: FileReader, server: IWatchedServer) -> None:
        self._reactor = files.reactor
        self._files = files
        self._server = server
        self.events = EventFilter(self._reactor, self)
        self._directories = Directories(self.events)
        self._last_request: LastRequest | None = None
        self._unsettled: UnsettledPeriod | None = None
        # The last report about the files may be an outdated failure: at a start that is unknown.
        self._owes = True
        self._unrest_beside: float | None = None
        self._cost = 0.0  # seconds that the last look took
        self._first_event: float | None = None
        self._timer: IDelayedCall | None = None
        self._poll: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._again = False

    def startService(self) -> None:
        """Begin to watch."""
        Service.startService(self)
        self._directories.start()
        self._look()

    def stopService(self) -> Deferred[None]:
        """Stop watching; fires when a look under way has ended and watchdog's threads have ended."""
        Service.stopService(self)
        for timer in (self._timer, self._poll):
            if timer is not None and timer.active():
                timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        # A cancelled look is not waited for, but its thread continues; if a file hangs, so do watchdog's threads, and
        # they end with the process.
        with suppress(FilesHang):
            await self._files.read(self._directories.stop, what="the end of the watched directories")

    # Events

    def notice(self) -> None:
        """Look after `QUIET`, but not later than `LONGEST_WAIT` from now."""
        if not self.running or (self._timer is not None and self._timer.active()):
            return
        self._first_event = self._reactor.seconds()
        self._timer = self._reactor.callLater(QUIET, self._look_if_quiet)

    def _look_if_quiet(self) -> None:
        """Wait longer while events come; the events themselves only record their time."""
        now = self._reactor.seconds()
        assert self._first_event is not None
        wait = min(self.events.latest + QUIET, self._first_event + LONGEST_WAIT) - now
        if wait > 0:
            self._timer = self._reactor.callLater(min(wait, QUIET), self._look_if_quiet)
            return
        self.events.rearm()
        self._look()

    def _look(self) -> None:
        """Look at the content, unless a look is under way: then once more afterwards."""
        if not self.running:
            return
        if self._looking is not None:
            self._again = True
            return
        self._looking = Deferred.fromCoroutine(self._compare())
        self._looking.addErrback(self._failed).addBoth(self._looked)

    def _failed(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("looking at the watched files failed", failure=failure)

    def _looked(self, _: object) -> None:
        self._looking = None
        if not self.running:
            return
        if self._poll is not None and self._poll.active():
            self._poll.cancel()
        pause = max(POLL, IDLE * self._cost)
        if self._unsettled is not None and not self._unsettled.reported:
            pause = min(pause, max(0.0, self._unsettled.since + UNSETTLED - self._reactor.seconds()))
        self._poll = self._reactor.callLater(pause, self._look)
        if self._again:
            self._again = False
            self.notice()

    # Looking

    async def _compare(self) -> None:
        watched, started = self._server.watched(), self._reactor.seconds()
        await self._files.read(self._directories.follow, watched.paths, watched.manifest, what=WATCHED, waits=True)
        seen = await self._files.read(look, watched, self._server, what=WATCHED, waits=True)
        self._cost = self._reactor.seconds() - started
        classification = classify(seen, watched)
        if classification.status is FileStatus.UNFIT:
            if self._unsettled is None:
                log.warn("{why}; nothing is adopted until then", why=classification.why)
            await self._cannot(classification.why)
            return
        if not self._is_news(classification, seen, watched):
            self._unsettled = None
            return
        await deferLater(self._reactor, SETTLE, lambda: None)
        second = await self._files.read(look, watched, self._server, what=WATCHED, waits=True)
        if self._is_restless(seen, second):
            self._again = self._unsettled is None or not self._unsettled.reported
            await self._cannot(restless(seen, second))
            return
        self._unsettled = None
        await self._ask(second, classification.status)

    def _is_news(self, classification: Classification, seen: Seen, watched: Watched) -> bool:
        """Return whether to request a reload, if a second reading is the same."""
        asked = self._last_request
        rests = asked is not None and asked.rests(seen, self._reactor.seconds())
        if classification.status is FileStatus.LIVE:
            self._owes = self._owes and watched.failing
            if not rests:
                self._last_request = None
            return self._owes and not rests
        return classification.status in (FileStatus.CHANGED, FileStatus.RENEWED) and not rests

    def _is_restless(self, first: Seen, second: Seen) -> bool:
        """Return whether two looks differ. Changes in other modules delay this by at most `LONGEST_WAIT`."""
        if first == second:
            self._unrest_beside = None
            return False
        if first.content != second.content:
            return True
        now = self._reactor.seconds()
        if self._unrest_beside is None:
            self._unrest_beside = now
        if now - self._unrest_beside < LONGEST_WAIT:
            return True
        self._unrest_beside = None
        return False

    async def _cannot(self, why: str) -> None:
        """Record that nothing can be adopted now; report it when that has lasted for long."""
        now = self._reactor.seconds()
        if self._unsettled is None:
            self._unsettled = UnsettledPeriod(now)
        if self._unsettled.reported or now - self._unsettled.since < UNSETTLED:
            return
        self._unsettled = UnsettledPeriod(self._unsettled.since, reported=True)
        self._owes = True
        self._last_request = None  # an earlier refusal is no longer the last report
        await self._server.unsettled(why)

    async def _ask(self, seen: Seen, status: FileStatus) -> None:
        """Request a reload, and record for which content and how long it may not be requested again."""
        server = self._server
        try:
            outcome = await (server.renew() if status is FileStatus.RENEWED else server.reload(seen.content))
        except CancelledError:
            raise
        except Exception:
            log.failure("a reload for changed files failed")
            outcome = ReloadOutcome.TRY_AGAIN
        # Reading secrets again does not concern the other files.
        self._owes = outcome is not ReloadOutcome.ADOPTED or (status is FileStatus.RENEWED and self._owes)
        pause = FIRST_PAUSE
        if self._last_request is not None and self._last_request.seen == seen:
            pause = min(LONGEST_PAUSE, 2 * self._last_request.pause)
        again_at = None if outcome is ReloadOutcome.REFUSED else self._reactor.seconds() + pause
        # After an adoption, too: a reload reads for itself, and may have read other bytes than the look.
        self._last_request = LastRequest(seen=seen, pause=pause, again_at=again_at)
        if outcome is ReloadOutcome.ADOPTED:
            self._again = True  # the watched files have changed
