"""
Requests as the senders' own libraries and documentation sign them.

The vectors were made by twilio 9.13.0, svix 2.9.1, standardwebhooks 1.1.0, discord-interactions 0.4.0 (with PyNaCl
1.6.2), cloudevents 2.2.0 and @octokit/webhooks 14.2.0, or checked by @linear/sdk 98.0.0, @notionhq/client 5.26.0 and
sendgrid 6.12.5, whose tests have the one of SendGrid; Bitbucket's is from "Manage webhooks". Where a sender publishes
neither, the signature is computed here as its page says.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.gate import Gate
from harn.connectors.interfaces import ConnectorBinding, NormalizedEvent, Respond
from harn.connectors.providers.any_sender import BASIC, HMAC, TOKEN
from harn.connectors.providers.bitbucket import BITBUCKET
from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.gitea import FORGEJO, GITEA
from harn.connectors.providers.github import GITHUB
from harn.connectors.providers.gitlab import GITLAB
from harn.connectors.providers.linear import LINEAR
from harn.connectors.providers.notion import NOTION
from harn.connectors.providers.pagerduty import PAGERDUTY
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.sentry import SENTRY
from harn.connectors.providers.shopify import SHOPIFY
from harn.connectors.providers.standard import STANDARD
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.webhook import WebhookPlugin
from harn.connectors.providers.zendesk import ZENDESK
from harn.errors import CredentialsRejected, PayloadInvalid, SignatureMissing, SignatureStale
from harn.model.exchange import InboundRequest
from harn.reload.connections import RunningConnector
from tests.connectors.declared import FORM, only, seen
from tests.connectors.examples import NOW, connector, request

JSON = "application/json"
WEBHOOK = WebhookPlugin()
STANDARD_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = '{"type":"contact.created","data":{"name":"caf\u00e9"}}'.encode()
MESSAGE_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1700000000",
    "webhook-signature": "v1,mDe1JtpWJxXyvsBz8QLR3WVQeeh6zuOVnaAYJsvyjp4=",
}


class Sent:
    """One request to a trigger of a provider."""

    def __init__(self, plugin: Any, secret: bytes, settings: Any = None, name: str = "signing_secret") -> None:
        self.secrets = {name: (secret,)} if secret else {}
        bound = ConnectorBinding(
            trigger_id="t",
            provider=plugin.provider,
            kind="webhook",
            path="/x",
            events=(),
            settings=settings,
            secrets=self.secrets,
        )
        self.connector = connector(plugin, bound)

    def request(self, body: bytes, headers: Mapping[str, str], now: float = NOW, **more: str) -> Any:
        """Verify and normalize a request."""
        lower = {"content-type": JSON, **{name.lower(): value for name, value in headers.items()}}
        given = {"method": "POST", "path": "/x", "query": "", **more}
        inbound = InboundRequest(headers=lower, body=body, received_at=now, **given)
        self.connector.check_headers(inbound.headers)
        self.connector.verify(inbound, now)
        return self.connector.normalize(inbound)

    def event(self, body: bytes, headers: Mapping[str, str], now: float = NOW, **more: str) -> NormalizedEvent:
        """Return the one event of a request."""
        return only(self.request(body, headers, now, **more))


def hexed(key: bytes, signed: bytes) -> str:
    """Return an HMAC with SHA-256, hexadecimal."""
    return hmac.new(key, signed, "sha256").hexdigest()


class GithubTests(SynchronousTestCase):
    def test_their_library(self) -> None:
        """A signature that GitHub's library for JavaScript makes is accepted, and with no other body."""
        body = '{"action":"opened","issue":{"number":7,"title":"caf\u00e9"}}'.encode()
        signature = "sha256=9de483b9b6b8cdfeaef518a732c35782531b875e799cb6bfa3ed1a130fc21dc5"
        headers = {"X-Hub-Signature-256": signature, "X-GitHub-Event": "issues", "X-GitHub-Delivery": "d"}
        sent = Sent(GITHUB, b"It's a Secret to Everybody")
        self.assertEqual(sent.event(body, headers).kind, "issues.opened")
        self.assertRaises(CredentialsRejected, sent.event, body + b" ", headers)


class ShopifyTests(SynchronousTestCase):
    def test_topic(self) -> None:
        """The topic is the kind, the webhook's id the identity."""
        body = b'{"id": 1}'
        signature = base64.b64encode(hmac.digest(b"s", body, "sha256")).decode()
        headers = {"X-Shopify-Hmac-Sha256": signature, "X-Shopify-Topic": "orders/create", "X-Shopify-Webhook-Id": "w"}
        event = Sent(SHOPIFY, b"s").event(
            body, {**headers, "X-Shopify-Shop-Domain": "a", "X-Shopify-Triggered-At": "2023-03-29T18:00:27.877041743Z"}
        )
        self.assertEqual((event.kind, event.dedupe_key), ("orders/create", "w"))
        self.assertEqual(event.occurred_at, "2023-03-29T18:00:27.877Z")
        self.assertEqual(seen(event, body)["shop_domain"], "a")


