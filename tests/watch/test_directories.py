"""Which directories are followed, and which events are passed on; the last tests with the real observer."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from watchdog.events import (
    DirModifiedEvent,
    FileAttribEvent,
    FileClosedNoWriteEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
)
from zope.interface import implementer

from harn.testing.server import wait_until
from harn.watch import directories
from harn.watch.directories import MOST_FOLLOWED, Directories, EventFilter, IEventReceiver
from harn.watch.files import link_chain
from tests.watch.fakes import FakeObserver


@implementer(IEventReceiver)
class DirectoriesCase(SynchronousTestCase):
    """A folder, and events from it that are counted."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        self.root.mkdir(parents=True)
        self.noticed = 0
        self.now = 100.0
        self.events = EventFilter(self, self)
        self.directories = Directories(self.events)

    def notice(self) -> None:
        self.noticed += 1

    def seconds(self) -> float:
        return self.now

    def callFromThread(self, function: Any) -> None:
        function()

    def path(self, name: str) -> str:
        return str(self.root / name)

    def follow(self, *names: str, first: str = "harn.toml") -> None:
        self.directories.follow([self.path(name) for name in names], self.path(first))


class EventsTests(DirectoriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.events.names = frozenset((self.path("harn.toml"),))
        self.events.directories = frozenset((str(self.root),))

    def test_events_that_matter(self) -> None:
        """Changes of a watched name, by either end of a move, and of any module beside it are noticed."""
        harn, new = self.path("harn.toml"), self.path("new")
        matter = [
            FileModifiedEvent(harn),
            FileAttribEvent(harn),
            FileMovedEvent(new, harn),
            FileMovedEvent(harn, new),
            FileDeletedEvent(harn),
            FileCreatedEvent(self.path("fresh.py")),
            FileModifiedEvent(os.fsencode(harn)),
        ]
        for count, event in enumerate(matter, 1):
            self.events.dispatch(event)
            self.assertEqual(self.noticed, count, event)
            self.events.rearm()

    def test_events_that_do_not(self) -> None:
        """Readings, and changes of other files, are not."""
        for event in (
            FileOpenedEvent(self.path("harn.toml")),
            FileClosedNoWriteEvent(self.path("harn.toml")),
            DirModifiedEvent(str(self.root)),
            FileModifiedEvent(self.path("state.log")),
            FileModifiedEvent(self.path("deep/fresh.py")),
            FileMovedEvent(self.path("a"), self.path("b")),
        ):
            self.events.dispatch(event)
        self.assertEqual(self.noticed, 0)

    def test_a_burst_is_one_word(self) -> None:
        """Of many events the first is reported, and of the others only when the last one came."""
        for _ in range(1000):
            self.now += 0.01
            self.events.dispatch(FileModifiedEvent(self.path("harn.toml")))
        self.assertEqual((self.noticed, self.events.latest), (1, self.now))
        self.events.rearm()
        self.events.dispatch(FileModifiedEvent(self.path("harn.toml")))
        self.assertEqual(self.noticed, 2)


class FollowTests(DirectoriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.observer = FakeObserver()
        self.patch(directories, "Observer", lambda: self.observer)
        self.directories.start()

    def test_life(self) -> None:
        """The observer runs from start to stop; to stop twice, or without a start, does no harm."""
        self.assertTrue(self.observer.started)
        self.directories.stop()
        self.directories.stop()
        self.assertTrue(self.observer.stopped)
        self.follow("harn.toml")
        self.assertEqual(self.observer.directories, set())
        Directories(self.events).stop()

    def test_stopped_meanwhile(self) -> None:
        """Who stops this while the file system is being asked finds nothing followed afterwards."""

        def asked(path: str) -> set[str]:
            self.directories.stop()
            return link_chain(path)

        self.patch(directories, "link_chain", asked)
        self.follow("harn.toml")
        self.assertEqual((self.observer.stopped, self.observer.scheduled), (True, []))

    def test_begun_again_meanwhile(self) -> None:
        """Stopping and restarting meanwhile leads to the same: the directories to follow may be others now."""
        old, fresh = self.observer, FakeObserver()

        def asked(path: str) -> set[str]:
            self.observer = fresh
            self.directories.stop()
            self.directories.start()
            return link_chain(path)

        self.patch(directories, "link_chain", asked)
        self.follow("harn.toml")
        self.assertEqual((old.scheduled, fresh.scheduled), ([], []))
        self.patch(directories, "link_chain", link_chain)
        self.follow("harn.toml")
        self.assertEqual((old.scheduled, fresh.scheduled), ([], [str(self.root)]))

    def test_linked_directories(self) -> None:
        """Behind links the real directories are followed, each once, and dropped when no link leads there any more."""
        (self.root / "v1").mkdir()
        (self.root / "v2").mkdir()
        (self.root / "..data").symlink_to("v1")
        (self.root / "harn.toml").symlink_to("..data/harn.toml")
        self.follow("harn.toml")
        self.assertEqual(self.observer.directories, {str(self.root), self.path("v1")})
        self.assertLessEqual({self.path("..data"), self.path("v1/harn.toml")}, self.events.names)
        (self.root / "..data").unlink()
        (self.root / "..data").symlink_to("v2")
        self.follow("harn.toml")
        self.assertEqual(self.observer.directories, {str(self.root), self.path("v2")})

    def test_nothing_twice(self) -> None:
        """Following the same again makes no system call."""
        for _ in range(3):
            self.follow("harn.toml", "handlers.py")
        self.assertEqual(self.observer.scheduled, [str(self.root)])

    def test_another_directory_of_the_same_name(self) -> None:
        """A directory that another takes the place of, by rename or after deletion, is followed afresh."""
        keys = self.root / "keys"
        keys.mkdir()
        (self.root / "other").mkdir()
        self.follow("harn.toml", "keys/a")
        keys.rename(self.root / "old")
        (self.root / "other").rename(keys)
        self.follow("harn.toml", "keys/a")
        self.assertEqual(self.observer.scheduled.count(str(keys)), 2)
        # An inode may be used again at once, so that only the event shows it.
        self.events.dispatch(FileDeletedEvent(str(keys)))
        self.assertEqual(self.noticed, 1)
        self.follow("harn.toml", "keys/a")
        self.follow("harn.toml", "keys/a")
        self.assertEqual(self.observer.scheduled.count(str(keys)), 3)
        keys.rmdir()
        self.follow("harn.toml", "keys/a")
        self.assertEqual(self.observer.directories, {str(self.root)})

    def test_too_many(self) -> None:
        """So many directories are followed and no more: the manifest's, then those with most of the files."""
        names = [f"d{index}/{name}" for index in range(20) for name in ("a", "b", "c")[: 1 + index % 3]]
        for name in names:
            (self.root / name).parent.mkdir(exist_ok=True)
        self.follow("harn.toml", *names)
        self.assertEqual(len(self.observer.directories), MOST_FOLLOWED)
        self.assertIn(str(self.root), self.observer.directories)
        fullest = {self.path(f"d{index}") for index in range(20) if index % 3 == 2}
        self.assertLessEqual(fullest, self.observer.directories)

    def test_refused(self) -> None:
        """A directory that the system does not watch is said once, and asked for again each time."""
        said = self.enterContext(capturedLogs())
        self.observer.refuses = True
        for _ in range(3):
            self.follow("harn.toml")
        self.assertEqual(len([each for each in said if "no watches left" in str(each)]), 1)
        self.observer.refuses = False
        self.follow("harn.toml")
        self.assertEqual(self.observer.directories, {str(self.root)})

    def test_no_observer(self) -> None:
        """Where the system has no room for an observer at all, nothing is followed and nothing fails."""

        def refuse() -> None:
            raise OSError(errno.EMFILE, "too many instances")

        self.patch(directories, "Observer", refuse)
        other = Directories(self.events)
        other.start()
        other.follow([self.path("harn.toml")], self.path("harn.toml"))
        other.stop()


class RealObserverTests(DirectoriesCase):
    """The real observer's events, with real files."""

    def setUp(self) -> None:
        super().setUp()
        self.before = threading.active_count()
        self.directories.start()
        self.addCleanup(self.directories.stop)

    def wait_noticed(self) -> None:
        wait_until(lambda: self.noticed, "an event")
        self.noticed = 0
        self.events.rearm()

    def test_deleted_and_made_again(self) -> None:
        """A directory that is deleted and made again is followed again."""
        keys = self.root / "keys"
        keys.mkdir()
        self.follow("harn.toml", "keys/a")
        (keys / "a").write_text("one")
        self.wait_noticed()
        (keys / "a").unlink()
        keys.rmdir()
        wait_until(lambda: str(keys) in self.events.lost, "the directory to be lost")
        keys.mkdir()
        self.follow("harn.toml", "keys/a")
        self.noticed = 0
        self.events.rearm()
        (keys / "a").write_text("two")
        self.wait_noticed()

    def test_threads(self) -> None:
        """However many files and events there are, the threads are few, and they end."""
        names = [f"d{index % 20}/f{index}" for index in range(200)]
        for name in names:
            (self.root / name).parent.mkdir(exist_ok=True)
        self.follow("harn.toml", *names)
        for name in names:
            (self.root / name).write_text("x")
        self.wait_noticed()
        self.assertLessEqual(threading.active_count() - self.before, 2 * MOST_FOLLOWED + 2)
        self.directories.stop()
        wait_until(lambda: threading.active_count() <= self.before + 1, "the threads to end")
