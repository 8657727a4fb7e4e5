"""What Stripe sends: signed by its own library, snapshot events and thin events."""

from __future__ import annotations

import json

from stripe import SignatureVerificationError, Webhook, WebhookSignature
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import Events
from harn.connectors.providers.stripe import STRIPE
from harn.errors import PayloadInvalid, SignatureMismatch, SignatureStale
from tests.connectors.declared import SECRET, deliver, only, seen
from tests.connectors.examples import NOW

BODY = json.dumps(
    {
        "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
        "object": "event",
        "api_version": "2019-02-19",
        "created": 1686089970,
        "data": {"object": {"id": "seti_1", "object": "setup_intent"}, "previous_attributes": {"status": "new"}},
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": None, "idempotency_key": None},
        "type": "setup_intent.created",
    }
).encode()
THIN = b'{"id": "evt_test_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", '
THIN += b'"livemode": false, "created": "2024-09-10T16:46:22.000Z", "related_object": {"id": "mtr_1"}}'


class SignatureTests(SynchronousTestCase):
    """Stripe's own library and harn's code agree."""

    def test_their_library(self) -> None:
        """What Stripe's library signs is accepted, and it accepts what harn signs."""
        stamp = int(NOW)
        theirs = WebhookSignature._compute_signature(f"{stamp}.{BODY.decode()}", SECRET.decode())
        for header in (f"t={stamp},v1={theirs}", f"t={stamp},v1={'0' * 64},v1={theirs},v0=ab"):
            only(deliver(STRIPE, BODY, headers={"Stripe-Signature": header}))
        ours = STRIPE.scheme.sign(SECRET, BODY, NOW)["Stripe-Signature"]
        self.assertTrue(WebhookSignature.verify_header(BODY.decode(), ours, SECRET.decode(), tolerance=None))
        event = Webhook.construct_event(BODY, ours, SECRET.decode(), tolerance=10**12)
        self.assertEqual(event["id"], "evt_1NG8Du2eZvKYlo2CUI79vXWy")
        with self.assertRaises(SignatureVerificationError):
            WebhookSignature.verify_header(BODY.decode() + " ", ours, SECRET.decode(), tolerance=None)

    def test_refused(self) -> None:
        """Another body, and a time more than 300 s away, are refused."""
        with self.assertRaises(SignatureMismatch):
            deliver(STRIPE, BODY + b" ", headers=STRIPE.scheme.sign(SECRET, BODY, NOW))
        deliver(STRIPE, BODY, headers=STRIPE.scheme.sign(SECRET, BODY, NOW - 300))
        for moment in (NOW - 301, NOW + 301):
            with self.assertRaises(SignatureStale):
                deliver(STRIPE, BODY, headers=STRIPE.scheme.sign(SECRET, BODY, moment))


class EventTests(SynchronousTestCase):
    def test_event(self) -> None:
        """Kind, identifier and time are the event's own, and a handler finds the object that it is about."""
        answer = deliver(STRIPE, BODY)
        self.assertIsInstance(answer, Events)
        event = only(answer)
        self.assertEqual((event.kind, event.dedupe_key), ("setup_intent.created", "evt_1NG8Du2eZvKYlo2CUI79vXWy"))
        self.assertEqual(event.occurred_at, "2023-06-06T22:19:30.000Z")
        payload = seen(event, BODY)
        self.assertEqual((payload["event"], payload["livemode"]), ("setup_intent.created", False))
        self.assertEqual((payload["object"]["id"], payload["previous_attributes"]), ("seti_1", {"status": "new"}))
        self.assertIsNone(payload["account"])

    def test_thin_event(self) -> None:
        """A thin event names its subject, and has its time as text."""
        event = only(deliver(STRIPE, THIN))
        self.assertEqual((event.kind, event.occurred_at), (json.loads(THIN)["type"], "2024-09-10T16:46:22.000Z"))
        self.assertEqual(seen(event, THIN)["related_object"], {"id": "mtr_1"})

    def test_what_is_no_event(self) -> None:
        """A body without a type is refused; one without an identifier is known by its digest."""
        for body in (b"{}", b'{"type": 7}', b"[]", b"type=x", b""):
            with self.assertRaises(PayloadInvalid):
                deliver(STRIPE, body)
        self.assertTrue(only(deliver(STRIPE, b'{"type": "x"}')).dedupe_key.startswith("sha256:"))
