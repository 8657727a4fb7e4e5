"""Reading the manifest's file."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ManifestInvalid
from harn.manifest.source import ManifestSource, read_manifest


class ReadTests(SynchronousTestCase):
    """`read_manifest`."""

    def refusal(self, path: str) -> str:
        """Return the message about a file that cannot be read."""
        error = self.assertRaises(ManifestInvalid, read_manifest, path)
        self.assertEqual(error.stage, "parse")
        return str(error)

    def test_reads(self) -> None:
        """The path becomes absolute; the name stays as it was typed; the bytes are those of the file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x = 1\r\n")
        found = read_manifest(path)
        self.assertEqual((found.path, found.shown, found.data), (os.path.abspath(path), path, b"x = 1\r\n"))
        self.assertEqual(found.decode()[0], "x = 1\n")

    def test_shown(self) -> None:
        """Problems and the source have the name that the user typed, where the path is another."""
        path = self.mktemp()
        error = self.assertRaises(ManifestInvalid, read_manifest, os.path.abspath(path), "my.toml")
        self.assertEqual(str(error), "my.toml: manifest not found: my.toml; say where it is with --config")
        with open(path, "wb") as file:
            file.write(b"x = 1")
        self.assertEqual(read_manifest(os.path.abspath(path), "my.toml").shown, "my.toml")

    def test_missing(self) -> None:
        """A file that is not there is named, with what to do."""
        path = self.mktemp()
        self.assertEqual(self.refusal(path), f"{path}: manifest not found: {path}; say where it is with --config")
        self.assertIn("manifest not found", self.refusal(path + "\0"))
        self.assertIn("manifest not found", self.refusal("/dev/null/harn.toml"))

    def test_no_regular_file(self) -> None:
        """A directory, a pipe without a writer and a device are refused at once."""
        path = self.mktemp()
        os.mkdir(path)
        self.assertIn("is a directory", self.refusal(path))
        pipe = self.mktemp()
        os.mkfifo(pipe)
        self.assertIn("is not a regular file", self.refusal(pipe))
        self.assertIn("is not a regular file", self.refusal("/dev/null"))

    def test_not_readable(self) -> None:
        """What the system refuses is said in its words."""
        path = os.path.abspath(self.mktemp())
        os.symlink(path, path)
        self.assertIn("cannot be read: Too many levels of symbolic links", self.refusal(path))

    def test_too_big(self) -> None:
        """A file of an absurd size is not read."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.truncate(65 * 1024 * 1024)
        self.assertIn("is larger than 64 MiB", self.refusal(path))


class TextTests(SynchronousTestCase):
    """`ManifestSource.text`."""

    def refusal(self, data: bytes) -> str:
        """Return the message for bytes that are not text."""
        error = self.assertRaises(ManifestInvalid, ManifestSource.of("/x/harn.toml", data).decode)
        self.assertEqual(error.stage, "parse")
        return str(error)

    def test_what_is_no_text(self) -> None:
        """Each kind of file that cannot be a manifest is named with its kind, and its path."""
        for data, expected in (
            (b"", "harn.toml: the file is empty"),
            (b"\xef\xbb\xbfx = 1", "harn.toml:1: begins with a byte order mark; save it as UTF-8 without one"),
            (b"\xff\xfex\0", "harn.toml:1: begins with a byte order mark"),
            (b"x = 1\n\ny = '\0'", "harn.toml:3: holds a NUL byte"),
            (b"x = 1\ny = '\xe9'", "harn.toml:2: is not UTF-8; save it as UTF-8"),
        ):
            self.assertIn(expected, self.refusal(data))

    def test_content_is_not_shown_in_repr(self) -> None:
        """The bytes stay out of logs."""
        self.assertNotIn("hunter2", repr(ManifestSource.of("/x/harn.toml", b"hunter2")))
