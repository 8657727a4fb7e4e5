"""Two servers on one database, while one takes over from the other: no number twice, nothing lost, each waits."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import StoreError
from harn.model.delivery import DEAD, DONE
from harn.store.event_log import DEAD_LETTERS
from harn.store.recovery import LAPSE
from harn.store.retention import RetentionPolicy
from harn.store.sqlite.store import SQLiteStore
from harn.store.worker import run_in
from harn.testing.stores.kit import (
    NOW,
    accept_of,
    attempt_of,
    dead_letter,
    dedupe,
    new_delivery,
    settlement_of,
)
from harn.testing.stores.pumped import MemoryDatabase, PumpedStore
from tests.store.sqlite_case import SQLiteTestCase

WRITER = """
import sys
from twisted.internet.defer import gatherResults
from harn.model.delivery import DEAD, DONE
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import (
    StoreClock, accept_of, attempt_of, dead_letter, dedupe, new_delivery, settlement_of
)
path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
clock = StoreClock()
store = SQLiteStore.at(path, clock, busy_timeout=60.0)
clock.result_of(store.open())
for turn in range(rounds):
    names = [f"{name}-{turn}-{n}" for n in range(5)]
    units = [store.inbox.accept(accept_of(new_delivery(event, claim=dedupe(event)))) for event in names]
    units.append(store.event_log.append("audit.test", name, {"turn": turn}))
    *accepted, record = clock.result_of(gatherResults(units))
    ids = [number for (number,) in accepted]
    dead = settlement_of(ids[1], DEAD, attempt=attempt_of(1, "failed"), dead=dead_letter(name))
    done = settlement_of(ids[0], DONE, attempt=attempt_of())
    clock.result_of(gatherResults([store.deliveries.settle(done), store.deliveries.settle(dead)]))
    print(record, *ids, flush=True)
