"""A database of an older schema is brought up to date on open, with all that is in it, or is left as it was."""

import os
import sqlite3
import threading
from typing import Any

from harn.errors import StateDirectoryUnusable
from harn.model.delivery import DEAD, DONE, READY, SKIPPED, WAITING
from harn.store.event_log import DEAD_LETTERS
from harn.store.generations import BindingRecord, GenerationRecord
from harn.store.sqlite import schema
from harn.store.sqlite.connection import APPLICATION_ID
from harn.store.sqlite.migrations import OLDEST, SCHEMA_VERSION
from harn.store.sqlite.offline import open_readonly
from harn.store.sqlite.schema import connect_writer, migrate
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import NOW, accept_of, dead_letter, dedupe, generation_of, new_delivery
from tests.store.sqlite_case import SQLiteTestCase

SCHEMA_1 = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner INTEGER NOT NULL,
    received_at REAL NOT NULL,
    replay_of TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    passed INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    due_at REAL,
    settled_at REAL,
    dead_number INTEGER,
    reason TEXT,
    error_class TEXT,
    error TEXT,
    result BLOB
);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_ready ON deliveries (owner) WHERE state = 0;
CREATE INDEX deliveries_waiting ON deliveries (owner, due_at) WHERE state = 1;
CREATE INDEX deliveries_unfinished ON deliveries (trigger_id, version, state) WHERE state < 2;
CREATE INDEX deliveries_finished ON deliveries (state, settled_at) WHERE state >= 2;
CREATE UNIQUE INDEX deliveries_dead ON deliveries (dead_number) WHERE dead_number IS NOT NULL;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    started_at REAL NOT NULL,
    completed_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    error_class TEXT,
    error TEXT
);
CREATE INDEX attempts_delivery ON attempts (delivery_id);
CREATE TABLE claims (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE TABLE log (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    kind TEXT NOT NULL,
    occurred_at REAL NOT NULL,
    headers BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX log_topic ON log (topic);
CREATE TABLE numbers (
    name TEXT PRIMARY KEY,
    highest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    bundle_id TEXT NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    adopted_at REAL,
    removed BLOB NOT NULL
);
CREATE TABLE binding_versions (
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    generation INTEGER NOT NULL,
    bundle_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    PRIMARY KEY (trigger_id, version)
);
CREATE INDEX binding_versions_generation ON binding_versions (generation);
CREATE TABLE bundles (
    bundle_id TEXT PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TABLE servers (
    incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL
);
"""
"""The schema as version 1 made it."""

ROWS_1 = (
    "INSERT INTO deliveries VALUES (5, 'ready', 'gh', 2, 'webhook', 'ping', 1, {now}, NULL, 0, 0, 0, 0,"
    " NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO deliveries VALUES (6, 'waiting', 'gh', 2, 'webhook', 'ping', 1, {now}, 'e0', 1, 1, 1, 2,"
    " {now} + 5, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO deliveries VALUES (7, 'dead', 'gh', 1, 'webhook', 'ping', 1, {now}, NULL, 3, 1, 1, 0,"
    " NULL, {now} + 1, 3, 'retry_exhausted', 'handler_error', 'no', NULL)",
    "INSERT INTO events VALUES (5, x'7b7d', x'00ff'), (6, x'7b7d', x''), (7, x'7b7d', x'')",
    "INSERT INTO attempts VALUES (9, 7, 1, 1, {now}, {now} + 1, 'failed', 'handler_error', 'no')",
    "INSERT INTO claims VALUES ('trigger:gh', 'k', {now} + 1000)",
    "INSERT INTO log VALUES (11, 'audit.test', 'kind', {now}, x'7b7d', x'7b7d')",
    "INSERT INTO numbers VALUES ('delivery', 20), ('attempt', 4), ('dead', 8), ('record', 30)",
    "INSERT INTO generations VALUES (1, 'd1', 'b1', 'start', 'start', {now}, x'5b5d')",
    "INSERT INTO generations VALUES (2, 'd2', 'b1', 'cli', 'key:1', {now} + 1, x'5b226f6c64225d')",
    "INSERT INTO binding_versions VALUES ('gh', 2, 'f2', 2, 'b1', x'7b7d')",
    "INSERT INTO bundles VALUES ('b1', x'00')",
    "INSERT INTO servers VALUES (4, 1234, 'host', {now}, {now})",
)
"""One row or more of each table, as a server of version 1 wrote them."""

OLD = (
    "(id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of, state, attempts, passed,"
    " recoveries, due_at, settled_at, dead_number, reason, error_class, error, result) VALUES"
)
"""The columns of a delivery that a server of version 1 names."""


class MigrationTests(SQLiteTestCase):
    def setUp(self) -> None:
        """Make a database of version 1, with the connection of a server that still runs; no store is open."""
        directory = self.mktemp()
        os.makedirs(directory)
        self.path = os.path.join(directory, "events.sqlite")
        self.old = self.make_old(self.path)
        super().setUp()

    def make_old(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA_1)
        for statement in ROWS_1:
            connection.execute(statement.format(now=NOW))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        return connection

    def another_old(self) -> tuple[str, sqlite3.Connection]:
        path = self.mktemp()
        return path, self.make_old(path)

    def test_deliveries_are_found(self) -> None:
        """What was accepted, waits, or is dead is as it was, and continues."""
        self.assertEqual([self.state_of(name) for name in ("ready", "waiting", "dead")], [[READY], [WAITING], [DEAD]])
        (row,) = self.result_of(self.store.deliveries.find("ready"))
        self.assertEqual((row.delivery_id, row.version, row.envelope, row.body), (5, 2, b"{}", b"\x00\xff"))
        (record,) = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertEqual((record.number, record.payload["final_error"]), (3, "no"))
        self.assertEqual([attempt["outcome"] for attempt in record.payload["attempts"]], ["failed"])
        self.assertEqual(self.result_of(self.store.recovery.recover(NOW, 10)).recovered, 2)
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 5)), ([5], [6]))
        self.assertEqual((row.crashes, self.accept(new_delivery("again", claim=dedupe("k")))), (0, (None,)))

    def test_numbers_go_on(self) -> None:
        """Numbers of deliveries, records and servers continue above those that were given."""
        self.assertEqual(self.accept_one("new"), 21)
        self.assertEqual(self.result_of(self.store.event_log.append("audit.test", "kind", {})), 31)
        self.assertEqual(self.result_of(self.store.event_log.read("audit.test", 0, 10))[0].number, 11)
        self.assertEqual(self.store.incarnation, 5)

    def test_generations_are_found(self) -> None:
        """Older generations have no manifest, reason or summary; everything else of theirs is there."""
        expected = GenerationRecord(
            number=2,
            digest="d2",
            bundle_id="b1",
            source="cli",
            actor="key:1",
            adopted_at=NOW + 1,
            removed=("old",),
        )
        self.assertEqual(self.result_of(self.store.generations.generation(2)), expected)
        self.assertEqual(expected.summary, {})
        self.assertEqual([record.number for record in self.result_of(self.store.generations.history(5))], [2, 1])
        binding = BindingRecord(trigger_id="gh", version=2, fingerprint="f2", generation=2, bundle_id="b1", spec=b"{}")
        self.assertEqual(self.result_of(self.store.generations.bindings([("gh", 2)])), [binding])
        self.assertEqual(self.result_of(self.store.generations.bundle("b1")), b"\x00")

    def test_new_things_work(self) -> None:
        """A migrated database keeps what is new, too."""
        generation = generation_of(3, bundle_id="b1", manifest_digest="m", recalled=1, summary={"added": []})
        self.adopt(generation, None, b"text")
        self.result_of(self.store.checkpoints.put("name", [1]))
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 2, NOW)), 1)
        self.settle(self.accept_one("e1", claim=dedupe("new")), DEAD, dead=dead_letter("no"))
        self.assertIsNotNone(self.accept(new_delivery("e2", claim=dedupe("new")))[0])
        self.restart()
        found = self.result_of(self.store.generations.generation(3))
        assert found is not None
        self.assertEqual((found.recalled, found.summary), (1, {"added": []}))
        self.assertEqual(self.result_of(self.store.generations.manifest("m")), b"text")
        self.assertEqual(self.result_of(self.store.checkpoints.get("name")), [1])

    def test_same_schema_as_a_new_database(self) -> None:
        """A migrated database has the tables, columns, defaults and indexes of a new one."""
        other = self.mktemp()
        connect_writer(other, create=True, synchronous="OFF", busy_timeout=1.0).close()
        self.assertEqual(shape_of(self.path), shape_of(other))
        self.assertEqual(self.query("PRAGMA user_version"), [(SCHEMA_VERSION,)])

    def test_a_server_of_before_goes_on_writing(self) -> None:
        """A server of the older schema, whose connection was open before, writes and reads as it did."""
        self.old.execute(
            "INSERT INTO generations (number, digest, bundle_id, source, actor, adopted_at, removed)"
            " VALUES (3, 'd3', 'b1', 'cli', 'key:1', ?, ?)",
            (NOW, b"[]"),
        )
        self.old.execute("UPDATE deliveries SET state = 2, settled_at = ? WHERE id = 5", (NOW,))
        columns = "number, digest, bundle_id, source, actor, adopted_at, removed"
        self.assertEqual(
            self.old.execute(f"SELECT {columns} FROM generations WHERE number = 3").fetchone(),
            (3, "d3", "b1", "cli", "key:1", NOW, b"[]"),
        )
        found = self.result_of(self.store.generations.generation(3))
        assert found is not None
        self.assertEqual((found.manifest_digest, found.recalled, found.reason, found.summary), ("", None, "", {}))

    def test_from_schema_2(self) -> None:
        """A database of schema 2 keeps its claims, which last as they did, and counts no crashes that it never saw."""
        path, connection = self.another_old()
        migrate(connection, 2)
        self.assertEqual(shape_of(path)["user_version"], 2)
        connection.execute("UPDATE deliveries SET recoveries = 9 WHERE id = 5")
        connection.execute("INSERT INTO standing (name, value) VALUES ('name', ?)", (b"[1]",))
        store = SQLiteStore.at(path, self.clock)
        self.result_of(store.open())
        self.addCleanup(lambda: self.result_of(store.close()))
        self.assertEqual(shape_of(path), shape_of(self.path))
        self.assertEqual(self.result_of(store.checkpoints.get("name")), [1])
        self.result_of(store.recovery.recover(NOW, 3))
        (row,) = self.result_of(store.deliveries.find("ready"))
        self.assertEqual((row.state, row.crashes), (READY, 0))
        # A server of schema 2 that still runs takes a claim as it did.
        connection.execute("INSERT INTO claims (scope, key, expires_at) VALUES ('trigger:gh', 'theirs', ?)", (NOW + 9,))
        self.assertEqual(
            self.result_of(store.inbox.accept(accept_of(new_delivery("e", claim=dedupe("theirs"))))), (None,)
        )

    def test_from_schema_3(self) -> None:
        """What a predicate had refused is skipped, and what a older server ends meanwhile is done."""
        path, connection = self.another_old()
        migrate(connection, 3)
        connection.execute("UPDATE deliveries SET state = 2, settled_at = ? WHERE id = 5", (NOW,))
        connection.execute("UPDATE deliveries SET state = 2, settled_at = ?, result = x'31' WHERE id = 6", (NOW,))
        store = SQLiteStore.at(path, self.clock)
        self.result_of(store.open())
        self.addCleanup(lambda: self.result_of(store.close()))
        self.assertEqual(shape_of(path), shape_of(self.path))
        states = self.result_of(store.deliveries.states([5, 6, 7]))
        self.assertEqual(states, {5: SKIPPED, 6: DONE, 7: DEAD})
        self.assertEqual(
            connection.execute("SELECT skip_reason FROM deliveries WHERE id = 5").fetchone(), ("predicate",)
        )
        connection.execute("UPDATE deliveries SET state = 2, settled_at = ?, result = x'31' WHERE id = 7", (NOW,))
        self.assertEqual(self.result_of(store.deliveries.states([7])), {7: DONE})

    def newer(self, oldest: bytes | None) -> str:
        """Make a database as a newer server leaves it: with a column more, writable from schema ``oldest`` on."""
        path = self.mktemp()
        connect_writer(path, create=True, synchronous="OFF", busy_timeout=1.0).close()
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("ALTER TABLE generations ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        if oldest is None:
            connection.execute("DELETE FROM standing")
        else:
            connection.execute("UPDATE standing SET value = ?", (oldest,))
        connection.close()
        return path

    def test_a_newer_schema_that_only_adds(self) -> None:
        """After a newer server has been there, which only added, one of this schema serves and reads as before."""
        path = self.newer(b"%d" % SCHEMA_VERSION)
        store = SQLiteStore.at(path, self.clock)
        self.result_of(store.open())
        self.result_of(store.generations.reserve(generation_of(1), b"bundle"))
        self.result_of(store.generations.adopted(1, NOW, {"name": [1]}))
        self.assertEqual([record.number for record in self.result_of(store.generations.history(5))], [1])
        self.assertEqual(self.result_of(store.checkpoints.get("name")), [1])
        self.result_of(store.close())
        open_readonly(path).close()
        self.assertEqual(shape_of(path)["user_version"], SCHEMA_VERSION + 1)

    def test_a_newer_schema_that_changes(self) -> None:
        """One that does not only add, or does not say so, is refused with what to do."""
        for oldest in (b"%d" % (SCHEMA_VERSION + 1), None, b"soon"):
            path = self.newer(oldest)
            for opening in (lambda path=path: self.result_of(SQLiteStore.at(path, self.clock).open()), open_readonly):
                with self.assertRaises(StateDirectoryUnusable) as raised:
                    open_readonly(path) if opening is open_readonly else opening()  # type: ignore[call-arg]
                self.assertIn("run that version again", str(raised.exception))

    def test_a_migrated_database_says_who_can_write(self) -> None:
        """A database that was brought up to date says so as a new one does."""
        found = self.query("SELECT value FROM standing WHERE name = 'schema_oldest'")
        self.assertEqual(found, [(b"%d" % OLDEST,)])

    def test_a_reader_says_what_to_do(self) -> None:
        """A database that no new server has opened is not read; the message says what brings it up to date."""
        path, _ = self.another_old()
        with self.assertRaises(StateDirectoryUnusable) as raised:
            open_readonly(path)
        self.assertIn(path, str(raised.exception))
        self.assertIn("start a server on its state directory once", str(raised.exception))
        self.assertEqual(shape_of(path)["user_version"], 1)

    def test_a_step_that_fails_changes_nothing(self) -> None:
        """A migration that cannot be done whole is not done at all, and can be done once the cause is gone."""
        path, connection = self.another_old()
        connection.execute("CREATE TABLE standing (theirs)")
        before = shape_of(path)
        store = SQLiteStore.at(path, self.clock)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.result_of(store.open())
        self.assertIn(path, str(raised.exception))
        self.assertEqual(shape_of(path), before)
        connection.execute("DROP TABLE standing")
        self.result_of(store.open())
        self.assertEqual(len(self.result_of(store.generations.history(5))), 2)
        self.result_of(store.close())

    def test_each_costly_piece_is_a_transaction(self) -> None:
        """A older server can write between two indices: none shares a transaction with anything else."""
        _, connection = self.another_old()
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        self.patch(schema, "PAUSE", 0.0)
        migrate(connection, SCHEMA_VERSION)
        transactions = "\n".join(seen).split("COMMIT")
        costly = [each for each in transactions if "CREATE INDEX" in each or "UPDATE deliveries" in each]
        self.assertGreater(len(costly), 8)
        for each in costly:
            self.assertEqual(each.count("CREATE INDEX") + each.count("UPDATE deliveries"), 1, each)
            self.assertNotIn("CREATE TABLE", each)

    def test_one_that_was_cut_off(self) -> None:
        """A older server can continue after a migration that ended half-way, and the next migration ends it."""
        path, connection = self.another_old()

        def refuse(action: int, name: str | None, *others: str | None) -> int:
            is_index = action == sqlite3.SQLITE_CREATE_INDEX and name == "deliveries_by_kind"
            return sqlite3.SQLITE_DENY if is_index else sqlite3.SQLITE_OK

        connection.set_authorizer(refuse)
        self.assertRaises(sqlite3.Error, migrate, connection, SCHEMA_VERSION)
        connection.set_authorizer(None)
        self.assertEqual(shape_of(path)["user_version"], 1)
        connection.execute(ROWS_1[0].format(now=NOW).replace("(5, 'ready'", "(30, 'later'").replace("VALUES", OLD))
        store = SQLiteStore.at(path, self.clock)
        self.result_of(store.open())
        self.addCleanup(lambda: self.result_of(store.close()))
        self.assertEqual(shape_of(path), shape_of(self.path))
        self.assertEqual(self.result_of(store.deliveries.states([5, 30])), {})
        self.result_of(store.recovery.recover(NOW, 10))
        self.assertEqual(self.result_of(store.deliveries.states([5, 30])), {5: READY, 30: READY})
        self.assertEqual(connection.execute("SELECT name FROM standing").fetchall(), [("schema_oldest",)])

    def test_two_open_at_once(self) -> None:
        """Of two that find an old database at once, one migrates it, and the other finds it done."""
        path, _ = self.another_old()
        start = threading.Barrier(2)
        failures = []

        def migrate() -> None:
            start.wait()
            try:
                connect_writer(path, create=False, synchronous="OFF", busy_timeout=30.0).close()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=migrate) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(shape_of(path), shape_of(self.path))

    def test_it_waits_for_a_server_of_before(self) -> None:
        """A transaction that the older server has begun is waited for, and what it wrote is there."""
        path, old = self.another_old()
        old.execute("BEGIN IMMEDIATE")
        old.execute("UPDATE generations SET actor = 'late' WHERE number = 2")
        store = SQLiteStore.at(path, self.clock, busy_timeout=30.0)
        opening = store.open()
        self.assertNoResult(opening)
        old.execute("COMMIT")
        self.result_of(opening)
        found = self.result_of(store.generations.generation(2))
        assert found is not None
        self.assertEqual(found.actor, "late")
        self.result_of(store.close())


def shape_of(path: str) -> dict[str, Any]:
    """Return everything in a database except its rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        shape = {name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for (name,) in tables}
        shape["indexes"] = connection.execute(
            "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' ORDER BY name, tbl_name"
        ).fetchall()
        for name in ("user_version", "application_id"):
            (shape[name],) = connection.execute(f"PRAGMA {name}").fetchone()
        return shape
    finally:
        connection.close()
