"""Requests of each kind: the provider's own connector reads them as that kind."""

from __future__ import annotations

import time

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.catalog import Catalog
from harn.connectors.messages import Example
from harn.connectors.providers.any_sender import HMAC
from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.gitea import GITEA
from harn.connectors.providers.gitlab import GITLAB
from harn.connectors.providers.linear import LINEAR
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.slack import SLACK
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.zendesk import ZENDESK
from harn.model.exchange import InboundRequest
from harn.testing.events import normalized, polled, sample, tick
from harn.testing.renewal import renewed

KINDS = (
    (LINEAR, ("issue.update", "issue_label.create", "comment.remove")),
    (GITLAB, ("push", "issue.open", "merge_request.merge", "pipeline")),
    (ZENDESK, ("ticket.status_changed", "user.created")),
    (SENDGRID, ("bounce", "open")),
    (DISCORD, ("application_command.deploy", "message_component", "modal_submit", "application_authorized")),
    (
        SLACK,
        ("app_mention", "message.groups", "message.im", "/deploy", "block_actions", "view_submission", "team_join"),
    ),
    (GITEA, ("push", "issues.opened", "pull_request.closed")),
    (CLOUDEVENTS, ("com.example.order.paid",)),
    (TWILIO, ("message.delivered", "call.ringing", "com.twilio.messaging.message.sent")),
)


class KindTests(SynchronousTestCase):
    def test_any_kind(self) -> None:
        """A request of a kind is one of that kind, also with another identity."""
        for plugin, kinds in KINDS:
            for kind in kinds:
                found = renewed(plugin, sample(plugin, kind), "other-id")
                self.assertEqual(normalized(plugin, self.request(found)).kind, kind, plugin.provider)

    def test_another_identity(self) -> None:
        """For every sender, and each form of its body, a request that is renewed is another delivery."""
        plugins = Catalog.discover().plugins.values()
        cases = [(plugin, None) for plugin in plugins if not {"cron", "poll"} & {*plugin.kinds}]
        cases += [(SLACK, kind) for kind in ("message.im", "/deploy", "block_actions", "reaction_added")]
        for plugin, kind in cases:
            given = sample(plugin, kind)
            keys = {normalized(plugin, self.request(renewed(plugin, given, each))).dedupe_key for each in "ab"}
            self.assertEqual(len(keys), 2, (plugin.provider, kind))
        batch = msgspec.json.encode([{"event": "open", "sg_event_id": "1"}, {"event": "open", "sg_event_id": "1"}])
        first, second = msgspec.json.decode(renewed(SENDGRID, Example(body=batch), "a").body)
        self.assertNotEqual(first["sg_event_id"], second["sg_event_id"])
        kept = renewed(SENDGRID, Example(body=batch), "a", keeps_body=True)
        self.assertEqual(kept.body, batch)

    def test_places_of_the_manifest(self) -> None:
        """Where a table says where kind and identifier are, an example has them there, and so has a renewed one."""
        for kind, identity in (("body:alert.state", "header:X-Id"), ("header:X-Event", "body:alert.id"), ("one", None)):
            table = {"header": "X-Signature", "kind": kind, **({"id": identity} if identity else {})}
            found = [normalized(HMAC, self.request(sample(HMAC, settings=table)), table)]
            for each in "ab":
                again = renewed(HMAC, sample(HMAC, settings=table), each, table)
                found.append(normalized(HMAC, self.request(again), table))
            self.assertEqual({each.kind for each in found}, {"one" if kind == "one" else "example"})
            self.assertEqual([each.dedupe_key for each in found], ["1", "a", "b"])
        asked = sample(HMAC, "closed", settings={"header": "X-Signature", "kind": "body:alert.state"})
        self.assertEqual(msgspec.json.decode(asked.body)["alert"], {"state": "closed"})

    def request(self, found: Example) -> InboundRequest:
        """Return a request as connectors get it."""
        return InboundRequest(
            method="POST", path="/x", query="", headers=found.headers, body=found.body, received_at=time.time()
        )

    def test_ticks_and_polls(self) -> None:
        """Events of schedules and polls are as a handler gets them."""
        due = tick("30 * * * *", timezone="Europe/Berlin", is_late=True)
        self.assertEqual((due.kind, due.provider, due.provider_payload["raw"]["catchup"]), ("tick", "cron", True))
        self.assertIn(":30:00.000Z", due.provider_payload["tick_at"])
        self.assertEqual(tick(at=1_700_000_000.0).dedupe_key, "cron:test:1700000000")
        self.assertRaisesRegex(ValueError, "schedule", tick, "61 * * * *")
        found = polled({"order": 7}, "order.created")
        self.assertEqual((found.kind, found.provider_payload["order"]), ("order.created", 7))

    def test_no_such_kind(self) -> None:
        """Where a kind cannot be made, the error says what to give."""
        error = self.assertRaises(ValueError, sample, LINEAR, "issue")
        self.assertIn("give a body", str(error))
