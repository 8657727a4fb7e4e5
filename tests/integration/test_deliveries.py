"""Deliveries on a real server: listed, explained, taken to another place and back."""

from __future__ import annotations

import json

from harn.testing.handlers import load_fixture
from harn.testing.server import wait_until
from tests.integration.case import SharedServerCase, held_trigger, trigger_text

FAILS = """
def fails(event, context):
    print("looking at", event.dedupe_key)
    context.log.warning("no title")
    return event.provider_payload["raw"]["title"]
"""


class DeliveriesTests(SharedServerCase):
    def test_explained(self) -> None:
        """A delivery is seen while it runs, and after it failed with all that its handler left; so is its fixture."""
        failing = trigger_text("bad", handler="handlers:fails", extra="[triggers.retry]\nmax = 1\n")
        self.write_manifest(held_trigger("gh"), failing)
        self.write_handlers(more=FAILS)
        server = self.serve()
        held = self.assert_accepted(server.deliver("/triggers/gh", b'{"action": "opened"}', delivery="h1"))
        self.wait_begun("h1")

        def running() -> list[str]:
            found = self.checked("deliveries", "--state", "running")["deliveries"]
            return [each["event_id"] for each in found]

        wait_until(lambda: running() == [held], "the running delivery")
        body = b'{"action": "opened", "token": "t0ken", "n": 7}'
        dead = self.assert_accepted(server.deliver("/triggers/bad", body, delivery="d1"), "bad")
        wait_until(lambda: self.checked("dlq", "--trigger", "bad")["total"] == 1, "the dead letter")
        listed = self.checked("deliveries", "--where", "event.dedupe_key == 'd1' && error_class == 'handler_error'")
        self.assertEqual(([each["event_id"] for each in listed["deliveries"]], listed["more"]), ([dead], False))
        found = self.checked("delivery", dead)
        (attempt,) = found["attempts"]
        self.assertIn("in fails", attempt["traceback"])
        self.assertEqual(attempt["log"], ["looking at d1", "no title"])
        self.assertEqual([each["what"] for each in found["timeline"]], ["received", "accepted", "attempt", "dead"])
        self.assertNotIn("t0ken", json.dumps(found))
        self.assertEqual(found["event"]["headers"]["x-hub-signature-256"], "[redacted]")
        self.release()
        wait_until(lambda: self.checked("delivery", held)["state"] == "done", "the end of what ran")

        self.assertEqual(self.orchestrator("export", dead, "event.json").status, 0)
        self.assertEqual(load_fixture(self.directory / "event.json").provider_payload["raw"]["n"], 7)
        again = self.checked("import", "event.json", "--trigger", "gh")
        self.assertEqual(again["trigger_id"], "gh")
        wait_until(lambda: self.checked("delivery", again["event_id"])["state"] == "done", "what was imported")
        for path, status in (
            ("deliveries/trigger_evt_0", 404),
            ("deliveries?state=lost", 400),
            ("deliveries?where=a(", 400),
        ):
            self.assert_problem(server.admin("GET", f"/admin/{path}"), status)
        twice = server.admin("GET", "/admin/deliveries?state=dead&state=done&limit=1000").json()["deliveries"]
        self.assertTrue({dead, held} <= {each["event_id"] for each in twice})
