"""The list of servers that is read from the store while the one of the state directory does not run."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.cli import servers
from harn.cli.client import OperationRefused, ServerUnreachable
from harn.cli.servers import COLUMNS, INTERVAL, rows_of, snapshots
from harn.errors import HarnError
from harn.servers.operations import SILENT, ServerList, stored
from harn.store.servers import SERVING, ServerNote, ServerRow
from tests.cli.looks import Looks, Waits

TARGET: Any = None
"""The server of the command, which these looks do not ask."""

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
        found = stored([ROW, replace(ROW, incarnation=4, pid=8, seen_at=1_800_000_010.0)], 1_800_000_020.0).servers
        self.assertEqual(
            [(each.id, each.status, each.leads) for each in found],
            [
                ("web:7", SERVING, False),
                ("web:8", SILENT, False),
            ],
        )
        self.assertEqual(found[0].last_seen, "2027-01-15T08:00:50.000Z")

    def test_silent_is_not_ready(self) -> None:
        """Whether a silent server is ready is not known, whatever it said last."""
        row = replace(ROW, note=replace(ROW.note, not_ready=()))
        found = [*stored([row], 0.0).servers, *stored([row], ROW.seen_at + 1.0).servers]
        self.assertEqual([(each.status, each.not_ready) for each in found], [(SERVING, ()), (SILENT, None)])

    def test_columns(self) -> None:
        """Each shows its field; the one that answers has a star."""
        (listed,) = rows_of(stored([ROW], 0.0).servers).rows
        shown = [column.value(listed) for column in COLUMNS]
        self.assertEqual(shown[:6], ["web:7", SERVING, None, 4, None, "http://web:8080"])

    def test_readiness(self) -> None:
        """A server is ready, or it is said why not, and how many deliveries it has."""
        for not_ready, said in (((), "yes"), (("paused", "event log away"), "paused; event log away")):
            row = replace(ROW, note=replace(ROW.note, outstanding=12, not_ready=not_ready))
            (listed,) = rows_of(stored([row], 0.0).servers).rows
            shown = {column.name: column.value(listed) for column in COLUMNS}
            self.assertEqual((shown["Ready"], shown["Outstanding"]), (said, 12))


class WatchTests(SynchronousTestCase):
    """Looking again and again."""

    def watched(self, *looks: ServerList | HarnError) -> tuple[list[int], list[float]]:
        """Return how many servers each look showed, and the waits between them."""
        found, waits = Looks[ServerList](*looks), Waits()
        self.patch(servers, "read", lambda target: found.read())
        shown: list[int] = []
        with self.assertRaises(HarnError) as raised:
            for each in snapshots(TARGET, waits):
                shown += [len(each.servers)]
        self.assertIs(raised.exception, looks[-1])
        return shown, waits.seconds

    def test_again(self) -> None:
        """They are listed each second; a server that is restarted meanwhile is waited for."""
        one, none, refused = stored([ROW], 0.0), stored([], 0.0), OperationRefused("no such key", 401)
        away = (ServerUnreachable("gone"), OperationRefused("starting", 503))
        self.assertEqual(self.watched(one, *away, none, refused), ([1, 0], [INTERVAL] * 4))

    def test_an_error_of_the_first_look(self) -> None:
        """It ends the command."""
        self.assertEqual(self.watched(ServerUnreachable("gone")), ([], []))
