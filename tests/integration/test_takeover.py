"""The moment in which a new program takes over, and its failures: nothing is lost or handled twice."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

from harn.store.lock import holder
from harn.testing.server import Answer, Connection, ServerProcess, is_alive, wait_until
from tests.integration.test_clock import AHEAD
from tests.integration.test_upgrade import HELD, SLOW_IMPORT, UpgradeCase

FAILS_LATE = """
from harn.upgrade.program import HandoverFailed
from harn.upgrade.program import OldProcess

async def take_over(self, *given):
    raise HandoverFailed("the socket cannot be adopted")

OldProcess.take_over = take_over
"""
DIES_WHEN_TOLD = """
import os
from harn.orchestrator.service import Orchestrator

Orchestrator.serve = lambda self: os._exit(3)
"""
SLOW_RECOVERY = """
from twisted.internet.defer import Deferred
from harn.orchestrator import steps

async def recover(server, leaving=None, gone=None):
    await Deferred()

steps.recover = recover
"""

BEGUN_REQUEST = (
    b"POST /triggers/gh HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\n"
    b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"
)
"""The head of a request whose body is still to come, and whose signature is wrong."""


class TakeoverCase(UpgradeCase):
    """Upgrades whose new program is another one than the tests run."""

    def serve_before(self, code: str) -> ServerProcess:
        """Start a server whose upgrades start a program that is changed by ``code``."""
        root = self.directory / "changed"
        root.mkdir()
        guarded = 'import os\nif "HARN_HANDOVER" in os.environ:\n' + textwrap.indent(code, "    ")
        (root / "sitecustomize.py").write_text(guarded)
        paths = [str(root), *filter(None, [self.environ.get("PYTHONPATH")])]
        return self.serve(environ={**self.environ, "PYTHONPATH": os.pathsep.join(paths)})

    def fail(self, server: ServerProcess) -> None:  # type: ignore[override]
        """Run an upgrade that fails."""
        new = self.begin(server, server.pid)
        server.wait_for_line("the upgrade failed")
        self.wait_ended(new)
        # The next reload has its turn only after all of it.
        self.assertEqual(server.reload("?dry_run=true").status, 200)
        self.assertEqual((self.state_pid(server), holder(str(server.state_dir))), (server.pid, server.pid))

    @staticmethod
    def open_socket(server: ServerProcess) -> socket.socket:
        """Connect to it."""
        return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60)

    def history(self, server: ServerProcess) -> list[int]:
        """Return the numbers of the generations that served."""
        return [each["generation"] for each in server.admin("GET", "/admin/generations").json()["generations"]]

    def begin_importing(self, server: ServerProcess) -> int:
        """Begin an upgrade, and wait until the new program imports the handlers."""
        before = sum("importing" in each for each in self.seen())
        new = self.begin(server, server.pid)
        wait_until(lambda: sum("importing" in each for each in self.seen()) > before, "the import")
        return new


class NeverServedTests(TakeoverCase):
    """A new program that fails after its first generation."""

    def test_history(self) -> None:
        """The generation that it built never served: it is in no history or rollback, and its number is used again."""
        self.write_handlers("one")
        server = self.serve_before(FAILS_LATE)
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.write_handlers("three")
        self.fail(server)
        self.assertEqual(self.history(server), [2, 1])
        self.write_handlers("four")
        self.assertEqual(self.assert_reloaded(server.reload(), modified=["gh"])["generation"], 3)
        report = server.admin("POST", "/admin/rollback").json()
        self.assertEqual((report["generation"], report["recalled"]), (4, 2))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.assertEqual(self.wait_handled("d1")[0]["version"], "two")
        self.assertEqual(server.state()["last_reload"]["status"], "ok")

    def test_probation(self) -> None:
        """What is on probation in the old program still is, and is undone also after a crash."""
        self.write_handlers("one")
        server = self.serve_before(FAILS_LATE)
        self.write_handlers("two")
        server.reload("?confirm_within=10m")
        self.write_handlers("three")
        self.fail(server)
        self.assertEqual(server.generation()["probation"]["generation"], 2)
        self.write_handlers("two")
        server.kill()
        self.write("ahead/sitecustomize.py", AHEAD)
        self.write("clock", "660")
        ahead = {"TEST_CLOCK": str(self.directory / "clock"), "PYTHONPATH": str(self.directory / "ahead")}
        server = self.serve(environ={**self.environ, **ahead})
        wait_until(lambda: server.generation()["recalled"] == 1, "the undoing")
        self.assertEqual(server.generation()["generation"], 3)


class StandingTests(TakeoverCase):
    """What is under way when a new program takes over."""

    def test_confirmed_meanwhile(self) -> None:
        """A confirmation waits for the outcome: one that a handover overtakes is refused; the new program takes it."""
        self.write_handlers("one")
        server = self.serve()
        self.write_handlers("two", SLOW_IMPORT)
        self.release("import")
        server.reload("?confirm_within=5m")
        (self.directory / "release.import").unlink()
        new = self.begin_importing(server)
        with self.open_socket(server) as asking:
            key = self.environ["HARN_ORCHESTRATOR_API_KEYS"].encode()
            asking.sendall(
                b"POST /admin/confirm HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %b\r\nContent-Length: 0\r\n\r\n" % key
            )
            # This was sent later, and is answered.
            self.assertEqual(server.generation()["probation"]["generation"], 2)
            self.release("import")
            self.assertEqual(asking.recv(12), b"HTTP/1.1 503")
        wait_until(lambda: self.state_pid(server) == new, "the handover")
        self.assertEqual(server.generation()["probation"]["generation"], 2)
        self.assertEqual(server.admin("POST", "/admin/confirm").json()["generation"], 2)
        self.assertIsNone(server.generation()["probation"])

    def test_ramp(self) -> None:
        """A ramp continues in the new program with its share, both versions and its next step."""
        self.write_handlers("one")
        server = self.serve()
        self.write_handlers("two")
        server.reload("?ramp=40%25")
        [before] = server.admin("GET", "/admin/ramps").json()["ramps"]
        self.upgrade(server, server.pid)
        [after] = server.admin("GET", "/admin/ramps").json()["ramps"]
        same = ("trigger", "stable", "fresh", "percent", "began_at", "next_step_at")
        self.assertEqual([after.get(name) for name in same], [before.get(name) for name in same])
        self.assertEqual(self.history(server), [2, 1])


class MomentTests(TakeoverCase):
    """The moment itself."""

    def test_always_ready(self) -> None:
        """A probe of readiness gets no other answer over two upgrades."""
        server = self.serve()
        over = threading.Event()

        def poll() -> list[tuple[int, bytes]]:
            wrong = []
            while not over.is_set():
                connection = Connection(server.url)
                answer = connection.request("GET", "/readyz")
                connection.close()
                if answer.status != 200:
                    wrong.append((answer.status, answer.body))
            return wrong

        with ThreadPoolExecutor(3) as pool:
            polling = [pool.submit(poll) for _ in range(3)]
            try:
                second = self.upgrade(server, server.pid)
                self.assertEqual(self.old_status(server), 0)
                self.upgrade(server, second)
                self.wait_ended(second)
            finally:
                over.set()
            self.assertEqual([wrong for each in polling for wrong in each.result()], [])

    def test_dies_when_told(self) -> None:
        """A program that ends on the order to take over leaves the port to the old program; no connection is lost."""
        server = self.serve_before(DIES_WHEN_TOLD)
        over = threading.Event()

        def post() -> list[Answer]:
            answers: list[Answer] = []
            while not over.is_set():
                connection = Connection(server.url)
                answers.append(connection.deliver("/triggers/gh", delivery=f"d{len(answers)}"))
                connection.close()
            return answers

        with ThreadPoolExecutor(1) as pool:
            posting = pool.submit(post)
            try:
                self.fail(server)
            finally:
                over.set()
            self.assertEqual({answer.status for answer in posting.result()}, {200})
        self.write_handlers("two")
        self.assertEqual(self.assert_reloaded(server.reload(), modified=["gh"])["generation"], 2)
        self.assertEqual(server.request("GET", "/readyz").status, 200)

    def test_ended_as_soon_as_it_serves(self) -> None:
        """A new program that takes requests ends in good order, also when it has not yet noted everything."""
        server = self.serve_before(SLOW_RECOVERY)
        new = self.begin(server, server.pid)
        self.assertEqual(self.old_status(server), 0)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        with self.open_socket(server) as half:
            # The answer to Expect says that the server has read the headers: the request has begun before the signal.
            half.sendall(BEGUN_REQUEST)
            self.assertEqual(half.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            os.kill(new, signal.SIGTERM)
            server.wait_for_line("shutting down")
            half.sendall(b"{}\n\n")
            self.assertEqual(half.recv(12), b"HTTP/1.1 401")
        self.wait_ended(new)
        self.assertEqual((server.state()["status"], server.state()["pid"]), ("stopped", new))
        server.wait_for_line("graceful shutdown complete")
        self.wait_handled("d1")

    def test_signal_to_all(self) -> None:
        """A signal that a service manager sends to all of the server's processes ends no interpreter."""
        self.write_manifest(HELD)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        before = self.ready_lines(server)
        for pid in (*server.children(), server.pid):
            os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: self.ready_lines(server) > before, "the new program to serve")
        self.release()
        self.assertEqual(self.old_status(server), 0)
        [seen] = self.wait_handled("d1")
        self.assertEqual((seen["attempt"], self.begun()), (1, ["d1"]))
        self.assertTrue(all(map(is_alive, self.programs(server))))