class GitlabTests(SynchronousTestCase):
    BODY = b'{"object_kind": "merge_request", "object_attributes": {"action": "open"}, "user": {"id": 1}}'

    def test_token(self) -> None:
        """A token is compared, under either name of the secret; the action is a part of the kind."""
        for name in ("token", "signing_secret"):
            sent = Sent(GITLAB, b"s3cret", name=name)
            event = sent.event(self.BODY, {"X-Gitlab-Token": "s3cret", "Idempotency-Key": "k"})
            self.assertEqual((event.kind, event.dedupe_key), ("merge_request.open", "k"))
            for headers in ({"X-Gitlab-Token": "other"}, {}, {"X-Gitlab-Token": ""}):
                with self.assertRaises(CredentialsRejected):
                    sent.event(self.BODY, headers)

    def test_signed(self) -> None:
        """A signature is verified with the signing token; another body, or another time, is refused."""
        signed = b"u1.1700000000." + self.BODY
        digest = base64.b64encode(hmac.digest(base64.b64decode(STANDARD_SECRET[6:]), signed, "sha256")).decode()
        headers = {"webhook-id": "u1", "webhook-timestamp": "1700000000", "webhook-signature": f"v1,{digest}"}
        sent = Sent(GITLAB, STANDARD_SECRET)
        self.assertEqual(sent.event(self.BODY, headers).dedupe_key, "u1")
        for body, now in ((self.BODY + b" ", NOW), (self.BODY, NOW + 301)):
            with self.assertRaises(CredentialsRejected):
                sent.event(body, headers, now)

    def test_system_hook(self) -> None:
        """A system hook names its event otherwise."""
        event = Sent(GITLAB, b"s").event(b'{"event_name": "project_create"}', {"X-Gitlab-Token": "s"})
        self.assertEqual(event.kind, "project_create")


class ForgeTests(SynchronousTestCase):
    def test_forges(self) -> None:
        """Gitea and Forgejo sign in a header of their own name."""
        body = b'{"action": "opened", "issue": {"number": 7}}'
        for plugin, name in ((GITEA, "Gitea"), (FORGEJO, "Forgejo")):
            headers = {f"X-{name}-Signature": hexed(b"s", body), f"X-{name}-Event": "issues", f"X-{name}-Delivery": "d"}
            event = Sent(plugin, b"s").event(body, headers)
            self.assertEqual((event.kind, event.dedupe_key), ("issues.opened", "d"))
            self.assertEqual(seen(event, body)["issue"], {"number": 7})


class BitbucketTests(SynchronousTestCase):
    def test_their_vector(self) -> None:
        """The signature in their documentation is verified; its body is not an event."""
        headers = {"X-Hub-Signature": "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"}
        with self.assertRaises(PayloadInvalid):
            Sent(BITBUCKET, b"It's a Secret to Everybody").event(b"Hello World!", headers)

    def test_kind(self) -> None:
        """The event key is the kind."""
        body = b'{"push": {"changes": []}}'
        headers = {"X-Hub-Signature": "sha256=" + hexed(b"s", body), "X-Event-Key": "repo:push", "X-Request-UUID": "u"}
        event = Sent(BITBUCKET, b"s").event(body, headers)
        self.assertEqual((event.kind, event.dedupe_key), ("repo:push", "u"))