clock.result_of(store.close())
"""


def insert_delivery(connection: sqlite3.Connection, delivery_id: int) -> None:
    """Accept as another server would."""
    connection.execute("INSERT INTO events VALUES (?, x'7b7d', x'')", (delivery_id,))
    connection.execute(
        "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at)"
        " VALUES (?, 'other', 'gh', 1, 'webhook', 'ping', 9, 0)",
        (delivery_id,),
    )


class TwoStoresTests(SQLiteTestCase):
    busy_timeout = 30.0

    def setUp(self) -> None:
        super().setUp()
        self.other = SQLiteStore.at(self.path, self.clock, busy_timeout=self.busy_timeout)
        self.result_of(self.other.open())
        self.addCleanup(lambda: self.result_of(self.other.close()))

    def accept_in(self, store: SQLiteStore, *event_ids: str) -> Deferred[Any]:
        return store.inbox.accept(
            accept_of(*(new_delivery(event_id, claim=dedupe(event_id)) for event_id in event_ids))
        )

    def check(self, ids: Sequence[int]) -> None:
        """Assert that all of ``ids`` are there, each once, and that no number of any sort was given twice."""
        self.assertEqual(sorted(ids), sorted(set(ids)))
        found = [number for (number,) in self.query("SELECT id FROM deliveries JOIN events USING (id) ORDER BY id")]
        self.assertEqual(sorted(ids), found)
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])

    def test_in_turn(self) -> None:
        """Of two that accept, settle and append in turn, each continues where the other stopped."""
        ids: list[int] = []
        records: list[int] = []
        for number in range(6):
            store = (self.store, self.other)[number % 2]
            ids += self.result_of(self.accept_in(store, f"a{number}", f"b{number}"))
            failed = attempt_of(1, "failed")
            dead = settlement_of(ids[-1], DEAD, attempt=failed, dead=dead_letter(str(number)))
            self.result_of(store.deliveries.settle(dead))
            records.append(self.result_of(store.event_log.append("audit.test", "kind", {})))
        self.assertEqual((ids, records), (list(range(1, 13)), list(range(1, 7))))
        letters = self.result_of(self.store.event_log.read(DEAD_LETTERS, 0, 10))
        self.assertEqual([(r.number, r.payload["final_error"]) for r in letters], [(n + 1, str(n)) for n in range(6)])
        self.assertEqual(self.query("SELECT count(*), max(id) FROM attempts"), [(6, 6)])
        self.check(ids)

    def test_at_once(self) -> None:
        """Of two that write in the same moment, in any order and size, neither loses or repeats anything."""
        chance = random.Random(3)
        ids: list[int] = []
        for number in range(60):
            units = []
            for store in chance.choice([(self.store, self.other), (self.other, self.store), (self.other,)]):
                names = [f"e{number}-{store.incarnation}-{n}" for n in range(chance.randint(1, 4))]
                units.append(self.accept_in(store, *names))
                if ids:
                    letter = dead_letter("no")
                    dead = settlement_of(chance.choice(ids), DEAD, attempt=attempt_of(1, "failed"), dead=letter)
                    store.deliveries.settle(dead)
            for accepted in self.result_of(gatherResults(units)):
                ids += accepted
        self.check(ids)
        ((attempts, highest),) = self.query("SELECT count(*), max(id) FROM attempts")
        self.assertEqual(attempts, highest)

    def test_a_unit_that_fails_alone(self) -> None:
        """A batch that is written again, unit by unit, continues where another writer stopped in between."""
        other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.addCleanup(other.close)
        begun = []

        def write_between(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE":
                begun.append(statement)
                if len(begun) == 2:
                    insert_delivery(other, 1)

        self.trace(write_between)
        bad = self.store.inbox.accept(accept_of(new_delivery("bad", kind="\ud800")))
        good = self.accept_in(self.store, "e2")
        with self.assertRaises(StoreError):
            self.result_of(bad)
        self.assertEqual((len(begun), self.result_of(good)), (2, (2,)))
        self.check([1, 2])

    def test_numbers_that_the_other_trimmed(self) -> None:
        """What the other accepted, finished and trimmed meanwhile has used its numbers up."""
        self.result_of(self.accept_in(self.store, "e1"))
        (trimmed,) = self.result_of(self.accept_in(self.other, "e2"))
        self.result_of(self.other.deliveries.settle(settlement_of(trimmed, DONE, attempt=attempt_of())))
        self.result_of(self.other.trim(RetentionPolicy(events=1.0, dead=1.0), NOW + 100, 10))
        self.assertEqual(self.query("SELECT max(id) FROM deliveries"), [(1,)])
        self.assertEqual(self.result_of(self.accept_in(self.store, "e3")), (3,))
        self.check([1, 3])

    def test_a_claim_of_the_other(self) -> None:
        """What the other accepted a moment ago is a duplicate here."""
        self.assertEqual(self.result_of(self.accept_in(self.other, "e1")), (1,))
        self.assertEqual(self.result_of(self.accept_in(self.store, "e1")), (None,))

    def test_each_runs_its_own(self) -> None:
        """The one that takes over leaves the other's deliveries alone while it drains, and takes what it left after."""
        old, new = self.store, self.other
        running, left = self.result_of(self.accept_in(old, "running", "left"))
        (fresh,) = self.result_of(self.accept_in(new, "fresh"))
        self.assertEqual(self.result_of(new.recovery.recover(NOW, 10, None, old.incarnation)).recovered, 0)
        self.result_of(old.deliveries.settle(settlement_of(running, attempt=attempt_of())))
        self.result_of(old.close())
        self.assertEqual(self.result_of(new.recovery.recover(NOW, 10, gone=old.incarnation)).recovered, 1)
        ready = self.result_of(new.deliveries.ready("gh", 1, (), 10, 1 << 20))
        self.assertEqual([row.delivery_id for row in ready], [left, fresh])
        self.assertEqual(self.query("SELECT state FROM deliveries WHERE id = ?", running), [(2,)])

    def test_a_living_server_keeps_its_own(self) -> None:
        """What another has, whose heartbeat came after our start, is left to it until that lapses, or it is gone."""
        theirs = self.result_of(self.accept_in(self.store, "e1", "e2"))
        self.result_of(self.store.deliveries.begins(theirs[0]))
        self.clock.advance(1)
        now = self.clock.seconds()
        self.result_of(self.store.heartbeat(now))
        self.assertEqual(self.result_of(self.other.recovery.unfinished(now + 1, 10)), [])
        self.assertEqual(self.result_of(self.other.recovery.recover(now, 1)).recovered, 0)
        for gone in (None, self.store.incarnation):
            self.clock.advance(LAPSE if gone is None else 0)
            found = self.result_of(self.other.recovery.unfinished(now + 1, 10, None, gone))
            self.assertEqual([row.delivery_id for row in found], list(theirs))
        recovery = self.result_of(self.other.recovery.recover(self.clock.seconds(), 1))
        self.assertEqual((recovery.recovered, recovery.dead), (1, 1))

    def test_one_that_is_known_to_be_gone(self) -> None:
        """A server whose process has ended is gone, whatever its heartbeat says."""
        self.result_of(self.accept_in(self.store, "e1"))
        self.clock.advance(1)
        now = self.clock.seconds()
        self.result_of(self.store.heartbeat(now))
        self.assertEqual(self.result_of(self.other.recovery.recover(now, 1, gone=self.store.incarnation)).recovered, 1)

    def test_a_busy_database_is_waited_for(self) -> None:
        """While another process writes, a unit waits for its commit, and continues from its numbers."""
        self.result_of(self.accept_in(self.store, "e1"))
        begun: SimpleQueue[Any] = SimpleQueue()
        self.trace(begun.put)
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        accepting = self.accept_in(self.store, "e3")
        self.clock.turn()
        self.assertEqual(begun.get(timeout=30), "BEGIN IMMEDIATE")
        self.assertEqual(self.state_of("e1"), ["ready"])
        self.assertNoResult(accepting)
        insert_delivery(other, 2)
        other.execute("COMMIT")
        self.assertEqual(self.result_of(accepting), (3,))
        self.assertTrue(self.store.available())
        self.check([1, 2, 3])

    def trace(self, seen: Callable[[str], object]) -> None:
        """Call ``seen`` with each statement as the writer's thread begins it."""
        writer: Any = self.store._executor.writer
        self.result_of(run_in(writer._worker, lambda: writer._session.connection.set_trace_callback(seen)))

    def test_numbers_are_read_only_when_another_wrote(self) -> None:
        """Alone, a batch costs one look at what may have changed, and the numbers are read once."""
        seen: list[Any] = []
        self.trace(seen.append)
        for number in range(3):
            self.result_of(self.accept_in(self.store, f"e{number}"))
        self.assertEqual(sum("data_version" in statement for statement in seen), 3)
        self.assertEqual(sum("FROM numbers" in statement for statement in seen), 1)
        self.result_of(self.accept_in(self.other, "other"))
        self.result_of(self.accept_in(self.store, "last"))
        self.assertEqual(sum("FROM numbers" in statement for statement in seen), 2)


