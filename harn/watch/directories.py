"""
Following directories: a few threads of watchdog's, and one call to the reactor for a burst of events, however long.
Where events are lost (a directory that is deleted, one that the system does not watch, a network's file system) nothing
breaks: the watcher's poll finds the change.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from twisted.logger import Logger
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from zope.interface import Interface

from harn.watch.files import link_chain

log = Logger(namespace="harn.watch")

MOST_FOLLOWED = 8
"""The most directories followed by events, as each costs a thread or two; files in others are found by the poll."""

NO_CHANGE = frozenset(("opened", "closed_no_write"))
"""Kinds of events without a change; our own reading causes some of them."""


class Followed(Struct, frozen=True):
    """
    A directory that is followed.

    :ivar watch: watchdog's object for it.
    :ivar identity: its device and inode when it was followed: another directory of the same name is not followed.
    """

    watch: Any
    identity: tuple[int, int]


class IEventReceiver(Interface):
    """The object that acts on events; provided by `harn.watch.watcher.FileWatcher`."""

    def notice() -> None:
        """Called on the reactor thread at the first event since the last look."""


class EventFilter(FileSystemEventHandler):
    """
    Filters, in watchdog's thread, the events of names that matter.

    :param reactor: an `IReactorFromThreads` and `IReactorTime`.
    :param receiver: is notified, on the reactor thread, of the first such event, and again of the next one only after
        `rearm`.
    :ivar names: names that matter.
    :ivar directories: those in which any module or TOML file matters.
    :ivar latest: when the last such event came.
    :ivar lost: followed directories that were deleted.
    """

    def __init__(self, reactor: Any, receiver: IEventReceiver) -> None:
        self.names: frozenset[str] = frozenset()
        self.directories: frozenset[str] = frozenset()
        self.latest = 0.0
        self.lost: set[str] = set()
        self._reactor = reactor
        self._receiver = receiver
        self._has_noticed = False

    def rearm(self) -> None:
        """Report the next event again. The caller looks at the files afterwards."""
        self._has_noticed = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Record an event if it may have changed the content of a watched name."""
        if event.event_type in NO_CHANGE:
            return
        source = os.fsdecode(event.src_path)
        if event.event_type == "deleted" and source in self.directories:
            self.lost.add(source)
        elif not self._matters(source) and not self._matters(os.fsdecode(event.dest_path)):
            return
        self.latest = self._reactor.seconds()
        if not self._has_noticed:
            self._has_noticed = True
            self._reactor.callFromThread(self._receiver.notice)

    def _matters(self, path: str) -> bool:
        return path in self.names or (path.endswith((".py", ".toml")) and os.path.dirname(path) in self.directories)


class Directories:
    """
    The directories that are followed.

    Every method except the constructor blocks: for a thread.

    :param events: receives their events.
    """

    def __init__(self, events: EventFilter) -> None:
        self._events = events
        self._followed: dict[str, Followed] = {}
        self._refused: frozenset[str] = frozenset()
        self._observer: Any = None
        # Held while the observer's directories change, so that none is added to one that has ended.
        self._changing = threading.Lock()

    def start(self) -> None:
        """Start; if the system has no resources for it, there are no events."""
        try:
            observer = Observer()
            observer.daemon = True
            observer.start()
        except OSError as error:
            log.warn("files cannot be watched, polling them: {why}", why=_said(error))
            return
        self._observer = observer

    def stop(self) -> None:
        """Stop following; returns when watchdog's threads have ended. Idempotent."""
        with self._changing:
            observer, self._observer = self._observer, None
            self._followed.clear()
        if observer is not None:
            observer.stop()
            observer.join()

    def follow(self, paths: Iterable[str], first: str) -> None:
        """
        Follow the directory of every name whose replacement may change the content of one of ``paths``.

        :param first: the path whose directory is followed first, if there are too many.
        """
        observer = self._observer
        if observer is None:
            return
        # EventFilter name real directories, so links in the middle of a name are resolved.
        reached = {name: os.path.realpath(os.path.dirname(name)) for path in paths for name in link_chain(path)}
        identities: dict[str, tuple[int, int]] = {}
        by_use = [directory for directory, _ in Counter(reached.values()).most_common()]
        for directory in dict.fromkeys((os.path.realpath(os.path.dirname(first)), *by_use)):
            identity = _identity(directory)
            if identity is not None and len(identities) < MOST_FOLLOWED:
                identities[directory] = identity
        names = frozenset(os.path.join(reached[name], os.path.basename(name)) for name in reached)
        with self._changing:
            # The file system may be slow, and this may have been stopped, or started again, meanwhile.
            if self._observer is observer:
                self._events.names, self._events.directories = names, frozenset(identities)
                self._follow(observer, identities)

    def _follow(self, observer: Any, identities: Mapping[str, tuple[int, int]]) -> None:
        """Follow exactly these directories; ``identities``: of each, see `Followed`."""
        lost = {self._events.lost.pop() for _ in range(len(self._events.lost))}
        for directory, followed in list(self._followed.items()):
            if identities.get(directory) != followed.identity or directory in lost:
                del self._followed[directory]
                observer.unschedule(followed.watch)
        refused: set[str] = set()
        for directory in identities.keys() - self._followed.keys():
            try:
                watch = observer.schedule(self._events, directory, recursive=False)
            except OSError as error:
                refused.add(directory)
                if directory not in self._refused:
                    log.warn("cannot watch {directory}, polling it: {why}", directory=directory, why=_said(error))
            else:
                self._followed[directory] = Followed(watch, identities[directory])
        self._refused = frozenset(refused)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if os.path.isdir(directory) else None


def _said(error: OSError) -> str:
    return error.strerror or str(error)
