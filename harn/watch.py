"""
The watcher: from file events to one debounced, settled wish for a reload.

Watched are directories, each on the way from a file's name to the file that its links lead to, so that edits in place,
atomic renames and the swap of a linked directory (a Kubernetes ConfigMap) are all seen; a slow poll sees what no event
tells. What decides is the content: only other bytes, read twice the same, ask for a reload, and content that was turned
away is not asked for again until the bytes change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

log = Logger(namespace="harn.watch")

QUIET = 0.2
"""Seconds without an event after which what changed is looked at."""
LONGEST_WAIT = 2.0
"""Seconds after the first event when it is looked at in any case."""
SETTLE = 0.05
"""Seconds between two readings that must be equal."""
POLL = 5.0
"""Seconds between looks without any event."""
DEEPEST = 3
"""Levels of directories below the manifest's that are searched for modules."""
MOST_MODULES = 500
"""Modules after which no further directory is searched."""
MOST_LINKS = 40
"""Links that are followed from one name, as the system itself limits them."""

Content = Mapping[str, str]
"""Digest of each watched file, by absolute path."""


@frozen(kw_only=True)
class Watched:
    """
    What to watch now.

    :ivar paths: absolute.
    :ivar live: the digests of the live generation's files; what reads like this needs no reload.
    :ivar manifest: which of ``paths`` must be there and not empty before anything is adopted.
    """

    paths: frozenset[str]
    live: Content
    manifest: str


def link_chain(path: str) -> set[str]:
    """Give every name whose replacement may change what ``path`` reads as: itself, and each link on the way."""
    names: set[str] = set()
    pending = [os.path.abspath(path)]
    while pending and len(names) < MOST_LINKS:
        current = pending.pop()
        if current in names:
            continue
        names.add(current)
        parts = current.split(os.sep)[1:]
        prefix = os.sep
        for index, part in enumerate(parts):
            prefix = os.path.join(prefix, part)
            if os.path.islink(prefix):
                names.add(prefix)
                target = os.path.join(os.path.dirname(prefix), os.readlink(prefix), *parts[index + 1 :])
                pending.append(os.path.normpath(target))
                break
    return names


