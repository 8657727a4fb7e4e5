"""``events`` and ``inspect`` without a server: what its store and its state file tell."""

from __future__ import annotations

import json
import os

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from harn.cli.main import cli
from harn.cli.sources import StoredRecords
from harn.orchestrator.publish import MANIFEST
from harn.orchestrator.state_directory import replace_file
from harn.orchestrator.status import LIFECYCLE
from harn.orchestrator.stores import DATABASE
from harn.store.event_log import OURS
from harn.store.lock import state_path
from harn.store.sqlite.store import DATABASE_FILE, SQLiteStore


class OfflineTests(TestCase):
    """A state directory that a server has left."""

    async def write(self, count: int, topic: str = "orchestrator.manifest") -> str:
        """Make a state directory whose store has ``count`` records on one topic, and none on the outbox."""
        directory = self.mktemp()
        os.mkdir(directory)
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        for number in range(count):
            await store.event_log.append(topic, "reload_succeeded", {"count": number})
        await store.close()
        state = {"status": "running", "pid": 1, "listener_url": "http://127.0.0.1:1", "triggers": [{"id": "gh"}]}
        replace_file(state_path(directory), json.dumps(state).encode())
        return directory

    def test_same_file(self) -> None:
        """The command looks for the file that the store makes."""
        self.assertEqual(DATABASE, DATABASE_FILE)

    async def test_events(self) -> None:
        """The records of the store are printed as a server would print them."""
        directory = await self.write(3)
        words = ["orchestrator", "events", "orchestrator.manifest", "--state-dir", directory, "--limit", "2"]
        result = CliRunner().invoke(cli, words)
        records = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([record["payload"] for record in records], [{"count": 0}, {"count": 1}], result.output)
        self.assertEqual(set(records[0]), {"number", "kind", "payload", "headers", "occurred_at"})

    async def test_unknown_topic(self) -> None:
        """A topic that is misspelt is an error that names the existing ones; a topic of harn's own may be empty."""
        directory = await self.write(1, "plugin.own")

        def events(topic: str) -> Result:
            return CliRunner().invoke(
                cli, ["orchestrator", "events", topic, "--state-dir", directory], prog_name="harn"
            )

        for topic in OURS:
            self.assertEqual((events(topic).exit_code, events(topic).output), (0, ""))
        self.assertEqual(len(events("plugin.own").stdout.splitlines()), 1)
        wrong = events("orchestrator.manifests")
        self.assertEqual((wrong.exit_code, wrong.stdout), (1, ""))
        self.assertIn(
            "error: there is no topic 'orchestrator.manifests'; there are: audit.operations, orch", wrong.stderr
        )
        self.assertIn("plugin.own", wrong.stderr)
        self.assertTrue({MANIFEST, LIFECYCLE} <= {*OURS})

    async def test_newest(self) -> None:
        """The newest records come in order; an empty topic has none."""
        records = StoredRecords(await self.write(5))
        newest = records.newest("orchestrator.manifest", 2)
        self.assertEqual([record.payload for record in newest], [{"count": 3}, {"count": 4}])
        self.assertEqual(list(records.newest("trigger.outbox", 2)), [])

    async def test_inspect(self) -> None:
        """A server that was killed could not say so: its directory's lock is free, so it has crashed."""
        directory = await self.write(0)
        result = CliRunner().invoke(cli, ["orchestrator", "inspect", "--state-dir", directory, "--json"])
        found = json.loads(result.stdout)
        self.assertEqual((found["snapshot"]["status"], found["triggers"][0]["id"]), ("crashed", "gh"))
        self.assertEqual(found["recent_dispatches"], [])
