"""The store on PostgreSQL while that cannot be used: at the start, while a server runs, and afterwards."""

import contextlib
import os
import signal
import time

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import EventLogUnavailable, StateDirectoryUnusable, StoreError
from harn.lifecycle import Lifecycle, StoreChanged
from harn.model.delivery import DEAD, DONE
from harn.model.references import SecretReference
from harn.store.event_log import INBOX
from harn.store.postgres import database, listening, schema
from harn.store.postgres.address import Address
from harn.store.postgres.database import PostgresDatabase
from harn.store.postgres.offline import open_readonly, write_offline
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.store import PostgresStore
from harn.store.postgres.tools import migrate_store, read_status
from harn.store.worker import Reader, ThreadWorker
from harn.testing.stores.kit import NOW, StoreTestCase, accept_of, attempt_of, dead_letter, dedupe, new_delivery
from tests import postgres

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'harn' AND pid <> pg_backend_pid()"


class PostgresCase(StoreTestCase):
    store: PostgresStore

    def make_store(self) -> PostgresStore:
        if not hasattr(self, "directory"):
            self.schema = postgres.schema_of_process()
            self.aside = postgres.emptied(self.schema)
            self.directory = self.mktemp()
            os.makedirs(self.directory)
        return postgres.make_store(self, self.directory, self.clock)

    def query(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows that another connection sees."""
        return list(self.aside.execute(statement, values).fetchall())

    def cut(self) -> None:
        """End the connections of the store, as a restart of PostgreSQL does."""
        self.aside.run(f"SELECT count(pg_terminate_backend(pid)) FROM ({BACKENDS}) AS backends")
        while self.query(BACKENDS):
            time.sleep(0.01)


class AwayTests(PostgresCase):
    def test_a_connection_that_was_cut(self) -> None:
        """The batch that finds it out keeps nothing; the next one continues by itself, with the right numbers."""
        first = self.accept_one("e1")
        self.cut()
        with self.assertRaises(EventLogUnavailable):
            self.accept_one("e2", claim=dedupe("k"))
        self.assertFalse(self.store.available())
        second = self.accept_one("e2", claim=dedupe("k"))
        self.assertTrue(self.store.available())
        self.assertEqual((first, second, self.state_of("e2")), (1, 2, ["ready"]))

    def test_a_commit_without_an_answer_that_was_made(self) -> None:
        """What PostgreSQL has committed counts, although the connection was lost before it said so."""
        commit = PostgresSession.commit

        def lost(session: PostgresSession) -> None:
            commit(session)
            with contextlib.suppress(session.error):
                self.cut()
                session.connection.run("SELECT 1")
            commit(session)

        self.patch(PostgresSession, "commit", lost)
        accepting = self.store.inbox.accept(accept_of(new_delivery("e1")))
        self.assertEqual(self.result_of(accepting), (1,))
        self.patch(PostgresSession, "commit", commit)
        self.assertEqual(self.state_of("e1"), ["ready"])
        self.assertEqual(self.accept_one("e2"), 2)

    def test_a_commit_that_was_not_made(self) -> None:
        """Nothing is kept of a transaction whose connection was lost before its commit."""
        commit = PostgresSession.commit

        def lost(session: PostgresSession) -> None:
            self.cut()
            commit(session)

        self.patch(PostgresSession, "commit", lost)
        with self.assertRaises(EventLogUnavailable):
            self.accept_one("e1")
        self.patch(PostgresSession, "commit", commit)
        self.assertEqual((self.accept_one("e2"), self.state_of("e1")), (1, []))

    def test_one_that_gives_no_answer(self) -> None:
        """While a batch hangs, all else is refused; it counts when it is written in the end."""
        (backend,) = self.query(BACKENDS + " ORDER BY backend_start LIMIT 1")[0]
        if postgres.server() is None:
            return  # its processes are those of another machine
        os.kill(int(str(backend)), signal.SIGSTOP)
        try:
            hanging = self.store.inbox.accept(accept_of(new_delivery("e1")))
            self.clock.turn()
            waiting = self.store.inbox.accept(accept_of(new_delivery("e2")))
            self.clock.advance(3.0)
            self.assertFalse(self.store.available())
            for refused in (waiting, self.store.inbox.accept(accept_of(new_delivery("e3")))):
                self.failureResultOf(refused, EventLogUnavailable)
        finally:
            os.kill(int(str(backend)), signal.SIGCONT)
        self.assertEqual(self.result_of(hanging), (1,))
        self.assertTrue(self.store.available())
        self.assertEqual([self.state_of(each) for each in ("e1", "e2", "e3")], [["ready"], [], []])

    def test_a_read_without_an_answer(self) -> None:
        """It is ended after a while, and so are those behind it; the next one uses a new connection."""
        if postgres.server() is None:
            return  # its processes are those of another machine
        self.assertEqual(self.state_of("e1"), [])
        (backend,) = self.query(BACKENDS + " ORDER BY backend_start DESC LIMIT 1")[0]
        os.kill(int(str(backend)), signal.SIGSTOP)
        try:
            hanging, behind = self.store.deliveries.find("e1"), self.store.deliveries.find("e2")
            failures: list[Failure] = []
            hanging.addErrback(failures.append)
            while not failures:
                self.clock.advance(10.0)
                turned: Deferred[None] = Deferred()
                self.clock.callFromThread(turned.callback, None)
                self.result_of(turned)
                time.sleep(0.01)  # in which the thread begins the read, and then fails it
            self.assertIn("gave no answer within 10 s", failures[0].getErrorMessage())
            self.assertEqual(self.result_of(behind), [])
        finally:
            os.kill(int(str(backend)), signal.SIGCONT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_read_that_takes_too_long(self) -> None:
        """PostgreSQL ends it, and the connection is used on."""
        self.patch(database, "LONGEST_READ", 0.05)
        reader = Reader(postgres.make_database(self.directory, self.clock), ThreadWorker("reader", self.clock))
        reader.open()
        self.addCleanup(lambda: self.result_of(reader.close()))
        with self.assertRaises(EventLogUnavailable) as raised:
            self.result_of(reader.read(lambda connection: connection.run("SELECT pg_sleep(5)")))
        self.assertIn("statement timeout", str(raised.exception))
        self.assertEqual(self.state_of("e1"), [])

    def test_texts_that_postgresql_has_no_form_for(self) -> None:
        """A NUL in an event or an error is replaced; keys with one stay apart."""
        keys = ("a\0", "a", "a\ufffd")
        ids = [self.accept_one(f"e\0{n}", kind="k\0", claim=dedupe(key)) for n, key in enumerate(keys)]
        self.settle(ids[0], DEAD, dead=dead_letter("no\0"), attempt=attempt_of(outcome="failed", error="no\0"))
        self.assertEqual(self.state_of("e\0" + "0"), [DEAD])
        self.assertEqual(self.accept(new_delivery("again", claim=dedupe("a"))), (None,))

    def test_a_unit_that_is_wrong(self) -> None:
        """It fails alone."""
        good = self.store.inbox.accept(accept_of(new_delivery("e1")))
        bad = self.store.inbox.accept(accept_of(new_delivery("e2", version=1 << 40)))
        with self.assertRaises(StoreError) as raised:
            self.result_of(bad)
        self.assertNotIsInstance(raised.exception, EventLogUnavailable)
        self.assertEqual(self.result_of(good), (1,))


class ChangesTests(PostgresCase):
    def setUp(self) -> None:
        """Subscribe to the changes of other servers."""
        self.patch(listening, "PROBE", 0.01)
        super().setUp()
        self.result_of(self.store.close())
        self.store = self.make_store()
        self.seen: list[frozenset[str]] = []
        self.changed: Deferred[None] = Deferred()
        lifecycle = Lifecycle()
        lifecycle.subscribe(StoreChanged, self.see)
        self.store.follow(lifecycle)
        self.result_of(self.store.open())
        self.await_change()
        self.other = PostgresSession(self.aside, 0, postgres.endpoint(postgres.url(self.schema)))

    def see(self, event: StoreChanged) -> None:
        """Called with each change."""
        self.seen.append(event.topics)
        changed, self.changed = self.changed, Deferred()
        changed.callback(None)

    def await_change(self) -> list[frozenset[str]]:
        """Return the topics of changes, at least one."""
        if not self.seen:
            self.result_of(self.changed)
        seen, self.seen = self.seen, []
        return seen

    def test_announced(self) -> None:
        """What another server commits is announced, and what this one does is not; what is undone is not either."""
        self.result_of(self.store.checkpoints.put("ours", 1))
        self.result_of(self.store.notify("ours, too"))
        self.other.begin()
        self.other.notify("undone")
        self.other.roll_back()
        self.other.begin()
        self.other.notify("pauses")
        self.other.notify("keys")
        self.other.commit()
        self.assertEqual(self.await_change(), [{"pauses", "keys"}])

    def test_a_connection_that_was_cut(self) -> None:
        """Once it is made again, all may have changed; and what is announced then arrives."""
        self.patch(listening, "RETRY", 0.01)
        self.cut()
        self.assertEqual(self.await_change(), [frozenset()])
        self.other.notify("pauses")
        self.assertEqual(self.await_change(), [{"pauses"}])

    def test_one_that_gives_no_answer(self) -> None:
        """It does not delay the end."""
        if postgres.server() is None:
            return  # its processes are those of another machine
        while not (found := self.query(BACKENDS + " AND query = 'SELECT 1'")):
            time.sleep(0.01)
        for (pid,) in found:
            os.kill(int(str(pid)), signal.SIGSTOP)
            self.addCleanup(os.kill, int(str(pid)), signal.SIGCONT)
        time.sleep(0.05)  # it tries the connection meanwhile
        self.result_of(self.store.close())


class StartTests(PostgresCase):
    def refused(self, store: PostgresStore) -> str:
        with self.assertRaises(StateDirectoryUnusable) as raised:
            self.result_of(store.open())
        return str(raised.exception)

    def test_a_command_beside_a_server(self) -> None:
        """One that changes the store alone is refused while a server of another state directory lives."""
        self.result_of(self.store.heartbeat(NOW))
        other = postgres.make_store(self, self.directory, self.clock, home="other", alone=True)
        self.assertIn("another server uses the store", self.refused(other))
        self.result_of(self.store.close())
        self.result_of(other.open())
        self.result_of(other.close())

    def test_a_command_after_a_crash(self) -> None:
        """It continues once the heartbeat of the server has lapsed."""
        self.clock.advance(15.0)
        other = postgres.make_store(self, self.directory, self.clock, home="other", alone=True)
        self.result_of(other.open())
        self.result_of(other.close())

    def test_schemas(self) -> None:
        """A newer schema is refused, unless it only adds; an older one until it was migrated."""
        newer = schema.SCHEMA_VERSION + 1
        for version, oldest, said in ((newer, newer, "newer harn"), (0, 0, "has no tables of harn's")):
            with self.assertRaises(StateDirectoryUnusable) as raised:
                schema.check_schema(schema.FoundSchema(version, oldest), "here")
            self.assertIn(said, str(raised.exception))
        schema.check_schema(schema.FoundSchema(newer, schema.SCHEMA_VERSION), "here")
        self.patch(schema, "SCHEMA_VERSION", newer)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            schema.check_schema(schema.FoundSchema(newer - 1, 1), "here")
        self.assertIn("harn store migrate", str(raised.exception))

    def test_a_start_on_another_schema(self) -> None:
        """A server does not open a store whose schema is newer or older than its own, and changes nothing in it."""
        version = schema.SCHEMA_VERSION
        self.result_of(self.store.close())
        self.addCleanup(self.aside.run, f"UPDATE schema_version SET version = {version}, oldest = {schema.OLDEST}")
        for found, needed, said in ((version + 1, version, "a newer harn"), (version, version + 1, "an older harn")):
            self.aside.run(f"UPDATE schema_version SET version = {found}, oldest = {found}")
            self.patch(schema, "SCHEMA_VERSION", needed)
            other = postgres.make_store(self, self.directory, self.clock, home="other")
            self.assertIn(f"was written by {said} (schema {found}", self.refused(other))
            self.assertEqual(schema.find_schema(self.aside), schema.FoundSchema(found, found))

    def test_a_step(self) -> None:
        """A step runs once, and its version is written with it; one that fails leaves the version."""
        self.addCleanup(self.aside.run, f"UPDATE schema_version SET version = {schema.SCHEMA_VERSION}")
        self.addCleanup(self.aside.run, "DROP TABLE IF EXISTS further")
        self.patch(schema, "SCHEMA_VERSION", 3)
        self.patch(schema, "_STEPS", {2: "CREATE TABLE further (n integer)", 3: "CREATE TABLE further (n integer)"})
        with self.assertRaises(self.aside_error()):
            schema.migrate(self.aside)
        self.assertEqual(schema.find_schema(self.aside).version, 2)
        self.patch(schema, "_STEPS", {3: "INSERT INTO further VALUES (1)"})
        self.assertEqual(schema.migrate(self.aside), (2, 3))
        self.assertEqual(schema.migrate(self.aside), (3, 3))
        self.assertEqual(self.query("SELECT n FROM further"), [(1,)])

    def aside_error(self) -> type[Exception]:
        """Return the class of PostgreSQL's errors."""
        return PostgresSession(self.aside, 0, postgres.endpoint(postgres.url(self.schema))).error

    def test_unreachable(self) -> None:
        """The message says which store, why, and what to do; never a password."""
        endpoint = postgres.endpoint("postgresql://harn:geheim@127.0.0.1:1/harn")
        database = PostgresDatabase(endpoint, self.directory, self.clock, "home")
        store = PostgresStore.at(database, self.clock)
        said = self.refused(store)
        self.assertIn("postgresql://127.0.0.1:1/harn", said)
        self.assertIn("start PostgreSQL", said)
        self.assertNotIn("geheim", said)

    def test_refused(self) -> None:
        """What to check is said where PostgreSQL answers and refuses, and where the URL is wrong."""
        given = postgres.url(self.schema)
        for url, said in (
            (given.replace("/postgres?", "/nowhere?"), "createdb"),
            (f"{given}&nonsense=1", "correct the URL"),
        ):
            endpoint = postgres.endpoint(url)
            database = PostgresDatabase(endpoint, self.directory, self.clock, "home")
            store = PostgresStore.at(database, self.clock)
            self.assertIn(said, self.refused(store))

    def test_a_state_directory_with_another_store(self) -> None:
        """Where a server has run, a store that none has used is refused: what is unfinished would be left."""
        self.result_of(self.store.close())
        postgres.emptied(self.schema)
        path = os.path.join(self.directory, "events.sqlite")
        open(path, "wb").close()
        store = postgres.make_store(self, self.directory, self.clock, evidence=(path,))
        self.assertIn("harn store copy", self.refused(store))

    def test_offline(self) -> None:
        """Commands read a store that no server uses, and write to it in one transaction."""
        self.settle(self.accept_one("e1"), DONE, attempt=attempt_of(), result=b"1")
        self.result_of(self.store.close())
        endpoint = postgres.endpoint(postgres.url(self.schema))
        with write_offline(endpoint, "home") as writer:
            writer.put_checkpoint("kept", [1])
            writer.append_record("audit.test", "kind", {"n": 1}, NOW)
            self.assertEqual(writer.get_checkpoint("kept"), [1])
        with open_readonly(endpoint) as store:
            records = store.ask(store.event_log.read(INBOX, 0, 10))
            self.assertEqual([each.payload["event"]["id"] for each in records], ["e1"])
            self.assertEqual(store.ask(store.event_log.latest("audit.test")), 1)
            self.assertEqual(store.ask(store.checkpoints.get("kept")), [1])

    def test_tools(self) -> None:
        """The commands' tools show a store, and have nothing to migrate in a new one."""
        self.accept_one("e1")
        self.result_of(self.store.heartbeat(NOW))
        endpoint = postgres.endpoint(postgres.url(self.schema))
        found = read_status(endpoint, NOW)
        self.assertEqual((found.schema, found.deliveries, found.problem), (schema.SCHEMA_VERSION, {"ready": 1}, None))
        self.assertEqual(len(found.servers), 1)
        done = migrate_store(endpoint)
        self.assertEqual((done.before, done.after), (schema.SCHEMA_VERSION, schema.SCHEMA_VERSION))
        missing = read_status(postgres.endpoint(postgres.url("no_such_schema")), NOW)
        self.assertIn("has no tables", missing.problem or "")


class Namespaces:
    """Secrets whose values are their namespaces."""

    def resolve(self, reference: SecretReference) -> bytes:
        """See `ISecretReader.resolve`."""
        return f"{reference.namespace}!".encode()


class AddressTests(SynchronousTestCase):
    def test_read(self) -> None:
        """Our words are taken out of what libpq gets; a password is in nothing that is shown."""
        text = "postgresql://harn:p%40ss@db.example.org:5433/prod?sslmode=require&schema=blue"
        address = Address.read(text)
        self.assertEqual(address.conninfo, "postgresql://harn@db.example.org:5433/prod?sslmode=require")
        self.assertEqual((address.schema, address.password), ("blue", "p@ss"))
        self.assertEqual(address.location, "postgresql://db.example.org:5433/prod?schema=blue")
        self.assertNotIn("ss@", repr(address) + address.text)
        self.assertEqual(Address.read(address.text), Address.read(text.replace(":p%40ss", "")))

    def test_secret(self) -> None:
        """The password comes from the secret that the URL names."""
        address = Address.read("postgresql://harn@db/harn?password_secret=postgres/password")
        self.assertEqual(address.resolved(Namespaces()), "postgres!")
        self.assertNotIn("password_secret", address.conninfo)

    def test_wrong(self) -> None:
        """What is not a URL of PostgreSQL is refused without being quoted."""
        for text in ("mysql://db/harn", "postgresql:///harn?password=geheim", "postgresql://db/x?schema="):
            with self.assertRaises(ValueError) as raised:
                Address.read(text)
            self.assertNotIn("geheim", str(raised.exception))
