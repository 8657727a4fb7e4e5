"""Handlers that misbehave: each costs itself, never ingest and never its neighbours."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from harn.testing.server import GITHUB_SECRET, ServerProcess, wait_until
from harn.testing.signers import sign_github
from tests.integration.case import ServerCase, SharedServerCase, trigger_text

RETRY_ONCE = "[triggers.retry]\nmax = 2\n"


class MisbehaviourTests(SharedServerCase):
    """Each test has one bad trigger ``bad`` and two bystanders: ``ok``, and ``long``, whose handler waits all along."""

    def misbehave(self, source: str, timeout: str = "20s") -> ServerProcess:
        """Start a server whose handler ``bad`` has this source; let a bystander be in flight."""
        self.write_handlers(more=source)
        self.write_manifest(
            trigger_text("bad", handler="handlers:bad", extra=f'timeout = "{timeout}"\n{RETRY_ONCE}'),
            trigger_text("ok"),
            trigger_text("long", handler="handlers:held", extra="[triggers.retry]\nmax = 1"),
        )
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/long", delivery="long"), "long")
        self.wait_begun("long")
        self.assert_accepted(server.deliver("/triggers/bad", delivery="bad"), "bad")
        return server

    def assert_bystanders_fine(self, server: ServerProcess) -> None:
        """See that new work of another trigger is handled, and that what was in flight ends in its first attempt."""
        self.assert_accepted(server.deliver("/triggers/ok", delivery="ok"), "ok")
        [seen] = self.wait_handled("ok")
        self.assertEqual(seen["attempt"], 1)
        self.release()
        [seen] = self.wait_handled("long")
        self.assertEqual(seen["attempt"], 1)
        self.assertEqual(server.request("GET", "/readyz").status, 200)

    def assert_given_up(self, server: ServerProcess, attempts: int = 2) -> dict[str, Any]:
        """See that the bad delivery, and it alone, becomes a dead letter after its attempts; give the letter."""
        wait_until(lambda: server.records("trigger.dlq") or self.begun().count("long") > 2, "two deaths, or the end")
        if not server.records("trigger.dlq"):
            # Present at two deaths, the bystander runs alone now; the culprit's turn may come after it.
            self.release()
        [letter] = self.wait_records(server, "trigger.dlq", 1)
        payload: dict[str, Any] = letter["payload"]
        self.assertEqual(payload["trigger_id"], "bad", payload)
        self.assertEqual(payload["event"]["dedupe_key"], "bad")
        self.assertEqual((payload["reason"], payload["attempt_count"]), ("retry_exhausted", attempts), payload)
        self.assertEqual(len(payload["attempts"]), attempts)
        self.assert_bystanders_fine(server)
        self.assertEqual(len(server.records("trigger.dlq")), 1)
        return payload

    def test_exit_of_the_process(self) -> None:
        """``os._exit`` in a handler costs its own attempts only."""
        server = self.misbehave("def bad(event):\n    os._exit(3)\n")
        letter = self.assert_given_up(server)
        self.assertEqual(letter["error_class"], "interpreter_died")
        self.assertIn("harn_interpreter_restarts_total", server.request("GET", "/metrics").body.decode())

    def test_segmentation_fault(self) -> None:
        """A crash in C costs its own attempts only."""
        server = self.misbehave("import ctypes\n\ndef bad(event):\n    ctypes.string_at(0)\n")
        self.assert_given_up(server)

    def test_endless_loop_in_a_thread(self) -> None:
        """A plain handler that never ends is cut off at the trigger's ``timeout``."""
        server = self.misbehave("def bad(event):\n    while True:\n        pass\n", "500ms")
        letter = self.assert_given_up(server)
        self.assertEqual([each["outcome"] for each in letter["attempts"]], ["timeout", "timeout"])

    def test_endless_loop_that_blocks_the_loop(self) -> None:
        """An ``async`` handler that blocks the child's loop is the one culprit."""
        server = self.misbehave("async def bad(event):\n    while True:\n        pass\n", "500ms")
        self.assert_given_up(server)

    def test_sleep_that_is_cancelled(self) -> None:
        """An ``async`` handler that waits too long is cut off without harm to the process."""
        server = self.misbehave("async def bad(event):\n    await asyncio.sleep(60)\n", "300ms")
        self.assert_given_up(server)
        self.assertEqual(self.begun(), ["long"])

    def test_exit_that_is_raised(self) -> None:
        """``sys.exit`` fails the attempt; the process lives on, and no delivery runs twice."""
        server = self.misbehave("import sys\n\ndef bad(event):\n    sys.exit(1)\n")
        self.assert_given_up(server)
        self.assertEqual(self.begun(), ["long"])

    def test_result_that_is_no_json(self) -> None:
        """A result that is not a JSON value fails the attempt."""
        server = self.misbehave("def bad(event):\n    return {'x': object()}\n")
        self.assert_given_up(server)
        self.assertEqual(self.begun(), ["long"])

    def test_enormous_result(self) -> None:
        """A result of 50 MB is kept whole or refused for its size; no other delivery is affected."""
        server = self.misbehave("def bad(event):\n    return 'x' * 50_000_000\n")
        wait_until(lambda: len(server.records("trigger.attempts", limit=5)) > 0, "an attempt")
        self.assert_bystanders_fine(server)
        letters = server.records("trigger.dlq")
        self.assertLessEqual(len(letters), 1)

    def test_endless_printing(self) -> None:
        """Megabytes of prints to both streams, and to the descriptors beneath, neither block nor corrupt anything."""
        server = self.misbehave(
            """
            import sys

            def bad(event, context):
                for _ in range(100):
                    print("x" * 50_000)
                    print("y" * 50_000, file=sys.stderr)
                os.write(1, b"z" * 100_000)
                os.write(2, b"z" * 100_000)
                return on_event(event, context)
            """
        )
        self.wait_handled("bad")
        self.assert_bystanders_fine(server)
        self.assertEqual(server.records("trigger.dlq"), [])

    def test_reading_standard_input(self) -> None:
        """A handler that reads standard input finds it empty, and takes nothing from the parent's frames."""
        server = self.misbehave("import sys\n\ndef bad(event, context):\n    note(read=sys.stdin.read())\n")
        wait_until(lambda: any("read" in each for each in self.seen()), "the handler")
        self.assertEqual([each["read"] for each in self.seen() if "read" in each], [""])
        self.assert_bystanders_fine(server)


