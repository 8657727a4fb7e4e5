"""Idle connections that take every descriptor they can get: the server still answers, reloads and recovers."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase

FILES = 160

# What every Python that is started with it does first: it notes each import, and may open few files.
HOOK = f"""
import os, resource, sys

resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))
notes = os.open(os.environ["TEST_IMPORTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event == "import" and arguments[0] not in sys.modules:
        os.write(notes, b"%d %s\\n" % (os.getpid(), arguments[0].encode()))

sys.addaudithook(note)
"""


class DescriptorTests(ServerCase):
    """A server that may open 160 files, and clients that open more connections."""

    def setUp(self) -> None:
        super().setUp()
        self.write("hook/sitecustomize.py", HOOK)
        self.notes = self.directory / "imports"
        paths = [str(self.directory / "hook"), *filter(None, [self.environ.get("PYTHONPATH")])]
        self.environ |= {"TEST_IMPORTS": str(self.notes), "PYTHONPATH": os.pathsep.join(paths)}

    def imports(self, server: ServerProcess) -> list[str]:
        """Return the modules that the server itself has imported."""
        lines = (line.split() for line in Path(self.notes).read_text().splitlines())
        return [name for pid, name in lines if int(pid) == server.pid]

    def fill(self, server: ServerProcess) -> None:
        """Open many more connections than there may be, and say nothing on them."""
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        for _ in range(2 * FILES):
            self.addCleanup(socket.create_connection((host, int(port)), 60.0).close)

    def test_idle_connections(self) -> None:
        """Signed deliveries are taken, a dead interpreter is replaced, reloads work, and nothing is imported late."""
        server = self.serve()
        # What the modules import that are needed later: the log of imports does not have themselves.
        wait_until(lambda: {"prometheus_client", "stringprep"} <= {*self.imports(server)}, "the early imports")
        before = len(self.imports(server))
        self.fill(server)
        wait_until(lambda: server.deliver("/triggers/gh", delivery="d1").status == 200, "room for a connection")
        self.assertLess(server.descriptors(), FILES - 20)
        self.wait_handled("d1")
        self.assertEqual(server.request("GET", "/health").status, 200)
        dead = server.children()
        for child in dead:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: {*server.children()} - {*dead}, "another interpreter")
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.state()["generation"] == 2, "the reload")
        self.assertEqual(server.request("GET", "/metrics").status, 200)
        self.assertEqual(server.request("POST", "/nowhere").status, 404)
        self.assertEqual(server.request("POST", "/triggers/gh").status, 401)
        self.assertEqual(server.request("POST", "/triggers/gh", headers={"Transfer-Encoding": "gzip"}).status, 501)
        self.write("harn.toml", "nonsense")
        self.assertEqual(server.reload().status, 422)
        self.assertEqual(self.imports(server)[before:], [])
        self.assertIn("which is the limit", server.stderr)
