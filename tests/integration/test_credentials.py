"""Our own credentials: the bearer key, its header, and signed requests, on the admin API and ``a2a-push`` routes."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from harn.testing.server import API_KEY, Answer, ServerProcess
from harn.testing.signers import admin_headers
from tests.integration.case import ServerCase, trigger_text

SECRET = b"shared secret"
PUSH = trigger_text("push", provider="a2a-push", kind="a2a-push", events=(), secret=None)


class CredentialCase(ServerCase):
    """A server with keys and a shared secret, and an ``a2a-push`` trigger."""

    def setUp(self) -> None:
        """Return the credentials."""
        super().setUp()
        self.environ["HARN_ORCHESTRATOR_API_KEYS"] = f"first, {API_KEY}"
        self.environ["HARN_ORCHESTRATOR_HMAC_SECRET"] = SECRET.decode()
        self.write_manifest(trigger_text("gh"), PUSH)

    def signed(
        self, server: ServerProcess, method: str, target: str, body: bytes = b"", *, at: float | None = None
    ) -> Answer:
        """Send a request signed with the shared secret."""
        headers = admin_headers(SECRET, method, target, body, time.time() if at is None else at)
        return server.request(method, target, body, headers)


class PushTests(CredentialCase):
    """``a2a-push`` without a verifier of its own."""

    def test_credentials(self) -> None:
        """Any key in either header, or a signature, is taken; nothing, a wrong key or a wrong signature gives 401."""
        server = self.serve()
        path = "/triggers/push"
        body = b'{"task": {"id": "t1", "status": {"state": "completed"}}}'
        for headers in (
            {"Authorization": "Bearer first"},
            {"Authorization": f"bearer {API_KEY}"},
            {"X-API-Key": "first"},
        ):
            self.assert_accepted(server.request("POST", path, body, headers), "push")
        self.assert_accepted(self.signed(server, "POST", path, body), "push")
        wrong: tuple[Any, ...] = (
            *({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ""}, {"Authorization": "Basic Zmlyc3Q="}),
            *({"Authorization": "HMAC-SHA256 timestamp=1,signature=x"}, {"Authorization": "HMAC-SHA256 nonsense"}),
            {"X-API-Key": "wrong", "Authorization": "Bearer first"},
        )
        for headers in wrong:
            self.assert_problem(server.request("POST", path, body, headers), 401)
        self.assert_problem(server.request("POST", path, b"[", {"X-API-Key": "first"}), 400)

    def test_replayed_signature(self) -> None:
        """A signature is accepted once, also after a reload and a restart; another body needs another."""
        server = self.serve()
        path, body, now = "/triggers/push", b'{"task": {"id": "t1"}}', time.time()
        self.assert_accepted(self.signed(server, "POST", path, body, at=now), "push")
        self.assert_problem(self.signed(server, "POST", path, body, at=now), 401)
        self.assert_accepted(self.signed(server, "POST", path, b'{"task": {"id": "t2"}}', at=now), "push")
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh", "push"])
        self.assert_problem(self.signed(server, "POST", path, body, at=now), 401)
        server = self.restart(server)
        self.assert_problem(self.signed(server, "POST", path, body, at=now), 401)
        server.kill()
        server = self.serve()
        self.assert_problem(self.signed(server, "POST", path, body, at=now), 401)

    def test_what_is_signed(self) -> None:
        """Time (5 minutes either way), method, path with its query, and body are all signed."""
        server = self.serve()
        now, body = time.time(), b'{"task": {"id": "t1"}}'
        for at in (now - 310, now + 310):
            self.assert_problem(self.signed(server, "POST", "/triggers/push", body, at=at), 401)
        self.assert_accepted(self.signed(server, "POST", "/triggers/push", body, at=now - 290), "push")
        self.assert_accepted(self.signed(server, "POST", "/triggers/push", body, at=now + 290), "push")
        headers = admin_headers(SECRET, "POST", "/triggers/push", body, now)
        self.assert_problem(server.request("POST", "/triggers/push", body + b" ", headers), 401)
        self.assert_problem(server.request("POST", "/triggers/push?x=1", body, headers), 401)
        headers = admin_headers(SECRET, "GET", "/triggers/push", body, now)
        self.assert_problem(server.request("POST", "/triggers/push", body, headers), 401)

    def test_saturation_does_not_use_up_a_signature(self) -> None:
        """What is refused for its body, after its signature was right, may be sent again with a new one."""
        server = self.serve()
        self.assert_problem(self.signed(server, "POST", "/triggers/push", b"["), 400)
        self.assert_accepted(self.signed(server, "POST", "/triggers/push", b"{}"), "push")


class RotationTests(CredentialCase):
    """Credentials in files, which each reload reads again."""

    def setUp(self) -> None:
        """Return the files instead of the values."""
        super().setUp()
        self.keys, self.secret = self.write("keys", "old, stays"), self.write("secret", "old secret\n")
        for name, path in (("API_KEYS", self.keys), ("HMAC_SECRET", self.secret)):
            del self.environ[f"HARN_ORCHESTRATOR_{name}"]
            self.environ[f"HARN_ORCHESTRATOR_{name}_FILE"] = str(path)

    def known(self, server: ServerProcess, *credentials: str) -> list[str]:
        """Return which of these count, as a key or (``hmac`` before it) as a shared secret, on both kinds of route."""
        found = []
        for each in credentials:
            statuses = set()
            for method, target in (("GET", "/admin/generation"), ("POST", "/triggers/push")):
                body = json.dumps({"task": {"id": each + target}, "at": time.time()}).encode() * (method == "POST")
                headers = {"X-API-Key": each}
                if each.startswith("hmac "):
                    headers = admin_headers(each.removeprefix("hmac ").encode(), method, target, body, time.time())
                statuses.add(server.request(method, target, body, headers).status)
            self.assertIn(statuses, ({200}, {401}), each)
            if statuses == {200}:
                found.append(each)
        return found

    def test_rotation(self) -> None:
        """From the reload on the new values count and the old ones do not, for the admin API and for routes."""
        server = self.serve()
        asked = ("old", "new", "stays", "hmac old secret", "hmac new secret")
        self.assertEqual(self.known(server, *asked), ["old", "stays", "hmac old secret"])
        self.keys.write_text("new\nstays\n")
        self.secret.write_text("new secret")
        self.assertEqual(self.known(server, *asked), ["old", "stays", "hmac old secret"])
        report = self.assert_reloaded(server.admin("POST", "/admin/reload", {}, key="stays"), unchanged=["gh", "push"])
        self.assertEqual((report["generation"], report["requires_restart"]), (2, []))
        self.assertEqual(self.known(server, *asked), ["new", "stays", "hmac new secret"])

    def test_file_that_cannot_be_read(self) -> None:
        """A file that is gone, a pipe, or huge refuses the reload, is named, and the old values stay."""
        server = self.serve()
        for path in (self.keys, self.secret):
            kept = path.read_bytes()
            for spoil in (
                lambda: None,
                lambda path=path: os.mkfifo(path),
                lambda path=path: path.write_bytes(b"x" * 70_000),
            ):
                path.unlink()
                spoil()
                report = self.assert_failed(server.admin("POST", "/admin/reload", {}, key="stays"), "resolve")
                self.assertIn(str(path), str(report["problems"]))
                self.assertEqual(self.known(server, "old", "hmac old secret"), ["old", "hmac old secret"])
                if not path.exists():
                    path.touch()
            path.write_bytes(kept)


class AdminTests(CredentialCase):
    """The admin API."""

    def test_everything_needs_credentials(self) -> None:
        """Every route under ``/admin`` answers 401 to strangers."""
        server = self.serve()
        targets = (
            *(("POST", "/admin/reload"), ("POST", "/admin/reload?dry_run=true"), ("GET", "/admin/generation")),
            *(
                ("GET", "/admin/generations"),
                ("GET", "/admin/bindings"),
                ("GET", "/admin/events/orchestrator.manifest"),
            ),
            *(("POST", "/admin/fire/gh"), ("POST", "/admin/recover"), ("GET", "/admin/inspect")),
        )
        for method, target in targets:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
                self.assert_problem(server.request(method, target, b"", headers), 401)
        self.assertEqual(server.generation()["generation"], 1)

    def test_signed_requests(self) -> None:
        """A signed GET may be repeated, a signed POST may not; the CLI makes each of its own new."""
        del self.environ["HARN_ORCHESTRATOR_API_KEYS"]
        server = self.serve()
        now = time.time()
        for _ in range(2):
            self.assertEqual(self.signed(server, "GET", "/admin/generation", at=now).status, 200)
        body = json.dumps({"request_id": "r1"}).encode()
        first = self.signed(server, "POST", "/admin/reload", body, at=now)
        self.assertEqual((first.status, first.json()["actor"]), (200, "hmac"))
        self.assert_problem(self.signed(server, "POST", "/admin/reload", body, at=now), 401)
        for _ in range(3):
            done = self.orchestrator("reload")
            self.assertEqual(done.status, 0, done)

    def test_actor_is_the_credential(self) -> None:
        """The report's actor names the credential without showing it; the body cannot claim another."""
        server = self.serve()
        report = server.admin("POST", "/admin/reload", {"source": "mine"}).json()
        self.assertEqual(report["source"], "mine")
        self.assertTrue(report["actor"].startswith("key:"), report)
        self.assertNotIn(API_KEY, report["actor"])
        for source in ("signal", "file_watch"):
            self.assert_problem(server.admin("POST", "/admin/reload", {"source": source}), 400)
        long = server.admin("POST", "/admin/reload", {"source": "x" * 40})
        self.assertTrue(long.status == 400 or len(long.json()["source"]) <= 32, long)
