"""Every operation of a store with every failure of its disk: nothing is half written, and a second try does it all."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import EventLogUnavailable
from harn.store.sqlite import recovery
from harn.testing.stores.kit import NOW
from harn.testing.stores.pumped import Fault
from tests.store.faults import APART, READS, WRITES, World, operations_of, shown

Operation: TypeAlias = Callable[[World], Any]

MOST_STATEMENTS = 60
"""Statements of the longest operation; more are a mistake of the test."""


class FaultTests(SynchronousTestCase):
    def test_every_operation_is_here(self) -> None:
        """An operation that is added to an interface of the store is added to the tables of these tests."""
        self.assertEqual(operations_of(World().store), APART | WRITES.keys() | READS.keys())

    def expected(self, operation: Operation) -> tuple[Any, Any]:
        """Return the result of an operation, and the rows that it leaves, where nothing fails."""
        world = World()
        result = self.successResultOf(operation(world))
        return shown(result), world.dump()

    def fails(self, world: World, operation: Operation, fault: Fault) -> bool:
        """Fail an operation at one of its statements; return False if it succeeded before that statement came."""
        before = world.dump()
        world.fail_once(fault)
        outcome: list[object] = []
        operation(world).addBoth(outcome.append)
        world.fail_once(None)
        (found,) = outcome
        if not hasattr(found, "check"):
            return False
        self.assertTrue(found.check(EventLogUnavailable), found)
        self.assertEqual(world.dump(), before)
        self.assertFalse(world.store.available())
        return True

    def succeeds(self, world: World, operation: Operation, expected: tuple[Any, Any]) -> None:
        """Check that an operation has the same effect as where nothing has failed."""
        result = self.successResultOf(operation(world))
        self.assertEqual((shown(result), world.dump()), expected)
        self.assertTrue(world.store.available())

    def test_full_at_each_statement(self) -> None:
        """A disk that is full at any statement, BEGIN and COMMIT among them, keeps nothing of it, and loses nothing."""
        self.see_full_disks(WRITES)

    def test_full_while_the_number_of_another_is_taken(self) -> None:
        """So it does where a large backlog is taken over: the server keeps its own number until that is on disk."""
        self.patch(recovery, "MOST_MOVED", 0)
        self.see_full_disks({"recovery.recover": lambda w: w.store.recovery.recover(NOW, 10)})

    def see_full_disks(self, operations: Mapping[str, Operation]) -> None:
        """Run each of these operations with a failure at each of its statements, and then to success."""
        for name, operation in operations.items():
            expected = self.expected(operation)
            for number in range(MOST_STATEMENTS):
                world = World()
                fault = Fault(sqlite3.SQLITE_FULL, after=number, rolls_back=number % 2 == 0)
                if not self.fails(world, operation, fault):
                    break
                self.succeeds(world, operation, expected)
            self.assertGreater(number, 2, name)
            self.assertLess(number, MOST_STATEMENTS - 1, name)

    def test_locked_damaged_and_unreadable(self) -> None:
        """So does a database that is locked, damaged, or cannot be synced, at its first statement, second and last."""
        faults = {
            "locked": lambda: Fault(sqlite3.SQLITE_BUSY),
            "damaged": lambda: Fault(sqlite3.SQLITE_CORRUPT, after=2),
            "unreadable": lambda: Fault(sqlite3.SQLITE_IOERR, after=2, rolls_back=True),
            "not synced": lambda: Fault(sqlite3.SQLITE_IOERR, only="COMMIT", rolls_back=True),
        }
        for name, operation in WRITES.items():
            expected = self.expected(operation)
            for what, fault in faults.items():
                world = World()
                self.assertTrue(self.fails(world, operation, fault()), (name, what))
                self.succeeds(world, operation, expected)

    def test_failing_again_and_again(self) -> None:
        """Many failures in a row leave no trace: numbers, claims and states continue as if there had been none."""
        world = World()
        for operation in WRITES.values():
            for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT):
                self.fails(world, operation, Fault(code, only="COMMIT"))
        fresh = World()
        for name in ("inbox.accept", "recovery.recover", "deliveries.settle"):
            results = [shown(self.successResultOf(WRITES[name](each))) for each in (world, fresh)]
            self.assertEqual(results[0], results[1])
        self.assertEqual(world.dump(), fresh.dump())

    def test_slow_sync(self) -> None:
        """During a slow commit nothing fires, reads continue, and what comes meanwhile shares the next commit."""
        for name, operation in WRITES.items():
            expected = self.expected(operation)
            world = World()
            writer = world.store.writer
            commits = world.store.commits
            writer.held = True
            first = operation(world)
            writer.run()  # on disk, but not reported yet
            later = [world.store.event_log.append("audit.later", "kind", {"n": n}) for n in range(2)]
            self.successResultOf(world.store.deliveries.find("ready"))
            for each in (first, *later):
                self.assertNoResult(each)
            writer.release()
            self.assertEqual(shown(self.successResultOf(first)), expected[0], name)
            for each in later:
                self.successResultOf(each)
            self.assertLessEqual(world.store.commits, commits + 2, name)

    def test_reads(self) -> None:
        """A read that fails says so, and the next one gives what it should; writes do not notice."""
        for name, operation in READS.items():
            expected = self.expected(operation)
            for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
                for number in (0, 1):
                    world = World()
                    world.fail_once(Fault(code, after=number))
                    self.assertTrue(self.failureResultOf(operation(world)).check(EventLogUnavailable), name)
                    world.fail_once(None)
                    self.succeeds(world, operation, expected)
