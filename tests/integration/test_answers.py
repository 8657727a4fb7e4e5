"""The answer to a request: by the handler, by the manifest, and of several triggers on one path."""

from __future__ import annotations

from tests.integration.case import SharedServerCase, trigger_text

MORE = """
from harn.handlers import Response


async def answer(event, context):
    raw = event.provider_payload["raw"]
    if raw.get("wait"):
        await held(event, context)
    return Response(201, {"number": raw["number"]}, {"X-Handled": context.binding})
"""


class AnswerTests(SharedServerCase):
    def test_answer_by_the_handler(self) -> None:
        """The event is kept, then the handler's response is the answer; after the time it is 202 and the usual one."""
        self.write_handlers(more=MORE)
        extra = 'respond = "handler"\nrespond_within = "1s"'
        self.write_manifest(trigger_text("gh", handler="handlers:answer", extra=extra))
        server = self.serve()
        answer = server.deliver("/triggers/gh", b'{"action": "opened", "number": 7}', delivery="d1")
        self.assertEqual((answer.status, answer.json()), (201, {"number": 7}))
        self.assertRegex(answer.headers["x-handled"], "^gh@v[0-9]+$")
        answer = server.deliver("/triggers/gh", b'{"action": "opened", "wait": true, "number": 8}', delivery="d2")
        self.assertEqual((answer.status, answer.json()["status"], answer.json()["trigger_id"]), (202, "accepted", "gh"))
        self.release()
        kinds = [record["kind"] for record in self.wait_records(server, "trigger.outbox", 2)]
        self.assertEqual(kinds.count("dispatch_succeeded"), 2)

    def test_shared_path(self) -> None:
        """One request is for every trigger of its path, each by its own rules; the answer lists them."""
        self.write_manifest(
            trigger_text("all", extra='path = "/in"', events=()),
            trigger_text("opened", extra='path = "/in"', events=("issues.opened",)),
            trigger_text("pushed", extra='path = "/in"', events=("push",)),
        )
        server = self.serve()
        answer = server.deliver("/in", b'{"action": "opened"}', delivery="d1").json()
        self.assertEqual((answer["status"], answer["ignored"], answer["duplicates"]), ("accepted", ["pushed"], []))
        self.assertEqual([each["trigger_id"] for each in answer["accepted"]], ["all", "opened"])
        ids = {record["headers"]["event_id"] for record in self.wait_records(server, "trigger.outbox", 2)}
        self.assertEqual(ids, {each["event_id"] for each in answer["accepted"]})
