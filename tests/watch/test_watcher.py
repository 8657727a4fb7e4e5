"""The watcher: when it asks for a reload, when it reports, and when it lets things be. Real files, time by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from watchdog.events import DirModifiedEvent, FileModifiedEvent, FileMovedEvent, FileOpenedEvent
from zope.interface import implementer

from harn.errors import ShuttingDown
from harn.reload.generation import Pin
from harn.reload.inputs import current_digests
from harn.reload.reader import FileReader
from harn.vm.bundle import Bundle, Module, make_bundle
from harn.watch import directories
from harn.watch.files import Digests, IWatchedServer, ReloadOutcome, Watched
from harn.watch.watcher import (
    FIRST_PAUSE,
    IDLE,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    POLL,
    QUIET,
    SETTLE,
    UNSETTLED,
    FileWatcher,
)
from tests.reload.fakes import ThreadClock
from tests.watch.fakes import FakeObserver

HAIR = 0.001
"""Seconds that floating point may take from a sum of others."""


@implementer(IWatchedServer)
class WatcherCase(SynchronousTestCase):
    """A folder with a manifest and a module, which are live: the server of its watcher."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        self.root.mkdir()
        self.clock = ThreadClock()
        self.observer = FakeObserver()
        self.patch(directories, "Observer", lambda: self.observer)
        self.paths = {str(self.root / "harn.toml"), str(self.root / "handlers.py")}
        self.write("harn.toml", "one")
        self.write("handlers.py", "one")
        self.live: Digests = self.digests(self.paths)
        self.replaced: Digests = {}
        self.bundle: Bundle | None = None
        self.include: tuple[str, ...] = ()
        self.failing = False
        self.reads = 0
        self.on_read: Callable[[], None] = lambda: None
        self.reloads = self.renewals = 0
        self.outcome = ReloadOutcome.ADOPTED
        self.on_reload: Any = None
        self.reports: list[str] = []
        self.on_report: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.files = FileReader(self.clock, self.clock, self.clock.pool)
        self.watcher = FileWatcher(FileReader(self.clock, self.clock, self.clock.pool), self)
        self.watcher.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.watcher.running:
            self.successResultOf(self.watcher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(text)

    def watched(self) -> Watched:
        return Watched(
            paths=frozenset((*self.paths, *self.replaced)),
            live=self.live,
            manifest=str(self.root / "harn.toml"),
            pin=Pin(self.replaced) if self.replaced else None,
            bundle=self.bundle,
            include=self.include,
            failing=self.failing,
        )

    def digests(self, paths: Iterable[str]) -> Digests:
        return current_digests(frozenset(paths), frozenset(paths), b"")

    def read(self, paths: Iterable[str]) -> Digests:
        self.reads += 1
        self.on_read()
        return self.digests(paths)

    def reload(self, content: Digests) -> Deferred[ReloadOutcome]:
        self.expected = content
        self.reloads += 1
        if self.on_reload is not None:
            return self.on_reload()
        self.failing = self.outcome is not ReloadOutcome.ADOPTED
        if not self.failing:
            self.live = self.digests(self.paths)
        return succeed(self.outcome)

    def renew(self) -> Deferred[ReloadOutcome]:
        self.renewals += 1
        if self.outcome is ReloadOutcome.ADOPTED:
            secret = frozenset((*self.live,)) - self.replaced.keys()
            self.live = {**self.live, **self.digests(secret)}
        return succeed(self.outcome)

    def unsettled(self, why: str) -> Deferred[None]:
        self.reports.append(why)
        self.failing = True
        return self.on_report()

    def event(self, name: str = "handlers.py", kind: Any = FileModifiedEvent) -> None:
        """Send an event as watchdog does."""
        self.watcher.events.dispatch(kind(str(self.root / name)))

    def edit(self, name: str, text: str) -> None:
        """Write a file, and tell of it."""
        self.write(name, text)
        self.event(name)

    def looked(self) -> None:
        """Run everything that an event begins to its end."""
        self.clock.pump([QUIET + HAIR, SETTLE + HAIR])

    def polled(self, times: int = 1) -> None:
        """Pass this many polls."""
        self.clock.pump([POLL, SETTLE + HAIR] * times)

    def assert_reloads(self, count: int) -> None:
        """See how many reloads were asked for, by events and by polls that have nothing new."""
        self.looked()
        self.assertEqual(self.reloads, count)
        self.polled(2)
        self.assertEqual(self.reloads, count)


class NoticeTests(WatcherCase):
    """From an event to a look."""

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
        self.edit("handlers.py", "two")
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
        """EventFilter without end put it off for two seconds at most."""
        self.write("handlers.py", "two")
        steps = int(LONGEST_WAIT / 0.1) + 1
        for _ in range(steps):
            self.event()
            self.clock.advance(0.1)
        self.clock.advance(SETTLE + HAIR)
        self.assertEqual(self.reloads, 1)

    def test_a_flood(self) -> None:
        """Very many events keep one timer, and cause no more looks than one in two seconds."""
        reads = self.reads
        for _ in range(5000):
            self.event()
            self.clock.advance(0.002)
            self.assertLessEqual(len(self.clock.getDelayedCalls()), 2)
        self.assertLessEqual(self.reads - reads, 6)
        self.assert_reloads(0)

    def test_unread_events(self) -> None:
        """Events of other files, and of reading, do not cause a look."""
        self.clock.advance(SETTLE)
        timers = len(self.clock.getDelayedCalls())
        for name, kind in (("state.log", FileModifiedEvent), ("harn.toml", FileOpenedEvent), ("", DirModifiedEvent)):
            self.event(name, kind)
        self.assertEqual(len(self.clock.getDelayedCalls()), timers)

    def test_poll(self) -> None:
        """A change without an event is seen within the poll's time."""
        self.write("handlers.py", "two")
        self.polled()
        self.assertEqual(self.reloads, 1)

    def test_slow_disk(self) -> None:
        """When looking takes long it is done less often; how long a reload takes does not count."""
        self.on_read = lambda: self.clock.advance(1.0)
        self.edit("handlers.py", "two")
        self.clock.advance(QUIET + HAIR)
        self.on_read = lambda: None
        waiting: Deferred[ReloadOutcome] = Deferred()
        self.on_reload = lambda: waiting
        self.clock.advance(SETTLE + HAIR)
        self.clock.pump([1.0] * 60)
        waiting.callback(ReloadOutcome.REFUSED)
        pause = max(call.getTime() for call in self.clock.getDelayedCalls()) - self.clock.seconds()
        self.assertLess(abs(pause - 2 * IDLE), 0.1)  # of the first look, which read twice for a second

    def test_stop_during_a_look(self) -> None:
        """Stopping while a reload runs leaves nothing behind."""
        self.on_reload = Deferred
        self.edit("handlers.py", "two")
        self.looked()
        self.assertEqual(self.reloads, 1)
        self.stop()

    def test_stop_while_it_settles(self) -> None:
        """Stopping between two readings leaves nothing behind, and nothing is asked for."""
        self.edit("handlers.py", "two")
        self.clock.advance(QUIET + HAIR)
        self.stop()
        self.assertEqual(self.reloads, 0)

    def hold(self, begins: float) -> None:
        """Run a thread's work after this many seconds, and hold it until the pool is released."""
        self.clock.pool.held = True
        self.clock.advance(begins + HAIR)
        self.clock.pool.held = False  # whoever comes now has a thread of its own

    def test_stop_waits_for_the_thread(self) -> None:
        """What a thread is at, from the directories to the second reading, is over before the observer is stopped."""
        for begins in ([], [QUIET + HAIR]):
            self.edit("handlers.py", "two")
            self.clock.pump(begins)
            self.hold(SETTLE if begins else QUIET)
            stopped = self.watcher.stopService()
            self.assertNoResult(stopped)
            self.assertFalse(self.observer.stopped)
            self.clock.pool.release()
            self.successResultOf(stopped)
            self.assertTrue(self.observer.stopped)
            self.assertEqual((self.reloads, self.clock.getDelayedCalls()), (0, []))
            self.write("handlers.py", "one")
            self.observer = FakeObserver()
            self.watcher.startService()

    def test_a_thread_that_fails_after_the_stop(self) -> None:
        """The result of a thread whose caller has stopped waiting, a failure too, is discarded."""
        self.edit("handlers.py", "two")
        self.clock.advance(QUIET + HAIR)
        self.hold(SETTLE)
        stopped, reads = self.watcher.stopService(), self.reads
        self.on_read = self.fail
        self.clock.pool.release()
        self.successResultOf(stopped)
        self.assertEqual(self.reads, reads + 1)

    def test_begun_again(self) -> None:
        """A watcher that was stopped and is started again follows what it did, with an observer of its own."""
        self.stop()
        self.observer = FakeObserver()
        self.watcher.startService()
        self.assertEqual(self.observer.directories, {str(self.root)})
        self.edit("handlers.py", "two")
        self.assert_reloads(1)


class ContentTests(WatcherCase):
    """What decides is what the files say."""

    def test_still_being_written(self) -> None:
        """Digests that differs between two looks is looked at again, not adopted."""
        self.edit("handlers.py", "tw")
        self.clock.advance(QUIET)
        self.write("handlers.py", "two")
        self.clock.advance(SETTLE)
        self.assertEqual(self.reloads, 0)
        self.assert_reloads(1)

    def test_touch(self) -> None:
        """A new time stamp on the same bytes, or the same bytes written again, does nothing."""
        os.utime(self.root / "handlers.py", (1, 1))
        self.event()
        self.assert_reloads(0)
        self.edit("handlers.py", "one")
        self.assert_reloads(0)

    def test_same_size_and_time(self) -> None:
        """Other bytes are a change though size and time stamp are the same."""
        before = os.stat(self.root / "handlers.py")
        self.write("handlers.py", "two")
        os.utime(self.root / "handlers.py", ns=(before.st_atime_ns, before.st_mtime_ns))
        self.event()
        self.assert_reloads(1)

    def test_rename(self) -> None:
        """An editor's rename over the file is seen by its destination."""
        self.write("new", "two")
        os.replace(self.root / "new", self.root / "handlers.py")
        moved = FileMovedEvent(str(self.root / "new"), str(self.root / "handlers.py"))
        self.watcher.events.dispatch(moved)
        self.assert_reloads(1)

    def test_directory_that_cannot_be_watched(self) -> None:
        """A directory for which the system gives no watch is polled."""
        self.observer.refuses = True
        self.paths.add(str(self.root / "far" / "key.pem"))
        self.write("far/key.pem", "two")
        self.live = self.digests(self.paths)
        self.clock.advance(POLL)
        self.write("far/key.pem", "three")
        self.polled()
        self.assertEqual(self.reloads, 1)

    def test_config_map(self) -> None:
        """The swap of a linked directory, as Kubernetes does it, asks for one reload, every time."""
        for version in ("v1", "v2", "v3"):
            self.write(f"{version}/harn.toml", version)
        (self.root / "..data").symlink_to("v1")
        (self.root / "harn.toml").unlink()
        (self.root / "harn.toml").symlink_to("..data/harn.toml")
        self.event("harn.toml")
        self.assert_reloads(1)
        self.assertEqual(self.observer.directories, {str(self.root), str(self.root / "v1")})
        for count, version in enumerate(("v2", "v3"), 2):
            (self.root / "..tmp").symlink_to(version)
            os.replace(self.root / "..tmp", self.root / "..data")
            self.watcher.events.dispatch(FileMovedEvent(str(self.root / "..tmp"), str(self.root / "..data")))
            self.assert_reloads(count)
        self.assertEqual(self.observer.directories, {str(self.root), str(self.root / "v3")})

    def test_at_rest_little_is_read(self) -> None:
        """While nothing changed, a look reads the watched files once, and no others."""
        for index in range(10):
            self.write(f"other{index}.py", "x")
        self.polled()
        reads = self.reads
        self.polled(3)
        self.assertEqual(self.reads - reads, 3)

    def test_other_modules_are_waited_for_only_so_long(self) -> None:
        """A module beside that changes without end holds a reload up for two seconds, and no longer."""
        beside = iter(range(1000))
        self.write("scratch.py", "x")
        self.on_read = lambda: self.write("scratch.py", str(next(beside)))
        self.edit("handlers.py", "two")
        self.looked()
        self.assertEqual(self.reloads, 0)
        self.clock.pump([0.1] * int(2 * LONGEST_WAIT / 0.1))
        self.assertEqual((self.reloads, self.reports), (1, []))


class OutcomeTests(WatcherCase):
    """What a reload came to."""

    def test_turned_away(self) -> None:
        """Refused content is not asked for again until the bytes change."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "bad")
        self.assert_reloads(1)
        os.utime(self.root / "handlers.py", (1, 1))
        self.event()
        self.assert_reloads(1)
        self.edit("handlers.py", "also bad")
        self.assert_reloads(2)
        self.outcome = ReloadOutcome.ADOPTED
        self.edit("handlers.py", "good")
        self.assert_reloads(3)

    def test_put_back(self) -> None:
        """Restoring the live files asks for one reload, which corrects the report; then bad content counts as new."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "bad")
        self.assert_reloads(1)
        self.outcome = ReloadOutcome.ADOPTED
        self.edit("handlers.py", "one")
        self.assert_reloads(2)
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "bad")
        self.assert_reloads(3)

    def test_put_back_in_vain(self) -> None:
        """When the reload of the live files is refused, too, it is not asked for again either."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "bad")
        self.assert_reloads(1)
        self.edit("handlers.py", "one")
        self.assert_reloads(2)
        os.utime(self.root / "handlers.py", (1, 1))
        self.event()
        self.assert_reloads(2)

    def test_put_right_by_others(self) -> None:
        """When another reload has succeeded in the meantime, the file put back asks for none."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "held for confirmation")
        self.assert_reloads(1)
        self.live, self.failing = self.digests(self.paths), False
        self.assert_reloads(1)
        self.failing = True  # another caller's reload, which the watcher need not report
        self.assert_reloads(1)

    def test_try_again(self) -> None:
        """What failed for a reason that may pass is tried again, at growing intervals, until it is adopted."""
        self.outcome = ReloadOutcome.TRY_AGAIN
        self.edit("handlers.py", "two")
        self.looked()
        times = [self.clock.seconds()]
        while len(times) < 10:
            before = self.reloads
            self.clock.advance(1.0)
            if self.reloads > before:
                times.append(self.clock.seconds())
        gaps = [later - earlier for earlier, later in pairwise(times)]
        self.assertEqual(gaps, sorted(gaps))
        self.assertLess(gaps[0], FIRST_PAUSE + POLL)
        self.assertLessEqual(LONGEST_PAUSE, gaps[-1])
        self.assertLess(gaps[-1], LONGEST_PAUSE + POLL + 1)
        self.outcome = ReloadOutcome.ADOPTED
        self.clock.pump([POLL] * int(LONGEST_PAUSE / POLL + 2))
        self.assertEqual(self.reloads, 11)
        self.clock.pump([POLL] * 100)
        self.assertEqual(self.reloads, 11)

    def test_other_bytes_are_tried_at_once(self) -> None:
        """An edit while a retry waits is asked for at once, and its own retries begin with the shortest pause."""
        self.outcome = ReloadOutcome.TRY_AGAIN
        self.edit("handlers.py", "two")
        self.looked()
        self.clock.pump([1.0] * 120)
        before = self.reloads
        self.edit("handlers.py", "three")
        self.looked()
        self.assertEqual(self.reloads, before + 1)
        self.clock.pump([1.0] * int(FIRST_PAUSE + POLL))
        self.assertEqual(self.reloads, before + 2)

    def test_reload_that_raises(self) -> None:
        """A reload that is refused altogether is logged, and tried again."""
        self.on_reload = lambda: fail(ShuttingDown("no"))
        self.edit("handlers.py", "two")
        self.looked()
        self.assertEqual(len(self.flushLoggedErrors(ShuttingDown)), 1)
        self.on_reload = None
        self.polled(2)
        self.assertEqual(self.reloads, 2)

    def test_adopted_something_else(self) -> None:
        """When the reload read other bytes than the watcher, what is there in the end is adopted."""

        def reload() -> Deferred[ReloadOutcome]:
            self.on_reload = None
            self.live = {**self.live, str(self.root / "handlers.py"): "sha256:of a moment in between"}
            return succeed(ReloadOutcome.ADOPTED)

        self.on_reload = reload
        self.edit("handlers.py", "two")
        self.looked()
        self.polled(2)
        self.assertEqual(self.reloads, 2)
        self.assertEqual(self.live, self.digests(self.paths))
        self.assert_reloads(2)

    def test_adopted_that_is_never_live(self) -> None:
        """A reload after which the files still seem to differ is not asked for again and again."""
        self.on_reload = lambda: succeed(ReloadOutcome.ADOPTED)
        self.edit("handlers.py", "two")
        self.looked()
        self.clock.pump([1.0] * 600)
        self.assertLess(self.reloads, 10)

    def test_event_during_a_reload(self) -> None:
        """What changes while a reload runs is looked at after it."""
        waiting: Deferred[ReloadOutcome] = Deferred()
        self.on_reload = lambda: waiting
        self.edit("handlers.py", "two")
        self.looked()
        self.live = self.digests(self.paths)
        self.edit("handlers.py", "three")
        self.looked()
        self.assertEqual(self.reloads, 1)
        self.on_reload = None
        waiting.callback(ReloadOutcome.ADOPTED)
        self.assert_reloads(2)

    def test_new_directory_is_followed_at_once(self) -> None:
        """After an adoption, its new directories are followed without waiting for a poll."""
        key = str(self.root / "keys" / "k")
        self.write("keys/k", "one")
        self.paths.add(key)
        self.edit("handlers.py", "two")
        self.looked()
        self.looked()
        self.assertIn(str(self.root / "keys"), self.observer.directories)

    def test_replaced(self) -> None:
        """What a rollback replaced is not asked for, until its bytes change."""
        self.replaced = self.digests(self.paths)
        self.live = dict.fromkeys(self.paths, "sha256:of an earlier generation")
        self.event()
        self.assert_reloads(0)
        self.event("handlers.py")
        self.assert_reloads(0)
        self.edit("handlers.py", "two")
        self.assert_reloads(1)


