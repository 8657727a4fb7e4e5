"""The page of the servers on one store."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.console.records import MOST_RECORDS
from harn.console.servers import differences
from harn.lifecycle import ServerStarted
from harn.servers.membership import TOPIC, ServerRecord
from harn.servers.operations import ServerInfo, own_id, stored
from harn.store.servers import SERVING, STARTING, ServerNote, ServerRow, ServersFound
from harn.store.sqlite.store import SQLiteStore
from tests.console.test_sign_in import ConsoleCase
from tests.console.world import ConsoleWorld, between

OTHER = ServerRow(
    incarnation=7,
    host="<b>web</b>",
    pid=7,
    home="other",
    started_at=1_800_000_000.0,
    seen_at=1_800_000_050.0,
    note=ServerNote(
        status=SERVING, url="http://web:8080", generation=4, version="0.1", outstanding=1234, not_ready=("paused",)
    ),
)


class OneServerTests(ConsoleCase):
    def test_one(self) -> None:
        """On a store for one server that is shown plainly, and the list of pages leaves the page out elsewhere."""
        self.world.lifecycle.emit(ServerStarted(url="http://here", generation=1))
        self.successResultOf(self.world.take("a", "d"))
        browser = self.world.signed_in()
        page = browser.page("/servers")
        row = between(page, "<tbody>", "</tbody>")
        self.assertEqual(row.count("<tr>"), 1)
        self.assertIn(f"{own_id()} <span", row)
        self.assertIn('<span class="state serving">serving</span>', row)
        self.assertIn('<td class="n"><a href="/console/reloads/1">1</a></td><td class="n">1</td>', row)
        self.assertIn("One server uses this store", page)
        self.assertNotIn("leads", row)
        self.assertNotIn("History", page)
        self.assertNotIn("/console/servers", browser.page("/"))


class ManyServersTests(ConsoleCase):
    def setUp(self) -> None:
        """Make a console on a store that says that several servers may use it, and find another server on it."""
        self.patch(SQLiteStore, "is_shared", True)
        self.world = ConsoleWorld(Path(self.mktemp()))
        self.assertTrue(self.successResultOf(self.world.started).ok)
        self.look = self.world.store.servers.look
        self.world.lifecycle.emit(ServerStarted(url="http://here", generation=1))

    def find(self, *others: ServerRow) -> None:
        """Add other servers to those on the store."""
        rows = self.successResultOf(self.look()).rows
        self.world.store.servers.look = lambda: succeed(ServersFound(rows=(*rows, *others)))

    def test_another(self) -> None:
        """Each server has its row: what it serves, whether it is ready, or why not, and its outstanding deliveries."""
        self.find(OTHER)
        page = self.world.signed_in().page("/servers")
        own, other = between(page, "<tbody>", "</tbody>").split("<tr>")[1:]
        self.assertIn("(this one)", own)
        self.assertIn('<td class="n"><a href="/console/reloads/1">1</a></td><td class="n">0</td>', own)
        self.assertIn("leads</span>", own)
        self.assertIn("&lt;b&gt;web&lt;/b&gt;:7", other)
        self.assertIn("<td>no: paused</td>", other)
        self.assertIn('<a href="/console/reloads/4">4</a></td><td class="n">1\N{NARROW NO-BREAK SPACE}234</td>', other)
        self.assertIn("http://web:8080", other)
        self.assertNotIn("leads", other)
        self.assertIn("Generations 1, 4 serve", page)
        self.assertIn("Servers run different versions of harn:", page)

    def test_silent_about_itself(self) -> None:
        """Of a server whose version does not say whether it is ready, that is not known."""
        self.find(replace(OTHER, note=replace(OTHER.note, outstanding=None, not_ready=None)))
        other = between(self.world.signed_in().page("/servers"), "<tbody>", "</tbody>").split("<tr>")[2]
        self.assertIn('<td>-</td><td class="n"><a href="/console/reloads/4">4</a></td><td class="n">-</td>', other)

    def test_every_page_leads_there(self) -> None:
        """The list of pages has the servers where several may use the store."""
        self.assertIn('<a href="/console/servers">Servers</a>', self.world.signed_in().page("/"))

    def test_history(self) -> None:
        """What happened to servers is listed, the newest first, a page at a time; an unknown kind by its name."""
        append = self.world.store.event_log.append
        kinds = ["server_started"] * MOST_RECORDS + ["server_fenced", "server_rejoined", "server_ended", "server_moved"]
        for number, kind in enumerate(kinds):
            by = "web:1" if kind == "server_fenced" else "web:2"
            self.successResultOf(append(TOPIC, kind, ServerRecord(id="web:2", incarnation=number, by=by)))
        browser = self.world.signed_in()
        page = browser.page("/servers")
        history = between(page, '<ol class="history">', "</ol>").split("<li>")[1:]
        self.assertEqual(len(history), MOST_RECORDS)
        said = [between(each, "<strong>", "</strong>") for each in history[:5]]
        self.assertEqual(said, ["server_moved", "ended", "rejoined", "fenced", "started"])
        self.assertIn("by web:1, since it was silent", history[3])
        self.assertEqual(page.count("since it was silent"), 1)
        older = browser.page(
            between(page, '<a href="/console', '" rel="next">Older').rpartition('<a href="/console')[2]
        )
        self.assertEqual(older.count("<strong>started</strong>"), 5)


class DifferencesTests(SynchronousTestCase):
    def listed(self, *rows: ServerRow) -> tuple[ServerInfo, ...]:
        """Return rows as they are listed."""
        return stored(rows, 0.0).servers

    def test_differences(self) -> None:
        """A server that starts does not count for the generation; one without a version does not for that."""
        newer = replace(OTHER, incarnation=8, note=replace(OTHER.note, generation=5, version="0.2"))
        starting = replace(OTHER, incarnation=9, note=ServerNote(status=STARTING))
        alike = differences(self.listed(OTHER, OTHER, starting))
        self.assertEqual((alike.generations, alike.versions), ((), ()))
        found = differences(self.listed(newer, OTHER))
        self.assertEqual((found.generations, found.versions), ((4, 5), ("0.2", "0.1")))
