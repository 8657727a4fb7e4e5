"""Full, locked, damaged: nothing is half written, no number lost, and the store recovers by itself."""

import os
import shutil
import sqlite3
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from harn.errors import EventLogGone, EventLogUnavailable, StateDirectoryUnusable, StoreError
from harn.model.delivery import READY
from harn.store.inbox import Kept
from harn.store.sqlite.migrations import SCHEMA_VERSION
from harn.store.sqlite.store import SQLiteStore
from harn.store.worker import run_in
from harn.testing.stores.kit import NOW, accept_of, dedupe, new_delivery
from tests.store.sqlite_case import SQLiteTestCase


class FullDiskTests(SQLiteTestCase):
    def limit_pages(self, pages: int) -> None:
        """Return the database at most so many pages, as a full disk would."""
        writer: Any = self.store._executor.writer
        statement = f"PRAGMA max_page_count = {pages}"
        self.result_of(run_in(writer._worker, lambda: writer._session.connection.execute(statement).fetchone()))

    def fill(self) -> Deferred[Kept]:
        self.limit_pages(1)
        return self.store.inbox.accept(accept_of(new_delivery("full", body=b"x" * 100_000, claim=dedupe("k"))))

    def test_nothing_is_kept_and_no_claim_used_up(self) -> None:
        """On a full disk a unit fails with the path and the reason; the same claim succeeds once there is room."""
        before = self.accept_one("e1")
        with self.assertRaises(EventLogUnavailable) as raised:
            self.result_of(self.fill())
        self.assertIn(self.path, str(raised.exception))
        self.assertIn("full", str(raised.exception))
        self.assertFalse(self.store.available())
        self.assertEqual(self.state_of("full"), [])
        self.limit_pages(100_000)
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (before + 1,))
        self.assertTrue(self.store.available())

    def test_all_units_of_the_batch_fail(self) -> None:
        """Everything that shares the failed commit fails, and nothing of it is there."""
        units: Any = [
            self.fill(),
            self.store.event_log.append("audit.test", "kind", {}),
            self.store.inbox.claim("admin", "k", NOW + 10),
        ]
        for unit in units:
            with self.assertRaises(EventLogUnavailable):
                self.result_of(unit)
        self.assertEqual(self.query("SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM claims)"), [(0, 0)])

    def test_reads_go_on(self) -> None:
        """What was kept before can be read while nothing can be written."""
        self.accept_one("e1")
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.fill())
        self.assertEqual(self.state_of("e1"), [READY])

    def test_heartbeat_ends_it(self) -> None:
        """A heartbeat is the probe: once it can be written, the store is available again."""
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.fill())
        self.limit_pages(100_000)
        self.result_of(self.store.heartbeat(NOW + 5))
        self.assertTrue(self.store.available())


class LockedTests(SQLiteTestCase):
    busy_timeout = 0.01

    def test_locked_by_another_process(self) -> None:
        """A database that another process locks is unavailable until that releases it."""
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        accepting = self.store.inbox.accept(accept_of(new_delivery("e1", claim=dedupe("k"))))
        with self.assertRaises(EventLogUnavailable) as raised:
            self.result_of(accepting)
        self.assertIn("locked", str(raised.exception))
        self.assertFalse(self.store.available())
        other.execute("ROLLBACK")
        other.close()
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (1,))
        self.assertTrue(self.store.available())


class DisconnectedTests(SQLiteTestCase):
    def disconnect(self) -> None:
        """Interrupt the writer's connection, as an I/O error may."""
        writer: Any = self.store._executor.writer
        self.result_of(run_in(writer._worker, lambda: writer._session.connection.close()))

    def test_a_new_connection_takes_over(self) -> None:
        """A batch that fails over a broken connection is followed by one over a new connection, with the same owner."""
        before = self.accept_one("e1")
        self.disconnect()
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.store.inbox.accept(accept_of(new_delivery("lost"))))
        self.assertEqual(self.accept(new_delivery("e2")), (before + 1,))
        self.assertEqual(self.ready_ids(), [before, before + 1])

    def test_a_removed_database_is_not_made_anew(self) -> None:
        """When the file is gone, the store stays away: an empty one in its place would hide the loss."""
        self.disconnect()
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        for _ in range(2):
            with self.assertRaises(EventLogUnavailable):
                self.result_of(self.store.inbox.accept(accept_of(new_delivery("e1"))))
        self.assertFalse(os.path.exists(self.path))

    def test_another_database_is_not_gone_on_with(self) -> None:
        """After an error of the disk, an older copy in the place of the database is not taken for it."""
        self.accept_one("e1")
        self.query("PRAGMA wal_checkpoint(PASSIVE)")
        shutil.copyfile(self.path, self.path + ".old")
        self.accept_one("e2")
        self.disconnect()
        os.replace(self.path + ".old", self.path)
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.store.inbox.accept(accept_of(new_delivery("lost"))))
        with self.assertRaises(EventLogGone):
            self.result_of(self.store.inbox.accept(accept_of(new_delivery("e3"))))
        self.assertEqual(self.query("SELECT event_id FROM deliveries"), [("e1",)])


