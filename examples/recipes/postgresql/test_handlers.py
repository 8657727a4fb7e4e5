"""
Run by `python -m unittest` in this folder.

The statement is one that SQLite takes, too, so the rules of the mirror are tested with it. With the address of a
PostgreSQL in `RECIPE_POSTGRESQL`, and psycopg, the same tests run there, in a schema of their own.
"""

import json
import os
import re
import sqlite3
import unittest
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from harn.testing.handlers import github, run_handler

HERE = Path(__file__).parent
SCHEMA = (HERE / "schema.sql").read_text()
EVENT = json.loads((HERE / "event.json").read_text())
"""What `harn send` posts, too."""


class Lite:
    """A connection of SQLite that takes psycopg's placeholders."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)

    def execute(self, statement, values=()):
        return self.connection.execute(re.sub(r"%\((\w+)\)s", r":\1", statement), values)


class MirrorTests(unittest.TestCase):
    def setUp(self):
        self.urls = []
        self.database = self.connect()
        self.database.execute(SCHEMA)
        patch = mock.patch("handlers.connect", self.opened)
        patch.start()
        self.addCleanup(patch.stop)

    def connect(self):
        url = os.environ.get("RECIPE_POSTGRESQL")
        if url is None:
            lite = Lite()
            self.addCleanup(lite.connection.close)
            return lite
        import psycopg

        connection = psycopg.connect(url, autocommit=True)
        self.addCleanup(connection.close)
        connection.execute("CREATE SCHEMA recipe")
        self.addCleanup(connection.execute, "DROP SCHEMA recipe CASCADE")
        connection.execute("SET search_path TO recipe")
        return connection

    @contextmanager
    def opened(self, url):
        self.urls.append(url)
        yield self.database

    def handle(self, action, at, **changes):
        body = {**EVENT, "action": action}
        body["issue"] = {**EVENT["issue"], "updated_at": f"2026-11-20T09:{at:02}:00Z", **changes}
        run = run_handler(
            "handlers:mirror", github(f"issues.{action}", body=body), secrets={"postgresql/url": "postgresql://db/x"}
        )
        self.assertEqual(run.outcome, "success", run)
        return run.result

    def rows(self):
        found = self.database.execute("SELECT number, title, state, deleted, updated_at FROM issues").fetchall()
        return [(number, title, state, bool(deleted), at[14:16]) for number, title, state, deleted, at in found]

    def test_mirrors(self):
        self.assertEqual(self.handle("opened", 1, title="One"), {"issue": 42, "written": True})
        self.handle("edited", 2, title="Two")
        self.handle("closed", 3, title="Two", state="closed")
        self.assertEqual(self.rows(), [(42, "Two", "closed", False, "03")])
        self.assertEqual(set(self.urls), {"postgresql://db/x"})

    def test_twice(self):
        self.handle("opened", 1)
        before = self.rows()
        self.handle("opened", 1)
        self.assertEqual(self.rows(), before)

    def test_late(self):
        """A retry brings an older event after a newer one: the newer state stays."""
        self.handle("closed", 3, state="closed", title="New")
        self.assertEqual(self.handle("opened", 1, title="Old"), {"issue": 42, "written": False})
        self.assertEqual(self.rows(), [(42, "New", "closed", False, "03")])

    def test_deleted(self):
        self.handle("opened", 1)
        self.handle("deleted", 2)
        self.handle("edited", 4, title="A late edit")
        ((_, title, _, deleted, at),) = self.rows()
        self.assertEqual((deleted, at), (True, "02"))
        self.assertNotEqual(title, "A late edit")


if __name__ == "__main__":
    unittest.main()
