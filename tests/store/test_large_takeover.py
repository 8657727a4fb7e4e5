"""A large backlog is taken over without a write to its rows: the server takes the number of the one that left it."""

from pathlib import Path
from typing import Any

from harn.model.delivery import WAITING
from harn.store.recovery import Recovery
from harn.store.sqlite import recovery
from harn.testing.stores.kit import NOW, backlog_of
from tests.store.sqlite_case import SQLiteTestCase


class LargeTakeoverTests(SQLiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(recovery, "MOST_MOVED", 2)

    def recover(self, **more: Any) -> Recovery:
        return self.result_of(self.store.recovery.recover(NOW, 10, **more))

    def accept_some(self, count: int = 4, prefix: str = "e") -> list[int]:
        ids = [self.accept_one(f"{prefix}{number}") for number in range(count)]
        self.settle(ids[-1], WAITING, due_at=NOW + 5)
        return ids

    def restart_crashed(self) -> None:
        """End the store as a crash would, as far as notes of what runs tell, and open it as the next server."""
        noted = [(each, self.read_note(each)) for each in self.notes()]
        self.restart()
        for name, text in noted:
            (self.folder() / name).write_text(text)

    def folder(self) -> Path:
        return Path(self.path).parent

    def notes(self) -> list[str]:
        return sorted(each.name for each in self.folder().glob("running-*"))

    def read_note(self, name: str) -> str:
        return (self.folder() / name).read_text()

    def test_no_row_is_written(self) -> None:
        """All continues at its place under the number of the previous server, and what is accepted now, too."""
        ids, before = self.accept_some(), self.store.incarnation
        self.restart()
        self.assertEqual(self.ready_ids(), [])
        found = self.recover()
        self.assertEqual((found.recovered, found.dead, found.backlog), (4, 0, (backlog_of("gh", 1, 3, 1),)))
        self.assertEqual(self.store.incarnation, before)
        new = self.accept_one("new")
        self.assertEqual((self.ready_ids(), self.due_ids(NOW + 5)), ([*ids[:3], new], [ids[3]]))
        self.assertEqual(self.query("SELECT DISTINCT owner FROM deliveries"), [(before,)])
        self.result_of(self.store.heartbeat(NOW + 1))
        self.assertEqual(self.query("SELECT incarnation, seen_at FROM servers"), [(before, NOW + 1)])

    def test_again_and_again(self) -> None:
        """Each further start takes over everything, and numbers of starts continue for the mark."""
        ids, before = self.accept_some(), self.store.incarnation
        for start in range(3):
            self.restart()
            self.assertEqual(self.store.incarnation, before + start + 1)
            self.assertEqual(self.recover().recovered, 4)
            self.assertEqual(self.store.incarnation, before)
        self.assertEqual(self.ready_ids(), ids[:3])

    def test_what_ran_at_a_crash_counts(self) -> None:
        """The note of what runs goes over to that number, so that the next crash counts what ran."""
        ids = self.accept_some()
        for crashes in (1, 2):
            self.result_of(self.store.deliveries.begins(ids[0]))
            self.restart_crashed()
            self.assertEqual(self.recover().crashed, 1)
            rows = dict(self.query("SELECT id, crashes FROM deliveries"))
            self.assertEqual([rows[each] for each in ids], [crashes, 0, 0, 0])
        self.result_of(self.store.deliveries.begins(ids[1]))
        self.assertEqual(self.notes(), ["running-1"])
        self.assertEqual(self.read_note("running-1").split("\n")[0], str(ids[1]))

    def test_at_the_limit(self) -> None:
        """What ran at too many crashes becomes a dead letter all the same; the others continue."""
        ids = self.accept_some()
        self.result_of(self.store.deliveries.begins(ids[0]))
        self.restart_crashed()
        found = self.result_of(self.store.recovery.recover(NOW, 1))
        self.assertEqual((found.recovered, found.dead, found.crashed), (3, 1, 1))
        self.assertEqual(self.ready_ids(), ids[1:3])

    def test_with_deliveries_of_its_own(self) -> None:
        """A server that has served already takes its own few along, and counts the others alone."""
        ids = self.accept_some()
        before = self.store.incarnation
        self.restart()
        own = self.accept_one("own")
        self.assertEqual(self.recover().backlog, (backlog_of("gh", 1, 3, 1),))
        self.assertEqual(self.ready_ids(), [*ids[:3], own])
        self.assertEqual(self.store.incarnation, before)

    def test_of_a_server_that_still_runs(self) -> None:
        """While the other ends its work nothing is taken over; once it is gone, everything."""
        ids, other = self.accept_some(), self.store.incarnation
        self.restart()
        own = self.accept_one("own")
        self.assertEqual(self.recover(leaving=other).recovered, 0)
        self.assertEqual(self.ready_ids(), [own])
        self.assertEqual(self.recover(gone=other).recovered, 4)
        self.assertEqual(self.ready_ids(), [*ids[:3], own])
