"""
Following directories: a few threads of watchdog's, and one word to the reactor for a burst of events, however long.

Where events are lost (a directory that goes, one that the system does not watch, a network's file system) nothing
breaks: the watcher's poll sees what no event tells.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen
from twisted.logger import Logger
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from harn.watch.paths import link_chain

log = Logger(namespace="harn.watch")

MOST_FOLLOWED = 8
"""Directories that are followed by events, as each costs a thread or two; what lies in others the poll sees."""

NO_CHANGE = frozenset(("opened", "closed_no_write"))
"""Kinds of events that change nothing; each of our own readings causes some."""


@frozen
class Followed:
    """
    A directory that is followed.

    :ivar watch: what watchdog calls it.
    :ivar identity: device and inode when that was asked for: another directory of the same name is not followed.
    """

    watch: Any
    identity: tuple[int, int]


class Events(FileSystemEventHandler):
    """
    Notes, in watchdog's thread, which events are about a name that matters.

    :param noticed: called at the first such event, and again for the next one only after `rearm`.
    :param seconds: the time.
    :ivar names: names that matter; ``directories``: in which any module matters.
    :ivar latest: when the last such event came.
    :ivar lost: followed directories that were deleted.
    """

    def __init__(self, noticed: Callable[[], None], seconds: Callable[[], float]) -> None:
        self.names: frozenset[str] = frozenset()
        self.directories: frozenset[str] = frozenset()
        self.latest = 0.0
        self.lost: set[str] = set()
        self._noticed = noticed
        self._seconds = seconds
        self._told = False

    def rearm(self) -> None:
        """Tell of the next event again. Whoever calls this looks at the files afterwards."""
        self._told = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note an event if it may have changed what a watched name reads as."""
        if event.event_type in NO_CHANGE:
            return
        source = os.fsdecode(event.src_path)
        if event.event_type == "deleted" and source in self.directories:
            self.lost.add(source)
        elif not self._matters(source) and not self._matters(os.fsdecode(event.dest_path)):
            return
        self.latest = self._seconds()
        if not self._told:
            self._told = True
            self._noticed()

    def _matters(self, path: str) -> bool:
        return path in self.names or (path.endswith(".py") and os.path.dirname(path) in self.directories)


class Directories:
    """
    The directories that are followed.

    Everything but the making blocks: for a thread.

    :param events: is given what happens in them.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._followed: dict[str, Followed] = {}
        self._refused: frozenset[str] = frozenset()
        self._observer: Any = None
        # Held by whoever changes what the observer follows, so that nothing is added to one that has ended.
        self._changing = threading.Lock()

    def start(self) -> None:
        """Begin; where the system has no room for it, there are no events."""
        try:
            observer = Observer()
            observer.daemon = True
            observer.start()
        except OSError as error:
            log.warn("files cannot be watched, polling them: {why}", why=_said(error))
            return
        self._observer = observer

    def stop(self) -> None:
        """Follow nothing more; returns when watchdog's threads have ended. Idempotent."""
        with self._changing:
            observer, self._observer = self._observer, None
            self._followed.clear()
        if observer is not None:
            observer.stop()
            observer.join()

    def follow(self, paths: Iterable[str], first: str) -> None:
        """
        Follow the directory of every name whose replacement may change what one of ``paths`` reads as.

        :param first: the path whose directory goes before all others, if there are too many.
        """
        observer = self._observer
        if observer is None:
            return
        # Events tell real directories, so links in the middle of a name are taken out of it.
        reached = {name: os.path.realpath(os.path.dirname(name)) for path in paths for name in link_chain(path)}
        identities: dict[str, tuple[int, int]] = {}
        by_use = [directory for directory, _ in Counter(reached.values()).most_common()]
        for directory in dict.fromkeys((os.path.realpath(os.path.dirname(first)), *by_use)):
            identity = _identity(directory)
            if identity is not None and len(identities) < MOST_FOLLOWED:
                identities[directory] = identity
        names = frozenset(os.path.join(reached[name], os.path.basename(name)) for name in reached)
        with self._changing:
            # The file system took its time, in which somebody may have stopped this, or begun it anew.
            if self._observer is observer:
                self._events.names, self._events.directories = names, frozenset(identities)
                self._follow(observer, identities)

    def _follow(self, observer: Any, identities: Mapping[str, tuple[int, int]]) -> None:
        """Follow these directories and no others; ``identities``: of each, as `Followed` has it."""
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
