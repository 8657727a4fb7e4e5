"""``serve``: how it begins, what it refuses and in which words, how it ends."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

from harn.testing.server import GITHUB_SECRET, ServerProcess, is_alive, wait_until
from harn.testing.signers import github_headers
from tests.integration.case import ServerCase, trigger_text


class StartTests(ServerCase):
    """A server that starts."""

    def test_ready_line_health_and_state_file(self) -> None:
        """The ready line names a URL that answers, and the state file has the same and all its other fields."""
        server = self.serve()
        self.assertEqual(server.request("GET", "/health").status, 200)
        self.assertEqual(server.request("GET", "/healthz").status, 200)
        ready = server.request("GET", "/readyz")
        self.assertEqual((ready.status, ready.body.strip()), (200, b"ready"))
        state = server.state()
        fields = (
            *("status", "role", "bind", "listener_url", "manifest_path", "state_dir", "started_at", "stopped_at"),
            *("secret_provider_chain", "event_log_backend", "event_log_location", "triggers", "connectors"),
            *("activations", "pid", "generation", "digest", "last_reload"),
        )
        self.assertLessEqual(set(fields), set(state))
        self.assertEqual(state["status"], "running")
        self.assertEqual(state["pid"], server.pid)
        self.assertEqual(state["listener_url"], server.url)
        self.assertEqual(state["bind"], server.url.removeprefix("http://"))
        self.assertEqual(state["generation"], 1)
        self.assertRegex(state["digest"], r"\Asha256:[0-9a-f]{64}\Z")
        self.assertEqual(state["manifest_path"], str(self.directory / "harn.toml"))
        self.assertEqual(state["state_dir"], str(server.state_dir))
        self.assertIsNone(state["stopped_at"])
        self.assertEqual(state["event_log_backend"], "sqlite")
        self.assertEqual(state["event_log_location"], str(server.state_dir / "events.sqlite"))
        self.assertEqual(state["connectors"], ["github"])
        self.assertEqual(state["activations"], [{"provider": "github", "binding_count": 1}])
        expected = {
            "id": "gh",
            "provider": "github",
            "kind": "webhook",
            "handler": "local",
            "version": 1,
            "state": "active",
            "received": 0,
            "refused": 0,
            "dispatched": 0,
            "failed": 0,
            "dlq": 0,
            "in_flight": 0,
            **dict.fromkeys(("accepted", "running", "waiting", "dead"), 0),
            **dict.fromkeys(("last_success", "last_failure", "next_due", "circuit"), None),
            "paused": False,
        }
        self.assertEqual(state["triggers"], [expected])

    def test_state_file_counts(self) -> None:
        """After the end the state file has counted one accepted and two refused requests, and nothing in flight."""
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        for delivery in ("d2", "d3"):
            self.assert_problem(server.deliver("/triggers/gh", delivery=delivery, secret=b"wrong"), 401)
        self.wait_handled("d1")
        self.assertEqual(server.terminate(), 0)
        state = server.state()
        self.assertEqual(state["status"], "stopped")
        self.assertIsNotNone(state["stopped_at"])
        [trigger] = state["triggers"]
        counts = {name: trigger[name] for name in ("received", "refused", "dispatched", "failed", "dlq")}
        self.assertEqual(counts, {"received": 3, "refused": 2, "dispatched": 1, "failed": 0, "dlq": 0})

    def test_warnings_as_errors(self) -> None:
        """Where Python makes errors of warnings, and in its development mode, it starts, delivers, reloads and ends."""
        server = self.serve(environ={**self.environ, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"})
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        self.assertEqual(server.admin("POST", "/admin/reload?force=true").status, 200)
        self.assertEqual(server.request("GET", "/none").status, 404)
        self.assertEqual(server.terminate(), 0)
        self.assertNotIn("Warning", server.stderr)

    def test_manifest_of_any_name_is_the_only_one_read(self) -> None:
        """With ``--config`` naming another file, a ``harn.toml`` beside it does not count, broken as it may be."""
        self.write_manifest(name="triggers.toml")
        self.write("harn.toml", "this is not TOML [")
        server = self.serve(config="triggers.toml")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))

    def test_no_credentials_is_said_at_start(self) -> None:
        """Without any credentials the admin API answers 401 but to the state directory's token; ``serve`` says so."""
        environ = {name: value for name, value in self.environ.items() if name != "HARN_ORCHESTRATOR_API_KEYS"}
        server = self.serve(environ=environ)
        self.assert_problem(server.admin("GET", "/admin/generation"), 401)
        self.assert_problem(server.admin("GET", "/admin/generation", key=""), 401)
        self.assertIn("HARN_ORCHESTRATOR_API_KEYS", server.stderr)
        self.environ = environ
        self.assertEqual(self.checked("inspect")["snapshot"]["status"], "running")
        self.write_handlers("two")
        self.assertEqual(self.checked("reload")["actor"], "token")

    def test_hang_up_while_starting_is_kept(self) -> None:
        """A SIGHUP that comes before the server is ready neither ends it nor gets lost."""
        self.write("slow_import.py", "import time\ntime.sleep(1.0)\n")
        self.write_handlers(more="import slow_import\n")
        server = self.serve(ready=False)
        wait_until(lambda: self.catches_hang_up(server.pid), "the server to catch SIGHUP")
        server.signal(signal.SIGHUP)
        server.wait_ready()
        self.wait_last_reload(server, lambda last: last["source"] == "signal" and last["status"] == "ok")

    def catches_hang_up(self, pid: int) -> bool:
        """Return from the kernel's books whether a process has a handler for SIGHUP."""
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught & 1 << signal.SIGHUP - 1)