class LinearTests(SynchronousTestCase):
    def body(self, at: float) -> bytes:
        document = {"action": "update", "type": "IssueLabel", "webhookTimestamp": int(at * 1000), "data": {"id": "l"}}
        return json.dumps({**document, "updatedFrom": {"name": "old"}, "webhookId": "w"}).encode()

    def test_event(self) -> None:
        """Entity and action are the kind, the entity has its own name, and the delivery its header."""
        body = self.body(NOW)
        event = Sent(LINEAR, b"s").event(body, {"Linear-Signature": hexed(b"s", body), "Linear-Delivery": "d"})
        self.assertEqual((event.kind, event.dedupe_key), ("issue_label.update", "d"))
        self.assertNotEqual(Sent(LINEAR, b"s").event(body, {"Linear-Signature": hexed(b"s", body)}).dedupe_key, "w")
        payload = seen(event, body)
        self.assertEqual((payload["issue_label"], payload["updated_from"]), ({"id": "l"}, {"name": "old"}))

    def test_their_library(self) -> None:
        """A request that Linear's library accepts is accepted, and with no other body."""
        text = '{"action":"update","type":"IssueLabel","webhookTimestamp":1700000000000,"data":{"id":"l",'
        text += '"name":"caf\u00e9"}}'
        headers = {"Linear-Signature": "b4c225d8678f3e9563452e7c54401312fe54d5d286d7fed1ecf566c3102c5504"}
        sent = Sent(LINEAR, b"lin_wh_s3cret")
        self.assertEqual(sent.event(text.encode(), headers).kind, "issue_label.update")
        self.assertRaises(CredentialsRejected, sent.event, f"{text} ".encode(), headers)

    def test_time(self) -> None:
        """A signed body that is older than 75 s, or has no time, is refused."""
        sent = Sent(LINEAR, b"s")
        for body in (self.body(NOW - 76), self.body(NOW + 76), b'{"action": "a", "type": "b"}', self.body(-1e12)):
            with self.assertRaises(SignatureStale):
                sent.event(body, {"Linear-Signature": hexed(b"s", body)})
        body = self.body(NOW - 75)
        sent.event(body, {"Linear-Signature": hexed(b"s", body)})


class NotionTests(SynchronousTestCase):
    HANDSHAKE = b'{"verification_token": "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}'
    BODY = b'{"id": "e1", "type": "page.created", "entity": {"id": "p", "type": "page"}, "timestamp": "x"}'

    def test_handshake_while_there_is_no_secret(self) -> None:
        """Without a secret the handshake is answered and captured, and nothing else is accepted."""
        sent = Sent(NOTION, b"")
        answer = sent.request(self.HANDSHAKE, {})
        assert isinstance(answer, Respond)
        self.assertEqual((answer.status, answer.events), (200, ()))
        self.assertEqual(answer.captured, "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl")
        self.assertNotIn("secret_tMr", repr(answer))
        for body in (self.BODY, b"{}", b'{"verification_token": 7}', b'{"verification_token": "a", "type": "b"}'):
            with self.assertRaises(SignatureMissing):
                sent.request(body, {"X-Notion-Signature": "sha256=" + hexed(b"", body)})

    def test_handshake_once_there_is_a_secret(self) -> None:
        """With a secret a handshake is refused, also one that is signed: none is expected."""
        with self.assertRaises(SignatureMissing):
            Sent(NOTION, b"s").request(self.HANDSHAKE, {})
        with self.assertRaises(PayloadInvalid):
            Sent(NOTION, b"s").request(self.HANDSHAKE, {"X-Notion-Signature": "sha256=" + hexed(b"s", self.HANDSHAKE)})

    def test_their_library(self) -> None:
        """A request that Notion's library accepts is accepted, and with no other body."""
        text = '{"id":"e1","type":"page.created","entity":{"id":"p","type":"page"},'
        text += '"timestamp":"2024-12-05T23:55:34.285Z"}'
        signature = "sha256=2625d73ffe2664a30f412204e6fd7c9df3169abc93ceb32f0d0b46c09e25291e"
        sent = Sent(NOTION, b"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl")
        self.assertEqual(sent.event(text.encode(), {"X-Notion-Signature": signature}).kind, "page.created")
        self.assertRaises(CredentialsRejected, sent.event, f"{text} ".encode(), {"X-Notion-Signature": signature})

    def test_event(self) -> None:
        """An event is signed with the token."""
        for name in ("signing_secret", "verification_token"):
            headers = {"X-Notion-Signature": "sha256=" + hexed(b"tok", self.BODY)}
            event = Sent(NOTION, b"tok", name=name).event(self.BODY, headers)
            self.assertEqual((event.kind, event.dedupe_key), ("page.created", "e1"))
            self.assertEqual(seen(event, self.BODY)["entity_type"], "page")


