"""Reading files of any kind: nothing is waited for, and everything is named."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.files import Noted, NotRegular, Stamp, TooLarge, list_directory, noting, read_regular, stamp_delay
from tests.sockets import bind_in


class ReadRegularTests(SynchronousTestCase):
    """`read_regular`. A pipe that was waited for would hang these tests."""

    def file(self, content: bytes) -> str:
        """Write a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        return path

    @given(st.binary(max_size=64), st.integers(0, 64))
    def test_whole_or_refused(self, content: bytes, limit: int) -> None:
        """A file of at most the limit is read whole; a larger one is refused."""
        path = self.file(content)
        if len(content) <= limit:
            self.assertEqual(read_regular(path, limit), content)
        else:
            self.assertRaises(TooLarge, read_regular, path, limit)

    def test_links(self) -> None:
        """A link is followed; one that leads nowhere, or in a circle, is an error of the system's."""
        path, link = self.file(b"x"), self.mktemp()
        os.symlink(os.path.abspath(path), link)
        self.assertEqual(read_regular(link, 1), b"x")
        os.unlink(path)
        self.assertRaises(FileNotFoundError, read_regular, link, 1)
        circle = self.mktemp()
        os.symlink(os.path.abspath(circle), circle)
        error = self.assertRaises(OSError, read_regular, circle, 1)
        self.assertEqual(error.errno, errno.ELOOP)

    def test_no_regular_file(self) -> None:
        """A pipe (with a writer or without one), a socket and a device are refused at once, through a link too."""
        pipe = self.mktemp()
        os.mkfifo(pipe)
        self.assertRaises(NotRegular, read_regular, pipe, 9)
        writer = os.open(pipe, os.O_RDWR)
        self.addCleanup(os.close, writer)
        os.write(writer, b"x")
        self.assertRaises(NotRegular, read_regular, pipe, 9)
        link = self.mktemp()
        os.symlink(os.path.abspath(pipe), link)
        self.assertRaises(NotRegular, read_regular, link, 9)
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        os.makedirs(directory := self.mktemp())
        bind_in(directory, "s", listening)
        for path in (os.path.join(directory, "s"), "/dev/zero", "/dev/null"):
            error = self.assertRaises(NotRegular, read_regular, path, 9)
            self.assertEqual((error.strerror, error.filename), ("it is not a regular file", path))

    def test_becomes_a_pipe_between(self) -> None:
        """What is a file when it is looked at and a pipe when it is opened is not waited for, either."""
        path, pipe = self.file(b"x"), self.mktemp()
        os.mkfifo(pipe)
        regular = os.stat(path)
        self.patch(os, "stat", lambda _: regular)
        self.assertRaises(NotRegular, read_regular, pipe, 9)

    def test_directory_and_no_name(self) -> None:
        """A directory is told apart; a name that no file can have names none."""
        os.mkdir(directory := self.mktemp())
        self.assertRaises(IsADirectoryError, read_regular, directory, 9)
        self.assertRaises(FileNotFoundError, read_regular, "a\0b", 9)
        self.assertRaises(NotADirectoryError, read_regular, "/dev/null/x", 9)

    def test_grows_while_it_is_read(self) -> None:
        """A file that says it is empty and is not, as those of /proc do, is held to the limit too."""
        self.assertIn(b"Name:", read_regular("/proc/self/status", 1024 * 1024))
        self.assertRaises(TooLarge, read_regular, "/proc/self/status", 10)

    def test_size_in_words(self) -> None:
        """The limit is said as a person would."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.truncate(5 * 1024 * 1024)
        for limit, said in ((10, "10 bytes"), (2048, "2 KiB"), (4 * 1024 * 1024, "4 MiB"), (0, "0 bytes")):
            error = self.assertRaises(TooLarge, read_regular, path, limit)
            self.assertEqual(error.strerror, f"it is larger than {said}")


class NotedTests(SynchronousTestCase):
    """`Noted`: what changed since it was read."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.path = self.root / "file"
        self.path.write_bytes(b"one")

    def read(self, *paths: Path, settle: float = 0.0) -> Noted:
        """Read files, and note them."""
        noted = Noted(settle=settle)
        with noting(noted):
            for path in paths or (self.path,):
                with contextlib.suppress(OSError):
                    read_regular(path, 1000)
        return noted

    def test_as_it_was(self) -> None:
        """What was only read again, or was and is not there, has not changed."""
        noted = self.read(self.path, self.root / "none", self.root)
        self.path.read_bytes()
        self.assertEqual(noted.changed(), [])
        self.assertIsNone(noted.step)

    def test_changed(self) -> None:
        """Written in place, replaced, deleted, come, led elsewhere by a link: each is noticed."""
        names = ("written", "replaced", "deleted", "linked", "kept")
        for name in names:
            (self.root / name).write_bytes(b"one")
        (self.root / "linked").unlink()
        (self.root / "linked").symlink_to("kept")
        noted = self.read(*(self.root / name for name in (*names, "come")))
        (self.root / "written").write_bytes(b"three")
        (self.root / "new").write_bytes(b"one")
        os.replace(self.root / "new", self.root / "replaced")
        (self.root / "deleted").unlink()
        (self.root / "come").write_bytes(b"")
        (self.root / "linked").unlink()
        (self.root / "linked").symlink_to("written")
        wanted = sorted(str(self.root / name) for name in ("come", "deleted", "linked", "replaced", "written"))
        self.assertEqual(noted.changed(), wanted)

    def test_within_a_tick(self) -> None:
        """Of a file that was written just before, the bytes decide: the next change may leave the stamp as it was."""
        noted = self.read(settle=100.0)
        self.assertGreater(noted.wait(), 90.0)
        found = os.stat(self.path)
        stamp = Stamp.of(found)
        self.path.write_bytes(b"two")
        self.patch(Stamp, "of", lambda _: stamp)  # as if the clock had not ticked
        self.assertEqual(found.st_size, 3)
        self.assertEqual(noted.changed(), [str(self.path)])
        self.assertEqual(self.read(settle=100.0).changed(), [])
        self.assertEqual(self.read().wait(), 0.0)

    def test_delay(self) -> None:
        """Two ticks of this kernel's clock where it stamps the file; the usual delay for other clocks, and odd ones."""
        disk, network = os.makedev(254, 1), os.makedev(0, 42)
        ticks = {"usual": 0.004, "slow": 0.01, "odd": 1e-9}
        found = {}
        for name, tick in ticks.items():
            self.patch(time, "clock_getres", lambda _, tick=tick: tick)
            found[name] = (stamp_delay(disk), stamp_delay(network))
        self.assertEqual(found, {"usual": (0.008, 0.02), "slow": (0.02, 0.02), "odd": (0.02, 0.02)})

        def unknown(_: int) -> float:
            raise OSError(errno.EINVAL, "no such clock")

        self.patch(time, "clock_getres", unknown)
        self.assertEqual(stamp_delay(disk), 0.02)

    def test_late_thread(self) -> None:
        """A file is as new as when it was opened, however long the thread then waits before it notes the content."""
        noted = Noted(settle=None)
        found = os.stat(self.path)
        written = found.st_ctime_ns / 1e9
        self.patch(noted.wall, "seconds", iter([written + 0.001, written + 9.0]).__next__)
        noted.note_file(str(self.path), found)
        noted.note_content(str(self.path), b"one", 1000)
        self.assertGreater(noted.wait(), 0.0)

    def test_listings(self) -> None:
        """A directory in which something came or went counts where that is asked for."""
        noted = Noted()
        with noting(noted):
            self.assertEqual(list_directory(str(self.root)), ["file"])
        os.utime(self.root, ns=(0, 0))
        self.assertEqual((noted.changed(), noted.changed(listings=True)), ([], [str(self.root)]))

    def test_nobody_notes(self) -> None:
        """Outside of `noting` nothing is noted."""
        noted = self.read()
        read_regular(self.path, 10)
        list_directory(str(self.root))
        self.path.unlink()
        self.assertEqual(noted.changed(listings=True), [str(self.path)])
