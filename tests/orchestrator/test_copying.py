"""Copies of a store from SQLite to PostgreSQL and back."""

import os
import sqlite3
from contextlib import closing

from harn.errors import StateDirectoryUnusable, StoreError
from harn.model.delivery import DEAD, WAITING, Acceptance
from harn.orchestrator import copied_tables, copying
from harn.orchestrator.copying import copy_store
from harn.orchestrator.stores import DATABASE
from harn.store.interfaces import IStore
from harn.store.jobs import JobFilter, NewJob
from harn.store.postgres.connection import PostgresEndpoint
from harn.store.sqlite.store import SQLiteStore
from harn.store.statistics import RefusedCount, TriggerTotal
from harn.testing.stores.kit import (
    DAY,
    NOW,
    StoreTestCase,
    accept_of,
    attempt_of,
    binding_of,
    dead_letter,
    dedupe,
    generation_of,
    new_delivery,
)
from tests import postgres

LATER = NOW + DAY
SHOWN: list[tuple[str, int, int]] = []


def show(table: str, done: int, total: int) -> None:
    SHOWN.append((table, done, total))


class CopyTests(StoreTestCase):
    def make_store(self) -> IStore:
        if not hasattr(self, "directory"):
            self.aside = postgres.emptied(postgres.schema_of_process())
            self.address = postgres.endpoint(postgres.url(postgres.schema_of_process()))
            self.directory = self.mktemp()
            os.makedirs(self.directory)
        return SQLiteStore.at(os.path.join(self.directory, DATABASE), self.clock)

    def fill(self) -> None:
        """Write something into every table."""
        for number in range(30):
            self.accept_one(f"e{number:02}", claim=dedupe(f"ke\0y{number}"), body=b"x" * number)
        self.settle(1, DEAD, dead=dead_letter("no"), attempt=attempt_of(outcome="failed", error="no"))
        self.settle(2, WAITING, due_at=NOW + 5, attempt=attempt_of(outcome="failed", error="no"))
        self.settle(3, attempt=attempt_of(), result=b"1")
        self.adopt(generation_of(1, binding_of(1, 1), manifest_digest="sha256:d"), b"bundle", b"text")
        self.result_of(self.store.event_log.append("audit.test", "kind", {"n": 1}))
        self.result_of(self.store.checkpoints.put("kept", {"n": 1}))
        self.result_of(self.store.totals.add([TriggerTotal(trigger_id="gh", accepted=2)], [], 3))
        refused = [RefusedCount(trigger_id="gh", minute=1, reason="signature", count=1)]
        self.result_of(self.store.totals.add([], refused, 3))
        new = NewJob(operation="replay", actor="key:1", filter=JobFilter(), rate=None, created_at=NOW)
        self.result_of(self.store.jobs.create(new, [1]))
        self.result_of(self.store.close())

    def copy(self, source: PostgresEndpoint | str, target: PostgresEndpoint | str) -> dict[str, int]:
        return copy_store(source, target, LATER, show).tables

    def test_there_and_back(self) -> None:
        """Each row arrives, servers continue with numbers and claims, and the copy back is the same."""
        self.fill()
        counts = self.copy(self.directory, self.address)
        self.assertEqual([name for name, count in counts.items() if not count], [])
        on_postgres = postgres.make_store(self, self.directory, self.clock)
        self.store = on_postgres
        self.result_of(self.store.open())
        self.assertGreater(self.store.incarnation, 1)
        self.assertEqual(self.accept_one("new"), 31)
        self.assertEqual(self.state_of("e00"), [DEAD])
        self.assertEqual(self.result_of(self.store.inbox.accept(_again())), (None,))
        self.result_of(self.store.close())
        back = self.mktemp()
        os.makedirs(back)
        again = self.copy(self.address, back)
        self.assertEqual(again["deliveries"], 31)
        self.assertEqual(os.listdir(back).count(DATABASE), 1)
        self.assertNotIn(DATABASE + copying.SUFFIX, os.listdir(back))
        self.store = SQLiteStore.at(os.path.join(back, DATABASE), self.clock)
        self.result_of(self.store.open())
        self.assertGreater(self.accept_one("newer"), 31)

    def test_refuses_what_is_not_empty(self) -> None:
        """A target with anything in it stays as it is."""
        self.fill()
        self.copy(self.directory, self.address)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.copy(self.directory, self.address)
        self.assertIn("is not empty", str(raised.exception))

    def test_goes_on(self) -> None:
        """A copy that was cut off starts no server, and continues where it stopped."""
        self.fill()
        self.patch(copying, "SLICE", 10)
        write = copied_tables.PostgresSide.write

        def cut(side: copied_tables.PostgresSide, table: copied_tables.TableOf, rows: object) -> None:
            if table.name == "attempts":
                raise StoreError("cut off")
            write(side, table, rows)  # type: ignore[arg-type]

        self.patch(copied_tables.PostgresSide, "write", cut)
        self.assertRaises(StoreError, self.copy, self.directory, self.address)
        self.patch(copied_tables.PostgresSide, "write", write)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.result_of(postgres.make_store(self, self.directory, self.clock).open())
        self.assertIn("not complete", str(raised.exception))
        self.assertEqual(self.copy(self.directory, self.address)["deliveries"], 30)

    def test_a_difference_is_found(self) -> None:
        """A row that is not the same fails the copy, which stays marked as incomplete."""
        self.fill()
        compare = copying.compare

        def spoil(*args: object) -> None:
            self.aside.run("UPDATE deliveries SET kind = 'other' WHERE id = 7")
            compare(*args)  # type: ignore[arg-type]

        self.patch(copying, "compare", spoil)
        with self.assertRaises(StoreError) as raised:
            self.copy(self.directory, self.address)
        self.assertIn("deliveries at row 7", str(raised.exception))

    def test_a_server_runs(self) -> None:
        """The state directory of a server that runs is refused, and so is a database that one uses."""
        from harn.store.lock import StateDirectoryLock

        self.fill()
        lock = StateDirectoryLock(self.directory)
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertRaises(StateDirectoryUnusable, self.copy, self.directory, self.address)

    def test_every_table_is_copied(self) -> None:
        """A table or column that a schema has and a copy does not is a mistake."""
        with closing(sqlite3.connect(os.path.join(self.directory, DATABASE))) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            there = {
                each.name: {
                    name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (each.name,))
                }
                for each in copied_tables.TABLES
            }
        copied = {each.name: {name for name, _ in each.columns} for each in copied_tables.TABLES}
        self.assertEqual(tables - set(copied) - {"sqlite_sequence"}, {"numbers"})
        self.assertEqual({name: there[name] - copied[name] for name in there if there[name] - copied[name]}, _LEFT_OUT)


_COLUMNS = "SELECT name FROM pragma_table_info(?)"
_LEFT_OUT = {"deliveries": {"recoveries"}}
"""Columns that nothing reads."""


def _again() -> Acceptance:
    return accept_of(new_delivery("again", claim=dedupe("ke\0y5")))
