"""What SQLite does for each statement: nothing on a hot path reads a table from end to end."""

import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import DONE, READY, WAITING
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX
from harn.store.retention import RetentionPolicy
from harn.store.sqlite import deliveries, generations, records, servers, trimming
from harn.store.sqlite.schema import connect_writer
from harn.store.sqlite.session import Session
from harn.store.sqlite.transaction import write_batch
from harn.store.sqlite.units import Accept, Append, Call, Settle
from harn.testing.stores.kit import (
    NOW,
    accept_of,
    attempt_of,
    binding_of,
    dead_letter,
    dedupe,
    generation_of,
    new_delivery,
    settlement_of,
)

DIED = dead_letter("given up")

GROWING = ("deliveries", "events", "attempts", "claims", "log", "d", "e", "a")


def accept_one(event_id):
    return Accept(accept_of(new_delivery(event_id)))


def reserve_and_adopt(session):
    generations.reserve(session, generation_of(1, binding_of(1, 1)), b"bundle", None)
    generations.adopted(session, 1, NOW, {})


class Watched:
    """A connection that collects the plan of each statement."""

    def __init__(self, connection):
        self._connection = connection
        self.plans = []

    def execute(self, statement, values=()):
        if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            plan = self._connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
            self.plans += [(statement, row[3]) for row in plan]
        return self._connection.execute(statement, values)

    def executemany(self, statement, rows):
        return self._connection.executemany(statement, rows)


