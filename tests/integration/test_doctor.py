"""``harn doctor`` beside a running server."""

from __future__ import annotations

import json

from tests.integration.case import SharedServerCase, trigger_text


class DoctorTests(SharedServerCase):
    def test_running_server(self) -> None:
        """It finds who holds the state directory, and shows what the server serves with that server's secrets."""
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.outbox", 1)
        done = self.orchestrator("doctor", "--config", "harn.toml", "--no-network", "--json")
        rows = {row["label"]: row for row in json.loads(done.stdout)["checks"]}
        self.assertEqual(done.status, 0, done)
        self.assertIn(f"held by pid {server.pid}", rows["lock"]["detail"])
        for label in ("lock", "server", "generation", "listener", "event log", "secret:env", "trigger:gh"):
            self.assertEqual(rows[label]["status"], "OK", rows[label])
        self.assertIn("state=active", rows["trigger:gh"]["detail"])
        self.assertIn("dlq_depth=", rows["dispatcher"]["detail"])
        self.write_manifest(trigger_text("gh"), trigger_text("more"))
        changed = self.orchestrator("doctor", "--config", "harn.toml", "--no-network")
        self.assertRegex(changed.stdout, r"(?m)^WARN  generation .*harn\.toml.*; `harn orchestrator plan`")
        self.assertRegex(changed.stdout, r"(?m)^WARN  trigger:more .*state=not served")
