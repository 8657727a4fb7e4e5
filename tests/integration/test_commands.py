"""The commands beside ``serve`` and ``reload``."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from harn.testing.server import wait_until
from tests.integration.case import ServerCase, trigger_text


class EventsTests(ServerCase):
    """``harn orchestrator events``."""

    def test_records_as_json_lines(self) -> None:
        """Each record is a line of JSON; ``--after`` and ``--limit`` choose; without a server it reads the store."""
        server = self.serve()
        for index in range(4):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}"))
        self.wait_handled("d0", "d1", "d2", "d3")
        self.wait_records(server, "trigger.outbox", 4)
        live = self.orchestrator("events", "trigger.outbox")
        self.assertEqual(live.status, 0, live)
        records = [json.loads(line) for line in live.stdout.splitlines()]
        self.assertEqual(len(records), 4)
        number = records[1]["number"]
        after = self.orchestrator("events", "trigger.outbox", "--after", str(number), "--limit", "1", "--json")
        self.assertEqual([json.loads(line)["number"] for line in after.stdout.splitlines()], [records[2]["number"]])
        self.assertEqual(server.terminate(), 0)
        offline = self.orchestrator("events", "trigger.outbox")
        self.assertEqual([json.loads(line) for line in offline.stdout.splitlines()], records, offline)

    def test_follow(self) -> None:
        """``--follow`` prints records as they come, until it is interrupted."""
        server = self.serve()
        command = (sys.executable, "-m", "harn", "orchestrator", "events", "trigger.outbox", "--follow")
        following = subprocess.Popen(
            [*command, "--state-dir", "state"], cwd=self.directory, env=self.environ, stdout=subprocess.PIPE
        )
        output = following.stdout
        assert output is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(output.readline, b"")), daemon=True)
        reader.start()
        self.addCleanup(following.wait)
        self.addCleanup(following.kill)
        for index in range(3):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}"))
            wait_until(lambda count=index + 1: len(lines) >= count, f"line {index + 1}")
        self.assertEqual([json.loads(line)["payload"]["result"]["key"] for line in lines], ["d0", "d1", "d2"])
        self.assertIsNone(following.poll())
        following.terminate()
        following.wait(10.0)
        reader.join(5.0)
        output.close()

    def test_unknown_topic(self) -> None:
        """An unknown topic is an error that names the existing ones, with a server and without; so is a trigger."""
        server = self.serve()
        empty = self.orchestrator("events", "trigger.dlq")
        self.assertEqual((empty.status, empty.stdout), (0, ""), empty)
        live = self.orchestrator("events", "no.such.topic")
        ramp = self.orchestrator("ramp", "nope")
        self.assertEqual((ramp.status, ramp.stdout), (1, ""))
        self.assertIn("no trigger 'nope'; the server has: gh", ramp.stderr)
        self.assertEqual(server.terminate(), 0)
        for done in (live, self.orchestrator("events", "no.such.topic")):
            self.assertEqual((done.status, done.stdout), (1, ""))
            self.assertIn(
                "there is no topic 'no.such.topic'; there are: audit.operations, orchestrator.lifecycle, ", done.stderr
            )
            self.assertNotIn("Traceback", done.stderr)


class CheckTests(ServerCase):
    """``harn orchestrator check`` and ``harn manifest schema``."""

    def check(self, *arguments: str) -> tuple[int, str, str]:
        """Run the check; it must leave no state behind."""
        done = self.orchestrator("check", *arguments)
        self.assertFalse((self.directory / "state").exists())
        return done.status, done.stdout, done.stderr

    def test_good(self) -> None:
        """A good manifest: exit 0, and nothing is left behind."""
        self.write_handlers()
        self.write_manifest()
        status, _, said = self.check()
        self.assertEqual(status, 0, said)
        status, out, said = self.check("--json")
        self.assertEqual((status, json.loads(out)["status"]), (0, "ok"), said)

    def test_bad(self) -> None:
        """Bad manifests, of each stage: exit 1 with every problem and its line."""
        self.write_handlers()
        self.write("raises.py", "raise RuntimeError('not today')\n")
        cases = (
            ("nonsense [", r"harn\.toml:1"),
            (trigger_text("gh", extra='filtre = "x"'), r"harn\.toml:\d+: triggers\[0\] \(gh\): filtre: .*filter"),
            (trigger_text("gh", handler="handlers:nothing"), r"nothing"),
            (trigger_text("gh", handler="raises:on_event"), r"not today"),
            (trigger_text("gh", secret="no"), r"github/no"),
        )
        for text, expected in cases:
            self.write("harn.toml", text)
            status, _, said = self.check()
            self.assertEqual(status, 1, (text, said))
            self.assertRegex(said, expected)
            self.assertIn("error: ", said)
        self.write("harn.toml", trigger_text("gh", handler="handlers:nothing", secret="no"))
        said = self.check()[2]
        self.assertRegex(said, r"(?s)github/no.*nothing")
        self.assertEqual(said.count("error: "), 2, said)
        self.write("harn.toml", cases[-1][0])
        said = self.check()[2]
        status, out, _ = self.check("--json")
        self.assertEqual(status, 1)
        self.assertTrue(json.loads(out)["problems"])
        self.assertRegex(said, r"\n +\d+ \| .*signing_secret.*\n +\| +\^{14}\n")
        status, _, said = self.check("--no-secrets")
        self.assertEqual(status, 0, said)
        (self.directory / "harn.toml").unlink()
        status, _, said = self.check()
        self.assertEqual(status, 1)
        self.assertIn("harn.toml", said)

    def test_schema(self) -> None:
        """The manifest's JSON schema is printed, with the providers' own tables."""
        done = self.harn("manifest", "schema")
        self.assertEqual(done.status, 0, done)
        text = json.dumps(json.loads(done.stdout))
        for word in ("triggers", "signature_scheme", "dedupe_key", "drain_timeout"):
            self.assertIn(word, text)


class InspectTests(ServerCase):
    """``inspect`` and ``fire``."""

    def test_inspect(self) -> None:
        """``inspect --json`` has the promised parts, with a server and without; as text it has its sections."""
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.outbox", 1)
        found = self.checked("inspect")
        self.assertLessEqual({"triggers", "connectors", "activations", "snapshot", "recent_dispatches"}, set(found))
        self.assertEqual([each["id"] for each in found["triggers"]], ["gh"])
        self.assertEqual(len(found["recent_dispatches"]), 1)
        text = self.orchestrator("inspect")
        for section in ("Triggers:", "Connectors:", "Snapshot:", "Recent dispatches:"):
            self.assertIn(section, text.stdout)
        self.assertEqual(server.terminate(), 0)
        offline = self.checked("inspect")
        self.assertEqual([each["id"] for each in offline["triggers"]], ["gh"])
        self.assertEqual(offline["snapshot"]["status"], "stopped")

    def test_fire(self) -> None:
        """``fire`` sends a synthetic event, has it handled, and prints the outcome; an unknown trigger is named."""
        self.write_manifest(trigger_text("gh", events=("issues.opened",)))
        self.serve()
        done = self.orchestrator("fire", "gh")
        self.assertEqual(done.status, 0, done)
        self.assertIn("Synthetic event dispatched:", done.stdout)
        self.assertIn("binding_id=gh", done.stdout)
        self.assertIn("status=dispatched", done.stdout)
        self.assertEqual(len(self.handled()), 1)
        unknown = self.orchestrator("fire", "nobody")
        self.assertEqual(unknown.status, 1)
        self.assertIn("unknown manifest binding 'nobody'", unknown.stderr)

    def test_usage(self) -> None:
        """Wrong usage exits 2; help exits 0 and names the commands."""
        self.assertEqual(self.harn("orchestrator", "nonsense").status, 2)
        self.assertEqual(self.orchestrator("events").status, 2)
        done = self.harn("orchestrator", "--help")
        self.assertEqual(done.status, 0)
        for command in ("serve", "reload", "inspect", "events", "check", "fire", "recover"):
            self.assertIn(command, done.stdout)
        self.assertEqual(self.harn("--version").status, 0)
