"""Reading files that may be no files: nothing is waited for, and everything is named."""

from __future__ import annotations

import errno
import os
import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.files import NotRegular, TooLarge, read_regular
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
            self.assertEqual((error.strerror, error.filename), ("it is no regular file", path))

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
