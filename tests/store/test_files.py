"""The event log's files removed, replaced or moved beneath an open store: nothing more counts as written."""

import os
import shutil
import sqlite3
from typing import Any

from twisted.logger import globalLogPublisher

from harn.errors import EventLogGone, EventLogUnavailable
from harn.store.sqlite.database import DatabaseFiles
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import NOW, accept_of, new_delivery
from tests.store.sqlite_case import SQLiteTestCase


class RemovedFilesTests(SQLiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        observer: Any = self.keep
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def keep(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "harn.store" and event["log_level"].name == "error":
            self.lines.append(event["log_format"].format(**event))

    def refused(self, event_id: str = "lost") -> str:
        """Accept something, which fails permanently; give the reason."""
        with self.assertRaises(EventLogGone) as raised:
            self.result_of(self.store.inbox.accept(accept_of(new_delivery(event_id))))
        self.assertFalse(self.store.available())
        return str(raised.exception)

    def remove(self, *suffixes: str) -> None:
        for suffix in suffixes:
            os.unlink(self.path + suffix)

    def test_all_removed(self) -> None:
        """Without its files the store is unavailable, logs once what happened and what can be saved, and stays so."""
        self.accept_one("e1")
        self.remove("", "-wal", "-shm")
        why = self.refused()
        for part in ("events.sqlite-wal", os.path.dirname(self.path), f"pid {os.getpid()}", "restart"):
            self.assertIn(part, why)
        with self.assertRaises(EventLogGone):
            self.result_of(self.store.heartbeat(NOW + 5))
        self.assertIn("unavailable until a restart", self.refused("again"))
        self.assertEqual(len(self.lines), 1, self.lines)

    def test_what_it_has_open_can_be_saved(self) -> None:
        """The commands that the reason names copy everything that was accepted."""
        for number in range(5):
            self.accept_one(f"e{number}")
        self.remove("", "-wal", "-shm")
        commands = self.refused().partition(" (cp ")[2].partition(")")[0].split(" && ")
        place = self.mktemp()
        os.makedirs(place)
        for command in commands:
            source, name = command.removeprefix("cp ").split()
            shutil.copyfile(source, os.path.join(place, name))
        self.assertEqual(len(commands), 2)
        saved = sqlite3.connect(os.path.join(place, "events.sqlite"))
        self.addCleanup(saved.close)
        ids = {event_id for (event_id,) in saved.execute("SELECT event_id FROM deliveries")}
        self.assertLessEqual({f"e{number}" for number in range(5)}, ids)

    if not os.path.isdir("/proc/self/fd"):
        test_what_it_has_open_can_be_saved.skip = "the system does not show a process's descriptors"  # type: ignore[attr-defined]  # trial's own

    def test_one_removed(self) -> None:
        """The loss of any one of the three is noticed."""
        for suffix in ("", "-wal", "-shm"):
            self.remove(suffix)
            said = self.refused()
            self.assertIn(f"events.sqlite{suffix} in ", said)
            self.assertIn("was removed or replaced", said)
            self.result_of(self.store.close())
            shutil.rmtree(os.path.dirname(self.path))
            del self.path
            self.store = self.make_store()
            self.result_of(self.store.open())

    def test_log_removed(self) -> None:
        """When only the log is gone, a clean end writes its content into the database."""
        self.accept_one("e1")
        self.remove("-wal", "-shm")
        said = self.refused()
        self.assertIn("SIGTERM", said)
        self.assertIn("events.sqlite-wal, events.sqlite-shm in ", said)
        self.assertIn("were removed or replaced", said)
        self.result_of(self.store.close())
        self.assertEqual(self.query("SELECT count(*) FROM deliveries WHERE event_id = 'e1'"), [(1,)])

    def test_replaced(self) -> None:
        """Another file of the same name is refused; restoring the right one changes nothing until a restart."""
        self.accept_one("e1")
        os.rename(self.path, self.path + ".aside")
        shutil.copyfile(self.path + ".aside", self.path)
        self.assertIn("removed or replaced", self.refused())
        os.replace(self.path + ".aside", self.path)
        self.refused()

    def test_directory_moved(self) -> None:
        """A directory that was moved away, or another in its place, is noticed at the next commit."""
        self.accept_one("e1")
        directory = os.path.dirname(self.path)
        os.rename(directory, directory + ".moved")
        self.refused()
        os.makedirs(directory)
        self.refused()

    def test_heartbeat_looks_at_every_file(self) -> None:
        """A heartbeat looks at the files themselves, whatever the directory's time says."""
        self.accept_one("e1")
        directory = os.path.dirname(self.path)
        before = os.stat(directory)
        self.remove("-wal")
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
        with self.assertRaises(EventLogGone):
            self.result_of(self.store.heartbeat(NOW + 5))

    def test_other_files_change_nothing(self) -> None:
        """Files of others in the directory come and go."""
        self.accept_one("e1")
        beside = os.path.join(os.path.dirname(self.path), "state.json")
        for number in range(3):
            with open(beside, "w") as file:
                file.write("{}")
            os.replace(beside, beside + ".new")
            self.accept_one(f"f{number}")

    def test_not_readable_for_a_while(self) -> None:
        """Files that cannot be looked at fail the unit, not the store."""
        database: Any = self.store._database
        found = database._files
        self.patch(found, "check", lambda: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with self.assertRaises(EventLogUnavailable) as raised:
            self.result_of(self.store.inbox.accept(accept_of(new_delivery("e1"))))
        self.assertNotIsInstance(raised.exception, EventLogGone)
        self.patch(found, "check", lambda: None)
        self.accept_one("e2")
        self.assertTrue(self.store.available())

    def test_guard(self) -> None:
        """A guard that says that the directory is another's ends all writing at the next heartbeat."""
        self.result_of(self.store.close())
        verdicts: list[Any] = []

        class Checked:
            def check(self) -> None:
                if verdicts:
                    raise EventLogGone(verdicts[0])

        self.store = SQLiteStore.at(self.path, self.clock, guard=Checked())
        self.result_of(self.store.open())
        self.result_of(self.store.heartbeat(NOW))
        verdicts.append("it is another server's")
        with self.assertRaises(EventLogGone):
            self.result_of(self.store.heartbeat(NOW + 5))
        self.refused()


class DatabaseFilesTests(SQLiteTestCase):
    def test_nothing_known(self) -> None:
        """Before anything is noted, nothing can be missing."""
        DatabaseFiles(os.path.join(self.mktemp(), "events.sqlite")).check()