class RefusalTests(ServerCase):
    """A server that cannot start says why, on standard error, and exits 1."""

    def refused(self, *arguments: str, **more: object) -> str:
        """Start a server that refuses; give the line that begins with ``error:``."""
        said = self.ended(self.serve(*arguments, ready=False, **more))
        self.assertNotIn("Traceback", said)
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        self.assertTrue(errors, said)
        return said

    def test_missing_manifest(self) -> None:
        """A manifest that is not there is named."""
        self.assertIn("manifest not found: nowhere.toml", self.refused(config="nowhere.toml"))

    def test_bad_toml(self) -> None:
        """Bad TOML is reported with file and line."""
        self.write("harn.toml", "[package]\nname = \n")
        self.assertIn("harn.toml:2", self.refused())

    def test_every_problem_at_once(self) -> None:
        """All problems are listed, each with its line, its trigger, its key, and the nearest known key."""
        bad = trigger_text("gh", extra='filtre = "event.kind"\ntimeout = "soon"')
        self.write_manifest(bad, trigger_text("other", handler="nowhere:nothing"))
        said = self.refused()
        self.assertRegex(said, r"harn\.toml:\d+: triggers\[0\] \(gh\): filtre: .*filter")
        self.assertRegex(said, r"harn\.toml:\d+: triggers\[0\] \(gh\): timeout: ")

    def test_no_triggers(self) -> None:
        """A manifest without triggers is refused with the setting that allows it, and taken with that."""
        self.write("harn.toml", '[package]\nname = "empty"\n')
        self.assertIn("allow_empty", self.refused())
        self.write("harn.toml", "[orchestrator]\nallow_empty = true\n")
        self.assertEqual(self.serve().state()["triggers"], [])

    def test_missing_secret(self) -> None:
        """A secret that resolves to nothing is a problem that names it."""
        self.write_manifest(trigger_text("gh", secret="other-secret"))
        self.assertIn("github/other-secret", self.refused())

    def test_port_in_use(self) -> None:
        """A port that another process has is named."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), self.refused(bind=f"127.0.0.1:{port}"))

    def test_state_directory_in_use(self) -> None:
        """A second server on one state directory is refused, with the directory and the first one's pid."""
        first = self.serve()
        said = self.refused()
        self.assertIn("state", said)
        self.assertIn(str(first.pid), said)
        self.assertEqual(first.request("GET", "/readyz").status, 200)
        self.assertEqual(first.state()["pid"], first.pid)

    def test_lock_of_the_dead_does_not_count(self) -> None:
        """After kill -9 the next server starts on the same state directory."""
        first = self.serve()
        first.kill()
        self.assertEqual(json.loads((first.state_dir / "orchestrator-state.json").read_text())["status"], "running")
        self.assertEqual(self.serve().request("GET", "/readyz").status, 200)

    def test_unusable_state_directory(self) -> None:
        """A state directory that is a file is named."""
        (self.directory / "state").write_text("not a directory")
        self.assertIn("state", self.refused())

    def test_usage(self) -> None:
        """Wrong usage exits 2; half a TLS pair says which flag is missing."""
        self.assertEqual(self.harn("orchestrator", "serve", "--nonsense").status, 2)
        done = self.harn("orchestrator", "serve", "--cert", "cert.pem")
        self.assertIn(done.status, (1, 2))
        self.assertIn("--key", done.stderr)


