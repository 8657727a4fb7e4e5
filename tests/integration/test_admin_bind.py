"""``serve --admin-bind``: the admin API on a UNIX socket of its own, over an upgrade in place."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

from tests.integration.test_upgrade import UpgradeCase


class AdminBindTests(UpgradeCase):
    def test_socket(self) -> None:
        """Commands find the socket by the state file, also after an upgrade; the port of triggers has no admin API."""
        short = tempfile.mkdtemp(prefix="harn-")  # a path of a socket has at most some hundred bytes
        self.addCleanup(shutil.rmtree, short)
        path = Path(short) / "admin.sock"
        server = self.serve("--admin-bind", f"unix:{path}")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.assertEqual(server.admin("GET", "/admin/inspect").status, 404)
        self.assertEqual(
            (server.request("GET", "/metrics").status, server.request("GET", "/readyz").status), (404, 200)
        )
        self.assertEqual(self.checked("inspect")["snapshot"]["generation"], 1)
        self.assertEqual(server.state()["admin_url"], f"unix:{path}")
        old = server.pid
        self.upgrade(server, old)
        self.wait_ended(old)
        self.assertEqual(self.checked("inspect")["snapshot"]["status"], "running")
        self.assertEqual(self.checked("reload")["status"], "ok")
