"""Copies of a database that is in use: consistent, checked, complete or not there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from harn.backup import backups
from harn.errors import BackupFailed, BackupRefused
from harn.model.delivery import WAITING
from harn.store.backup import BackupOrigin
from harn.store.sqlite import copying
from harn.store.sqlite.copying import Copied, back_up, examine, restore
from harn.store.sqlite.migrations import SCHEMA_VERSION
from harn.testing.stores.kit import NOW
from tests.store.sqlite_case import SQLiteTestCase

ORIGIN = BackupOrigin(made_at=NOW, harn_version="1.2.3", host="here", digest_key=b"k" * 32)

LIMITED = """
import resource, sys
from harn.errors import BackupFailed
from harn.store.backup import BackupOrigin
from harn.store.sqlite.copying import back_up
resource.setrlimit(resource.RLIMIT_FSIZE, (200000, resource.RLIM_INFINITY))
try:
    back_up(sys.argv[1], sys.argv[2], BackupOrigin(made_at=1.0, harn_version="", host=""), replaces=False)
except BackupFailed as error:
    print("failed:", error)
"""


class BackUpTests(SQLiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.file = str(self.folder / "copy.harn")

    def back_up(self, **more: Any) -> Copied:
        return back_up(self.path, self.file, ORIGIN, replaces=more.pop("replaces", False), **more)

    def ids(self, path: str) -> list[int]:
        connection = sqlite3.connect(path)
        try:
            return [number for (number,) in connection.execute("SELECT id FROM deliveries ORDER BY id")]
        finally:
            connection.close()

    def test_everything_accepted_is_in_one_private_file(self) -> None:
        """All that is on disk at the moment is in the copy, which needs no other file and is its owner's alone."""
        accepted = [self.accept_one(f"e{number}") for number in range(3)]
        self.settle(accepted[1], WAITING, due_at=NOW + 100)
        copied = self.back_up()
        self.accept_one("later")
        self.assertEqual(self.ids(self.file), accepted)
        self.assertEqual(os.listdir(self.folder), ["copy.harn"])
        self.assertEqual(stat.S_IMODE(os.stat(self.file).st_mode), 0o600)
        self.assertEqual(copied.contents.deliveries, {"ready": 2, "waiting": 1})
        self.assertEqual((copied.size, copied.origin), (os.path.getsize(self.file), ORIGIN))

    def test_what_is_written_during_the_copy_does_not_disturb_it(self) -> None:
        """Writes between two slices neither wait nor begin the copy again; none of them is in it."""
        accepted = [self.accept_one(f"e{number}", body=b"x" * 200_000) for number in range(30)]
        during: list[int] = []

        def look() -> bool:
            if len(during) < 5:
                during.append(self.accept_one(f"during{len(during)}", body=b"y" * 200_000))
            return False

        self.back_up(is_stopped=look)
        self.assertEqual((self.ids(self.file), len(during)), (accepted, 5))

    def test_an_existing_file_stays(self) -> None:
        """A file of that name is refused; --force replaces a backup, and nothing else."""
        self.back_up()
        before = Path(self.file).read_bytes()
        self.accept_one("e1")
        self.assertIn("--force", str(self.assertRaises(BackupRefused, self.back_up)))
        self.assertEqual(Path(self.file).read_bytes(), before)
        self.back_up(replaces=True)
        self.assertEqual(len(self.ids(self.file)), 1)
        Path(self.file).write_text("a letter")
        self.assertIn("not a backup", str(self.assertRaises(BackupRefused, self.back_up, replaces=True)))
        self.assertEqual(Path(self.file).read_text(), "a letter")
        os.unlink(self.file)
        os.symlink(self.path, self.file)
        self.assertRaises(BackupRefused, self.back_up, replaces=True)
        os.unlink(self.file)
        os.link(self.path, self.file)
        self.assertRaises(BackupRefused, self.back_up, replaces=True)

    def test_stopped(self) -> None:
        """A copy that is stopped, while it is made or checked, leaves nothing."""
        for number in range(20):
            self.accept_one(f"e{number}", body=b"x" * 300_000)
        self.patch(copying, "CHECKED", 10)
        looks = []
        self.back_up(is_stopped=lambda: looks.append(1))
        os.unlink(self.file)
        for last in (1, len(looks) - 1):
            left = iter(range(last))
            with self.assertRaises(BackupFailed) as raised:
                self.back_up(is_stopped=lambda left=left: next(left, None) is None)
            self.assertIn("stopped", str(raised.exception))
            self.assertEqual(os.listdir(self.folder), [])

    def test_damage_is_found_before_the_file_has_its_name(self) -> None:
        """The copy of a damaged database is not kept, and the message says what is wrong and what to do."""
        for number in range(50):
            self.accept_one(f"e{number}")
        self.result_of(self.store.close())
        damage_index(self.path)
        with self.assertRaises(BackupFailed) as raised:
            self.back_up()
        self.assertIn("missing from index", str(raised.exception))
        self.assertIn("restore", str(raised.exception))
        self.assertEqual(os.listdir(self.folder), [])

    def test_full_disk(self) -> None:
        """A disk that fills up is said so, and leaves nothing."""
        for number in range(10):
            self.accept_one(f"e{number}", body=b"x" * 100_000)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        command = [sys.executable, "-c", LIMITED, self.path, self.file]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertIn("failed: no backup to", done.stdout, done.stderr)
        self.assertEqual(os.listdir(self.folder), [])

    def test_what_a_killed_one_left_is_no_obstacle(self) -> None:
        """A part that a killed process left is written over."""
        for left in (lambda: b"", lambda: b"\0" * 5000, lambda: Path(self.file).read_bytes()[:5000]):
            Path(self.file + ".part").write_bytes(left())
            Path(self.file).unlink(missing_ok=True)
            self.back_up()
            self.assertEqual(os.listdir(self.folder), ["copy.harn"])

    def test_another_file_in_the_way(self) -> None:
        """A file that happens to have the name of the part is left as it is, and named."""
        other = Path(self.file + ".part")
        other.write_text("a letter")
        self.assertIn(str(other), str(self.assertRaises(BackupRefused, self.back_up)))
        self.assertEqual((other.read_text(), os.listdir(self.folder)), ("a letter", ["copy.harn.part"]))

    def test_no_such_directory(self) -> None:
        """A place that cannot be written is named."""
        self.file = str(self.folder / "missing" / "copy.harn")
        self.assertIn(self.file, str(self.assertRaises(BackupRefused, self.back_up)))

    def test_restored_is_a_database_of_a_server(self) -> None:
        """What is restored has everything but what made it a backup, and takes new deliveries, with new numbers."""
        accepted = self.accept_one("e1")
        self.back_up()
        self.result_of(self.store.close())
        self.path = str(self.folder / "events.sqlite")
        restore(self.file, self.path)
        self.assertEqual(self.query("SELECT count(*) FROM sqlite_master WHERE name = 'backup'"), [(0,)])
        self.store = self.make_store()
        self.result_of(self.store.open())
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).recovered, 1)
        self.assertEqual(self.accept_one("e2"), accepted + 1)
        self.assertEqual(self.ready_ids(), [accepted, accepted + 1])

    def test_the_key_cannot_be_written(self) -> None:
        """Where the key cannot be written, the directory is empty again, and the next try works."""
        self.accept_one("e1")
        key = BackupOrigin(made_at=NOW, harn_version="1", host="h", digest_key=b"k" * 32)
        back_up(self.path, self.file, key, replaces=False)
        directory = self.mktemp()
        patch = self.patch(backups, "DIGEST_KEY", "none/digest.key")
        error = self.assertRaises(BackupFailed, backups.restore_into, directory, self.file)
        self.assertIn("none/digest.key: No such file or directory", str(error))
        patch.restore()
        backups.restore_into(directory, self.file)
        self.assertEqual(Path(directory, "digest.key").read_bytes(), b"k" * 32)

    def test_a_plain_copy_is_examined_too(self) -> None:
        """The database of a server that has ended is as good as a backup; nothing is made beside it."""
        self.accept_one("e1")
        self.result_of(self.store.close())
        shutil.copyfile(self.path, self.file)
        os.chmod(self.folder, 0o500)
        self.addCleanup(os.chmod, self.folder, 0o700)
        found = examine(self.file)
        self.assertEqual((found.origin, found.contents.deliveries), (None, {"ready": 1}))
        self.assertEqual(os.listdir(self.folder), ["copy.harn"])

    def test_refused(self) -> None:
        """Another file than a backup, and one of a newer harn, are refused with a message that says which."""
        self.assertIn("no file", str(self.assertRaises(BackupRefused, examine, self.file)))
        Path(self.file).write_text("a letter")
        self.assertIn("neither", str(self.assertRaises(BackupRefused, examine, self.file)))
        os.unlink(self.file)
        self.back_up()
        connection = sqlite3.connect(self.file, isolation_level=None)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.close()
        self.assertIn("newer harn", str(self.assertRaises(BackupRefused, examine, self.file)))

    def test_cut_short(self) -> None:
        """A backup that lost its end on the way is refused, and nothing is restored from it."""
        for number in range(20):
            self.accept_one(f"e{number}", body=b"x" * 10_000)
        self.back_up()
        os.truncate(self.file, os.path.getsize(self.file) // 2)
        database = str(self.folder / "events.sqlite")
        for call in (lambda: examine(self.file), lambda: restore(self.file, database)):
            with self.assertRaises(BackupFailed):
                call()
        self.assertEqual(os.listdir(self.folder), ["copy.harn"])


def damage_index(path: str) -> None:
    """Replace the content of an index by another's, as a page that was written to the wrong place may."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE spare (event_id TEXT)")
    connection.execute("CREATE INDEX spare_event ON spare (event_id)")
    root = "SELECT rootpage FROM sqlite_master WHERE name = ?"
    roots = {name: connection.execute(root, (name,)).fetchone()[0] for name in ("spare_event", "deliveries_event")}
    connection.execute("PRAGMA writable_schema = ON")
    for name, other in (("spare_event", "deliveries_event"), ("deliveries_event", "spare_event")):
        connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (roots[other], name))
    connection.close()