class _Names(FileSystemEventHandler):
    """Tells, in watchdog's thread, which events are about a name that matters."""

    def __init__(self, noticed: Callable[[], None]) -> None:
        self.names: frozenset[str] = frozenset()
        self._noticed = noticed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass an event on if it may have changed what a watched name reads as."""
        if event.event_type in ("opened", "closed_no_write"):
            return
        for path in (event.src_path, event.dest_path):
            if os.fsdecode(path) in self.names:
                self._noticed()
                return


class Watcher(Service):
    """
    Asks for a reload when what the live generation was made of has changed.

    :param reactor: for time and threads.
    :param watched: gives what to watch, asked before each look.
    :param read: ``read(paths) -> Content``; blocks, is called in a thread.
    :param reload: asks for a reload; fires with whether it succeeded.
    """

    def __init__(
        self,
        reactor: Any,
        watched: Callable[[], Watched],
        read: Callable[[Iterable[str]], Content],
        reload: Callable[[], Deferred[bool]],
    ) -> None:
        self._reactor = reactor
        self._watched = watched
        self._read = read
        self._reload = reload
        self._handler = _Names(lambda: reactor.callFromThread(self._noticed))
        self._observer: Any = None
        self._directories: dict[str, Any] = {}
        self._turned_away: Content | None = None
        self._first_event: float | None = None
        self._timer: IDelayedCall | None = None
        self._poll: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._again = False

    def startService(self) -> None:
        """Begin to watch."""
        Service.startService(self)
        self._observer = Observer()
        self._observer.daemon = True
        self._observer.start()
        self._look()

    def stopService(self) -> Deferred[None]:
        """Watch no more; fires when a look under way is over and watchdog's threads have ended."""
        Service.stopService(self)
        for timer in (self._timer, self._poll):
            if timer is not None and timer.active():
                timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        observer, self._observer = self._observer, None

        def end() -> None:
            observer.stop()
            observer.join()

        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), end)

    # Noticing

    def _noticed(self) -> None:
        """Take an event: look after `QUIET`, but not later than `LONGEST_WAIT` after the first."""
        if not self.running:
            return
        now = self._reactor.seconds()
        if self._first_event is None:
            self._first_event = now
        wait = max(0.0, min(QUIET, self._first_event + LONGEST_WAIT - now))
        if self._timer is not None and self._timer.active():
            self._timer.reset(wait)
        else:
            self._timer = self._reactor.callLater(wait, self._look)

    def _look(self) -> None:
        """Look at the content, unless somebody does already: then once more afterwards."""
        self._first_event = None
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
        self._poll = self._reactor.callLater(POLL, self._look)
        if self._again:
            self._again = False
            self._noticed()

    # Looking

    async def _compare(self) -> None:
        watched = self._watched()
        await self._in_thread(self._follow, watched)
        paths = watched.paths | await self._in_thread(modules_below, watched.manifest)
        content = await self._in_thread(self._read, paths)
        if self._is_known(content, watched):
            return
        await deferLater(self._reactor, SETTLE, lambda: None)
        if content != await self._in_thread(self._read, paths):
            self._again = True
            return
        if not await self._in_thread(is_whole, watched.manifest):
            log.warn("{manifest} is missing or empty; it is not adopted", manifest=watched.manifest)
            self._turned_away = content
            return
        succeeded = await self._reload()
        self._turned_away = None if succeeded else content
        await self._in_thread(self._follow, self._watched())

    def _is_known(self, content: Content, watched: Watched) -> bool:
        """Tell whether this content is live, or was turned away before."""
        if all(content.get(path) == digest for path, digest in watched.live.items()):
            self._turned_away = None
            return True
        return content == self._turned_away

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    def _follow(self, watched: Watched) -> None:
        """
        Watch the directory of every name that matters, and no other. In a thread: it asks the file system.

        A watched directory costs two threads: what lies deeper and is not part of the generation, the poll sees.
        """
        observer = self._observer
        if observer is None:
            return
        paths = watched.paths | modules_below(watched.manifest, depth=0)
        names = frozenset(name for path in paths for name in link_chain(path))
        self._handler.names = names
        wanted = {directory for directory in map(os.path.dirname, names) if os.path.isdir(directory)}
        for directory in set(self._directories) - wanted:
            observer.unschedule(self._directories.pop(directory))
        for directory in wanted - set(self._directories):
            try:
                self._directories[directory] = observer.schedule(self._handler, directory, recursive=False)
            except OSError as error:
                log.warn("cannot watch {directory}, polling it: {why}", directory=directory, why=str(error))


def modules_below(manifest: str, depth: int = DEEPEST) -> frozenset[str]:
    """
    List the Python files next to the manifest and below: one of them may be what a refused reload missed.

    :param depth: of the directories that are looked into; hidden ones and virtual environments are not.
    """
    found: set[str] = set()
    root = os.path.dirname(manifest)
    for directory, inner, names in os.walk(root):
        found.update(os.path.join(directory, name) for name in names if name.endswith(".py"))
        level = 0 if directory == root else os.path.relpath(directory, root).count(os.sep) + 1
        if level >= depth or len(found) >= MOST_MODULES:
            inner.clear()
        inner[:] = sorted(name for name in inner if not _is_foreign(os.path.join(directory, name)))
    return frozenset(found)


def _is_foreign(directory: str) -> bool:
    name = os.path.basename(directory)
    return name.startswith((".", "__")) or name == "node_modules" or os.path.exists(f"{directory}/pyvenv.cfg")


def is_whole(path: str) -> bool:
    """Tell whether a file is there and has content."""
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False
