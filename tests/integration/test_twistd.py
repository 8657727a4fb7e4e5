"""``twistd harn-orchestrator``: the same server, in the foreground and as a daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from unittest import skipIf

from incremental import Version
from twisted._version import __version__ as version

from harn.testing.server import TWISTD, Connection, is_alive, wait_until
from tests.integration.case import ServerCase, trigger_text


class TwistdTests(ServerCase):
    """The plugin."""

    def test_foreground(self) -> None:
        """``twistd -n`` serves, reloads on SIGHUP and ends with 0 on SIGTERM, as ``serve`` does."""
        server = self.serve(launcher=(*TWISTD, "-n", "harn-orchestrator"))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        self.wait_generation(server, 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        self.wait_handled("d1", "d2")
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.assertEqual(server.state()["status"], "stopped")

    def test_foreground_refusal(self) -> None:
        """What keeps ``serve`` from starting keeps ``twistd -n`` from starting: said in words, and exit 1."""
        self.write_manifest(trigger_text("gh", extra='filtre = "x"'))
        server = self.serve(launcher=(*TWISTD, "-n", "harn-orchestrator"), ready=False)
        said = self.ended(server)
        self.assertIn("filtre", said)

    @skipIf(version < Version("Twisted", 26, 10, 0), "twistd itself ends with 0 after a wrong option")
    def test_usage(self) -> None:
        """An unknown option ends with the usage and a status that is not 0."""
        server = self.serve("--nonsense", launcher=(*TWISTD, "-n", "harn-orchestrator"), ready=False)
        self.assertNotEqual(server.wait(), 0)

    def daemon(self, name: str = "twistd", *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command that starts a daemon, with files of this name."""
        places = ("--config", "harn.toml", "--state-dir", "state", "--bind", "127.0.0.1:0", *arguments)
        files = (f"--pidfile={name}.pid", f"--logfile={name}.log")
        return subprocess.run(
            [*TWISTD, *files, "harn-orchestrator", *places],
            cwd=self.directory,
            env=self.environ,
            timeout=180.0,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def test_daemon_refusal(self) -> None:
        """What keeps a daemon from serving ends its command with 1 and the reason, and leaves no pid file."""
        server = self.serve()
        self.write("bad.toml", '[[triggers]]\nid = "gh"\nhandlr = "x"\n')
        port = server.url.rpartition(":")[2]
        for arguments, reason in (
            ((), f"pid {server.pid}"),
            (("--state-dir", "other", "--bind", f"127.0.0.1:{port}"), f"port {port} on 127.0.0.1 is in use"),
            (
                ("--state-dir", "other", "--config", "bad.toml"),
                "error: bad.toml:3: triggers[0] (gh): handlr: unknown key",
            ),
        ):
            done = self.daemon("other", *arguments)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(reason, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
            self.assertFalse((self.directory / "other.pid").exists())
        self.assertFalse((self.directory / "other" / "orchestrator-state.json").exists())

    def test_daemon(self) -> None:
        """Its command ends when it serves; it reloads on SIGHUP, and takes its pid file away when it ends."""
        self.write_handlers()
        self.write_manifest()
        pid_file, state_file = self.directory / "twistd.pid", self.directory / "state" / "orchestrator-state.json"
        done = self.daemon()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        pid = int(pid_file.read_text())
        self.addCleanup(self.end, pid)
        state = json.loads(state_file.read_text())
        self.assertEqual(state["pid"], pid)
        connection = Connection(state["listener_url"])
        self.addCleanup(connection.close)
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_handlers("two")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: connection.request("GET", "/readyz?generation=2").status == 200, "generation 2")
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        self.wait_handled("d1", "d2")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), "the daemon's end")
        self.assertFalse(pid_file.exists())
        self.assertEqual(json.loads(state_file.read_text())["status"], "stopped")

    def end(self, pid: int) -> None:
        """End the daemon if it is still there."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
