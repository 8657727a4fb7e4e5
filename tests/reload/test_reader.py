"""Reading in a thread of its own: the cost of a file that hangs."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from msgspec import UNSET
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.clocks import WallClock
from harn.errors import FilesHang, SecretUnavailable
from harn.files import Noted, read_regular
from harn.orchestrator.assemble import SecretReader
from harn.reload.reader import HANGING, FileReader
from harn.reload.reports import PATIENCE
from tests.reload.fakes import HeldPool, ThreadClock
from tests.reload.world import World, fake


class Content:
    """What a read would use."""


class FileReaderTests(SynchronousTestCase):
    """A reader whose thread may be held."""

    def setUp(self) -> None:
        self.clock = ThreadClock()
        self.files = FileReader(self.clock, self.clock, self.clock.pool)
        self.done: list[str] = []

    def read(self, name: str, **more: Any) -> Deferred[Any]:
        return self.files.read(self.done.append, name, **more)

    def test_one_after_the_other(self) -> None:
        """Only one read is in the pool at a time; a failure is raised to its caller."""
        self.clock.pool.held = True
        first, second = self.read("one"), self.read("two")
        self.assertEqual(self.done, [])
        self.clock.pool.release()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.done, ["one", "two"])
        self.failureResultOf(self.files.read(int, "x"), ValueError)

    def test_hangs(self) -> None:
        """Once a file hangs, others fail at once and say what hangs, and since when; then it recovers."""
        self.clock.pool.held = True
        first = self.read("one", what="harn.toml")
        self.clock.advance(HANGING - 0.1)
        queued = self.read("two")
        self.assertNoResult(queued)
        self.clock.advance(0.2)
        said = str(self.failureResultOf(self.read("three"), FilesHang).value)
        self.assertRegex(said, r"^harn.toml is being read since \d{4}-.*Z \(5\.1 s\): the file system does not answer")
        waiting = self.read("four", waits=True)
        self.clock.pool.release()
        for each in (first, queued, waiting, self.read("five")):
            self.successResultOf(each)
        self.assertEqual(self.done, ["one", "two", "four", "five"])
        self.assertEqual((self.files.doing(), self.files.hanging()), ("", ""))

    def test_cancelled(self) -> None:
        """A read that was cancelled is not begun; one that runs holds the thread until it ends."""
        self.clock.pool.held = True
        first, second = self.read("one"), self.read("two")
        for each in (first, second):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        third = self.read("three")
        self.clock.pool.release()
        self.successResultOf(third)
        self.assertEqual(self.done, ["one", "three"])

    def test_cancelled_is_freed(self) -> None:
        """A read that was cancelled before its turn is freed, and what it would have read, without the collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        self.clock.pool.held = True
        first = self.read("one")
        content = Content()
        kept = weakref.ref(content)
        second = self.files.read(lambda content: content, content)
        del content
        second.cancel()
        self.failureResultOf(second, CancelledError)
        del second
        self.assertIsNone(kept())
        self.clock.pool.release()
        self.successResultOf(first)

    def test_names_the_file(self) -> None:
        """The file that is being read is named, not the whole of what was asked for; each file has its own time."""
        path = Path(self.mktemp())
        path.write_bytes(b"x")
        noted = Noted(clock=self.clock)
        said: list[str] = []

        def work() -> None:
            self.clock.advance(60.0)
            with noted.reading(str(path)):
                self.clock.advance(1.0)
                said.extend((self.files.doing(), self.files.hanging()))
            read_regular(path, 10)

        self.successResultOf(self.files.read(work, what="many files", noted=noted))
        self.assertIn(f"{path} is being read since", said[0])
        self.assertIn("(1.0 s)", said[0])
        self.assertEqual(said[1], "")
        self.assertEqual(noted.changed(), [])


class ThreadTests(TestCase):
    """A reader with its own thread."""

    async def _read(self) -> None:
        files = FileReader(reactor, WallClock())
        threads = [await files.read(current_thread) for _ in range(2)]
        self.assertIs(threads[0], threads[1])
        self.assertIsNot(threads[0], main_thread())
        self.assertTrue(threads[0].daemon)
        files.close()
        threads[0].join(10.0)
        self.assertFalse(threads[0].is_alive())

    def test_own_thread(self) -> Deferred[None]:
        """It is one thread, which keeps no process from ending, and ends when the reader is closed."""
        return Deferred.fromCoroutine(self._read())


class HangingReloadTests(SynchronousTestCase):
    """A server whose files hang."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()).absolute())
        self.pool = HeldPool()
        self.world.builder.files = FileReader(self.world.clock, self.world.clock, self.pool)
        self.world.manifest(fake("a"))
        self.assertTrue(self.successResultOf(self.world.start()).ok)

    def test_reloads(self) -> None:
        """The first reload runs out of time, the next fail at once and name the file; afterwards all is as before."""
        self.pool.held = True
        first = self.world.reload()
        self.world.clock.advance(29.0)
        self.assertNoResult(first)
        self.world.clock.advance(2.0)
        report = self.successResultOf(first)
        self.assertEqual((report.stage, report.timed_out), ("parse", True))
        self.assertIn("did not end within 30s", str(report.error))
        self.assertIn("is being read since", str(report.error))
        for _ in range(20):
            report = self.successResultOf(self.world.reload())
            self.assertEqual((report.stage, report.timed_out), ("parse", True))
            self.assertIn("the file system does not answer", str(report.error))
        self.pool.release()
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_drift(self) -> None:
        """Whether the files differ is unknown then, which is reported: soon, then at once."""
        self.pool.held = True
        describing = self.world.coordinator.describe()
        self.assertNoResult(describing)
        self.world.clock.advance(PATIENCE)
        shown = self.successResultOf(describing)
        self.assertEqual((shown.generation, shown.drift, shown.drifted_files), (1, None, ()))
        self.assertIn("is being read since", shown.drift_unknown)
        self.world.clock.advance(HANGING)
        self.assertIn("does not answer", self.successResultOf(self.world.coordinator.describe()).drift_unknown)
        self.pool.release()
        shown = self.successResultOf(self.world.coordinator.describe())
        self.assertIs(shown.drift, False)
        self.assertIs(shown.drift_unknown, UNSET)

    def test_shutdown(self) -> None:
        """A reload that hangs keeps no server from ending."""
        self.pool.held = True
        self.world.reload().addErrback(lambda _: None)
        self.successResultOf(self.world.coordinator.close())


class HandlerSecretTests(SynchronousTestCase):
    """Secrets that handlers ask for."""

    def test_hangs(self) -> None:
        """A secret's file that hangs takes one thread, however many ask for secrets."""
        clock = ThreadClock()
        clock.pool.held = True
        read = SecretReader(FileReader(clock, clock, clock.pool), {"HARN_SECRET_A_B": "s"}).read
        asked = [read("t", "a/b") for _ in range(20)]
        clock.advance(HANGING + 1)
        self.failureResultOf(read("t", "a/b"), FilesHang)
        clock.pool.release()
        self.assertEqual([self.successResultOf(each) for each in asked], [b"s"] * 20)
        self.failureResultOf(read("t", "no/such"), SecretUnavailable)
