"""The state directory's files are its owner's alone, and a directory that others can enter is warned about."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, cast

from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harn.orchestrator.state_directory import make_private, read_or_make_key
from harn.orchestrator.state_file import replace_file
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.schema import connect_writer


class PrivacyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(cast("ILogObserver", self.keep))
        self.addCleanup(globalLogPublisher.removeObserver, cast("ILogObserver", self.keep))
        self.directory = Path(self.mktemp()).absolute()

    @staticmethod
    def make_open(path: Path) -> None:
        """Make an empty file that every user may use, whatever the umask."""
        path.write_text("")
        path.chmod(0o666)

    def keep(self, event: Any) -> None:
        """Keep what is said at warning."""
        if event.get("log_namespace") == "harn" and event["log_level"].name == "warn":
            self.lines.append(event["log_format"].format(**event))

    def modes(self) -> dict[str, int]:
        """Return every mode, by name."""
        return {
            str(each.relative_to(self.directory)): each.stat().st_mode & 0o777 for each in self.directory.rglob("*")
        }

    def test_new_files(self) -> None:
        """What is made is private, with the usual umask, too; SQLite's files beside the database included."""
        lock = StateDirectoryLock(str(self.directory))
        lock.acquire()
        self.addCleanup(lock.release)
        database = connect_writer(
            str(self.directory / "events.sqlite"), create=True, synchronous="OFF", busy_timeout=1.0
        )
        self.addCleanup(database.close)
        (self.directory / "orchestrator-state.json.tmp").write_text("left by a crash")
        replace_file(str(self.directory / "orchestrator-state.json"), b"{}")
        expected = ("lock", "events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "orchestrator-state.json")
        self.assertEqual(self.modes(), dict.fromkeys(expected, 0o600))
        make_private(str(self.directory))
        self.assertEqual(self.lines, [])

    def test_files_of_before(self) -> None:
        """Existing files of harn become private; other files, and links, are left as they are."""
        logs = self.directory / "logs"
        logs.mkdir(parents=True, mode=0o755)
        ours = (
            "events.sqlite",
            "events.sqlite-wal",
            "running-7",
            "token",
            "logs/orchestrator.log",
            "logs/orchestrator.log.1",
        )
        for name in (*ours, "harn.toml", "logs/other.log"):
            self.make_open(self.directory / name)
        outside = Path(self.mktemp())
        self.make_open(outside)
        (self.directory / "lock").symlink_to(outside.absolute())
        self.directory.chmod(0o750)
        make_private(str(self.directory))
        modes = self.modes()
        self.assertEqual({name: modes[name] for name in ours}, dict.fromkeys(ours, 0o600))
        self.assertEqual((modes["logs"], modes["logs/other.log"], modes["harn.toml"]), (0o700, 0o666, 0o666))
        self.assertEqual(outside.stat().st_mode & 0o777, 0o666)
        (line,) = self.lines
        self.assertIn("(mode 0750)", line)
        self.assertIn(f"type: chmod 700 {self.directory}", line)

    def test_what_cannot_be_changed(self) -> None:
        """A file whose mode cannot be changed causes a warning, and the server starts."""
        self.directory.mkdir(mode=0o700)
        self.make_open(self.directory / "token")

        def chmod(path: str, mode: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "chmod", chmod)
        make_private(str(self.directory))
        (line,) = self.lines
        self.assertIn(f"{self.directory}/token (mode 0666)", line)


class KeyTests(SynchronousTestCase):
    """The key that makes digests of secrets useless to others."""

    def test_key(self) -> None:
        """The key is made once, readable by its owner only; one of another length is made again."""
        directory = self.mktemp()
        os.mkdir(directory)
        key = read_or_make_key(directory)
        self.assertEqual((len(key), read_or_make_key(directory)), (32, key))
        path = Path(directory) / "digest.key"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        path.write_bytes(b"short")
        self.assertEqual(len(read_or_make_key(directory)), 32)
        self.assertRaises(OSError, read_or_make_key, "/nowhere/at/all")
