"""``pause``, ``resume`` and ``circuits``: what they take and say, and the circuits that a server has left."""

from __future__ import annotations

import json
import os
import time
import zlib
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.circuits.circuit import KEPT_UNUSED
from harn.cli.holds import describe_paused, describe_resumed, pause, resume
from harn.cli.main import cli
from harn.clocks import rfc3339
from harn.dispatch.operations import Paused, Resumed, parse_rate
from harn.orchestrator.stores import DATABASE
from harn.store.generations import GenerationRecord
from harn.store.holds import ALL, CIRCUITS, PAUSES
from harn.store.sqlite.store import SQLiteStore
from harn.vm.bundle import encode_bundle, make_bundle
from harn.wire import digest_bytes

MANIFEST = "".join(
    f"""
[[triggers]]
id = "{name}"
kind = "webhook"
provider = "webhook"
match = {{ path = "/{name}", events = [] }}
secrets = {{ signing_secret = "webhook/{name}" }}
handler = "h:f"
{circuit}
"""
    for name, circuit in (
        ("open", 'circuit = { failures = 3, reset = "60s" }'),
        ("closed", 'circuit = { failures = 7, open = "dead_letter" }'),
        ("long-ago", "circuit = {}"),
        ("none", ""),
    )
)


class CommandTests(SynchronousTestCase):
    def test_usage(self) -> None:
        """One trigger or all of them; a duration and a rate are checked before anything is asked of a server."""
        for command, arguments, said in (
            (pause, [], "name a TRIGGER"),
            (pause, ["gh", "--all"], "name a TRIGGER"),
            (pause, ["gh", "--for", "soon"], "for: must be a duration"),
            (pause, ["gh", "--for", "0s"], "greater than 0"),
            (resume, ["gh", "--rate", "fast"], "rate: must be a rate"),
            (resume, ["--all", "--rate", "0/s"], "must be a rate"),
            (resume, ["--all", "--rate", "1e-310/h"], "must be a rate"),
        ):
            result = CliRunner().invoke(command, arguments)
            self.assertEqual(result.exit_code, 2, result.output)
            self.assertIn(said, result.output)

    def test_rates(self) -> None:
        """A rate is a number with a unit of time."""
        self.assertEqual([parse_rate(text) for text in ("10/s", "90/m", "2")], [10.0, 1.5, 2.0])

    def test_what_is_said(self) -> None:
        """The trigger or the server, and until when; a trigger that stays paused with the server says so."""
        paused = Paused(trigger_id="gh", paused=True, until="2026-01-02T03:04:05.000Z")
        self.assertEqual(describe_paused(paused), "gh: paused until 2026-01-02T03:04:05.000Z")
        self.assertIn("the server: paused", describe_paused(Paused(trigger_id=None, paused=True, until=None)))
        cases = [
            describe_resumed(Resumed(trigger_id="gh", paused=still, was_paused=was))
            for still, was in ((False, True), (False, False), (True, True))
        ]
        self.assertEqual([case.partition(";")[0] for case in cases][:2], ["gh: resumed", "gh: was not paused"])
        self.assertIn("still paused", cases[2])


class CircuitTests(TestCase):
    """``circuits`` where no server runs."""

    async def write(self, now: float, manifest: bytes) -> str:
        """Make a state directory whose store has circuits and one generation, with this compressed manifest."""
        directory = self.mktemp()
        os.mkdir(directory)
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        bundle = make_bundle({})
        record = GenerationRecord(
            number=1,
            digest="sha256:1",
            bundle_id=bundle.bundle_id,
            source="cli",
            actor="key:1",
            manifest_digest=digest_bytes(MANIFEST.encode()),
            summary={},
        )
        await store.generations.reserve(record, encode_bundle(bundle), manifest)
        await store.generations.adopted(1, now)
        failing = {"failures": 5, "retry_at": now + 40.0, "reset": 60.0}
        circuits = {"open": failing, "removed": failing, "long-ago": {**failing, "retry_at": now - KEPT_UNUSED - 60.0}}
        await store.checkpoints.put(CIRCUITS, circuits)
        await store.close()
        return directory

    def circuits(self, directory: str, *words: str) -> Result:
        return self.run_on(directory, "circuits", *words)

    def run_on(self, directory: str, command: str, *words: str) -> Result:
        words = ("orchestrator", command, "--state-dir", directory, *words)
        return CliRunner().invoke(cli, words, prog_name="harn")

    async def test_circuits(self) -> None:
        """Each trigger of the last generation with a circuit is listed, in the state that the next server gives it."""
        now = time.time()
        directory = await self.write(now, zlib.compress(MANIFEST.encode()))
        found: list[dict[str, Any]] = json.loads(self.circuits(directory, "--json").stdout)["circuits"]
        self.assertEqual(
            [(each["trigger_id"], each["state"], each["failures"], each["limit"], each["open"]) for each in found],
            [
                ("closed", "closed", 0, 7, "dead_letter"),
                ("long-ago", "closed", 0, 5, "wait"),
                ("open", "open", 5, 3, "wait"),
            ],
        )
        self.assertEqual([each["retry_at"] for each in found], [None, None, rfc3339(now + 40.0)])
        self.assertIn("- trigger_id=open state=open", self.circuits(directory).stdout)
        closing = self.circuits(directory, "--close", "open")
        self.assertEqual((closing.exit_code, closing.stdout), (1, ""))
        self.assertIn("error: no server runs on", closing.stderr)

    async def test_pauses(self) -> None:
        """Without a server, the pauses are listed that the next one begins with; what has ended is left out."""
        now = time.time()
        directory = await self.write(now, zlib.compress(MANIFEST.encode()))
        self.assertEqual(self.run_on(directory, "pauses").stdout, "Pauses:\n- none\n")
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        pauses = {
            "closed": {"since": now - 9, "until": now + 90, "actor": "key:ana", "rate": None},
            "long-ago": {"since": now - 9, "until": now - 1, "actor": "key:ana", "rate": None},
            ALL: {"since": now - 9, "until": None, "actor": "token", "rate": None},
        }
        await store.checkpoints.put(PAUSES, pauses)
        await store.close()
        found = json.loads(self.run_on(directory, "pauses", "--json").stdout)
        self.assertEqual(found["total"], 2)
        self.assertEqual([each["trigger_id"] for each in found["pauses"]], [None, "closed"])
        self.assertEqual([each["until"] for each in found["pauses"]], [None, rfc3339(now + 90)])
        self.assertIn("- trigger_id=closed since=", self.run_on(directory, "pauses").stdout)

    async def test_manifest_is_damaged(self) -> None:
        """Without the generation's manifest the recorded circuits are listed, with the settings that they show."""
        directory = await self.write(time.time(), b"no zlib at all")
        found = json.loads(self.circuits(directory, "--json").stdout)["circuits"]
        self.assertEqual(
            [(each["trigger_id"], each["state"], each["limit"], each["reset"]) for each in found],
            [("long-ago", "closed", 5, "1m"), ("open", "open", 5, "1m"), ("removed", "open", 5, "1m")],
        )