class PayloadTests(ServerCase):
    """Bodies, byte for byte."""

    def test_large_and_binary_bodies(self) -> None:
        """A body of 1 MiB of any bytes reaches the handler exactly; so does an empty one, and one of text."""
        self.environ["HARN_SECRET_WEBHOOK_SECRET"] = GITHUB_SECRET.decode()
        self.write_handlers(
            more="""
            import hashlib

            def on_bytes(event, context):
                note(key=event.dedupe_key, digest=hashlib.sha256(event.raw_body).hexdigest(), size=len(event.raw_body))
            """
        )
        extra = '[triggers.webhook]\nsignature_scheme = "github"'
        self.write_manifest(
            trigger_text(
                "raw", provider="webhook", events=(), handler="handlers:on_bytes", secret="secret", extra=extra
            )
        )
        server = self.serve()
        bodies = {"large": os.urandom(1024 * 1024), "empty": b"", "nulls": b"\x00" * 1000, "text": "é\u2028".encode()}
        for name, body in bodies.items():
            headers = {"X-Hub-Signature-256": sign_github(GITHUB_SECRET, body), "webhook-id": name}
            self.assert_accepted(server.request("POST", "/triggers/raw", body, headers), "raw")
        for name, body in bodies.items():
            [seen] = self.wait_handled(name)
            self.assertEqual((seen["size"], seen["digest"]), (len(body), hashlib.sha256(body).hexdigest()), name)


class InlineTests(ServerCase):
    """``--vm inline``."""

    def test_handlers_run_in_the_server(self) -> None:
        """With ``--vm inline`` handlers run in the server's own process, and reload as well."""
        source = "\ndef where(event, context):\n    note(key=event.dedupe_key, pid=os.getpid(), version=VERSION)\n"
        self.write_handlers(more=source)
        self.write_manifest(trigger_text("gh", handler="handlers:where"))
        server = self.serve("--vm", "inline")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        [seen] = self.wait_handled("d1")
        self.assertEqual((seen["pid"], seen["version"]), (server.pid, "one"))
        self.write_handlers("two", source)
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        [seen] = self.wait_handled("d2")
        self.assertEqual((seen["pid"], seen["version"]), (server.pid, "two"))
        self.assertEqual(server.terminate(), 0, server.stderr)
