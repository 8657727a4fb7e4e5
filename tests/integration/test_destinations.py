"""A third-party destination, found on the path without configuration: deliveries, failures and reloads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from harn.testing.server import wait_until
from tests.integration.case import ServerCase, trigger_text

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write-a-destination.md"
TWICE = """
[triggers.retry]
max = 2
"""


class DestinationTests(ServerCase):
    """The destination of the page that explains how to write one."""

    def setUp(self) -> None:
        """Install it as a third-party package."""
        super().setUp()
        plugin = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
        self.write("site/harn/plugins/lines.py", plugin)
        self.environ["PYTHONPATH"] += ":" + str(self.directory / "site")
        self.out = self.directory / "out"
        self.out.mkdir()

    def target(self, name: str = "one") -> str:
        """Return the handler that names a file."""
        return f"file://{self.out / name}.jsonl"

    def arrived(self, name: str = "one") -> list[str]:
        """Return the provider's ids of the events in a file."""
        path = self.out / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["dedupe_key"] for line in lines]

    def wait_arrived(self, *keys: str, name: str = "one") -> None:
        """Wait until a file has just these events."""
        wait_until(lambda: self.arrived(name) == list(keys), f"{keys} in {name}, got {self.arrived(name)}")

    def payloads(self, topic: str, count: int) -> list[dict[str, Any]]:
        """Wait for the records of a topic, and give what they say."""
        return [each["payload"] for each in self.wait_records(self.server, topic, count)]

    def test_delivers(self) -> None:
        """What is accepted is in the file; records, metrics and the state file name the scheme."""
        self.write_manifest(trigger_text("gh", handler=self.target()))
        self.server = self.serve()
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d1"))
        self.wait_arrived("d1")
        (attempt,) = self.payloads("trigger.outbox", 1)
        self.assertEqual((attempt["handler_kind"], attempt["target_uri"]), ("file", self.target()))
        self.assertIsNone(attempt["result"])
        (trigger,) = self.server.state()["triggers"]
        self.assertEqual(trigger["handler"], "file")
        metrics = self.server.request("GET", "/metrics").body.decode()
        self.assertIn('handler_kind="file",outcome="succeeded",trigger_id="gh"} 1.0', metrics)
        self.assertIn('handler_kind="local",outcome="succeeded",trigger_id="gh"} 0.0', metrics)

    def test_failures(self) -> None:
        """What cannot be delivered is tried again, then a dead letter; what comes once it can be, is delivered."""
        self.write_manifest(trigger_text("gh", handler=self.target(), extra=TWICE))
        self.server = self.serve()
        shutil.rmtree(self.out)
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d1"))
        (dead,) = self.payloads("trigger.dlq", 1)
        self.assertEqual((dead["reason"], dead["error_class"]), ("retry_exhausted", "destination_failed"))
        attempts = self.payloads("trigger.attempts", 2)
        self.assertEqual([(each["attempt"], each["outcome"]) for each in attempts], [(1, "failed"), (2, "failed")])
        self.assertIn("cannot be written", attempts[0]["error_msg"])
        self.out.mkdir()
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d2"))
        self.wait_arrived("d2")

    def test_reload(self) -> None:
        """A reload changes the target, from one file to another and on to a function; a bad target changes nothing."""
        self.write_manifest(trigger_text("gh", handler=self.target()))
        self.server = self.serve()
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.wait_arrived("d1")
        self.write_manifest(trigger_text("gh", handler=self.target("two")))
        self.assert_reloaded(self.server.reload(), modified=["gh"])
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        self.wait_arrived("d2", name="two")
        self.write_manifest(trigger_text("gh", handler=self.target("missing/three")))
        report = self.assert_failed(self.server.reload(), "prepare", 500)
        self.assertIn("is not a directory that can be written to", str(report["problems"]))
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d3"), binding="gh@v2")
        self.wait_arrived("d2", "d3", name="two")
        self.write_manifest(trigger_text("gh"))
        self.assert_reloaded(self.server.reload(), modified=["gh"])
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d4"))
        self.wait_handled("d4")
        self.assertEqual((self.arrived(), self.arrived("two")), (["d1"], ["d2", "d3"]))

    def test_predicate(self) -> None:
        """The function of ``when`` decides first."""
        self.write_handlers(more="def wanted(event):\n    return event.dedupe_key != 'd1'\n")
        self.write_manifest(trigger_text("gh", handler=self.target(), extra='when = "handlers:wanted"'))
        self.server = self.serve()
        for key in ("d1", "d2"):
            self.assert_accepted(self.server.deliver("/triggers/gh", delivery=key))
        self.wait_arrived("d2")
        kinds = [each["kind"] for each in self.wait_records(self.server, "trigger.outbox", 2)]
        self.assertEqual(sorted(kinds), ["dispatch_skipped", "dispatch_succeeded"])

    def test_restart(self) -> None:
        """What the store holds is delivered by the next server."""
        self.write_manifest(
            trigger_text("gh", handler=self.target(), extra='[triggers.retry]\nbackoff = "exponential"')
        )
        self.server = self.serve()
        shutil.rmtree(self.out)
        self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d1"))
        self.payloads("trigger.attempts", 1)
        self.assertEqual(self.server.terminate(), 0, self.server.stderr)
        self.out.mkdir()
        self.server = self.serve()
        self.wait_arrived("d1")

    def test_problems(self) -> None:
        """A scheme that is not installed, one that is not built yet, and an invalid target are refused."""
        cases = {
            "nowhere://x": "is not a destination of this installation",
            "worker://triage": "worker:// is not supported yet",
            "file://relative": "must be an absolute path",
        }
        for handler, said in cases.items():
            self.write_missing()
            self.write_manifest(trigger_text("gh", handler=handler))
            checked = self.harn("orchestrator", "check", "--manifest", "harn.toml", "--state-dir", "state")
            self.assertNotEqual(checked.status, 0, checked)
            self.assertIn(said, checked.stdout + checked.stderr)
            if handler.startswith("nowhere"):
                self.assertIn("file:///var/log/events.jsonl", checked.stdout + checked.stderr)
