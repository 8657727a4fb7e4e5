"""The check of a state directory's event log: what is wrong, and what to do; and the file made small again."""

import os
import shutil
import sqlite3

from harn.backup.store_check import check_store, compact
from harn.errors import StateDirectoryUnusable
from harn.model.delivery import DEAD, REJECTED, DeadLetter
from harn.store.lock import StateDirectoryLock
from harn.store.retention import RetentionPolicy
from harn.testing.stores.kit import NOW, attempt_of
from tests.store.sqlite_case import SQLiteTestCase
from tests.store.test_copying import damage_index


class CheckStoreTests(SQLiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.state_dir = os.path.dirname(self.path)
        for number in range(20):
            self.settle(self.accept_one(f"e{number}"), attempt=attempt_of())
        self.dead = self.accept_one("dead")
        self.settle(self.dead, DEAD, dead=DeadLetter(reason=REJECTED, error_class="rejected", error="no"))
        self.ready = self.accept_one("ready")

    def close(self) -> None:
        self.result_of(self.store.close())

    def change(self, *statements: str) -> None:
        """Change the database beneath the server's own rules, as damage would."""
        self.close()
        connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    def found(self) -> list[str]:
        report = check_store(self.state_dir)
        self.assertEqual(report.status, "error" if report.problems else "ok")
        return [each.what for each in report.problems]

    def test_sound(self) -> None:
        """A sound one is counted, beside a server that has it open, and after it has ended."""
        for _ in range(2):
            report = check_store(self.state_dir)
            self.assertEqual((report.status, report.problems), ("ok", ()))
            self.assertEqual(report.deliveries, {"done": 20, "dead": 1, "ready": 1})
            self.assertTrue(report.shrinks)
            self.close()

    def test_look(self) -> None:
        """A look counts nothing, and finds what is missing; what only a whole reading can find is left to that."""
        report = check_store(self.state_dir, whole=False)
        self.assertEqual((report.status, report.whole, report.deliveries), ("ok", False, {}))
        self.change("DELETE FROM events WHERE id = (SELECT max(id) FROM deliveries)")
        (problem,) = check_store(self.state_dir, whole=False).problems
        self.assertIn("1 of the newest 1000 deliveries have no event", problem.what)
        self.change("DROP INDEX deliveries_event")
        self.assertIn("index deliveries_event is missing", check_store(self.state_dir, whole=False).problems[0].what)

    def test_damaged_index(self) -> None:
        """Rows that an index lacks are found; rebuilding the indices repairs it."""
        self.close()
        damage_index(self.path)
        problems = check_store(self.state_dir).problems
        self.assertTrue([each for each in problems if "missing from index deliveries_event" in each.what], problems)
        self.assertIn("harn orchestrator compact", problems[0].hint)
        compact(self.state_dir)
        self.assertEqual(self.found(), [])

    def test_damaged_page(self) -> None:
        """A page that was overwritten is found; what to do is to restore a backup."""
        self.close()
        (page,) = self.query("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries'")[0]
        with open(self.path, "r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(os.urandom(4096))
        problems = check_store(self.state_dir).problems
        self.assertIn("restore FILE", problems[0].hint)

    def test_relations(self) -> None:
        """What two tables say differently is counted, with an example and what to do."""
        cases = {
            "unfinished deliveries have no event": f"DELETE FROM events WHERE id = {self.ready}",
            "finished deliveries have no event": "DELETE FROM events WHERE id < 4",
            "events have no delivery": "DELETE FROM deliveries WHERE id = 5",
            "attempts have no delivery": "DELETE FROM deliveries WHERE id = 5",
            "dead letters have no number": f"UPDATE deliveries SET dead_number = NULL WHERE id = {self.dead}",
            "do not say when they ended": "UPDATE deliveries SET settled_at = NULL WHERE id = 7",
            "generations have lost their manifest": "INSERT INTO generations (number, digest, bundle_id, source, actor,"
            " adopted_at, removed, manifest_digest) VALUES (1, 'd', 'b', 'cli', 'me', 1.0, x'5b5d', 'gone')",
            "binding versions have lost their code": "INSERT INTO binding_versions VALUES ('gh', 1, 'f', 1, 'b', x'')",
        }
        self.close()
        shutil.copyfile(self.path, self.path + ".kept")
        for said, statement in cases.items():
            shutil.copyfile(self.path + ".kept", self.path)
            self.change(statement)
            self.assertTrue([what for what in self.found() if said in what], said)

    def test_schema(self) -> None:
        """A table or an index that is missing is named."""
        self.change("DROP TABLE standing", "DROP INDEX deliveries_waiting")
        self.assertEqual(sorted(self.found()), ["index deliveries_waiting is missing", "table standing is missing"])

    def test_missing_index(self) -> None:
        """An index that is missing is made again by the same command that rebuilds the others."""
        self.change("DROP INDEX deliveries_waiting")
        self.assertEqual(self.found(), ["index deliveries_waiting is missing"])
        compact(self.state_dir)
        self.assertEqual(self.found(), [])

    def test_less_than_there_was(self) -> None:
        """An older copy in the place of the database is found by the mark."""
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(self.path, self.path + ".old")
        self.accept_one("more")
        self.close()
        os.replace(self.path + ".old", self.path)
        (what,) = self.found()
        self.assertIn("deliveries end at 22 of 23", what)

    def test_missing_and_empty(self) -> None:
        """Beside the traces of a server, a database that is missing or empty is wrong; without them there is none."""
        self.close()
        os.truncate(self.path, 0)
        self.assertIn("is empty", self.found()[0])
        os.unlink(self.path)
        self.assertIn("is missing", self.found()[0])
        os.unlink(self.path + ".mark")
        self.assertRaises(StateDirectoryUnusable, check_store, self.state_dir)

    def test_something_else(self) -> None:
        """A file of another program, and one that is not a database, are found."""
        self.close()
        os.unlink(self.path)
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE theirs (id)")
        connection.close()
        self.assertIn("another program", self.found()[0])
        with open(self.path, "wb") as file:
            file.write(b"no database" * 1000)
        self.assertIn("cannot be used", self.found()[0])


class CompactTests(SQLiteTestCase):
    def test_a_file_becomes_small_and_shrinks_from_then_on(self) -> None:
        """A file that cannot shrink by itself is rewritten: everything is there, and later it gives pages back."""
        self.open_one_that_keeps_its_size()
        for number in range(30):
            self.settle(self.accept_one(f"e{number}", body=b"x" * 200_000))
        kept = self.accept_one("kept")
        self.trim_all(RetentionPolicy(events=0.0, dead=0.0), NOW + 1)
        self.result_of(self.store.close())
        state_dir = os.path.dirname(self.path)
        self.assertFalse(check_store(state_dir).shrinks)
        before, after = compact(state_dir)
        self.assertLess(after * 10, before)
        report = check_store(state_dir)
        self.assertEqual((report.status, report.shrinks, report.bytes), ("ok", True, after))
        self.result_of(self.store.open())
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).recovered, 1)
        self.assertEqual(self.ready_ids(), [kept])

    def test_refused_while_a_server_holds_it(self) -> None:
        """Of a server that runs, nothing is rewritten."""
        state_dir = os.path.dirname(self.path)
        lock = StateDirectoryLock(state_dir)
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertIn("held by another", str(self.assertRaises(StateDirectoryUnusable, compact, state_dir)))
