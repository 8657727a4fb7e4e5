"""What is decided before an event is looked at: origin, size, rate, and a store that cannot write."""

from __future__ import annotations

import socket
import sqlite3

from harn.testing.server import GITHUB_SECRET, ServerProcess, wait_until
from harn.testing.signers import github_headers
from tests.integration.case import ServerCase, SharedServerCase, trigger_text


class AdmissionTests(SharedServerCase):
    """Requests that are refused by admission, and their answers."""

    def test_origins(self) -> None:
        """An origin that is not on the list gives 403; one on it, or none, passes."""
        self.write_manifest(head='[orchestrator]\nallowed_origins = ["https://good.example"]')
        server = self.serve()
        refused = server.deliver("/triggers/gh", delivery="d1", headers={"Origin": "https://bad.example"})
        self.assert_problem(refused, 403)
        allowed = server.deliver("/triggers/gh", delivery="d2", headers={"Origin": "https://good.example"})
        self.assert_accepted(allowed)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d3"))

    def test_size(self) -> None:
        """A body over the limit gives 413 when the headers are in, where they tell; one of the limit passes."""
        self.write_manifest(head="[orchestrator]\nmax_body_bytes = 1000")
        server = self.serve()
        fitting = b'{"action": "opened", "x": "' + b"x" * (1000 - 29) + b'"}'
        self.assertEqual(len(fitting), 1000)
        self.assert_accepted(server.deliver("/triggers/gh", fitting, delivery="d1"))
        self.assert_problem(server.deliver("/triggers/gh", fitting + b" ", delivery="d2"), 413)
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), 60.0) as connection:
            connection.sendall(b"POST /triggers/gh HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n")
            self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 413 "))

    def test_size_of_a_reloaded_manifest(self) -> None:
        """The limits of the manifest apply on reload too."""
        server = self.serve()
        body = b'{"action": "opened", "x": "' + b"x" * 2000 + b'"}'
        self.assert_accepted(server.deliver("/triggers/gh", body, delivery="d1"))
        self.write_manifest(head="[orchestrator]\nmax_body_bytes = 1000")
        self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assert_problem(server.deliver("/triggers/gh", body, delivery="d2"), 413)

    def test_default_size(self) -> None:
        """By default 10 MiB pass, and one byte more does not."""
        server = self.serve()
        limit = 10 * 1024 * 1024
        largest = b'{"action": "opened"}'.ljust(limit)
        self.assert_accepted(server.deliver("/triggers/gh", largest, delivery="d1"))
        self.assert_problem(server.request("POST", "/triggers/gh", largest + b" "), 413)

    def test_no_rate_by_default(self) -> None:
        """A burst of hundreds from one source passes when no rate is configured."""
        server = self.serve()
        connection = server.connect()
        for index in range(300):
            self.assertEqual(connection.deliver("/triggers/gh", delivery=f"d{index}").status, 200)
        connection.close()

    def test_unused_signature_of_a_large_body(self) -> None:
        """A body that is cut off by a client that disconnects makes no event."""
        server = self.serve()
        body = b'{"action": "opened"}'
        headers = github_headers(GITHUB_SECRET, body, "issues", "d1")
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /triggers/gh HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        with socket.create_connection((host, int(port)), 60.0) as connection:
            connection.sendall(head.encode() + body[:-1])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"))
        self.wait_handled("d2")
        self.assertEqual(self.handled(), ["d2"])


class StateTests(ServerCase):
    """What depends on what came before: a bucket, a store that cannot write, an end."""

    def test_rate(self) -> None:
        """Over its configured rate a source gets 429 with ``Retry-After``; a reload does not refill its bucket."""
        self.write_manifest(
            trigger_text("gh"), trigger_text("other"), head="[orchestrator.admission]\nrate = 0.01\nburst = 3"
        )
        server = self.serve()
        for index in range(3):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}"))
        for attempt in range(2):
            refused = server.deliver("/triggers/gh", delivery="late")
            self.assert_problem(refused, 429)
            self.assertGreaterEqual(int(refused.headers["retry-after"]), 1)
            if attempt == 0:
                self.write_handlers("two")
                self.assert_reloaded(server.reload(), modified=["gh", "other"])
        self.assert_accepted(server.deliver("/triggers/other", delivery="d1"), "other")

    def test_event_log_that_cannot_write(self) -> None:
        """While the event log cannot write: 503 with ``Retry-After``, not ready; after it the dedupe key is unused."""
        self.write_manifest(trigger_text("gh", extra='dedupe_key = "event.dedupe_key"'))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d0"))
        self.wait_handled("d0")
        lock = sqlite3.connect(server.state_dir / "events.sqlite", timeout=10.0, isolation_level=None)
        self.addCleanup(lock.close)
        lock.execute("BEGIN EXCLUSIVE")
        refused = server.deliver("/triggers/gh", delivery="d1")
        self.assert_problem(refused, 503)
        self.assertGreaterEqual(int(refused.headers["retry-after"]), 1)
        self.assertEqual(server.request("GET", "/health").status, 200)
        self.assert_problem(server.request("GET", "/readyz"), 503)
        lock.execute("ROLLBACK")
        accepted = self.accepted_at_last(server, "d1")
        self.assertEqual(accepted["status"], "accepted")
        self.wait_handled("d1")
        self.assertEqual(server.deliver("/triggers/gh", delivery="d1").json()["status"], "duplicate_dropped")
        self.assertEqual(server.request("GET", "/readyz").status, 200)

    def accepted_at_last(self, server: ServerProcess, delivery: str) -> dict[str, object]:
        """Send a delivery again until it is taken."""

        def taken() -> dict[str, object] | None:
            answer = server.deliver("/triggers/gh", delivery=delivery)
            return answer.json() if answer.status == 200 else None

        found = wait_until(taken, "the event log to come back")
        assert found is not None
        return found

    def test_shutting_down(self) -> None:
        """A kept-alive connection that sends on while the server drains gets 503 with ``Retry-After``, or is closed."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve()
        connection = server.connect()
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        server.signal(15)
        statuses: set[int] = set()
        try:
            while statuses <= {200}:
                answer = connection.deliver("/triggers/gh", delivery=f"e{len(statuses)}")
                statuses.add(answer.status)
            self.assertEqual(answer.status, 503)
            self.assertIn("retry-after", answer.headers)
        except OSError:
            pass
        self.release()
        self.assertEqual(server.wait(), 0)
        self.assertIn("d1", self.handled())