class TwoProcessesTests(SQLiteTestCase):
    def start(self, name: str, rounds: int) -> Any:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        child: Any = subprocess.Popen(
            [sys.executable, "-c", WRITER, os.path.abspath(self.path), name, str(rounds)],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def acknowledged(self, output: str) -> tuple[list[int], list[int]]:
        """Return the numbers of the records, and ids of the deliveries, that children have reported."""
        rows = [[int(number) for number in line.split()] for line in output.splitlines()]
        return [row[0] for row in rows], [number for row in rows for number in row[1:]]

    def check(self, output: str) -> list[int]:
        """Assert that everything acknowledged is there, and no number of any sort was given twice."""
        records, ids = self.acknowledged(output)
        self.assertEqual((len(set(records)), len(set(ids))), (len(records), len(ids)))
        found = {number for (number,) in self.query("SELECT id FROM deliveries JOIN events USING (id)")}
        self.assertEqual(set(ids) - found, set())
        self.assertEqual(set(records) - {number for (number,) in self.query("SELECT number FROM log")}, set())
        ((count, distinct),) = self.query("SELECT count(*), count(DISTINCT event_id) FROM deliveries")
        self.assertEqual(count, distinct)
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])
        return ids

    def test_both_write(self) -> None:
        """Two processes that write as fast as they can: all is kept, each number is given once, none is left out."""
        children = [self.start(name, 60) for name in ("a", "b")]
        outputs = [child.communicate(timeout=120)[0] for child in children]
        self.assertEqual([child.returncode for child in children], [0, 0])
        ids = self.check("".join(outputs))
        self.assertEqual(sorted(ids), list(range(1, 601)))
        self.assertEqual(self.query("SELECT count(*), min(id), max(id) FROM attempts"), [(240, 1, 240)])
        dead = "SELECT count(*), min(dead_number), max(dead_number) FROM deliveries WHERE state = 3"
        self.assertEqual(self.query(dead), [(120, 1, 120)])

    def test_one_is_killed(self) -> None:
        """When one of two is killed in the midst of writing, the other continues, and nothing acknowledged is lost."""
        dying, staying = self.start("dying", 1_000_000), self.start("staying", 1_000_000)
        lines = [child.stdout.readline() for _ in range(10) for child in (dying, staying)]
        self.end(dying, lines)
        lines += [staying.stdout.readline() for _ in range(10)]
        self.end(staying, lines)
        self.check("".join(lines))

    def end(self, child: Any, lines: list[str]) -> None:
        """Kill a child, and take what it wrote before; the last line may be cut off."""
        child.send_signal(signal.SIGKILL)
        lines += [line for line in child.stdout.read().splitlines(True) if line.endswith("\n")]
        self.assertEqual(child.wait(), -signal.SIGKILL)


