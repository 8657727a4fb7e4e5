"""``schedule`` and ``cursor`` without a server: by what the state directory holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from harn.cli.main import cli
from harn.operations.registry import TOPIC
from harn.orchestrator.stores import DATABASE
from harn.schedules.cursors import PREFIX
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.store import SQLiteStore

MANIFEST = """
[[triggers]]
id = "orders"
kind = "poll"
provider = "poll"
every = "1m"
poll = "handlers:look"
handler = "handlers:on_order"

[[triggers]]
id = "night"
kind = "cron"
provider = "cron"
schedule = "0 3 * * *"
handler = "handlers:on_night"
"""
RECORD = {
    "cursor": {"page": 2},
    "polled_at": 1800000000.0,
    "failure": {"at": 1800000060.0, "error": "handler_error: KeyError: 'id'", "count": 3},
}


class CursorTests(TestCase):
    """A state directory that a server has left."""

    def setUp(self) -> Deferred[None]:  # type: ignore[override] # trial waits for it
        """Write the folder, with a cursor in its store."""
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "harn.toml").write_text(MANIFEST)

        async def keep() -> None:
            store = await self.opened()
            await store.checkpoints.put(PREFIX + "orders", RECORD)
            await store.close()

        return Deferred.fromCoroutine(keep())

    async def opened(self) -> SQLiteStore:
        """Open the store."""
        store = SQLiteStore.at(os.path.join(self.folder / "state", DATABASE), reactor)
        await store.open()
        return store

    def run_harn(self, *words: str) -> Result:
        """Run a command on the folder."""
        place = ["--config", str(self.folder / "harn.toml"), "--state-dir", str(self.folder / "state")]
        return CliRunner().invoke(cli, [*words, *place])

    async def kept(self) -> Any:
        """Return the record in the store."""
        store = await self.opened()
        found = await store.checkpoints.get(PREFIX + "orders")
        await store.close()
        return found

    def test_shown(self) -> None:
        """`schedule` shows cursor and last error of polls; `cursor` shows one whole."""
        listed = self.run_harn("schedule", "--limit", "3")
        self.assertEqual(listed.exit_code, 0, listed.output)
        for said in ('{"page":2}', "handler_error: KeyError: 'id'", "2027-01-15T08:00:00"):
            self.assertIn(said, listed.stdout)
        (found,) = json.loads(self.run_harn("schedule", "--limit", "3", "--json").stdout)["polls"]
        self.assertEqual((found["trigger_id"], found["cursor"], found["failures"]), ("orders", {"page": 2}, 3))
        one = self.run_harn("cursor", "orders")
        self.assertEqual(one.stdout.splitlines()[0], 'cursor: {"page":2}')
        self.assertIn("failures in a row: 3", one.stdout)
        self.assertEqual(json.loads(self.run_harn("cursor", "orders", "--json").stdout), found)

    async def test_set(self) -> None:
        """A dry run says what would change, with its exit status; a change is durable, and has its audit record."""
        tried = self.run_harn("cursor", "orders", "--set", '{"page": 9}', "--dry-run")
        self.assertEqual(tried.exit_code, 1)
        self.assertEqual(tried.stdout, 'orders: {"page":2} -> {"page":9} (not changed: dry run)\n')
        self.assertEqual(self.run_harn("cursor", "orders", "--set", '{"page": 2}', "--dry-run").exit_code, 0)
        self.assertEqual(await self.kept(), RECORD)
        done = self.run_harn("cursor", "orders", "--set", '{"page": 9}')
        self.assertEqual((done.exit_code, done.stdout), (0, 'orders: {"page":2} -> {"page":9}\n'))
        self.assertEqual(await self.kept(), {"cursor": {"page": 9}, "polled_at": 1800000000.0})
        again = json.loads(self.run_harn("cursor", "orders", "--reset", "--json").stdout)
        self.assertEqual((again["before"], again["cursor"], again["changed"]), ({"page": 9}, None, True))
        store = await self.opened()
        records = await store.event_log.read(TOPIC, 0, 10)
        await store.close()
        self.assertEqual([record.kind for record in records], ["cursors.set", "cursors.set"])
        self.assertIn('"actor": "state-directory"', json.dumps([json.loads(json.dumps(r.payload)) for r in records]))

    async def test_refused(self) -> None:
        """Another trigger, what is not JSON, two options at once, and a directory that a server holds."""
        for words, status, said in (
            (("night", "--reset"), 1, "triggers of kind poll: orders"),
            (("orders", "--set", "abc"), 1, "--set must be JSON"),
            (("orders", "--set", "1", "--reset"), 2, "not both"),
            (("orders", "--dry-run"), 2, "needs --set or --reset"),
            (("night", "--reset", "--dry-run"), 2, "triggers of kind poll: orders"),
        ):
            result = self.run_harn("cursor", *words)
            self.assertEqual(result.exit_code, status, result.output)
            self.assertIn(said, result.stderr)
        lock = StateDirectoryLock(str(self.folder / "state"))
        lock.acquire()
        self.addCleanup(lock.release)
        held = self.run_harn("cursor", "orders", "--reset")
        self.assertEqual(held.exit_code, 1, held.output)
        self.assertEqual(await self.kept(), RECORD)
