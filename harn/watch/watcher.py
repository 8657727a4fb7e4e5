"""
The watcher's service: it notices, waits for quiet, looks, and asks for a reload when it twice reads the same new bytes.

What decides is the content, never a time stamp or the number of events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from harn.errors import FilesHang
from harn.reload.reader import FileReader
from harn.watch.directories import Directories, Events
from harn.watch.judgement import Judgement, Standing, judge, restless
from harn.watch.model import Content, Outcome, Seen, Watched
from harn.watch.paths import look

log = Logger(namespace="harn.watch")

QUIET = 0.2
"""Seconds without an event after which what changed is looked at."""
LONGEST_WAIT = 2.0
"""Seconds after the first event when it is looked at in any case."""
SETTLE = 0.05
"""Seconds between two readings that must be equal."""
POLL = 5.0
"""Seconds between looks without any event."""
IDLE = 20
"""Without events there are so many times the last look's own time, at least, between looks: slow disks have peace."""
UNSETTLED = 30.0
"""Seconds for which what is on disk cannot be adopted before that is reported."""
FIRST_PAUSE = 5.0
"""Seconds before the same content is tried again after a failure that may pass; it doubles each time,"""
LONGEST_PAUSE = 300.0
"""but is never longer than this."""


@frozen(kw_only=True)
class Wishes:
    """
    What a watcher asks for.

    :ivar reload: for a reload that adopts this content or nothing; fires with its outcome.
    :ivar renew: for one that keeps the manifest and the code that are live, and reads all else anew.
    :ivar unsettled: called once in each spell of `UNSETTLED` seconds in which nothing could be adopted; says why.
    """

    reload: Callable[[Content], Deferred[Outcome]]
    renew: Callable[[], Deferred[Outcome]]
    unsettled: Callable[[str], Deferred[None]]


@frozen(kw_only=True)
class Asked:
    """
    What a reload was last asked for, while that is not live.

    :ivar again_at: when to ask for the same again (seconds, Unix); None: not until the bytes change.
    """

    seen: Seen
    pause: float = FIRST_PAUSE
    again_at: float | None = None

    def rests(self, seen: Seen, now: float) -> bool:
        """Tell whether this is the same, and it is not time to ask again."""
        return seen == self.seen and (self.again_at is None or now < self.again_at)


@frozen
class Spell:
    """A time in which nothing on disk can be adopted; ``since``: the reactor's seconds; ``told``: that was reported."""

    since: float
    told: bool = False