class SeveralServersTests(SynchronousTestCase):
    """Servers on one store that no lock keeps apart."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.first = PumpedStore(self.clock, MemoryDatabase(is_exclusive=False))
        self.second = self.first.beside()
        self.successResultOf(self.first.open())
        self.successResultOf(self.first.inbox.accept(accept_of(new_delivery("e1"), new_delivery("e2"))))

    def recovered(self) -> int:
        return self.successResultOf(self.second.recovery.recover(self.clock.seconds(), 10)).recovered

    def test_a_server_that_started_before_keeps_its_own(self) -> None:
        """What a server has whose heartbeat has not lapsed is not taken over, though it was silent since our start."""
        self.clock.advance(LAPSE - 1)
        self.successResultOf(self.second.open())
        self.assertEqual(
            (self.recovered(), self.successResultOf(self.second.recovery.count_unfinished(NOW + 1))), (0, 0)
        )
        self.successResultOf(self.first.heartbeat(self.clock.seconds()))
        self.clock.advance(LAPSE - 1)
        self.assertEqual(self.recovered(), 0)
        self.successResultOf(self.first.deliveries.settle(settlement_of(1, attempt=attempt_of())))
        self.assertEqual(self.successResultOf(self.first.deliveries.states((1, 2))), {1: "done", 2: "ready"})

    def test_a_heartbeat_that_lapsed(self) -> None:
        """From then on, what it left unfinished is taken over, once."""
        self.successResultOf(self.second.open())
        self.clock.advance(LAPSE)
        self.assertEqual(self.successResultOf(self.second.recovery.count_unfinished(NOW + 1)), 2)
        self.assertEqual((self.recovered(), self.recovered()), (2, 0))
        self.assertEqual(self.successResultOf(self.first.deliveries.ready("gh", 1, (), 10, 1000)), [])