class TwilioTests(SynchronousTestCase):
    CALL = {
        "CallSid": "CA1234567890ABCDE",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
        "Caller": "+14158675309",
    }
    SMS = {
        "MessageSid": "SM1f0e8a",
        "SmsStatus": "received",
        "From": "+15551230001",
        "To": "+15551230002",
        "Body": "caf\u00e9 & co \u2603",
        "NumMedia": "0",
    }

    def test_their_example(self) -> None:
        """The example of their documentation, by the configured URL; with SHA-256, too."""
        sent = Sent(TWILIO, b"12345", {"url": "https://mycompany.com/myapp.php"})
        body = urlencode(self.CALL).encode()
        sha256 = {"X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
        for headers in (
            {"X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
            {"X-Twilio-Signature": "033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s=", **sha256},
        ):
            answer = sent.request(body, {"Content-Type": FORM, **headers}, query="foo=1&bar=2")
            self.assertEqual((answer.status, answer.body), (200, b"<Response/>"))
            self.assertEqual(only(answer).kind, "webhook")
            with self.assertRaises(CredentialsRejected):
                sent.request(body, {"Content-Type": FORM, **headers}, query="foo=1&bar=3")

    def test_message(self) -> None:
        """A message, by the URL made of the host: its status is the kind, its token the identity."""
        headers = {
            "X-Twilio-Signature": "qhevexvSBi2Yjd+qiaGbPp8ZbNs=",
            "Content-Type": FORM,
            "Host": "example.com:443",
            "I-Twilio-Idempotency-Token": "i1",
        }
        body = urlencode(self.SMS).encode()
        event = Sent(TWILIO, b"12345").event(body, headers, path="/hooks/twilio")
        self.assertEqual((event.kind, event.dedupe_key), ("message.received", "i1"))
        self.assertEqual(seen(event, body)["Body"], self.SMS["Body"])

    def test_json(self) -> None:
        """Of another body the URL has the digest, and the URL is signed."""
        digest = "bodySHA256=112b945e40eeacff34b663124e122c3772e8ac2de972171763421e3ece4fb01c"
        body = b'{"type":"com.twilio.messaging.message.delivered","id":"EZ1"}'
        headers = {"X-Twilio-Signature": "LVnVKFWmIE2JS1I+KS0/TEOdFoE=", "Host": "example.com"}
        sent = Sent(TWILIO, b"12345")
        event = sent.event(body, headers, path="/hooks/twilio", query=digest)
        self.assertEqual(event.kind, "com.twilio.messaging.message.delivered")
        for altered, query in ((body + b" ", digest), (body, ""), (body, digest + "0"), (body, f"{digest}&{digest}")):
            with self.assertRaises(CredentialsRejected):
                sent.event(altered, headers, path="/hooks/twilio", query=query)


class SendgridTests(SynchronousTestCase):
    KEY = (
        b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglS"
    )
    KEY += b"I8eNEc6wEA3F+g=="
    BODY = (
        b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","sg_event_id":'
        b'"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-'
        b'p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>",'
        b'"timestamp":1600112492}]\r\n'
    )
    HEADERS = {
        "X-Twilio-Email-Event-Webhook-Signature": "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0J"
        "uG+luQAbPIqHh89M15TluLtEZtM=",
        "X-Twilio-Email-Event-Webhook-Timestamp": "1600112502",
    }

    def test_their_vector(self) -> None:
        """The request of their library's tests, for a day; each element is an event with its own body."""
        sent = Sent(SENDGRID, self.KEY)
        event = sent.event(self.BODY, self.HEADERS, 1600112502.0 + 86400)
        self.assertEqual((event.kind, event.dedupe_key[:8]), ("dropped", "ZHJvcC0x"))
        assert event.body is not None
        self.assertEqual(seen(event, event.body)["reason"], "Bounced Address")
        for body, now in ((self.BODY + b" ", 1600112502.0), (self.BODY, NOW)):
            with self.assertRaises(CredentialsRejected):
                sent.event(body, self.HEADERS, now)

    def test_key_with_the_lines_of_pem(self) -> None:
        """The key may have the lines of PEM around it."""
        pem = b"-----BEGIN PUBLIC KEY-----\n" + self.KEY + b"\n-----END PUBLIC KEY-----\n"
        Sent(SENDGRID, pem).event(self.BODY, self.HEADERS, 1600112502.0)


class DiscordTests(SynchronousTestCase):
    KEY = b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    BODY = b'{"id":"846462639134605312","type":2,"data":{"name":"blep"}}'
    SIGNATURE = (
        "8e2b39fd42743f5d5c4e5a09e9fb1c36b319b792ffc0cdce031648f892bca8577059a94d26fad7e4e8135f8f44e49a500e0877da"
    )
    SIGNATURE += "833cacc9b5b2e18e217c2002"

    def normalized(self, document: dict[str, Any]) -> Any:
        body = json.dumps(document).encode()
        headers = {"content-type": JSON}
        inbound = InboundRequest(method="POST", path="/", query="", headers=headers, body=body, received_at=NOW)
        return Sent(DISCORD, self.KEY).connector.normalize(inbound)

    def test_their_library(self) -> None:
        """A command that their library accepts is accepted, and shown as thinking."""
        headers = {"X-Signature-Ed25519": self.SIGNATURE, "X-Signature-Timestamp": "1700000000"}
        sent = Sent(DISCORD, self.KEY)
        answer = sent.request(self.BODY, headers)
        self.assertEqual((answer.body, only(answer).kind), (b'{"type":5}', "application_command.blep"))
        for body, more in ((self.BODY + b" ", {}), (self.BODY, {"X-Signature-Timestamp": "1700000001"})):
            with self.assertRaises(CredentialsRejected):
                sent.request(body, {**headers, **more})

    def test_ping(self) -> None:
        """A PING is answered with a PONG, that of webhook events with nothing; neither is an event."""
        answer = self.normalized({"type": 1, "id": "1"})
        self.assertEqual((answer.status, answer.body, answer.events), (200, b'{"type":1}', ()))
        answer = self.normalized({"type": 0, "version": 1})
        self.assertEqual((answer.status, answer.body, answer.events), (204, b"", ()))

    def test_kinds(self) -> None:
        """Every interaction has its kind and its first answer; so have webhook events."""
        for document, kind, body in (
            ({"type": 3, "id": "1", "data": {"custom_id": "c"}}, "message_component", b'{"type":6}'),
            ({"type": 4, "id": "1", "data": {"name": "n"}}, "application_command_autocomplete.n", None),
            ({"type": 5, "id": "1"}, "modal_submit", b'{"type":5}'),
            ({"type": 1, "event": {"type": "APPLICATION_AUTHORIZED"}}, "application_authorized", b""),
        ):
            answer = self.normalized(document)
            self.assertEqual(only(answer).kind, kind)
            self.assertIn(body, (None, answer.body))
        strange: tuple[dict[str, Any], ...]
        strange = ({"type": 9}, {"type": True}, {"type": "2"}, {}, {"type": 1, "event": {}})
        for document in strange:
            with self.assertRaises(PayloadInvalid):
                self.normalized(document)


class SentryTests(SynchronousTestCase):
    def test_kind(self) -> None:
        """Resource and action are the kind."""
        body = b'{"action": "created", "data": {"issue": {"id": "1"}}}'
        headers = {"Sentry-Hook-Signature": hexed(b"s", body), "Sentry-Hook-Resource": "issue", "Request-ID": "r"}
        event = Sent(SENTRY, b"s").event(body, headers)
        self.assertEqual((event.kind, event.dedupe_key), ("issue.created", "r"))
        self.assertEqual(seen(event, body)["issue"], {"id": "1"})


class PagerdutyTests(SynchronousTestCase):
    def test_several_signatures(self) -> None:
        """One of several signatures is enough, with white space between them or not; others do not count."""
        body = b'{"event": {"id": "e", "event_type": "incident.triggered", "occurred_at": "2020-10-02T18:45:22.169Z"}}'
        other, right = "v1=" + "0" * 64, "v1=" + hexed(b"s", body)
        sent = Sent(PAGERDUTY, b"s")
        for given in (f"{other},{right}", f"{right}, {other}", right):
            event = sent.event(body, {"X-PagerDuty-Signature": given})
            self.assertEqual((event.kind, event.dedupe_key), ("incident.triggered", "e"))
        for given in (other, right.removeprefix("v1="), f"v2={right[3:]}", f"{right}{right}"):
            with self.assertRaises(CredentialsRejected):
                sent.event(body, {"X-PagerDuty-Signature": given})


class ZendeskTests(SynchronousTestCase):
    SECRET = b"dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ=="

    def headers(self, body: bytes, stamp: str) -> dict[str, str]:
        digest = hmac.digest(self.SECRET, stamp.encode() + body, "sha256")
        name = "X-Zendesk-Webhook-Signature"
        return {name: base64.b64encode(digest).decode(), f"{name}-Timestamp": stamp}

    def test_kinds(self) -> None:
        """An event has its type without the prefix; the body of a trigger may be anything."""
        sent = Sent(ZENDESK, self.SECRET)
        for body, kind in (
            (b'{"type": "zen:event-type:ticket.created", "id": "1"}', "ticket.created"),
            (b"<ticket/>", "webhook"),
            (b"", "webhook"),
        ):
            headers = {**self.headers(body, "2023-11-14T22:13:20Z"), "X-Zendesk-Webhook-Invocation-Id": "i"}
            event = sent.event(body, {**headers, "Content-Type": "text/plain"})
            self.assertEqual((event.kind, event.dedupe_key), (kind, "i"))

    def test_time(self) -> None:
        """A time that is malformed, or outside the window, is refused although it is signed."""
        for stamp in ("2023-11-14T22:18:21Z", "1700000000", "2023-11-14", "0001-01-01T00:00:00Z", "\u0661"):
            with self.assertRaises(SignatureStale):
                Sent(ZENDESK, self.SECRET).event(b"{}", self.headers(b"{}", stamp))


class CloudeventsTests(SynchronousTestCase):
    EVENT = {"specversion": "1.0", "id": "A234-1234", "source": "/orders", "type": "com.example.order.created"}
    BEARER = {"Authorization": "Bearer t0k"}
    EXPECTED = ("com.example.order.created", "/orders A234-1234", "2018-04-05T17:31:00.000Z")

    def sent(self) -> Sent:
        return Sent(CLOUDEVENTS, b"t0k", name="token")

    def test_structured(self) -> None:
        """In structured mode, as their library writes it."""
        body = (
            b'{"specversion": "1.0", "id": "A234-1234", "source": "/orders", "type": "com.example.order.created",'
            b' "subject": "caf\\u00e9 1", "time": "2018-04-05T17:31:00Z", "data": {"order": 7}, "comexampleext": "v"}'
        )
        event = self.sent().event(body, {"content-type": "application/cloudevents+json", **self.BEARER})
        self.assertEqual((event.kind, event.dedupe_key, event.occurred_at), self.EXPECTED)
        payload = seen(event, body)
        self.assertEqual((payload["subject"], payload["data"]), ("caf\u00e9 1", {"order": 7}))

    def test_binary(self) -> None:
        """In binary mode the attributes are headers, percent-encoded, and the body is the data, ``type`` and all."""
        headers = {f"ce-{name}": value for name, value in self.EVENT.items()}
        headers |= {"ce-time": "2018-04-05T17:31:00Z", "ce-subject": "caf%C3%A9%201", "ce-comexampleext": "v"}
        body = b'{"order": 7, "type": "other"}'
        event = self.sent().event(body, {**headers, **self.BEARER})
        self.assertEqual((event.kind, event.dedupe_key, event.occurred_at), self.EXPECTED)
        payload = seen(event, body)
        self.assertEqual((payload["subject"], payload["comexampleext"]), ("caf\u00e9 1", "v"))
        self.assertEqual(payload["data"], {"order": 7, "type": "other"})

    def test_long_identity(self) -> None:
        """Events of a long source are told apart by their ids, although their data is the same."""
        source = "/" + "s" * 300
        headers = {f"ce-{name}": value for name, value in self.EVENT.items()} | {"ce-source": source, **self.BEARER}
        keys = {self.sent().event(b"{}", {**headers, "ce-id": f"{number}"}).dedupe_key for number in (1, 2, 1)}
        self.assertEqual(len(keys), 2)

    def test_batch(self) -> None:
        """Each event of a batch is one, and a batch may be empty."""
        headers = {"content-type": "application/cloudevents-batch+json", **self.BEARER}
        batch = [dict(self.EVENT, id=str(number)) for number in range(3)]
        events = self.sent().request(json.dumps(batch).encode(), headers).events
        self.assertEqual([event.dedupe_key for event in events], ["/orders 0", "/orders 1", "/orders 2"])
        self.assertEqual(self.sent().request(b"[]", headers).events, ())

    def test_refused(self) -> None:
        """Without the token, or without an attribute that every event has, it is refused, in each mode."""
        with self.assertRaises(CredentialsRejected):
            self.sent().event(b"{}", {"Authorization": "Bearer other"})
        for name in self.EVENT:
            for value in (None, "", 7):
                event = {**self.EVENT, name: value}
                for body, kind in (
                    (event, "application/cloudevents+json"),
                    ([event], "application/cloudevents-batch+json"),
                ):
                    with self.assertRaisesRegex(PayloadInvalid, f"missing: {name}"):
                        self.sent().request(json.dumps(body).encode(), {"content-type": kind, **self.BEARER})
            headers = {f"ce-{other}": value for other, value in self.EVENT.items() if other != name}
            with self.assertRaisesRegex(PayloadInvalid, f"missing: {name}"):
                self.sent().event(b"{}", {**headers, **self.BEARER})


class CredentialTests(SynchronousTestCase):
    def test_not_stored(self) -> None:
        """Each provider that is sent the secret itself names its header, which is not stored."""
        for plugin, settings, names in (
            (TOKEN, {"header": "X-Acme"}, ("x-acme",)),
            (TOKEN, {}, ("authorization",)),
            (TOKEN, {"query": "t"}, ()),
            (GITLAB, None, ("x-gitlab-token",)),
            (CLOUDEVENTS, None, ("authorization",)),
            (STANDARD, None, ()),
        ):
            sent = Sent(plugin, STANDARD_SECRET, settings, name=(plugin.required_secrets or ("signing_secret",))[0])
            running = RunningConnector.of("t", sent.connector, Gate(), "public")
            self.assertEqual(running.credential_headers, names)
        self.assertEqual(BASIC.declared({}).scheme.credential_headers, ("authorization",))

    def test_not_ascii(self) -> None:
        """A token of other letters may be sent in UTF-8 or in Latin-1; as harn sends it, it is accepted."""
        for token, sent in (("t\u00f6k", "t\u00f6k"), ("t\u00f6k", "t\u00c3\u00b6k"), ("\u4e16", "\u00e4\u00b8\u0096")):
            connected = Sent(TOKEN, token.encode(), {}, name="token")
            self.assertEqual(connected.event(b"{}", {"Authorization": f"Bearer {sent}"}).kind, "webhook")
            made = connected.connector.prove(request(b"{}", {}), NOW)
            self.assertEqual(connected.event(b"{}", made.headers).kind, "webhook")

    def test_any_kind(self) -> None:
        """A body of an unknown sender may have anything under the usual names of a kind."""
        for document, kind in (
            ({"type": 5, "event": "push"}, "push"),
            ({"event": {"name": "x"}}, "webhook"),
            ({"type": "", "event": None}, "webhook"),
            ({"type": "x" * 300}, "webhook"),
            ([1], "webhook"),
        ):
            body = json.dumps(document).encode()
            event = Sent(TOKEN, b"t0k", {}, name="token").event(body, {"Authorization": "t0k"})
            self.assertEqual(event.kind, kind)

    def test_any_form(self) -> None:
        """A form of any sender may have a field ``payload`` that is plain text."""
        body, headers = b"type=ping&payload=hello", {"Authorization": "t0k", "Content-Type": FORM}
        event = Sent(TOKEN, b"t0k", {}, name="token").event(body, headers)
        self.assertEqual((event.kind, seen(event, body)["raw"]), ("ping", {"type": "ping", "payload": "hello"}))
        with self.assertRaises(PayloadInvalid):
            Sent(TOKEN, b"t0k", {}, name="token").event(b"{}", headers)


class StandardTests(SynchronousTestCase):
    def test_their_libraries(self) -> None:
        """What svix and standardwebhooks sign, under either's names."""
        svix = {name.replace("webhook", "svix"): value for name, value in MESSAGE_HEADERS.items()}
        for headers in (MESSAGE_HEADERS, svix):
            event = Sent(STANDARD, STANDARD_SECRET).event(MESSAGE, headers)
            self.assertEqual((event.kind, event.dedupe_key), ("contact.created", "msg_p5jXN8AQM9LWM0D4loKWxJek"))
            self.assertEqual(seen(event, MESSAGE)["data"], {"name": "caf\u00e9"})

    def test_identifier_is_signed(self) -> None:
        """A captured request does not look new by an identifier of the other family, which is not signed."""
        svix = {name.replace("webhook", "svix"): value for name, value in MESSAGE_HEADERS.items()}
        for plugin in (STANDARD, WEBHOOK):
            for headers, name in ((svix, "webhook-id"), (MESSAGE_HEADERS, "svix-id")):
                event = Sent(plugin, STANDARD_SECRET).event(MESSAGE, {**headers, name: "another"})
                self.assertEqual(event.dedupe_key, "msg_p5jXN8AQM9LWM0D4loKWxJek")


class HmacTests(SynchronousTestCase):
    """The schemes of senders without a provider, said in a table."""

    LISTED: Mapping[str, Any] = {"header": "X", "signed": "{timestamp}{body}", "timestamp_entry": "t"}

    def test_hubspot(self) -> None:
        """HubSpot, "Validating requests", version 3: method, URL, body and milliseconds, base64."""
        settings = {
            "header": "X-HubSpot-Signature-v3",
            "signed": "{method}{url}{body}{timestamp}",
            "encoding": "base64",
            "timestamp_header": "X-HubSpot-Request-Timestamp",
            "timestamp_format": "milliseconds",
            "kind": "body:subscriptionType",
        }
        body, stamp = b'{"subscriptionType": "contact.creation"}', str(int(NOW * 1000))
        signed = b"POSThttps://example.com/x?a=1" + body + stamp.encode()
        signature = base64.b64encode(hmac.digest(b"s", signed, "sha256")).decode()
        headers = {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": stamp, "Host": "example.com"}
        sent = Sent(HMAC, b"s", settings)
        self.assertEqual(sent.event(body, headers, query="a=1").kind, "contact.creation")
        for query, now in (("a=2", NOW), ("a=1", NOW + 301)):
            with self.assertRaises(CredentialsRejected):
                sent.event(body, headers, now, query=query)

    def test_entries_and_keys(self) -> None:
        """A list as Stripe's, with a key in hexadecimal and digits in capitals; a kind for all, an id in a header."""
        settings = {
            "header": "Paddle-Signature",
            "signed": "{timestamp}:{body}",
            "timestamp_entry": "ts",
            "signature_entry": "h1",
            "key_encoding": "hex",
            "kind": "sale",
            "id": "header:X-Id",
        }
        signature = hexed(b"\x00\xff", b"1700000000:{}").upper()
        event = Sent(HMAC, b"00ff", settings).event(
            b"{}", {"Paddle-Signature": f"ts=1700000000,h1={signature}", "X-Id": "7"}
        )
        self.assertEqual((event.kind, event.dedupe_key), ("sale", "7"))

    def test_signed_header(self) -> None:
        """A header that is signed must be there, as it was."""
        sent = Sent(HMAC, b"s", {"header": "X-Sig", "signed": "{header:X-Topic}.{body}", "prefix": "sha256="})
        headers = {"X-Sig": "sha256=" + hexed(b"s", b"a.{}")}
        self.assertEqual(sent.event(b"{}", {**headers, "X-Topic": "a"}).kind, "webhook")
        for more in ({}, {"X-Topic": "b"}):
            with self.assertRaises(CredentialsRejected):
                sent.event(b"{}", {**headers, **more})

    def test_prefix_in_capitals(self) -> None:
        """Neither digits nor prefix need to be in small letters."""
        sent = Sent(HMAC, b"s", {"header": "X-Sig", "prefix": "HMAC-SHA256="})
        for given in ("HMAC-SHA256=" + hexed(b"s", b"{}"), "hmac-sha256=" + hexed(b"s", b"{}").upper()):
            self.assertEqual(sent.event(b"{}", {"X-Sig": given}).kind, "webhook")
        with self.assertRaises(CredentialsRejected):
            sent.event(b"{}", {"X-Sig": hexed(b"s", b"{}")})

    def test_settings(self) -> None:
        """What would verify nothing, or not what was meant, is refused when the manifest is read."""
        for settings, said in (
            ({"header": "X", "signed": "{timestamp}", "timestamp_header": "T"}, "must have {body}"),
            ({"header": "X", "signed": "{method}{url}"}, "must have {body}"),
            ({"header": "X", "signed": "{timestamp}{body}"}, "timestamp_header or timestamp_entry"),
            ({"header": "X", "timestamp_header": "T"}, "must have {timestamp}"),
            ({"header": "X", "signed": "{bdy}"}, "{bdy} is not a part"),
            ({"header": "X", "signed": "{body"}, "a brace stands alone"),
            ({"header": "X", "id": "X-Id"}, "header: or body:"),
            ({"header": "X", "id": "body:a..b"}, "header: or body:"),
            ({"header": "X", "kind": ""}, "must have from 1 to"),
            ({"header": "X", "kind": "body:"}, "names no place"),
            ({"header": "X", "kind": "header:X Y"}, "names no place"),
            ({"header": "X", "kind": "two words"}, "white space"),
            ({"header": "X", "kind": "issues.*"}, "must be one kind"),
            ({"header": "X", "signed": "{header:X Y}{body}"}, "is not a part"),
            ({"header": "X", "timestamp_tolerance_secs": 5}, "counts only where a time is signed"),
            ({"header": "X", "timestamp_format": "rfc3339"}, "counts only where a time is signed"),
            ({"header": "X", "signature_entry": "h1"}, "counts only with timestamp_entry"),
            ({**self.LISTED, "separator": ","}, "counts only without timestamp_entry"),
            ({**self.LISTED, "timestamp_entry": "v1"}, "must not be signature_entry"),
            ({**self.LISTED, "timestamp_entry": ""}, "must be a name of ASCII without = and ,"),
            ({**self.LISTED, "signature_entry": "a=b"}, ""),
            ({"header": "X", "prefix": "\u00fc"}, "must be at most 200 characters of ASCII"),
            ({"header": "X:Y"}, "must be the name of a header, got"),
            ({"header": "X Y"}, ""),
            ({}, ""),
        ):
            value, problems = HMAC.schema.check(settings)
            self.assertIsNone(value)
            self.assertIn(said, problems[0].message)

    def test_every_problem(self) -> None:
        """Problems of several keys are found together, each at its key."""
        wrong = {"header": "X", "signed": "{method}", "kind": "", "timestamp_header": "T", "timestamp_entry": "t"}
        keys = [problem.key for problem in HMAC.schema.check(wrong)[1]]
        self.assertEqual(keys, ["kind", "signed", "timestamp_entry", "signed"])
