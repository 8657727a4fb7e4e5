"""Posting messages to receivers on real sockets: what arrives, and every way in which it does not."""

from __future__ import annotations

import json
from typing import Any

from msgspec import structs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from harn.alerts.messages import AlertMessage, write_message
from harn.alerts.senders import AlertTarget, HttpSender, retry_after, shows_part_of, slack_body
from harn.connectors.signatures import StandardScheme
from harn.errors import AlertNotSent
from tests.alerts.examples import NOTICE as SAMPLE
from tests.alerts.examples import ORIGIN, rule
from tests.alerts.receivers import LOOP, HttpReceiver, TcpReceiver

NOTICE = structs.replace(SAMPLE, reason="retry_exhausted (handler_error): a <b> & c")
MESSAGE = write_message(rule("dead_letter"), NOTICE, ORIGIN)
KEY = b"0123456789abcdef"


class ClockedLoop:
    """The reactor, with another clock: for time-outs on real connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater, self.seconds = self.clock.callLater, self.clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(LOOP, name)


class PostingTests(TestCase):
    """`HttpSender` against receivers."""

    def receiver(self, *answers: Any, hangs: bool = False) -> HttpReceiver:
        """Return a receiver that is closed after the test."""
        found = HttpReceiver(*answers, hangs=hangs)
        self.addCleanup(found.close)
        return found

    def send(self, url: str, to: str = "slack", key: bytes | None = None, loop: Any = LOOP) -> Deferred[Any]:
        """Send the example."""
        sender = HttpSender(loop, Clock())
        return Deferred.fromCoroutine(
            sender.send(AlertTarget(to=to, shown="alerts/slack", address=url, key=key), MESSAGE)
        )

    async def refused(self, url: str, **more: Any) -> AlertNotSent:
        """Send the example, see that it fails, and give the error, which must show nothing of the URL's path."""
        error: AlertNotSent = await self.assertFailure(self.send(url, **more), AlertNotSent)
        for part in ("s3cr3tt0ken", "services"):
            self.assertNotIn(part, str(error))
        return error

    async def test_slack(self) -> None:
        """Slack gets its own form, with the characters that it reads as mark-up escaped."""
        receiver = self.receiver()
        await self.send(receiver.url)
        (request,) = receiver.received
        self.assertEqual((request.method, request.header("content-type")), (b"POST", "application/json"))
        body = json.loads(request.body)
        self.assertEqual(request.body, slack_body(MESSAGE))
        self.assertIn("a &lt;b&gt; &amp; c", body["text"])
        self.assertEqual(body["blocks"][0]["text"]["type"], "mrkdwn")
        self.assertIn("harn orchestrator delivery trigger_evt_1", body["blocks"][0]["text"]["text"])

    async def test_webhook(self) -> None:
        """Any other receiver gets the whole message as JSON."""
        receiver = self.receiver((204, {}, b""))
        await self.send(receiver.url, to="webhook")
        body = json.loads(receiver.received[0].body)
        found = tuple(body[name] for name in ("type", "on", "trigger_id", "count"))
        self.assertEqual(found, ("alert.firing", "dead_letter", "gh", 3))
        self.assertIsNone(receiver.received[0].headers.getRawHeaders("webhook-signature"))

    async def test_signed(self) -> None:
        """
        With a key it is signed as Standard Webhooks defines it, over the bytes that arrive; its id is the message's.
        """
        receiver = self.receiver()
        await self.send(receiver.url, to="webhook", key=KEY)
        (request,) = receiver.received
        headers = {f"webhook-{part}": request.header(f"webhook-{part}") for part in ("id", "timestamp", "signature")}
        self.assertEqual(headers["webhook-id"], "alert_1")
        StandardScheme().verify([KEY], headers, request.body, 0.0)

    async def test_asked_to_wait(self) -> None:
        """Slack's 429 says how long to wait."""
        receiver = self.receiver((429, {"Retry-After": "30"}, b"rate_limited"))
        error = await self.refused(receiver.url)
        self.assertEqual((str(error), error.retry_after), ("the receiver answered 429: rate_limited", 30.0))

    async def test_refused(self) -> None:
        """What the receiver answers is shown, unless it shows the URL; a redirect is not followed."""
        other = self.receiver()
        error = await self.refused(self.receiver((404, {}, b"no_service")).url)
        self.assertEqual((str(error), error.retry_after), ("the receiver answered 404: no_service", None))
        error = await self.refused(self.receiver((500, {}, b"no such path: /services/T0/B0/s3cr3tt0ken")).url)
        self.assertEqual(str(error), "the receiver answered 500")
        error = await self.refused(self.receiver((302, {"Location": other.url}, b"")).url)
        self.assertIn("a redirect, which is not followed", str(error))
        self.assertEqual(other.received, [])

    async def test_long_answer(self) -> None:
        """Of a long answer the beginning is read, whatever follows."""
        error = await self.refused(self.receiver((400, {}, b"x" * 1_000_000)).url)
        self.assertEqual(str(error), "the receiver answered 400: " + "x" * 100)

    async def test_down(self) -> None:
        """A port without a listener, or a connection that breaks, is reported."""
        gone = HttpReceiver()
        await gone.close()
        self.assertIn("Connection was refused", str(await self.refused(gone.url)))
        rude = TcpReceiver(closes=True)
        self.addCleanup(rude.close)
        error = await self.refused(f"http://127.0.0.1:{rude.port}/services/s3cr3tt0ken")
        self.assertIn("onnection", str(error))

    async def test_hangs(self) -> None:
        """A receiver that does not answer is given up after a time."""
        receiver, loop = self.receiver(hangs=True), ClockedLoop()
        sending = self.send(receiver.url, loop=loop)
        await receiver.arrived
        loop.clock.advance(15.0)
        error = await self.assertFailure(sending, AlertNotSent)
        self.assertEqual(str(error), "no answer within 15 s")

    async def test_cancelled(self) -> None:
        """At the server's end what hangs is cut off."""
        receiver = self.receiver(hangs=True)
        sending = self.send(receiver.url)
        await receiver.arrived
        sending.cancel()
        await self.assertFailure(sending, CancelledError)


class ValueTests(TestCase):
    def test_retry_after(self) -> None:
        """Seconds are taken, up to a limit; dates, which Slack does not send, are not."""
        self.assertEqual([retry_after(text) for text in ("3", " 60 ", "99999999")], [3.0, 60.0, 3600.0])
        self.assertEqual([retry_after(text) for text in ("", "-1", "Wed, 21 Oct 2026 07:28:00 GMT")], [None] * 3)

    def test_parts_of_a_url(self) -> None:
        """A text that shows a part of the URL is recognized."""
        url = "https://hooks.test/services/T0/B0/s3cr3tt0ken?key=abcdef123"
        self.assertTrue(shows_part_of("bad token s3cr3tt0ken", url))
        self.assertTrue(shows_part_of("key abcdef123", url))
        self.assertFalse(shows_part_of("invalid_payload", url))

    def test_nothing_shows_the_url(self) -> None:
        """The repr of a target shows neither URL nor key."""
        target = AlertTarget(to="slack", shown="alerts/slack", address="https://hooks.test/s3cr3t", key=KEY)
        self.assertNotIn("s3cr3t", repr(target))
        self.assertNotIn("0123", repr(target))

    def test_length(self) -> None:
        """A block of Slack's has 3000 characters at most."""
        long = AlertMessage(id="a", subject="s", lines=("x" * 10_000,), document=MESSAGE.document)
        self.assertLessEqual(len(json.loads(slack_body(long))["blocks"][0]["text"]["text"]), 3000)
