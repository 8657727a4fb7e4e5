"""What Slack sends: signed by its own library, challenges, events, commands, interactions, retries."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from slack_sdk.signature import Clock as SlackClock
from slack_sdk.signature import SignatureVerifier
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import Events, Respond
from harn.connectors.providers.slack import SLACK
from harn.errors import PayloadInvalid, SignatureMismatch
from tests.connectors.declared import FORM, SECRET, deliver, only, seen
from tests.connectors.examples import NOW

COMMAND = {
    "token": "legacy",
    "team_id": "T0001",
    "channel_id": "C2147483705",
    "user_id": "U2147483697",
    "command": "/deploy",
    "text": "caf\u00e9 & co",
    "response_url": "https://hooks.slack.com/commands/1234/5678",
    "trigger_id": "13345224609.738474920.8088930838d88f008e0",
    "api_app_id": "A123456",
}
ACTIONS = {
    "type": "block_actions",
    "team": {"id": "T9TK3CUKW", "domain": "example"},
    "user": {"id": "UA8RXUSPL", "username": "jtorrance"},
    "channel": {"id": "CBR2V3XEX", "name": "review-updates"},
    "api_app_id": "AABA1ABCD",
    "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
    "response_url": "https://hooks.slack.com/actions/AABA1ABCD/1232321423432/D09sSasdasdAS9091209",
    "actions": [{"action_id": "WaXA", "type": "button", "value": "click_me_123"}],
}


def event_of(kind: str, **inner: Any) -> bytes:
    """Write a request of the Events API."""
    document = {
        "token": "legacy",
        "team_id": "T1",
        "api_app_id": "A1",
        "event": {"type": kind, **inner},
        "type": "event_callback",
        "event_id": "Ev08MFMKH6",
        "event_time": 1234567890,
    }
    return json.dumps(document).encode()


class AtNow(SlackClock):
    """Slack's clock, at the time of these tests."""

    def now(self) -> float:
        return NOW


class SignatureTests(SynchronousTestCase):
    """Slack's own library and harn's code agree."""

    def test_signed_by_their_library(self) -> None:
        """What Slack's library signs is accepted, and it accepts what harn signs."""
        theirs = SignatureVerifier(SECRET.decode(), AtNow())
        for body in (event_of("app_mention"), urlencode(COMMAND).encode(), b'{"type": "x", "t": "\xe2\x98\x83"}'):
            content_type = FORM if body.startswith(b"token") else "application/json"
            stamp = str(int(NOW))
            signature = theirs.generate_signature(timestamp=stamp, body=body)
            assert signature is not None
            headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
            only(deliver(SLACK, body, content_type, headers=headers))
            self.assertTrue(theirs.is_valid_request(body, SLACK.scheme.sign(SECRET, body, NOW)))
        with self.assertRaises(SignatureMismatch):
            deliver(SLACK, b"{}", headers=headers)


class HandshakeTests(SynchronousTestCase):
    def test_challenge(self) -> None:
        """The check of a request URL is answered with its challenge only, and makes no event."""
        body = b'{"token": "legacy", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P", '
        answer = deliver(SLACK, body + b'"type": "url_verification"}')
        expected = b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
        self.assertEqual(answer, Respond(status=200, body=expected, content_type="text/plain; charset=utf-8"))

    def test_no_challenge(self) -> None:
        """A check without a usable challenge is refused."""
        for challenge in ("", "x" * 257, 7, None):
            body = json.dumps({"type": "url_verification", "challenge": challenge}).encode()
            with self.assertRaises(PayloadInvalid):
                deliver(SLACK, body)

    def test_check_of_the_certificate(self) -> None:
        """The check of a command's certificate is answered, and makes no event."""
        answer = deliver(SLACK, b"ssl_check=1&token=legacy", FORM)
        self.assertEqual((answer.events, getattr(answer, "status", None)), ((), 200))


