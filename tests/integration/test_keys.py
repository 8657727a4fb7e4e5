"""Named keys of a running server."""

from __future__ import annotations

import json

from harn.testing.server import Completed
from tests.integration.case import ServerCase


class KeysTests(ServerCase):
    def keys(self, *words: str) -> Completed:
        """Run ``harn orchestrator keys``."""
        return self.harn("orchestrator", "keys", *words, "--state-dir", "state")

    def test_key_of_a_running_server(self) -> None:
        """A key counts at once and after a restart, for what its role allows, until it is revoked."""
        server = self.serve()
        key = json.loads(self.keys("create", "grafana", "--role", "read", "--json").stdout)["key"]
        self.assertEqual(server.admin("GET", "/admin/inspect", key=key).status, 200)
        refused = server.admin("POST", "/admin/reload", {}, key=key)
        self.assertEqual((refused.status, "must be operate" in refused.json()["detail"]), (403, True))
        server = self.restart(server)
        self.assertEqual(server.admin("GET", "/admin/inspect", key=key).status, 200)
        self.assertIn("name=grafana role=read", self.keys("list").stdout)
        self.assertEqual(self.keys("revoke", "grafana").status, 0)
        self.assertEqual(server.admin("GET", "/admin/inspect", key=key).status, 401)
        kinds = [record["kind"] for record in self.wait_records(server, "audit.operations", 4)]
        self.assertEqual([kinds.count(kind) for kind in ("keys.create", "keys.revoke")], [1, 1])
        self.assertEqual(kinds.count("admin.refused"), 2)
