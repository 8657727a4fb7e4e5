"""``keys`` without a server: the store of the state directory is changed, with an audit record."""

from __future__ import annotations

import json
import os

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from harn.auth.keys import KEYS, digest_key
from harn.cli.main import cli
from harn.operations.registry import TOPIC
from harn.orchestrator.stores import DATABASE
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.store import SQLiteStore


class KeysTests(TestCase):
    """A state directory that a server has left."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    async def opened(self) -> SQLiteStore:
        """Open the store."""
        store = SQLiteStore.at(os.path.join(self.directory, DATABASE), reactor)
        await store.open()
        return store

    def keys(self, *words: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(cli, ["keys", *words, "--state-dir", self.directory])

    async def test_life_of_a_key(self) -> None:
        """It is made, listed and revoked; the next server finds what is left, and the records of the changes."""
        await (await self.opened()).close()
        made = self.keys("create", "ci", "--role", "operate", "--json")
        self.assertEqual(made.exit_code, 0, made.output)
        key = json.loads(made.stdout)["key"]
        plain = self.keys("create", "look", "--role", "read")
        self.assertRegex(plain.stdout, "^harn_[A-Za-z0-9_-]{43}\n$")
        self.assertIn("not shown again", plain.stderr)
        listed = self.keys("list")
        self.assertRegex(listed.stdout, r"(?m)^- name=ci role=operate made_at=\S+ made_by=state-directory$")
        self.assertNotIn(key, listed.stdout)
        self.assertEqual(self.keys("revoke", "look").stdout, "key look revoked\n")
        store = await self.opened()
        kept = await store.checkpoints.get(KEYS)
        records = await store.event_log.read(TOPIC, 0, 10)
        await store.close()
        self.assertEqual([(each["name"], each["digest"]) for each in kept], [("ci", digest_key(key))])
        self.assertEqual([record.kind for record in records], ["keys.create", "keys.create", "keys.revoke"])
        self.assertNotIn(key, str([record.payload for record in records]))

    async def test_refusals(self) -> None:
        """A name that is taken or unknown, a wrong role, a held directory, one without a store: nothing is done."""
        missing = self.keys("create", "ci", "--role", "read")
        self.assertEqual((missing.exit_code, "there is no event log" in missing.output), (1, True), missing.output)
        self.assertEqual(os.listdir(self.directory), [])
        await (await self.opened()).close()
        self.keys("create", "ci", "--role", "read")
        for words, status, said in (
            (("create", "ci", "--role", "read"), 1, "already"),
            (("revoke", "other"), 1, "there are: ci"),
            (("create", "x", "--role", "root"), 2, "must be"),
            (("create", "C I", "--role", "read"), 2, "must be"),
            (("create", "x"), 2, "--role"),
        ):
            done = self.keys(*words)
            self.assertEqual((done.exit_code, said in done.output), (status, True), done.output)
        lock = StateDirectoryLock(self.directory)
        lock.acquire()
        self.addCleanup(lock.release)
        held = self.keys("revoke", "ci")
        self.assertEqual((held.exit_code, "holds" in held.output), (1, True), held.output)
