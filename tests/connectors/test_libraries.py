"""
Providers against the senders' own libraries, where they are installed (the extra ``test`` has them).

`tests.connectors.test_vectors` holds what these libraries made once, so that nothing goes untested without them.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from msgspec import structs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.standard import STANDARD
from harn.connectors.providers.twilio import TWILIO
from harn.testing.signers import ECDSA_PRIVATE, ECDSA_PUBLIC, ED25519_PRIVATE, ED25519_PUBLIC, STANDARD_SECRET
from tests.connectors.declared import seen
from tests.connectors.examples import NOW, request
from tests.connectors.test_vectors import Sent

BODIES = (b"{}", '{"type": "a.b", "n": "caf\u00e9 \u2603"}'.encode(), b'{"type":"x","data":{"n":[1,2.5,null]}}\n')


def library(name: str) -> Any:
    """Import a library, or skip the test."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise SkipTest(f"{name} is not installed") from None


class StandardWebhooksTests(SynchronousTestCase):
    def test_both_ways(self) -> None:
        """What the library signs is accepted, and it accepts what harn signs."""
        theirs = library("standardwebhooks").Webhook(STANDARD_SECRET.decode())
        at = datetime.fromtimestamp(NOW, tz=timezone.utc)
        for body in BODIES:
            signature = theirs.sign(msg_id="msg_1", timestamp=at, data=body.decode())
            headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(NOW)), "webhook-signature": signature}
            self.assertEqual(Sent(STANDARD, STANDARD_SECRET).event(body, headers).dedupe_key, "msg_1")
            now = datetime.now(tz=timezone.utc).timestamp()
            theirs.verify(body, STANDARD.scheme.sign(STANDARD.scheme.key(STANDARD_SECRET), body, now))


class SvixTests(SynchronousTestCase):
    def test_both_ways(self) -> None:
        """What the library signs is accepted under the names of Svix, and it accepts what harn signs."""
        theirs = library("svix.webhooks").Webhook(STANDARD_SECRET.decode())
        at = datetime.fromtimestamp(NOW, tz=timezone.utc)
        for body in BODIES:
            signature = theirs.sign("msg_1", at, body.decode())
            headers = {"svix-id": "msg_1", "svix-timestamp": str(int(NOW)), "svix-signature": signature}
            self.assertEqual(Sent(STANDARD, STANDARD_SECRET).event(body, headers).dedupe_key, "msg_1")
            now = datetime.now(tz=timezone.utc).timestamp()
            theirs.verify(body, STANDARD.scheme.sign(STANDARD.scheme.key(STANDARD_SECRET), body, now))


class TwilioTests(SynchronousTestCase):
    URL, FORM = "https://harn.example/x?a=b%20c", "application/x-www-form-urlencoded"

    def test_form(self) -> None:
        """A form that the library signs is accepted, and it accepts what harn signs."""
        theirs = library("twilio.request_validator").RequestValidator("s3cret")
        fields = {"MessageSid": "SM1", "SmsStatus": "received", "Body": "caf\u00e9 + & =", "Empty": ""}
        body = urlencode(fields).encode()
        headers = {"Host": "harn.example", "Content-Type": self.FORM}
        signature = theirs.compute_signature(self.URL, fields)
        sent = Sent(TWILIO, b"s3cret", {})
        answer = sent.request(body, {**headers, "X-Twilio-Signature": signature}, query="a=b%20c")
        self.assertEqual(answer.events[0].kind, "message.received")
        lower = {name.lower(): value for name, value in headers.items()}
        made = sent.connector.prove(structs.replace(request(body, lower), query="a=b%20c"), NOW)
        self.assertTrue(theirs.validate(self.URL, fields, made.headers["x-twilio-signature"]))

    def test_json(self) -> None:
        """The library accepts the digest of another body that harn signs."""
        theirs = library("twilio.request_validator").RequestValidator("s3cret")
        body = '{"type": "com.twilio.messaging.message.sent", "id": "x"}'
        given = request(body.encode(), {"host": "harn.example", "content-type": "application/json"})
        made = Sent(TWILIO, b"s3cret", {}).connector.prove(given, NOW)
        url = f"https://harn.example/x?{made.query}"
        self.assertTrue(theirs.validate(url, body, made.headers["x-twilio-signature"]))
        self.assertFalse(theirs.validate(url, body + " ", made.headers["x-twilio-signature"]))


class SendgridTests(SynchronousTestCase):
    def test_they_accept_what_harn_signs(self) -> None:
        """The library accepts a request that harn's signer makes, and refuses an altered one."""
        theirs = library("sendgrid.helpers.eventwebhook").EventWebhook(ECDSA_PUBLIC.decode())
        for body in BODIES:
            made = SENDGRID.scheme.sign(ECDSA_PRIVATE, body, NOW)
            signature, stamp = made[SENDGRID.scheme.header], made[SENDGRID.scheme.timestamp_header]
            self.assertTrue(theirs.verify_signature(body.decode(), signature, stamp))
            self.assertFalse(theirs.verify_signature(body.decode() + " ", signature, stamp))


class DiscordTests(SynchronousTestCase):
    def test_they_accept_what_harn_signs(self) -> None:
        """The library accepts a request that harn's signer makes, and refuses an altered one."""
        verify = library("discord_interactions").verify_key
        key = ED25519_PUBLIC.decode()
        for body in BODIES:
            made = DISCORD.scheme.sign(ED25519_PRIVATE, body, NOW)
            signature, stamp = made["X-Signature-Ed25519"], made["X-Signature-Timestamp"]
            self.assertTrue(verify(body, signature, stamp, key))
            self.assertFalse(verify(body + b" ", signature, stamp, key))


class CloudeventsTests(SynchronousTestCase):
    def test_both_modes(self) -> None:
        """An event that the library writes in either mode has its attributes and its data."""
        http, conversion = library("cloudevents.v1.http"), library("cloudevents.v1.conversion")
        attributes = {"type": "a.b", "source": "/s", "id": "7", "subject": "x y", "time": "2018-04-05T17:31:00Z"}
        given = http.CloudEvent(attributes, {"order": 7})
        for write in (conversion.to_structured, conversion.to_binary):
            headers, body = write(given)
            sent = Sent(CLOUDEVENTS, b"t0k", name="token")
            event = sent.event(body, {**headers, "Authorization": "Bearer t0k"})
            self.assertEqual((event.kind, event.dedupe_key), ("a.b", "/s 7"))
            payload = seen(event, body)
            self.assertEqual((payload["subject"], payload["data"]), ("x y", {"order": 7}), json.dumps(dict(headers)))
