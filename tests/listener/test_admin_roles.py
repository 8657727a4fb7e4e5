"""Roles of named keys at the admin API, and the audit records of requests that it refuses."""

from __future__ import annotations

from harn.auth.keys import NamedKey, digest_key
from harn.operations.model import Role
from harn.testing.clients import WireAnswer, request_bytes
from tests.listener.test_admin import AdminCase


class RoleTests(AdminCase):
    """A key of each role."""

    def setUp(self) -> None:
        super().setUp()
        self.ring = self.world.ring
        self.ring.replace(
            NamedKey(name=role.value, role=role, digest=digest_key(role.value), made_at=0.0, made_by="me")
            for role in Role
        )

    def ask_as(self, key: str, method: str, target: str, body: bytes = b"", peer: str = "127.0.0.1") -> WireAnswer:
        """Send a request with a key."""
        return self.world.wire(peer).send(request_bytes(method, target, {"X-API-Key": key}, body)).answer()

    def test_roles(self) -> None:
        """A key may do what its role covers; else the answer is a problem document that names the needed role."""
        for key, reads, reloads in (("read", 200, 403), ("operate", 200, 200), ("admin", 200, 200)):
            self.assertEqual(self.ask_as(key, "GET", "/admin/generation").status, reads)
            answer = self.ask_as(key, "POST", "/admin/reload")
            self.assertEqual(answer.status, reloads, key)
            if reloads == 403:
                self.assertEqual(answer.headers["content-type"], "application/problem+json")
                self.assertIn("your role must be operate, got read", answer.json()["detail"])
        self.assertEqual([request.actor for request in self.reloader.asked], ["key:operate", "key:admin"])

    def test_role_before_arguments(self) -> None:
        """The role is checked before the parameters are read."""
        self.assertEqual(self.ask_as("read", "POST", "/admin/reload?odd=1").status, 403)

    def test_revoked(self) -> None:
        """A key that is taken off the ring is refused with the next request."""
        self.ring.replace(())
        self.assertEqual(self.ask_as("admin", "GET", "/admin/generation").status, 401)

    def refused(self) -> list[tuple[str, str, int]]:
        """Return actor, error's first word and count of each record of a refusal."""
        return [
            (payload["actor"], payload["error"].split()[0], payload["counts"]["refused"])
            for topic, kind, payload in self.world.recorded
            if (topic, kind) == ("audit.operations", "admin.refused")
        ]

    def test_records(self) -> None:
        """A refusal is recorded: who, why and from where; of one source once a minute, with the number since."""
        for _ in range(5):
            self.ask_as("wrong", "GET", "/admin/generation")
        self.ask_as("read", "POST", "/admin/reload")
        self.assertEqual(self.refused(), [("anonymous", "the", 1), ("key:read", "reload:", 1)])
        (_, _, payload), *_ = self.world.recorded
        self.assertEqual(payload["parameters"], {"address": "127.0.0.1", "method": "GET"})
        self.assertNotIn("wrong", str(payload))
        self.world.advance(61)
        self.ask_as("wrong", "GET", "/admin/generation")
        self.assertEqual(self.refused()[-1], ("anonymous", "the", 5))

    def test_flood(self) -> None:
        """Thousands of sources write no more than a few records in a minute."""
        for number in range(300):
            self.ask_as("wrong", "GET", "/admin/generation", peer=f"10.0.{number // 200}.{number % 200}")
        self.assertEqual(len(self.refused()), 60)
