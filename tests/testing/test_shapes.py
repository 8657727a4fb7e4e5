"""Requests of each kind: the provider's own connector reads them as that kind."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.gitlab import GITLAB
from harn.connectors.providers.linear import LINEAR
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.zendesk import ZENDESK
from harn.model.exchange import InboundRequest
from harn.testing.events import normalized, polled, renewed, sample, tick

KINDS = (
    (LINEAR, ("issue.update", "issue_label.create", "comment.remove")),
    (GITLAB, ("push", "issue.open", "merge_request.merge", "pipeline")),
    (ZENDESK, ("ticket.status_changed", "user.created")),
    (SENDGRID, ("bounce", "open")),
    (DISCORD, ("application_command.deploy", "message_component", "modal_submit", "application_authorized")),
    (CLOUDEVENTS, ("com.example.order.paid",)),
    (TWILIO, ("message.delivered", "call.ringing", "com.twilio.messaging.message.sent")),
)


class KindTests(SynchronousTestCase):
    def test_any_kind(self) -> None:
        """A request of a kind is one of that kind, also with another identity."""
        for plugin, kinds in KINDS:
            for kind in kinds:
                found = renewed(plugin, sample(plugin, kind), "other-id")
                request = InboundRequest(
                    method="POST",
                    path="/x",
                    query="",
                    headers=found.headers,
                    body=found.body,
                    received_at=time.time(),
                )
                self.assertEqual(normalized(plugin, request).kind, kind, plugin.provider)

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