class NewcomerTests(WatcherCase):
    """Files that appear."""

    def test_new_module_after_a_refusal(self) -> None:
        """A module that a refused manifest missed is tried when it appears: beside it at once, deeper by the poll."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("harn.toml", "two")
        self.assert_reloads(1)
        self.edit("new.py", "x")
        self.looked()
        self.assertEqual(self.reloads, 2)
        self.edit("new.py", "y")
        self.assert_reloads(3)
        self.write("pack/deep.py", "x")
        self.polled()
        self.assertEqual(self.reloads, 4)

    def test_new_module_of_no_use(self) -> None:
        """A file that appears beside a live manifest does not cause a reload."""
        self.edit("new.py", "x")
        self.assert_reloads(0)

    def test_new_module_that_an_import_means(self) -> None:
        """A file that makes an import of a live module local asks for one reload, though nothing else changed."""
        handlers = str(self.root / "handlers.py")
        module = Module(
            name="handlers", path=handlers, source=b"one", is_package=False, import_names=("late", "pack", "pack.inner")
        )
        self.bundle = make_bundle({"handlers": module})
        self.edit("other.py", "x")
        self.assert_reloads(0)
        self.paths.add(str(self.root / "late.py"))
        self.edit("late.py", "x")
        self.assert_reloads(1)
        self.paths.add(str(self.root / "pack" / "inner.py"))
        self.write("pack/inner.py", "x")
        self.polled()
        self.assertEqual(self.reloads, 2)
        self.assert_reloads(2)

    def test_new_match_of_a_pattern(self) -> None:
        """A file that a pattern of the manifest matches asks for one reload when it appears, and when it goes."""
        self.bundle, self.include = make_bundle({}), ("rules/*.py",)
        rule = str(self.root / "rules" / "one.py")
        self.write("rules/one.txt", "x")
        self.assert_reloads(0)
        self.write("rules/one.py", "x")
        self.paths.add(rule)
        module = Module(name="rules.one", path=rule, source=b"x", is_package=False)
        self.polled()
        self.bundle = make_bundle({"rules.one": module}, frozenset(("rules.one",)))
        self.assert_reloads(1)
        os.unlink(rule)
        self.polled()
        self.assertEqual(self.reloads, 2)


class UnsettledTests(WatcherCase):
    """Spells in which nothing can be adopted."""

    def assert_reports(self, *expected: str) -> None:
        self.assertEqual(len(self.reports), len(expected), self.reports)
        for report, part in zip(self.reports, expected, strict=True):
            self.assertIn(part, report)

    def pass_time(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds / 0.1)):
            each()
            self.clock.advance(0.1)

    def test_missing_or_empty_manifest(self) -> None:
        """A manifest that is gone, or empty, is not adopted; when it is soon back as it was, nothing happens."""
        (self.root / "harn.toml").unlink()
        self.event("harn.toml")
        self.assert_reloads(0)
        self.edit("harn.toml", "")
        self.assert_reloads(0)
        self.edit("harn.toml", "one")
        self.assert_reloads(0)
        self.edit("harn.toml", "two")
        self.assert_reloads(1)
        self.assert_reports()

    def test_missing_for_long(self) -> None:
        """After thirty seconds it is reported, once; what comes back as it was asks for one reload."""
        (self.root / "harn.toml").unlink()
        self.event("harn.toml")
        self.clock.advance(QUIET + HAIR)
        self.pass_time(UNSETTLED - 0.2)
        self.assert_reports()
        self.pass_time(0.4)
        self.assert_reports("harn.toml is missing; put it back")
        self.pass_time(3 * UNSETTLED)
        self.assert_reports("is missing")
        self.edit("harn.toml", "one")
        self.assert_reloads(1)
        self.edit("harn.toml", "")
        self.pass_time(2 * UNSETTLED)
        self.assert_reports("is missing", "harn.toml is empty; write it whole")
        self.edit("harn.toml", "two")
        self.assert_reloads(2)

    def test_truncated_then_written(self) -> None:
        """A module that is empty before it is written is not adopted until it is."""
        self.edit("handlers.py", "")
        self.pass_time(10.0)
        self.assertEqual(self.reloads, 0)
        self.edit("handlers.py", "two")
        self.assert_reloads(1)
        self.assert_reports()

    def test_emptied_on_purpose(self) -> None:
        """An explicit reload does not mind an emptied module, and the watcher is content with that afterwards."""
        self.edit("handlers.py", "")
        self.pass_time(2 * UNSETTLED)
        self.assert_reports("handlers.py is empty; write it whole, or ask for a reload")
        self.live, self.failing = self.digests(self.paths), False
        self.assert_reloads(0)
        self.pass_time(2 * UNSETTLED)
        self.assert_reports("handlers.py is empty")

    def test_module_that_goes_and_comes(self) -> None:
        """A module that is deleted and comes back with other bytes asks for one reload."""
        (self.root / "handlers.py").unlink()
        self.event()
        self.pass_time(10.0)
        self.assertEqual(self.reloads, 0)
        self.edit("handlers.py", "two")
        self.assert_reloads(1)

    def test_files_that_never_rest(self) -> None:
        """Files of which no two readings are equal are reported after thirty seconds, and adopted when they rest."""
        numbers = iter(range(100_000))

        def write() -> None:
            self.write("handlers.py", str(next(numbers)))

        self.on_read = write
        self.pass_time(UNSETTLED + POLL + 1, self.event)
        self.assert_reports("handlers.py keeps changing")
        reads = self.reads
        self.pass_time(UNSETTLED)
        self.assertLess(self.reads - reads, 4 * UNSETTLED / POLL + 4)
        self.assertEqual(self.reloads, 0)
        self.on_read = lambda: None
        self.event()
        self.assert_reloads(1)
        self.assert_reports("handlers.py keeps changing")

    def test_a_spell_begins_anew(self) -> None:
        """A moment in which the files are as they should be ends a spell: thirty seconds count from the next."""
        for _ in range(4):
            self.edit("harn.toml", "")
            self.pass_time(UNSETTLED - 5)
            self.edit("harn.toml", "one")
            self.looked()
        self.assert_reports()
        self.assertEqual(self.reloads, 0)

    def test_refused_before(self) -> None:
        """After a spell that was reported, what was refused before is asked for again: it is no longer last said."""
        self.outcome = ReloadOutcome.REFUSED
        self.edit("handlers.py", "bad")
        self.assert_reloads(1)
        self.edit("handlers.py", "")
        self.pass_time(UNSETTLED + 1)
        self.assert_reports("handlers.py is empty")
        self.edit("handlers.py", "bad")
        self.assert_reloads(2)

    def test_secrets_beside_what_was_replaced(self) -> None:
        """After a rollback a rotated secret is read again, once, and the replaced files are not adopted."""
        self.write("key", "one")
        self.paths.add(str(self.root / "key"))
        self.replaced = self.digests(self.paths - {str(self.root / "key")})
        self.live = {
            **dict.fromkeys(self.replaced, "of an earlier generation"),
            **self.digests([str(self.root / "key")]),
        }
        self.event()
        self.assert_reloads(0)
        self.edit("key", "two")
        self.assert_reloads(0)
        self.assertEqual(self.renewals, 1)
        self.event()
        self.looked()
        self.assertEqual(self.renewals, 1)
        self.outcome = ReloadOutcome.REFUSED
        self.edit("key", "bad")
        self.looked()
        self.pass_time(LONGEST_PAUSE)
        self.assertEqual((self.reloads, self.renewals), (0, 2))
        self.edit("key", "")
        self.pass_time(UNSETTLED + 1)
        self.assert_reports("key is empty; write it whole")
        self.assertEqual((self.reloads, self.renewals), (0, 2))
        self.outcome = ReloadOutcome.ADOPTED
        self.edit("key", "three")
        self.looked()
        self.assertEqual((self.reloads, self.renewals), (0, 3))
        self.edit("handlers.py", "mended")
        self.edit("key", "four")
        self.assert_reloads(1)
        self.assertEqual(self.renewals, 3)

    def test_files_put_back_after_a_secret_rotated(self) -> None:
        """A start from elsewhere is not made good by a secret that is read again, but by files that are corrected."""
        self.write("key", "one")
        self.paths.add(str(self.root / "key"))
        self.live = self.digests(self.paths)
        self.stop()
        self.write("harn.toml", "bad")
        self.replaced, self.failing = self.digests(self.paths - {str(self.root / "key")}), True
        self.watcher = FileWatcher(FileReader(self.clock, self.clock, self.clock.pool), self)
        self.watcher.startService()
        self.edit("key", "two")
        self.looked()
        self.assertEqual((self.reloads, self.renewals), (0, 1))
        self.edit("harn.toml", "one")
        self.assert_reloads(1)

    def test_a_start_from_elsewhere(self) -> None:
        """A server that started from a last good generation reloads once when the files are put right."""
        self.stop()
        bad = {str(self.root / "harn.toml"): "bad", str(self.root / "handlers.py"): "one"}
        self.write("harn.toml", "bad")
        self.replaced, self.failing = self.digests(bad), True
        self.watcher = FileWatcher(FileReader(self.clock, self.clock, self.clock.pool), self)
        self.watcher.startService()
        self.assert_reloads(0)
        self.edit("harn.toml", "one")
        self.assert_reloads(1)

    def test_a_report_that_fails(self) -> None:
        """A report that cannot be made is logged, and watching continues."""
        self.on_report = lambda: fail(RuntimeError("no disk"))
        self.edit("harn.toml", "")
        self.pass_time(UNSETTLED + 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.edit("harn.toml", "two")
        self.assert_reloads(1)

    def test_stop_during_a_report(self) -> None:
        """Stopping while a report is being made leaves nothing behind."""
        self.on_report = Deferred
        self.edit("harn.toml", "")
        self.pass_time(UNSETTLED + 1)
        self.assert_reports("is empty")
        self.stop()
