"""A test case with an open store on SQLite."""

import os
import sqlite3
from typing import Any

from harn.store.sqlite.store import SQLiteStore
from harn.testing.clocks import SteppedWall
from harn.testing.stores.kit import StoreTestCase


class SQLiteTestCase(StoreTestCase):
    busy_timeout = 5.0
    store: SQLiteStore

    def make_store(self) -> SQLiteStore:
        if not hasattr(self, "path"):
            directory = self.mktemp()
            os.makedirs(directory)
            self.path = os.path.join(directory, "events.sqlite")
        self.wall = SteppedWall(self.clock)
        return SQLiteStore.at(self.path, self.clock, busy_timeout=self.busy_timeout, wall=self.wall)

    def open_one_that_keeps_its_size(self) -> None:
        """Replace the store by an empty one whose file gives no pages back, as an earlier version made it."""
        self.result_of(self.store.close())
        for suffix in ("", ".mark"):
            os.unlink(self.path + suffix)
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.close()
        self.store = self.make_store()
        self.result_of(self.store.open())

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Return the rows that another process would see."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()
