"""The watcher: which names it follows, and when it asks for a reload. Real files, time and threads by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from watchdog.events import DirModifiedEvent, FileModifiedEvent, FileMovedEvent, FileOpenedEvent

from harn.errors import ShuttingDown
from harn.reload.inputs import current_digests
from harn.watch import LONGEST_WAIT, POLL, QUIET, SETTLE, Watched, Watcher, is_whole, link_chain, modules_below
from tests.reload.fakes import ThreadClock

HAIR = 0.001
"""Seconds that floating point may take from a sum of others."""


class FakeObserver:
    """Takes the place of watchdog's observer: schedules, and tells nothing by itself."""

    def __init__(self) -> None:
        self.directories: set[str] = set()
        self.started = self.stopped = False
        self.refuses = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped = True

    def join(self) -> None:
        """There is no thread."""

    def schedule(self, handler: Any, directory: str, recursive: bool) -> str:
        if self.refuses:
            raise OSError(24, "too many")
        self.directories.add(directory)
        return directory

    def unschedule(self, directory: str) -> None:
        self.directories.remove(directory)


class LinkChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def test_plain_file(self) -> None:
        """A file that no link leads to is its own only name, there or not."""
        self.assertEqual(link_chain(str(self.root / "a")), {str(self.root / "a")})

    def test_links(self) -> None:
        """Every link on the way is a name, relative or absolute, of the file or of a directory."""
        (self.root / "v1").mkdir()
        (self.root / "v1" / "a").touch()
        (self.root / "data").symlink_to("v1")
        (self.root / "b").symlink_to("data/a")
        (self.root / "c").symlink_to(self.root / "b")
        expected = {str(self.root / name) for name in ("c", "b", "data", "data/a", "v1/a")}
        self.assertEqual(link_chain(str(self.root / "c")), expected)

    def test_loop(self) -> None:
        """Links that lead to each other end."""
        (self.root / "a").symlink_to("b")
        (self.root / "b").symlink_to("a")
        self.assertEqual(link_chain(str(self.root / "a")), {str(self.root / "a"), str(self.root / "b")})

    def test_modules_below(self) -> None:
        """Modules are found so deep and no deeper, and none that is hidden or of a virtual environment."""
        names = ("a.py", "x/b.py", "x/y/c.py", "x/y/z/d.py", "x/y/z/w/e.py", ".h/f.py", "venv/g.py", "__pycache__/h.py")
        for name in (*names, "venv/pyvenv.cfg", "x/no.txt"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()
        found = {str(Path(path).relative_to(self.root)) for path in modules_below(str(self.root / "harn.toml"))}
        self.assertEqual(found, set(names[:4]))
        beside = modules_below(str(self.root / "harn.toml"), depth=0)
        self.assertEqual(beside, {str(self.root / "a.py")})
        self.assertEqual(modules_below(str(self.root / "none" / "harn.toml")), set())

    def test_whole(self) -> None:
        """A file is whole when it is there and not empty."""
        path = self.root / "a"
        self.assertFalse(is_whole(str(path)))
        path.touch()
        self.assertFalse(is_whole(str(path)))
        path.write_text("x")
        self.assertTrue(is_whole(str(path)))


class WatcherTests(SynchronousTestCase):
    """A folder with a manifest and a module, which are live."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.clock = ThreadClock()
        self.observer = FakeObserver()
        self.patch(__import__("harn.watch").watch, "Observer", lambda: self.observer)
        self.paths = {str(self.root / "harn.toml"), str(self.root / "handlers.py")}
        self.write("harn.toml", "one")
        self.write("handlers.py", "one")
        self.live: Mapping[str, str] = self.read(self.paths)
        self.reloads = 0
        self.accepts = True
        self.on_reload: Any = None
        self.watcher = Watcher(self.clock, self.watched, self.read, self.reload)
        self.watcher.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.watcher.running:
            self.successResultOf(self.watcher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def watched(self) -> Watched:
        return Watched(paths=frozenset(self.paths), live=self.live, manifest=str(self.root / "harn.toml"))

    def read(self, paths: Iterable[str]) -> Mapping[str, str]:
        return current_digests(frozenset(paths), frozenset(paths), b"")

    def reload(self) -> Deferred[bool]:
        self.reloads += 1
        if self.on_reload is not None:
            return self.on_reload()
        if self.accepts:
            self.live = self.read(self.paths)
        return succeed(self.accepts)

    def event(self, name: str = "handlers.py", kind: Any = FileModifiedEvent) -> None:
        """Tell of an event as watchdog does."""
        self.watcher._handler.dispatch(kind(str(self.root / name)))

    def looked(self) -> None:
        """Let everything that an event begins come to its end."""
        self.clock.pump([QUIET + HAIR, SETTLE + HAIR])

    def assert_reloads(self, count: int) -> None:
        """See how many reloads were asked for, by events and by polls that have nothing new."""
        self.looked()
        self.assertEqual(self.reloads, count)
        self.clock.pump([POLL, SETTLE, POLL, SETTLE])
        self.assertEqual(self.reloads, count)

    def test_life(self) -> None:
        """It watches from start to stop, and leaves no timer behind."""
        self.assertTrue(self.observer.started)
        self.assertEqual(self.observer.directories, {str(self.root)})
        self.event()
        self.stop()
        self.assertTrue(self.observer.stopped)
        self.event()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_edit(self) -> None:
        """An edit asks for one reload, once it has been quiet and the content stays the same."""
        self.write("handlers.py", "two")
        self.event()
        self.clock.advance(QUIET / 2)
        self.event()
        self.clock.advance(QUIET / 2)
        self.assertEqual(self.reloads, 0)
        self.clock.advance(QUIET / 2 + HAIR)
        self.assertEqual(self.reloads, 0)
        self.clock.advance(SETTLE + HAIR)
        self.assertEqual(self.reloads, 1)
        self.assert_reloads(1)

    def test_never_quiet(self) -> None:
        """Events without end put it off for two seconds at most."""
        self.write("handlers.py", "two")
        steps = int(LONGEST_WAIT / 0.1) + 1
        for _ in range(steps):
            self.event()
            self.clock.advance(0.1)
        self.clock.advance(SETTLE + HAIR)
        self.assertEqual(self.reloads, 1)

    def test_still_being_written(self) -> None:
        """Content that differs between two looks is looked at again, not adopted."""
        self.write("handlers.py", "tw")
        self.event()
        self.clock.advance(QUIET)
        self.write("handlers.py", "two")
        self.clock.advance(SETTLE)
        self.assertEqual(self.reloads, 0)
        self.assert_reloads(1)

    def test_unread_events(self) -> None:
        """Events of other files, and of reading, are no reason to look."""
        self.clock.advance(SETTLE)
        timers = len(self.clock.getDelayedCalls())
        for name, kind in (("state.log", FileModifiedEvent), ("harn.toml", FileOpenedEvent), ("", DirModifiedEvent)):
            self.event(name, kind)
        self.assertEqual(len(self.clock.getDelayedCalls()), timers)

    def test_touch(self) -> None:
        """A new time stamp on the same bytes does nothing."""
        os.utime(self.root / "handlers.py", (1, 1))
        self.event()
        self.assert_reloads(0)

    def test_rename(self) -> None:
        """An editor's rename over the file is seen by its destination."""
        self.write("new", "two")
        os.replace(self.root / "new", self.root / "handlers.py")
        moved = FileMovedEvent(str(self.root / "new"), str(self.root / "handlers.py"))
        self.watcher._handler.dispatch(moved)
        self.assert_reloads(1)

    def test_poll(self) -> None:
        """A change that no event tells of is seen within the poll's time."""
        self.write("handlers.py", "two")
        self.clock.pump([POLL, SETTLE])
        self.assertEqual(self.reloads, 1)

    def test_directory_that_cannot_be_watched(self) -> None:
        """A directory for which the system gives no watch is polled."""
        self.observer.refuses = True
        (self.root / "far").mkdir()
        self.paths.add(str(self.root / "far" / "key.pem"))
        self.write("far/key.pem", "two")
        self.live = self.read(self.paths)
        self.clock.advance(POLL)
        self.write("far/key.pem", "three")
        self.assert_reloads_after_poll()

    def assert_reloads_after_poll(self) -> None:
        self.clock.pump([POLL, SETTLE])
        self.assertEqual(self.reloads, 1)

    def test_config_map(self) -> None:
        """The swap of a linked directory, as Kubernetes does it, asks for one reload, every time."""
        for version in ("v1", "v2", "v3"):
            (self.root / version).mkdir()
            self.write(f"{version}/harn.toml", version)
        (self.root / "..data").symlink_to("v1")
        (self.root / "harn.toml").unlink()
        (self.root / "harn.toml").symlink_to("..data/harn.toml")
        self.event("harn.toml")
        self.assert_reloads(1)
        self.assertEqual(self.observer.directories, {str(self.root), str(self.root / "..data"), str(self.root / "v1")})
        for count, version in enumerate(("v2", "v3"), 2):
            (self.root / "..tmp").symlink_to(version)
            os.replace(self.root / "..tmp", self.root / "..data")
            self.watcher._handler.dispatch(FileMovedEvent(str(self.root / "..tmp"), str(self.root / "..data")))
            self.assert_reloads(count)
        self.assertIn(str(self.root / "v3"), self.observer.directories)
        self.assertNotIn(str(self.root / "v1"), self.observer.directories)

    def test_turned_away(self) -> None:
        """What was turned away is not asked for again until the bytes change."""
        self.accepts = False
        self.write("handlers.py", "bad")
        self.event()
        self.assert_reloads(1)
        os.utime(self.root / "handlers.py", (1, 1))
        self.event()
        self.assert_reloads(1)
        self.write("handlers.py", "also bad")
        self.event()
        self.assert_reloads(2)
        self.accepts = True
        self.write("handlers.py", "good")
        self.event()
        self.assert_reloads(3)

    def test_put_back(self) -> None:
        """Putting back what is live does nothing, and what was turned away counts as new after that."""
        self.accepts = False
        self.write("handlers.py", "bad")
        self.event()
        self.assert_reloads(1)
        self.write("handlers.py", "one")
        self.event()
        self.assert_reloads(1)
        self.write("handlers.py", "bad")
        self.event()
        self.assert_reloads(2)

    def test_new_module_after_a_refusal(self) -> None:
        """A module that a refused manifest missed is tried when it appears: beside it at once, deeper by the poll."""
        self.accepts = False
        self.write("harn.toml", "two")
        self.event("harn.toml")
        self.assert_reloads(1)
        self.write("new.py", "x")
        self.event("new.py")
        self.clock.advance(POLL)
        self.clock.advance(SETTLE)
        self.assertEqual(self.reloads, 2)
        self.write("new.py", "y")
        self.event("new.py")
        self.assert_reloads(3)
        (self.root / "pack").mkdir()
        self.write("pack/deep.py", "x")
        self.clock.pump([POLL, SETTLE])
        self.assertEqual(self.reloads, 4)

    def test_new_module_of_no_use(self) -> None:
        """A file that appears beside a live manifest is no reason to reload."""
        self.write("new.py", "x")
        self.event("new.py")
        self.assert_reloads(0)

    def test_missing_or_empty_manifest(self) -> None:
        """A manifest that is gone, or empty, is not adopted; when it is back as it was, nothing happens."""
        (self.root / "harn.toml").unlink()
        self.event("harn.toml")
        self.assert_reloads(0)
        self.write("harn.toml", "")
        self.event("harn.toml")
        self.assert_reloads(0)
        self.write("harn.toml", "one")
        self.event("harn.toml")
        self.assert_reloads(0)
        self.write("harn.toml", "two")
        self.event("harn.toml")
        self.assert_reloads(1)

    def test_event_during_a_reload(self) -> None:
        """What changes while a reload runs is looked at after it."""
        waiting: Deferred[bool] = Deferred()
        self.on_reload = lambda: waiting
        self.write("handlers.py", "two")
        self.event()
        self.looked()
        self.live = self.read(self.paths)
        self.write("handlers.py", "three")
        self.event()
        self.looked()
        self.assertEqual(self.reloads, 1)
        self.on_reload = None
        waiting.callback(True)
        self.assert_reloads(2)

    def test_reload_that_raises(self) -> None:
        """A reload that is refused altogether is logged, and watching goes on."""
        self.on_reload = lambda: fail(ShuttingDown("no"))
        self.write("handlers.py", "two")
        self.event()
        self.looked()
        self.assertEqual(len(self.flushLoggedErrors(ShuttingDown)), 1)
        self.on_reload = None
        self.clock.pump([POLL, SETTLE])
        self.assertEqual(self.reloads, 2)

    def test_stop_during_a_look(self) -> None:
        """Stopping while content settles, or a reload runs, leaves nothing behind."""
        self.on_reload = Deferred
        self.write("handlers.py", "two")
        self.event()
        self.looked()
        self.assertEqual(self.reloads, 1)
        self.stop()