class EndTests(ServerCase):
    """How a server ends."""

    def test_termination_waits_for_handlers(self) -> None:
        """SIGTERM: no new work is taken, handlers finish and are recorded, the exit status is 0, no process is left."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        children = server.children()
        server.signal(signal.SIGTERM)
        wait_until(lambda: self.refuses_work(server.url), "the server to take no more work")
        self.assertIsNone(server.process.poll())
        self.release()
        self.assertEqual(server.wait(), 0, server.stderr)
        self.assertEqual(self.handled(), ["d1"])
        self.assertEqual(server.state()["status"], "stopped")
        wait_until(lambda: not any(map(is_alive, children)), "the children to end")
        [record] = server.records("trigger.outbox")[-1:]
        self.assertIn("d1", json.dumps(record))

    def in_flight(self, server: ServerProcess) -> int:
        """Return how many requests and handlers hold the only binding."""
        [binding] = server.bindings()
        return int(binding["in_flight"])

    def refuses_work(self, url: str) -> bool:
        """Return whether a fresh connection is refused, or answered 503."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        try:
            with socket.create_connection((host, int(port)), 60.0) as connection:
                connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                return b" 503 " in connection.recv(100)
        except OSError:
            return True

    def test_interrupt_is_termination(self) -> None:
        """SIGINT ends in good order as well."""
        server = self.serve()
        server.signal(signal.SIGINT)
        self.assertEqual(server.wait(), 0, server.stderr)

    def test_second_termination_ends_at_once(self) -> None:
        """A second SIGTERM does not wait for a handler that never ends; its delivery continues with the next server."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve()
        server.deliver("/triggers/gh", delivery="d1")
        self.wait_begun("d1")
        server.signal(signal.SIGTERM)
        wait_until(lambda: self.refuses_work(server.url), "the server to take no more work")
        server.signal(signal.SIGTERM)
        server.wait(5.0)
        self.assertEqual(self.handled(), [])
        self.release()
        self.serve()
        self.wait_handled("d1")

    def test_shutdown_timeout(self) -> None:
        """A handler that outlasts ``--shutdown-timeout`` holds up the end no longer; its delivery is not lost."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve("--shutdown-timeout", "1")
        server.deliver("/triggers/gh", delivery="d1")
        self.wait_begun("d1")
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.release()
        self.serve()
        self.wait_handled("d1")

    def test_request_under_way_is_answered(self) -> None:
        """A request whose headers are in when SIGTERM comes still gets its 200."""
        server = self.serve()
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        body = b'{"action": "opened"}'
        lines = [f"{name}: {value}" for name, value in github_headers(GITHUB_SECRET, body, "issues", "d1").items()]
        head = ["POST /triggers/gh HTTP/1.1", "Host: harn", f"Content-Length: {len(body)}", *lines]
        with socket.create_connection((host, int(port)), 60.0) as connection:
            connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body[:5])
            wait_until(lambda: self.in_flight(server) == 1, "the request to be in flight")
            server.signal(signal.SIGTERM)
            wait_until(lambda: self.refuses_work(server.url), "the server to take no more work")
            connection.sendall(body[5:])
            answer = b""
            while b"accepted" not in answer:
                piece = connection.recv(4096)
                self.assertTrue(piece, answer)
                answer += piece
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertEqual(server.wait(), 0)
        self.assertEqual(self.handled(), ["d1"])
