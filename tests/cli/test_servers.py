"""The list of servers that is read from the store while the one of the state directory does not run."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.servers import COLUMNS, rows_of
from harn.servers.operations import SILENT, stored
from harn.store.servers import SERVING, ServerNote, ServerRow

ROW = ServerRow(
    incarnation=3,
    host="web",
    pid=7,
    home="a",
    started_at=1_800_000_000.0,
    seen_at=1_800_000_050.0,
    note=ServerNote(status=SERVING, url="http://web:8080", generation=4, version="1.0"),
)


class StoredTests(SynchronousTestCase):
    def test_silent(self) -> None:
        """One whose heartbeat is old does not run, whatever it said last; which one leads is not known."""
        found = stored([ROW, evolve(ROW, incarnation=4, pid=8, seen_at=1_800_000_010.0)], 1_800_000_020.0).servers
        self.assertEqual(
            [(each.id, each.status, each.leads) for each in found],
            [
                ("web:7", SERVING, False),
                ("web:8", SILENT, False),
            ],
        )
        self.assertEqual(found[0].last_seen, "2027-01-15T08:00:50.000Z")

    def test_columns(self) -> None:
        """Each shows its field; the one that answers has a star."""
        (listed,) = rows_of(stored([ROW], 0.0).servers).rows
        shown = [column.value(listed) for column in COLUMNS]
        self.assertEqual(shown[:4], ["web:7", SERVING, 4, "http://web:8080"])