class EventTests(SynchronousTestCase):
    def test_kind(self) -> None:
        """The kind is the inner type; of a message with the channel's type, in the words of Slack's subscriptions."""
        for body, kind in (
            (event_of("app_mention"), "app_mention"),
            (event_of("message", channel_type="channel"), "message.channels"),
            (event_of("message", channel_type="group"), "message.groups"),
            (event_of("message", channel_type="im"), "message.im"),
            (event_of("message", channel_type="mpim"), "message.mpim"),
            (event_of("message"), "message"),
            (event_of("message", channel_type=7), "message"),
            (b'{"type": "app_rate_limited", "minute_rate_limited": 1518467820}', "app_rate_limited"),
        ):
            self.assertEqual(only(deliver(SLACK, body)).kind, kind)

    def test_fields(self) -> None:
        """A handler finds the fields of the event, the time it happened, and its identifier."""
        body = event_of("app_mention", user="U1", text="<@U0> hi", ts="1.5", channel="C1", event_ts="1.5")
        answer = deliver(SLACK, body)
        self.assertIsInstance(answer, Events)
        event = only(answer)
        self.assertEqual((event.dedupe_key, event.occurred_at), ("Ev08MFMKH6", "2009-02-13T23:31:30.000Z"))
        payload = seen(event, body)
        expected = {
            "event": "app_mention",
            "event_id": "Ev08MFMKH6",
            "api_app_id": "A1",
            "team_id": "T1",
            "channel_id": "C1",
            "user_id": "U1",
            "text": "<@U0> hi",
            "retry_num": None,
        }
        self.assertEqual({name: payload[name] for name in expected}, expected)
        self.assertEqual(payload["raw"], json.loads(body))

    def test_retry(self) -> None:
        """A retry has the key of the first delivery, and says that it is one."""
        more = {"X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"}
        body = event_of("app_mention")
        first, again = only(deliver(SLACK, body)), only(deliver(SLACK, body, more=more))
        self.assertEqual(first.dedupe_key, again.dedupe_key)
        self.assertEqual((again.payload["retry_num"], again.payload["retry_reason"]), ("1", "http_timeout"))

    def test_what_says_nothing(self) -> None:
        """A body without a type is refused."""
        for body, content_type in (
            (b"{}", "application/json"),
            (b'{"type": "event_callback"}', "application/json"),
            (b'{"type": "event_callback", "event": {"type": {}}}', "application/json"),
            (b"text=hello", FORM),
            (b"payload=%7B%7D", FORM),
            (b"payload=x", FORM),
            (b"[]", "application/json"),
        ):
            with self.assertRaises(PayloadInvalid):
                deliver(SLACK, body, content_type)


class FormTests(SynchronousTestCase):
    def test_command(self) -> None:
        """A slash command: its name is the kind, its fields are there, and the user is shown nothing of our answer."""
        body = urlencode(COMMAND).encode()
        answer = deliver(SLACK, body, FORM + "; charset=utf-8")
        event = only(answer)
        self.assertEqual((getattr(answer, "status", 0), getattr(answer, "body", None)), (200, b""))
        self.assertEqual((event.kind, event.dedupe_key), ("/deploy", COMMAND["trigger_id"]))
        payload = seen(event, body)
        self.assertEqual(payload["raw"], COMMAND)
        self.assertEqual((payload["text"], payload["channel_id"]), ("caf\u00e9 & co", "C2147483705"))

    def test_interaction(self) -> None:
        """An interaction: its type is the kind, its field ``payload`` the event."""
        body = urlencode({"payload": json.dumps(ACTIONS)}).encode()
        answer = deliver(SLACK, body, FORM)
        event = only(answer)
        self.assertEqual(getattr(answer, "body", None), b"")
        self.assertEqual((event.kind, event.dedupe_key), ("block_actions", ACTIONS["trigger_id"]))
        payload = seen(event, body)
        self.assertEqual(payload["raw"], ACTIONS)
        self.assertEqual((payload["user_id"], payload["channel_id"]), ("UA8RXUSPL", "CBR2V3XEX"))
        self.assertEqual(payload["actions"], ACTIONS["actions"])
