"""What SQLite does for each statement: nothing on a hot path reads a table from end to end."""

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import DEAD, DONE, READY, WAITING, State
from harn.store.deliveries import DeliveryFilter
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX
from harn.store.generations import BindingRecord
from harn.store.holds import Hold, Holds
from harn.store.retention import RetentionPolicy
from harn.store.statistics import TriggerTotal
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
from harn.testing.stores.pumped import MemoryDatabase, PumpedStore

DIED = dead_letter("given up")

GROWING = ("deliveries", "events", "attempts", "claims", "log", "d", "e", "a")


class Watched:
    """A connection that collects the plan of each statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            plan = self._connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
            self.plans += [(statement, row[3]) for row in plan]
        return self._connection.execute(statement, values)


class PlanTests(SynchronousTestCase):
    def setUp(self) -> None:
        database = MemoryDatabase()
        self.watched = cast("Any", Watched(database.connection))
        database.connection = self.watched
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = PumpedStore(self.clock, database)
        self.successResultOf(self.store.open())

    def trim(self, policy: RetentionPolicy) -> int:
        return self.successResultOf(self.store.trim(policy, NOW, 10))

    def adopt(self, number: int, *bindings: BindingRecord) -> None:
        self.successResultOf(self.store.generations.reserve(generation_of(number, *bindings), b"bundle"))
        self.successResultOf(self.store.generations.adopted(number, NOW))

    def scans(self) -> list[tuple[str, str]]:
        """Return the statements that read a growing table, or a whole index of one, from end to end."""
        found = []
        for statement, step in self.watched.plans:
            words = step.split()
            if words[0] == "SCAN" and words[1] in GROWING and "deliveries_unfinished" not in words:
                found.append((statement, step))
        return found

    def test_plans_are_seen(self) -> None:
        """A statement that does scan is noticed."""
        self.watched.execute("SELECT count(*) FROM deliveries WHERE provider = 'x'")
        self.assertEqual(len(self.scans()), 1)

    def test_lists(self) -> None:
        """No list of deliveries, whatever it is chosen by, reads a table or sorts what an index has in order."""
        store = self.store
        self.successResultOf(store.inbox.accept(accept_of(new_delivery("e1"))))
        self.successResultOf(store.deliveries.settle(settlement_of(1, DEAD, dead=DIED)))
        self.successResultOf(store.inbox.accept(accept_of(new_delivery("e2"))))
        self.watched.plans.clear()
        for state in (None, *State):
            for trigger, kind, since in itertools.product((None, "gh"), (None, "ping"), (None, NOW)):
                states = frozenset() if state is None else frozenset((state,))
                for holds in (Holds(), Holds(by_trigger={"gh": Hold("paused")}), Holds(of_all=Hold("paused"))):
                    chosen = DeliveryFilter(states=states, trigger=trigger, kind=kind, since=since, holds=holds)
                    self.successResultOf(store.lists.part(chosen, None, 10, 10, False))
        self.successResultOf(store.lists.whole("e1"))
        self.successResultOf(store.lists.dead_groups("gh"))
        self.assertEqual(self.scans(), [])
        sorts = [plan for plan in self.watched.plans if "TEMP B-TREE" in plan[1]]
        self.assertEqual(sorts, [])

    def test_units(self) -> None:
        """Accepting, settling, appending, moving and recovering scan nothing that grows with what is finished."""
        store = self.store
        units: list[Any] = [
            store.inbox.accept(accept_of(new_delivery("e1", claim=dedupe("k")))),
            store.deliveries.settle(settlement_of(1, DONE, attempt=attempt_of())),
            store.event_log.append("audit.test", "kind", {}),
            store.deliveries.due(NOW, 10),
            store.deliveries.dead_letter("gh", 1, DIED, (1, 2), waiting=False),
            store.deliveries.dead_letter("gh", None, DIED, (1, 2)),
            store.deliveries.redrive("gh", 1, 2, NOW),
            store.recovery.recover(NOW, 10),
        ]
        other = store.beside()
        self.successResultOf(other.open())
        self.successResultOf(store.deliveries.begins(1))
        units += [other.recovery.recover(NOW, 1, gone=1), other.heartbeat(NOW)]
        for unit in units:
            self.successResultOf(unit)
        self.assertEqual(self.scans(), [])

    def test_retention(self) -> None:
        """A sweep that finds nothing to remove scans nothing that grows."""
        policy = RetentionPolicy(events=1.0, dead=1.0, max_bytes=1)
        self.trim(policy)
        # The subquery that takes the oldest of the log ends after so many rows; SQLite calls that a scan, too.
        bounded = "FROM log ORDER BY number LIMIT"
        self.assertEqual([step for statement, step in self.scans() if bounded not in statement], [])

    def test_definitions(self) -> None:
        """What decides which generations go looks up unfinished deliveries by their index, whatever is finished."""
        self.adopt(1, binding_of(1, 1))
        self.trim(RetentionPolicy(events=1.0, dead=1.0, generations=1, kept=(1, 2)))
        self.assertTrue([statement for statement, _ in self.watched.plans if "FROM manifests" in statement])
        bounded = "FROM log ORDER BY number LIMIT"
        self.assertEqual([step for statement, step in self.scans() if bounded not in statement], [])

    def test_totals(self) -> None:
        """What decides whose totals go looks up deliveries by their index, a step for each 1024 of them."""
        self.adopt(1, binding_of(1, 1))
        self.successResultOf(self.store.totals.add((TriggerTotal(trigger_id="gone", accepted=1),), (), 0))
        self.successResultOf(self.store.inbox.accept(accept_of(new_delivery("e1"))))
        self.trim(RetentionPolicy(events=1.0, dead=1.0, triggers=("gh",)))
        self.assertEqual(self.successResultOf(self.store.totals.totals()), {})
        bounded = "FROM log ORDER BY number LIMIT"
        self.assertEqual([step for statement, step in self.scans() if bounded not in statement], [])

    def test_versions_that_are_kept(self) -> None:
        """A version that is held for a ramp costs retention the same however many others are."""
        steps = []
        for count in (100, 400):
            self.setUp()
            old = [binding_of(1, 1, trigger_id=f"t{n}") for n in range(count)]
            new = [binding_of(2, 2, trigger_id=f"t{n}") for n in range(count)]
            self.adopt(1, *old)
            self.adopt(2, *new)
            versions = tuple((f"t{n}", 1) for n in range(count))
            policy = RetentionPolicy(events=1.0, dead=1.0, generations=1, versions=versions)
            steps.append(self.steps_of(lambda policy=policy: self.trim(policy)))
            self.assertEqual(len(self.successResultOf(self.store.generations.bindings(versions))), count)
        self.assertLess(steps[1], 5 * steps[0])

    def test_recent(self) -> None:
        """The newest events are found by walking back from the newest id, and no index is gone through."""
        self.store.deliveries.recent(("gh", "other"), 10, 1000)
        walks = [step for statement, step in self.scans()]
        self.assertEqual(walks, ["SCAN deliveries"])

    def test_recent_reads_no_more_than_it_may(self) -> None:
        """However many deliveries there are, what is read for the newest is the same."""
        self.fill(200)
        few = self.steps_of(lambda: self.store.deliveries.recent(("gh",), 3, 100))
        self.fill(2000)
        many = self.steps_of(lambda: self.store.deliveries.recent(("gh",), 3, 100))
        self.assertLessEqual(many, few + 2)

    def test_oldest_takes_two_steps(self) -> None:
        """However many of a version are unfinished, ready or waiting, the oldest is found as fast."""
        for state in (READY, WAITING):
            self.fill(200, state)
            few = self.steps_of(lambda: self.store.deliveries.oldest([("gh", 1)]))
            self.fill(2000, state)
            many = self.steps_of(lambda: self.store.deliveries.oldest([("gh", 1)]))
            self.assertLessEqual(many, few + 4)

    def test_ready_takes_no_more_than_it_reads(self) -> None:
        """However many of a version are ready, beside however many others that wait, the first are found as fast."""
        self.fill(200, WAITING)
        self.fill(100)
        few = self.steps_of(lambda: self.store.deliveries.ready("gh", 1, (1, 2), 10, 1000))
        self.fill(2000, WAITING)
        self.fill(1000)
        many = self.steps_of(lambda: self.store.deliveries.ready("gh", 1, (1, 2), 10, 1000))
        self.assertLessEqual(many, few + 4)

    def test_backlogs_take_few_steps(self) -> None:
        """However many are unfinished, the oldest of each trigger, and when the next is due, are found as fast."""
        for state in (READY, WAITING):
            self.fill(200, state)
            few = self.steps_of(lambda: self.store.totals.backlogs(NOW, (1, 2)))
            self.fill(2000, state)
            many = self.steps_of(lambda: self.store.totals.backlogs(NOW, (1, 2)))
            self.assertLessEqual(many, few + 4)

    def fill(self, count: int, state: State = READY) -> None:
        """Accept so many deliveries; all that are unfinished are in ``state`` then."""
        self.successResultOf(self.store.inbox.accept(accept_of(*(new_delivery(f"e{n}") for n in range(count)))))
        due_at = NOW if state == WAITING else None
        for row in self.store.rows():
            self.successResultOf(self.store.deliveries.settle(settlement_of(row.delivery_id, state, due_at=due_at)))

    def steps_of(self, look: Callable[[], object]) -> int:
        """Return how many tens of instructions of SQLite's machine ``look`` takes."""
        steps = []
        connection = self.watched._connection
        connection.set_progress_handler(lambda: steps.append(1), 10)
        try:
            look()
        finally:
            connection.set_progress_handler(None, 0)
        return len(steps)

    def test_reads(self) -> None:
        """Looking for work, and reading a topic on from a number, scan nothing that grows."""
        store = self.store
        looks: list[Any] = [
            store.deliveries.ready("gh", 1, (1, 2), 10, 1000),
            store.deliveries.next_due(),
            store.deliveries.find("e1"),
            store.recovery.unfinished(NOW, 10),
            store.recovery.unfinished(NOW, 10, leaving=7),
            store.recovery.count_unfinished(NOW),
            store.deliveries.states((1, 2)),
            store.deliveries.owners((1, 2)),
            store.deliveries.oldest([("gh", 1), ("other", 2)]),
            store.deliveries.backlog(),
            store.event_log.topics(),
            store.generations.last(),
        ]
        for topic in (INBOX, OUTBOX, ATTEMPTS, DEAD_LETTERS, "audit.test"):
            looks += [store.event_log.read(topic, 5, 10), store.event_log.latest(topic)]
        for look in looks:
            self.successResultOf(look)
        self.assertEqual(self.scans(), [])

    def test_oldest_sqlite(self) -> None:
        """This interpreter's SQLite is new enough for what the statements use."""
        self.assertGreaterEqual(sqlite3.sqlite_version_info, (3, 33, 0))
