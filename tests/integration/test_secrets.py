"""Secrets and credentials: rotation, and that a reload reads them again."""

from __future__ import annotations

from harn.testing.server import GITHUB_SECRET
from tests.integration.case import ServerCase, trigger_text


class RotationTests(ServerCase):
    """Secrets that change while the server runs."""

    def test_secrets_are_tried_in_order(self) -> None:
        """With a list of secrets a signature by any of them is right, and by another is not."""
        self.environ["HARN_SECRET_GITHUB_NEW"] = "new"
        trigger = trigger_text(
            "gh", secret=None, extra='secrets = { signing_secret = ["github/new", "github/webhook-secret"] }'
        )
        self.write_manifest(trigger)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", secret=b"new"))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2", secret=GITHUB_SECRET))
        self.assert_problem(server.deliver("/triggers/gh", delivery="d3", secret=b"other"), 401)

    def test_secret_file_is_read_again(self) -> None:
        """A secret in a file is read again by the reload after its change; nothing else changes by that."""
        secret = self.write("secret", "old\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", secret=b"old"))
        secret.write_text("new\n")
        self.assertTrue(server.generation()["drift"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2", secret=b"old"))
        report = self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual(report["generation"], 2)
        self.assertFalse(server.generation()["drift"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d3", secret=b"new"), binding="gh@v1")
        self.assert_problem(server.deliver("/triggers/gh", delivery="d4", secret=b"old"), 401)

    def test_secret_that_went_away(self) -> None:
        """A reload that finds a secret gone fails at resolve, names it, shows no value, and the old one serves."""
        secret = self.write("secret", "hush-hush\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        server = self.serve()
        secret.unlink()
        report = self.assert_failed(server.reload(), "resolve")
        self.assertIn("github/rotating", str(report["problems"]))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", secret=b"hush-hush"))
        everything = server.stderr + (self.directory / "stdout.log").read_text() + str(server.generation())
        self.assertNotIn("hush-hush", everything)

    def test_keys_of_the_admin_api_rotate(self) -> None:
        """Keys in a file are read again on each reload: the new one works from then on, the old one no longer."""
        keys = self.write("keys", "first,both\n")
        del self.environ["HARN_ORCHESTRATOR_API_KEYS"]
        self.environ["HARN_ORCHESTRATOR_API_KEYS_FILE"] = str(keys)
        server = self.serve()
        self.assertEqual(server.admin("GET", "/admin/generation", key="first").status, 200)
        keys.write_text("second,both\n")
        self.assert_problem(server.admin("GET", "/admin/generation", key="second"), 401)
        self.assertEqual(server.admin("POST", "/admin/reload", {}, key="both").status, 200)
        self.assertEqual(server.admin("GET", "/admin/generation", key="second").status, 200)
        self.assert_problem(server.admin("GET", "/admin/generation", key="first"), 401)
        done = self.orchestrator("reload")
        self.assertEqual(done.status, 0, done)

    def test_a_handlers_secret(self) -> None:
        """``await context.secret(...)`` gives a secret of the provider's to the handler."""
        self.environ["HARN_SECRET_GITHUB_TOKEN"] = "t0ken"
        self.write_handlers(
            more="""
            async def on_secret(event, context):
                note(key=event.dedupe_key, secret=str(await context.secret("github/token")))
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:on_secret"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        [seen] = self.wait_handled("d1")
        self.assertIn("t0ken", seen["secret"])