class Watcher(Service):
    """
    Asks for a reload when what the live generation was made of has changed.

    :param files: reads them; its reactor is for time.
    :param watched: gives what to watch, asked before each look.
    :param read: ``read(paths) -> Content``; blocks, is called in a thread.
    """

    def __init__(
        self,
        files: FileReader,
        watched: Callable[[], Watched],
        read: Callable[[Iterable[str]], Content],
        wishes: Wishes,
    ) -> None:
        reactor = self._reactor = files.reactor
        self._files = files
        self._watched = watched
        self._read = read
        self._wishes = wishes
        self.events = Events(lambda: reactor.callFromThread(self._notice), reactor.seconds)
        self._directories = Directories(self.events)
        self._asked: Asked | None = None
        self._spell: Spell | None = None
        # What was said last of the files may be bad news that is outdated: at a start nobody knows.
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
        """Watch no more; fires when a look under way is over and watchdog's threads have ended."""
        Service.stopService(self)
        for timer in (self._timer, self._poll):
            if timer is not None and timer.active():
                timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        # A look that is cancelled is waited for no more, but its thread goes on; where a file hangs, so do watchdog's
        # threads, and end with the process.
        with suppress(FilesHang):
            await self._files.read(self._directories.stop, what="the end of the watched directories")

    # Noticing

    def _notice(self) -> None:
        """Take a first event: look after `QUIET`, but not later than `LONGEST_WAIT` from now."""
        if not self.running or (self._timer is not None and self._timer.active()):
            return
        self._first_event = self._reactor.seconds()
        self._timer = self._reactor.callLater(QUIET, self._look_if_quiet)

    def _look_if_quiet(self) -> None:
        """Wait on while events come; the events themselves do no more than note their time."""
        now = self._reactor.seconds()
        assert self._first_event is not None
        wait = min(self.events.latest + QUIET, self._first_event + LONGEST_WAIT) - now
        if wait > 0:
            self._timer = self._reactor.callLater(min(wait, QUIET), self._look_if_quiet)
            return
        self.events.rearm()
        self._look()

    def _look(self) -> None:
        """Look at the content, unless somebody does already: then once more afterwards."""
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
        if self._spell is not None and not self._spell.told:
            pause = min(pause, max(0.0, self._spell.since + UNSETTLED - self._reactor.seconds()))
        self._poll = self._reactor.callLater(pause, self._look)
        if self._again:
            self._again = False
            self._notice()

    # Looking

    async def _compare(self) -> None:
        watched, started = self._watched(), self._reactor.seconds()
        await self._in_thread(self._directories.follow, watched.paths, watched.manifest)
        seen = await self._in_thread(look, watched, self._read)
        self._cost = self._reactor.seconds() - started
        judgement = judge(seen, watched)
        if judgement.standing is Standing.UNFIT:
            if self._spell is None:
                log.warn("{why}; nothing is adopted until then", why=judgement.why)
            await self._cannot(judgement.why)
            return
        if not self._is_news(judgement, seen, watched):
            self._spell = None
            return
        await deferLater(self._reactor, SETTLE, lambda: None)
        second = await self._in_thread(look, watched, self._read)
        if self._is_restless(seen, second):
            self._again = self._spell is None or not self._spell.told
            await self._cannot(restless(seen, second))
            return
        self._spell = None
        await self._ask(second, judgement.standing)

    def _is_news(self, judgement: Judgement, seen: Seen, watched: Watched) -> bool:
        """Tell whether to ask for a reload, if a second reading is the same."""
        asked = self._asked
        rests = asked is not None and asked.rests(seen, self._reactor.seconds())
        if judgement.standing is Standing.LIVE:
            self._owes = self._owes and watched.failing
            if not rests:
                self._asked = None
            return self._owes and not rests
        return judgement.standing in (Standing.CHANGED, Standing.RENEWED) and not rests

    def _is_restless(self, first: Seen, second: Seen) -> bool:
        """Tell whether two looks differ. For what goes on in other modules nobody waits longer than `LONGEST_WAIT`."""
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
        """Take note that nothing can be adopted now; report it when that has gone on for long."""
        now = self._reactor.seconds()
        if self._spell is None:
            self._spell = Spell(now)
        if self._spell.told or now - self._spell.since < UNSETTLED:
            return
        self._spell = Spell(self._spell.since, told=True)
        self._owes = True
        self._asked = None  # what was refused before is no longer what was said last
        await self._wishes.unsettled(why)

    async def _ask(self, seen: Seen, standing: Standing) -> None:
        """Ask for a reload, and remember for what as long as it may not be asked for again."""
        wishes = self._wishes
        try:
            outcome = await (wishes.renew() if standing is Standing.RENEWED else wishes.reload(seen.content))
        except CancelledError:
            raise
        except Exception:
            log.failure("a reload for changed files failed")
            outcome = Outcome.TRY_AGAIN
        # To read secrets anew says nothing of the other files.
        self._owes = outcome is not Outcome.ADOPTED or (standing is Standing.RENEWED and self._owes)
        pause = FIRST_PAUSE
        if self._asked is not None and self._asked.seen == seen:
            pause = min(LONGEST_PAUSE, 2 * self._asked.pause)
        again_at = None if outcome is Outcome.REFUSED else self._reactor.seconds() + pause
        # Of what was adopted, too: a reload reads for itself, and what it read is not always what we saw.
        self._asked = Asked(seen=seen, pause=pause, again_at=again_at)
        if outcome is Outcome.ADOPTED:
            self._again = True  # what is watched is another now

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call ``function`` where files are read, in its turn, however long a file hangs."""
        return self._files.read(function, *arguments, what="the watched files", waits=True)
