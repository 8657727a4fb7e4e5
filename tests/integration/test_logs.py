"""What is logged: for machines as JSON, with the ids of the delivery that it is about."""

from __future__ import annotations

import json
from typing import Any

from harn.testing.server import wait_until
from tests.integration.case import ServerCase, trigger_text


class LogTests(ServerCase):
    """``--log-format json``."""

    def records(self) -> list[dict[str, Any]]:
        """Read the log file in the state directory; every line of it is JSON."""
        path = self.directory / "state" / "logs" / "orchestrator.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def test_prints_of_handlers(self) -> None:
        """What a handler prints is a record with its delivery's ids; the ready line stays on standard error."""
        self.write_handlers(
            more="""
            import sys

            def chatty(event, context):
                print("said aloud")
                print("said in error", file=sys.stderr)
                return on_event(event, context)
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:chatty"))
        server = self.serve("--log-format", "json")
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        for text in ("said aloud", "said in error"):
            found = wait_until(
                lambda text=text: [each for each in self.records() if text in json.dumps(each)], f"{text!r} in the log"
            )
            self.assertIn(event_id, json.dumps(found[0]))

    def test_accepted_events(self) -> None:
        """Each accepted event is a record, ``trigger event accepted``, with its id and the id of its trace."""
        server = self.serve("--log-format", "json")
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        self.assertEqual(server.terminate(), 0)
        found = [each for each in self.records() if each["message"].startswith("trigger event accepted")]
        self.assertEqual([each["event_id"] for each in found], [event_id])
        self.assertTrue(found[0]["trace_id"].startswith("trace_"), found)

    def test_nothing_secret(self) -> None:
        """Neither secrets nor keys are in anything that the server says, at the most talkative level."""
        server = self.serve("--log-format", "json", "--log-level", "debug")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", headers={"Authorization": "Bearer hush"}))
        self.assert_problem(server.deliver("/triggers/gh", delivery="d2", secret=b"wrong"), 401)
        self.assert_problem(server.admin("GET", "/admin/generation", key="not-this-one"), 401)
        self.wait_handled("d1")
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(server.terminate(), 0)
        everything = server.stderr + (self.directory / "stdout.log").read_text() + json.dumps(self.records())
        for word in ("test-secret", "test-key", "hush", "not-this-one"):
            self.assertNotIn(word, everything)
