"""What a start notices: an event log that is gone, empty, cut short or older than it was; what a clean end leaves."""

import os
import shutil
import sqlite3
from typing import Any
from unittest import mock

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.model.delivery import READY
from harn.store.sqlite.mark import Mark
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import NOW, accept_of, new_delivery
from tests.store.sqlite_case import SQLiteTestCase

SUFFIXES = ("", "-wal", ".mark")


class NoticedTests(SQLiteTestCase):
    def as_killed(self, *suffixes: str) -> str:
        """Copy these files as a server that is killed now would leave them; give the database's path."""
        directory = self.mktemp()
        os.makedirs(directory)
        for suffix in suffixes or SUFFIXES:
            shutil.copyfile(self.path + suffix, os.path.join(directory, "events.sqlite" + suffix))
        return os.path.join(directory, "events.sqlite")

    def opened(self, path: str, *evidence: str) -> int:
        """Open a store there; count the deliveries that it has."""
        store = SQLiteStore.at(path, self.clock, evidence=evidence)
        self.result_of(store.open())
        try:
            return len(self.result_of(store.recovery.unfinished(NOW + 1, 1000)))
        finally:
            self.result_of(store.close())

    def refused(self, path: str, *evidence: str) -> str:
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.opened(path, *evidence)
        self.assertIn(path, str(raised.exception))
        return str(raised.exception)

    def fill(self, count: int = 5) -> None:
        for number in range(count):
            self.accept_one(f"e{number}", body=b"x" * 5000)

    def test_killed(self) -> None:
        """What a server that is killed leaves is whole."""
        self.fill()
        self.assertEqual(self.opened(self.as_killed()), 5)

    def test_log_cut_short(self) -> None:
        """A log that lost even its last commit alone is noticed, with what to do; who accepts the loss can continue."""
        self.fill(4)
        before = os.path.getsize(self.path + "-wal")
        self.accept_one("last")
        path = self.as_killed()
        os.truncate(path + "-wal", before)
        message = self.refused(path)
        for part in ("deliveries end at 4 of 5", "events.sqlite-wal", "cut short", f"remove {path}.mark"):
            self.assertIn(part, message)
        self.refused(path)
        self.assertEqual(os.path.getsize(path + "-wal"), before)
        cut = path + "-wal.cut"
        os.rename(path + "-wal", cut)
        shutil.copyfile(self.path + "-wal", path + "-wal")
        self.assertEqual(self.opened(path), 5)
        path = self.as_killed()
        os.replace(cut, path + "-wal")
        os.unlink(path + ".mark")
        self.assertEqual(self.opened(path), 4)
        self.assertEqual(self.opened(path), 4)

    def test_log_removed(self) -> None:
        """So is one that is gone with all its content; an empty one is not begun."""
        self.fill()
        path = self.as_killed("", ".mark")
        self.refused(path)
        self.assertLess(os.path.getsize(path), 100_000)

    def test_older_copy(self) -> None:
        """An older copy in the place of the database is noticed by any number that it has not come to."""
        self.fill()
        self.restart()
        old = self.as_killed("")
        self.result_of(self.store.event_log.append("audit.test", "kind", {}))
        shutil.copyfile(self.path + ".mark", old + ".mark")
        self.assertIn("records end at 0 of 1", self.refused(old))

    def test_database_gone(self) -> None:
        """A database that is missing or empty, beside files that say that there was one, is an error."""
        self.fill()
        state = self.mktemp()
        with open(state, "w") as file:
            file.write("{}")
        for evidence in ((), (state,)):
            path = self.as_killed(".mark")
            self.assertIn("there is no event log", self.refused(path, *evidence))
            self.assertFalse(os.path.exists(path))
            with open(path, "wb"):
                pass
            message = self.refused(path, *evidence)
            for part in ("empty", "though a server has run here", f"{path}.mark", *evidence):
                self.assertIn(part, message)
            os.unlink(path + ".mark")
        self.assertIn(f"remove {state}", self.refused(path, state))
        self.assertEqual(self.opened(path, state + ".missing"), 0)

    def test_mark_that_is_not_whole(self) -> None:
        """A mark that a failure of the system left empty or torn says nothing; nor does one that is behind."""
        self.fill()
        whole = Mark(delivery=1, server=1).encode()
        for text in (b"", b"\0" * 121, whole[:40], whole.replace(b"1", b"9", 1), whole):
            path = self.as_killed()
            with open(path + ".mark", "wb") as file:
                file.write(text)
            self.assertEqual(self.opened(path), 5)

    def test_mark_that_cannot_be_written(self) -> None:
        """A mark that cannot be written is logged once, and no event is refused for it."""
        self.result_of(self.store.close())
        with mock.patch("harn.store.sqlite.mark.os.open", side_effect=OSError(28, "No space left on device")):
            self.store = self.make_store()
            self.result_of(self.store.open())
            self.fill(2)
        self.assertEqual((self.state_of("e1"), self.store.available()), ([READY], True))

    def test_a_refused_unit_moves_no_mark(self) -> None:
        """What was not written does not count."""
        self.accept_one("e1")
        database: Any = self.store._database
        self.patch(database._files, "check", lambda: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with self.assertRaises(EventLogUnavailable):
            self.result_of(self.store.inbox.accept(accept_of(new_delivery("lost"))))
        with open(self.path + ".mark", "rb") as file:
            self.assertEqual(Mark.decode(file.readline()), Mark(delivery=1, server=1))


class CleanEndTests(SQLiteTestCase):
    def test_the_database_alone_is_everything(self) -> None:
        """After a clean end the database has everything, only the mark lies beside it, and it can be copied alone."""
        for number in range(3):
            self.accept_one(f"e{number}")
        self.result_of(self.store.event_log.latest("audit.test"))  # the reader has a connection
        self.result_of(self.store.close())
        self.assertEqual(sorted(os.listdir(os.path.dirname(self.path))), ["events.sqlite", "events.sqlite.mark"])
        copy = self.mktemp()
        shutil.copyfile(self.path, copy)
        store = SQLiteStore.at(copy, self.clock)
        self.result_of(store.open())
        self.addCleanup(lambda: self.result_of(store.close()))
        self.assertEqual(len(self.result_of(store.recovery.unfinished(NOW + 1, 10))), 3)

    def test_while_another_reads(self) -> None:
        """While another process has it open, all the same; in the midst of its reading the log is left to be read."""
        other = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("SELECT count(*) FROM deliveries").fetchone()
        self.accept_one("e1")
        self.result_of(self.store.close())
        self.assertEqual(os.path.getsize(self.path + "-wal"), 0)
        self.store = self.make_store()
        self.result_of(self.store.open())
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM deliveries").fetchone()
        self.accept_one("e2")
        self.result_of(self.store.close())
        other.execute("COMMIT")
        self.assertEqual(other.execute("SELECT count(*) FROM deliveries").fetchone(), (2,))