class PlanTests(SynchronousTestCase):
    def setUp(self):
        connection = connect_writer(self.mktemp(), create=True, synchronous="OFF", busy_timeout=1.0)
        self.addCleanup(connection.close)
        self.session = Session(connection, 1)
        self.watched = self.session.connection = Watched(connection)

    def scans(self):
        """Statements that read a growing table, or a whole index of one, from end to end."""
        found = []
        for statement, step in self.watched.plans:
            words = step.split()
            if words[0] == "SCAN" and words[1] in GROWING and "deliveries_unfinished" not in words:
                found.append((statement, step))
        return found

    def test_plans_are_seen(self):
        """A statement that does scan is noticed."""
        self.watched.execute("SELECT count(*) FROM deliveries WHERE kind = 'x'")
        self.assertEqual(len(self.scans()), 1)

    def test_units(self):
        """Accepting, settling, appending, moving and recovering scan nothing that grows with what is finished."""
        write_batch(self.session, [Accept(accept_of(new_delivery("e1", claim=dedupe("k"))))], NOW)
        settle = Settle(settlement_of(1, DONE, attempt=attempt_of()), NOW)
        units = [
            settle,
            Append("audit.test", "kind", b"{}", b"{}", NOW),
            Call(lambda session: deliveries.move(session, "gh", 1, 2, NOW, (1, 2))),
            Call(lambda session: deliveries.move(session, "gh", 1, None, NOW, (1, 2))),
            Call(lambda session: deliveries.bury(session, "gh", 1, DIED, NOW, (1, 2), False)),
            Call(lambda session: deliveries.take_back(session, "gh", 1, 2, NOW)),
            Call(lambda session: deliveries.recover(session, NOW, 10, None, (), {})),
            Call(lambda session: deliveries.recover(session, NOW, 1, None, (7,), {3: (1, 2)})),
            Call(lambda session: list(servers.living(session.connection, 1, {}, NOW))),
        ]
        write_batch(self.session, units, NOW)
        self.assertEqual([unit.error for unit in units], [None] * 9)
        self.assertEqual(self.scans(), [])

    def test_retention(self):
        """A sweep that finds nothing to remove scans nothing that grows."""
        policy = RetentionPolicy(events=1.0, dead=1.0, max_bytes=1)
        trimming.trim(self.session, policy, NOW, 10)
        # The subquery that takes the oldest of the log ends after so many rows; SQLite calls that a scan, too.
        bounded = "FROM log ORDER BY number LIMIT"
        self.assertEqual([step for statement, step in self.scans() if bounded not in statement], [])

    def test_definitions(self):
        """What decides which generations go looks up unfinished deliveries by their index, whatever is finished."""
        write_batch(self.session, [Call(reserve_and_adopt)], NOW)
        trimming.trim(self.session, RetentionPolicy(events=1.0, dead=1.0, generations=1, kept=(1, 2)), NOW, 10)
        self.assertTrue([statement for statement, _ in self.watched.plans if "FROM manifests" in statement])
        bounded = "FROM log ORDER BY number LIMIT"
        self.assertEqual([step for statement, step in self.scans() if bounded not in statement], [])

    def test_versions_that_are_kept(self):
        """A version that is held for a ramp costs retention the same however many others are."""
        steps = []
        for count in (100, 400):
            self.setUp()
            old = [binding_of(1, 1, trigger_id=f"t{n}") for n in range(count)]
            new = [binding_of(2, 2, trigger_id=f"t{n}") for n in range(count)]
            for number, bindings in ((1, old), (2, new)):
                generations.reserve(self.session, generation_of(number, *bindings), b"bundle", None)
                generations.adopted(self.session, number, NOW, {})
            versions = tuple((f"t{n}", 1) for n in range(count))
            policy = RetentionPolicy(events=1.0, dead=1.0, generations=1, versions=versions)
            steps.append(self.steps_of(lambda policy=policy: trimming.trim(self.session, policy, NOW, 10)))
            self.assertEqual(len(generations.bindings(self.session.connection, versions)), count)
        self.assertLess(steps[1], 5 * steps[0])

    def test_recent(self):
        """The newest events are found by walking back from the newest id, and no index is gone through."""
        deliveries.recent(self.watched, ("gh", "other"), 10, 1000)
        walks = [step for statement, step in self.scans()]
        self.assertEqual(walks, ["SCAN deliveries"])

    def test_recent_reads_no_more_than_it_may(self):
        """However many deliveries there are, what is read for the newest is the same."""
        self.fill(200)
        few = self.steps_of(lambda: deliveries.recent(self.watched, ("gh",), 3, 100))
        self.fill(2000)
        many = self.steps_of(lambda: deliveries.recent(self.watched, ("gh",), 3, 100))
        self.assertLessEqual(many, few + 2)

    def test_oldest_takes_two_steps(self):
        """However many of a version are unfinished, ready or waiting, the oldest is found as fast."""
        for state in (READY, WAITING):
            self.fill(200, state)
            few = self.steps_of(lambda: deliveries.oldest(self.watched, [("gh", 1)]))
            self.fill(2000, state)
            many = self.steps_of(lambda: deliveries.oldest(self.watched, [("gh", 1)]))
            self.assertLessEqual(many, few + 2)

    def fill(self, count, state=READY):
        """Accept so many deliveries; all that are unfinished are in ``state`` then."""
        write_batch(self.session, [accept_one(f"e{n}") for n in range(count)], NOW)
        ids = range(1, self.session.numbers.delivery + 1)
        settlements = [settlement_of(number, state, due_at=NOW if state == WAITING else None) for number in ids]
        write_batch(self.session, [Settle(settlement, NOW) for settlement in settlements], NOW)

    def steps_of(self, look):
        """How many tens of instructions of SQLite's machine ``look`` takes."""
        steps = []
        connection = self.watched._connection
        connection.set_progress_handler(lambda: steps.append(1), 10)
        try:
            look()
        finally:
            connection.set_progress_handler(None, 0)
        return len(steps)

    def test_reads(self):
        """Looking for work, and reading a topic on from a number, scan nothing that grows."""
        connection = self.watched
        deliveries.ready(connection, 1, 0, 10, 1000)
        deliveries.due(connection, 1, NOW, 10, (1, 2))
        deliveries.next_due(connection, 1, 0.0)
        deliveries.find(connection, "e1")
        deliveries.stranded(connection, (), NOW, 10)
        deliveries.stranded(connection, (1, 7), NOW, 10)
        deliveries.count_stranded(connection, (1, 7), NOW)
        deliveries.states(connection, 1, (1, 2))
        deliveries.has_unfinished(connection, 1)
        deliveries.oldest(connection, [("gh", 1), ("other", 2)])
        deliveries.backlog(connection)
        for topic in (INBOX, OUTBOX, ATTEMPTS, DEAD_LETTERS, "audit.test"):
            records.read(connection, topic, 5, 10)
            records.latest(connection, topic)
        records.topics(connection)
        generations.last(connection)
        self.session.read_numbers()
        self.assertEqual(self.scans(), [])

    def test_oldest_sqlite(self):
        """This interpreter's SQLite is new enough for what the statements use."""
        self.assertGreaterEqual(sqlite3.sqlite_version_info, (3, 33, 0))
