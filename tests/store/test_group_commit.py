"""Group commit: one commit for a turn, order, and threads that begin and end with the store."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import gatherResults

from harn.model.delivery import DONE, WAITING
from harn.store.worker import run_in
from harn.testing.stores.kit import NOW, accept_of, attempt_of, dedupe, new_delivery, settlement_of
from tests.store.sqlite_case import SQLiteTestCase


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("harn-store")]


class GroupCommitTests(SQLiteTestCase):
    def test_one_turn_is_one_commit(self) -> None:
        """Twenty-seven units of every sort, asked for in one turn, are one commit."""
        first = self.accept_one("e0")
        before = self.store.commits
        accepted = (accept_of(new_delivery(f"e{n}", claim=dedupe(f"k{n}"))) for n in range(1, 20))
        units: list[Any] = [self.store.inbox.accept(each) for each in accepted]
        units += [self.store.event_log.append("audit.test", "kind", {"n": n}) for n in range(6)]
        units += [
            self.store.deliveries.settle(settlement_of(first, DONE, attempt=attempt_of())),
            self.store.heartbeat(NOW),
        ]
        self.assertEqual(len(units), 27)
        self.result_of(gatherResults(units))
        self.assertEqual(self.store.commits - before, 1)

    def test_one_event_takes_few_statements(self) -> None:
        """
        An event that comes alone is looked at for another server's numbers, claimed and written, and nothing else: each
        statement is a turn that the writer's thread has to wait for.
        """
        self.accept_one("e0")
        seen: list[Any] = []
        writer: Any = self.store._executor.writer
        self.result_of(run_in(writer._worker, lambda: writer._session.connection.set_trace_callback(seen.append)))
        self.accept_one("e1", claim=dedupe("k"))
        begun = ["BEGIN IMMEDIATE", "PRAGMA data_version", "INSERT INTO claims"]
        written = ["INSERT INTO events", "INSERT INTO deliveries", "COMMIT"]
        self.assertEqual(list(map(self.named(begun + written), seen)), begun + written)
        seen.clear()
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (None,))
        self.assertEqual(seen[-1], "COMMIT")
        self.assertEqual(self.query("SELECT event_id FROM deliveries ORDER BY id"), [("e0",), ("e1",)])

    @staticmethod
    def wait_for(event: threading.Event) -> None:
        event.wait()

    @staticmethod
    def named(beginnings: Sequence[str]) -> Callable[[str], str]:
        """Return the function that recognizes a statement by its beginning."""
        return lambda statement: next((each for each in beginnings if statement.startswith(each)), statement)

    def test_a_batch_larger_than_a_statement(self) -> None:
        """A batch of more rows than one statement takes is one commit, with ids in the order asked for."""
        before = self.store.commits
        units = [self.store.inbox.accept(accept_of(new_delivery(f"e{n}", claim=dedupe(f"k{n}")))) for n in range(100)]
        ids = [each or 0 for (each,) in self.result_of(gatherResults(units))]
        self.assertEqual(ids, list(range(1, 101)))
        self.result_of(gatherResults([self.store.deliveries.settle(settlement_of(number)) for number in ids]))
        self.assertEqual(self.store.commits - before, 2)
        self.assertEqual(self.query("SELECT count(*), min(state), max(state) FROM deliveries"), [(100, 2, 2)])

    def test_large_bodies_are_few_in_a_batch(self) -> None:
        """What is written at once is bounded in bytes; small and large units are on disk in the order asked for."""
        sizes = [10, 3_000_000, 20, 3_000_000, 17_000, 6_000_000, 30]
        before = self.store.commits
        units: list[Any] = [
            self.store.inbox.accept(accept_of(new_delivery(f"e{n}", body=bytes([n]) * size)))
            for n, size in enumerate(sizes)
        ]
        self.assertEqual([ids[0] for ids in self.result_of(gatherResults(units))], list(range(1, 8)))
        self.assertEqual(self.store.commits - before, 4)
        rows = self.query(
            "SELECT event_id, length(body), hex(substr(body, 1, 1)) FROM deliveries JOIN events USING (id)"
        )
        self.assertEqual(rows, [(f"e{n}", size, f"{n:02X}") for n, size in enumerate(sizes)])

    def test_large_results(self) -> None:
        """A large result beside small ones, and beside another outcome of its delivery, is kept."""
        ids = [self.accept_one(f"e{n}") for n in range(3)]
        settlements = [
            settlement_of(ids[0], attempt=attempt_of(), result=b"1"),
            settlement_of(ids[1], WAITING, due_at=NOW, attempt=attempt_of(1, "failed")),
            settlement_of(ids[1], attempt=attempt_of(2), attempts=2, result=b'"' + b"y" * 100_000 + b'"'),
            settlement_of(ids[2], attempt=attempt_of(), result=b"3"),
        ]
        self.result_of(gatherResults([self.store.deliveries.settle(each) for each in settlements]))
        rows = self.query("SELECT state, attempts, length(result) FROM deliveries ORDER BY id")
        self.assertEqual(rows, [(2, 1, 1), (2, 2, 100_002), (2, 1, 1)])

    def test_what_comes_during_a_batch_is_the_next_one(self) -> None:
        """While a batch is written, units are collected; they share the next commit."""
        release = threading.Event()
        self.store._executor.writer._worker.post(lambda: self.wait_for(release))
        before = self.store.commits
        first: Any = self.store.event_log.append("audit.test", "first", {})
        self.clock.turn()
        later = []
        for n in range(5):
            later.append(self.store.event_log.append("audit.test", "later", {"n": n}))
            self.clock.turn()
        release.set()
        self.result_of(gatherResults([first, *later]))
        self.assertEqual(self.store.commits - before, 2)

    def test_nothing_fires_before_it_is_on_disk(self) -> None:
        """A Deferred does not fire in the turn of its request, and its unit is committed when it fires."""
        seen: list[Any] = []
        accepting = self.store.inbox.accept(accept_of(new_delivery("e1")))
        self.clock.turn()
        self.assertNoResult(accepting)
        accepting.addCallback(lambda _: seen.extend(self.query("SELECT event_id FROM deliveries")))
        self.result_of(accepting)
        self.assertEqual(seen, [("e1",)])

    def test_reads_do_not_wait_for_writes(self) -> None:
        """While the writer's thread is busy, a read is answered, with what was committed before."""
        self.accept_one("e1")
        release = threading.Event()
        self.store._executor.writer._worker.post(lambda: self.wait_for(release))
        writing = self.store.inbox.accept(accept_of(new_delivery("e2")))
        self.clock.turn()
        self.assertEqual(len(self.ready_ids()), 1)
        self.assertNoResult(writing)
        release.set()
        self.result_of(writing)
        self.assertEqual(len(self.ready_ids()), 2)

    def test_threads_begin_at_open_and_end_at_close(self) -> None:
        """A store that is not open has no thread (a daemon forks then); `close` fires when both are gone."""
        self.assertEqual(sorted(store_threads()), ["harn-store-notes", "harn-store-reader", "harn-store-writer"])
        self.result_of(self.store.close())
        self.assertEqual(store_threads(), [])
        self.make_store()
        self.assertEqual(store_threads(), [])

    def test_close_waits_for_several_batches(self) -> None:
        """`close` fires after the batch that is being written and the one behind it."""
        first: Any = self.store.event_log.append("audit.test", "first", {})
        self.clock.turn()
        second = self.store.event_log.append("audit.test", "second", {})
        closing = self.store.close()
        again = self.store.close()
        self.result_of(gatherResults([closing, again]))
        self.assertLess(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.query("SELECT kind FROM log ORDER BY number"), [("first",), ("second",)])
