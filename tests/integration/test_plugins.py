"""A third-party connector, found on the path without configuration, and its answers as senders read them."""

from __future__ import annotations

import json
from typing import Any

from harn.testing.server import Answer, ServerProcess
from tests.integration.case import ServerCase, trigger_text

PLUGIN = '''
import json

from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.interfaces import (
    PUBLIC, UNSIGNED, CredentialsRejected, Events, IConnectorPlugin, IReceiver, NormalizedEvent, PayloadInvalid,
    Reject, Respond,
)


@implementer(IReceiver)
class Batch:
    """Takes an array of events in one request, or does what the request says."""

    def __init__(self, context):
        pass

    def prepare(self):
        pass

    def activate(self):
        pass

    def quiesce(self):
        pass

    def close(self):
        pass

    def verify(self, inbound, now):
        if "x-deny" in inbound.headers:
            raise CredentialsRejected("denied")

    def normalize(self, inbound):
        document = json.loads(inbound.body)
        events = tuple(
            NormalizedEvent(kind=each["kind"], dedupe_key=each["key"], payload={}, signature_status=UNSIGNED)
            for each in document["events"]
        )
        does = document.get("does", "keep")
        if does == "respond":
            return Respond(status=202, body=b"challenge", content_type="text/plain", events=events)
        if does == "reject":
            return Reject(status=422, detail="not like this")
        if does == "refuse":
            raise PayloadInvalid("not in this format")
        if does == "fail":
            raise KeyError("a secret of the connector's")
        return Events(events)


@implementer(IPlugin, IConnectorPlugin)
class BatchPlugin:
    provider = "batch"
    kinds = ("webhook",)
    table = None
    schema = None
    required_secrets = ()
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context):
        return Batch(context)


batch = BatchPlugin()
'''


class PluginTests(ServerCase):
    """A third-party provider."""

    def setUp(self) -> None:
        """Install it, and start a server with one trigger of it."""
        super().setUp()
        self.write("site/harn/plugins/batching.py", PLUGIN)
        self.environ["PYTHONPATH"] += ":" + str(self.directory / "site")
        extra = 'dedupe_key = "event.dedupe_key"'
        self.write_manifest(trigger_text("gh", provider="batch", events=("good",), secret=None, extra=extra))
        self.server: ServerProcess = self.serve()

    def post(self, *events: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        """Post events, each written as ``kind:key``."""
        document = {"events": [dict(zip(("kind", "key"), each.split(":"), strict=True)) for each in events], **more}
        return self.server.request("POST", "/triggers/gh", json.dumps(document).encode(), headers or {})

    def test_several_events(self) -> None:
        """Several events in one request: the counts, and the ids of what was accepted."""
        self.assert_accepted(self.post("good:a"))
        answer = self.post("good:a", "good:b", "bad:c", "good:d")
        self.assertEqual(answer.status, 200, answer)
        document = answer.json()
        ids = document.pop("event_ids")
        expected = {"status": "accepted", "events_accepted": 2, "duplicates_dropped": 1, "ignored": 1}
        self.assertEqual(document, {**expected, "trigger_id": "gh"})
        self.assertEqual(len(set(ids)), 2)
        self.wait_handled("a", "b", "d")
        self.assertEqual(sorted(self.handled()), ["a", "b", "d"])

    def test_copies_in_one_request(self) -> None:
        """Two events of one key in one request: one is a duplicate of the other."""
        document = self.post("good:a", "good:a").json()
        self.assertEqual((document["events_accepted"], document["duplicates_dropped"]), (1, 1))

    def test_one_and_none(self) -> None:
        """One event is answered as one; none is ignored."""
        self.assert_accepted(self.post("good:a"))
        self.assertEqual(self.post("good:a").json(), {"status": "duplicate_dropped", "trigger_id": "gh"})
        self.assertEqual(self.post("bad:b").json(), {"status": "ignored", "trigger_id": "gh"})
        self.assertEqual(self.post().json(), {"status": "ignored", "trigger_id": "gh"})

    def test_answers_of_its_own(self) -> None:
        """It may answer itself, with events kept first; reject; refuse; and what it raises by mistake stays inside."""
        answer = self.post("good:a", does="respond")
        self.assertEqual((answer.status, answer.body), (202, b"challenge"))
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        self.wait_handled("a")
        self.assertIn("not like this", self.assert_problem(self.post(does="reject"), 422)["detail"])
        self.assertIn("not in this format", self.assert_problem(self.post(does="refuse"), 400)["detail"])
        self.assert_problem(self.post(headers={"X-Deny": "1"}), 401)
        self.assertNotIn("a secret", str(self.assert_problem(self.post(does="fail"), 500)))
        self.assert_accepted(self.post("good:b"))