class BadUnitTests(SQLiteTestCase):
    def test_bad_text_fails_alone(self) -> None:
        """A unit with text that is not Unicode fails; its neighbours in the batch are kept, each whole, in order."""
        units = [
            self.store.inbox.accept(accept_of(new_delivery("e1", claim=dedupe("k1")))),
            self.store.inbox.accept(
                accept_of(new_delivery("e2", claim=dedupe("k2")), new_delivery("bad", kind="\ud800"))
            ),
            self.store.inbox.accept(accept_of(new_delivery("e3", claim=dedupe("k3")))),
        ]
        self.assertEqual(self.result_of(units[0]), (1,))
        with self.assertRaises(StoreError) as raised:
            self.result_of(units[1])
        self.assertNotIsInstance(raised.exception, EventLogUnavailable)
        self.assertEqual(self.result_of(units[2]), (2,))
        self.assertEqual(self.state_of("e2"), [])
        self.assertEqual(self.accept(new_delivery("e4", claim=dedupe("k2"))), (3,))
        self.assertTrue(self.store.available())

    def test_bad_unit_beside_duplicates(self) -> None:
        """Duplicates stay duplicates when their batch is written unit by unit."""
        self.accept_one("e1", claim=dedupe("k"))
        units = [
            self.store.inbox.accept(accept_of(new_delivery("e2", claim=dedupe("k")))),
            self.store.inbox.accept(accept_of(new_delivery("e3", version=1 << 70))),
            self.store.inbox.accept(accept_of(new_delivery("e4", claim=dedupe("l")))),
            self.store.inbox.accept(accept_of(new_delivery("e5", claim=dedupe("l")))),
        ]
        units[1].addErrback(lambda failure: failure.type)
        self.assertEqual(self.result_of(gatherResults(units)), [(None,), StoreError, (2,), (None,)])


class UnusableTests(SQLiteTestCase):
    def open_fails(self, path: str) -> str:
        store = SQLiteStore.at(path, self.clock)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.result_of(store.open())
        self.result_of(store.close())
        self.assertIn(path, str(raised.exception))
        return str(raised.exception)

    def test_no_database(self) -> None:
        """A file of something else is named, with what to do."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"not a database at all, but long enough to have a header" * 100)
        self.assertIn("backup", self.open_fails(path))

    def test_no_directory(self) -> None:
        """A path in a directory that is missing is named."""
        self.assertIn("unable to open", self.open_fails(os.path.join(self.mktemp(), "events.sqlite")))

    def test_database_of_another_program(self) -> None:
        """Another program's database is not touched."""
        path = self.mktemp()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (id)")
        connection.close()
        self.assertIn("another program", self.open_fails(path))

    def test_newer_schema(self) -> None:
        """A database that a newer version wrote, and not so that this one can, is refused, and says so."""
        self.result_of(self.store.close())
        self.query("DELETE FROM standing")
        self.query(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertIn("newer", self.open_fails(self.path))

    def test_open_again_after_a_failure(self) -> None:
        """A store whose `open` failed can be opened once the cause is gone."""
        directory = self.mktemp()
        store = SQLiteStore.at(os.path.join(directory, "events.sqlite"), self.clock)
        with self.assertRaises(StateDirectoryUnusable):
            self.result_of(store.open())
        os.makedirs(directory)
        self.result_of(store.open())
        self.result_of(store.close())


class WallClockTests(SQLiteTestCase):
    def test_a_step(self) -> None:
        """What has expired, and every stamp, is by the time of day as it is when the unit is written."""
        self.accept_one("e1", claim=dedupe("k", expires_at=NOW + 100.0))
        self.wall.step(90.0)
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (None,))
        self.wall.step(20.0)
        self.assertEqual(len(self.accept(new_delivery("e3", claim=dedupe("k")))), 1)
        self.assertEqual(self.state_of("e3"), [READY])
        self.wall.step(-3600.0)
        self.result_of(self.store.event_log.append("audit.test", "kind", {}))
        self.assertEqual(self.query("SELECT occurred_at FROM log"), [(self.wall.seconds(),)])


class BesideAStateFileTests(SQLiteTestCase):
    def open_fails(self) -> str:
        evidence = os.path.join(os.path.dirname(self.path), "orchestrator-state.json")
        with open(evidence, "w") as file:
            file.write("{}")
        store = SQLiteStore.at(self.path, self.clock, evidence=(evidence,))
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.result_of(store.open())
        self.result_of(store.close())
        self.assertIn("restore", str(raised.exception))
        self.assertIn(self.path, str(raised.exception))
        return str(raised.exception)

    def test_nothing_of_ours_is_no_beginning(self) -> None:
        """A database that is missing, empty, or without our tables is refused where a server has run."""
        self.result_of(self.store.close())
        os.unlink(self.path + ".mark")
        tables = [name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        ours = [name for name in tables if not name.startswith("sqlite_")]
        self.query("DROP TABLE events")
        self.assertIn("has lost tables (events)", self.open_fails())
        for name in ours:
            self.query(f"DROP TABLE IF EXISTS {name}")
        self.assertIn("none of our tables", self.open_fails())
        os.truncate(self.path, 0)
        self.assertIn("is empty", self.open_fails())
        os.unlink(self.path)
        self.assertIn("there is no event log", self.open_fails())
        self.assertFalse(os.path.exists(self.path))
