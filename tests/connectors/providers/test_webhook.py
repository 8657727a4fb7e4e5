"""What the requests of a generic webhook mean."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import NormalizedEvent
from harn.connectors.providers.webhook import WebhookPlugin, WebhookSettings
from harn.errors import MediaTypeUnsupported, PayloadInvalid, SignatureStale, StageFailed
from harn.testing.signers import standard_headers
from harn.wire import digest_bytes
from tests.connectors.examples import NOW, SECRET, binding, connector, request


class NormalizeTests(SynchronousTestCase):
    """Events of requests that were verified."""

    def normalize(self, body: bytes, settings: Any = None, **headers: str) -> NormalizedEvent:
        """Normalize; header names with ``_`` for ``-``."""
        made = connector(WebhookPlugin(), binding("webhook", settings, "webhook", SECRET))
        inbound = request(body, {name.replace("_", "-"): value for name, value in headers.items()})
        (event,) = made.normalize(inbound).events
        return event

    def test_kind(self) -> None:
        """``X-GitHub-Event``, else the body's ``type``, else its ``event``, else ``webhook``."""
        body = b'{"type": "invoice.paid", "event": "other"}'
        self.assertEqual(self.normalize(body, x_github_event="push").kind, "push")
        for text, kind in (
            (body, "invoice.paid"),
            (b'{"event": "order"}', "order"),
            (b'{"type": 3, "event": "order"}', "order"),
            (b'{"type": "' + b"x" * 257 + b'"}', "webhook"),
            (b"{}", "webhook"),
            (b"[1]", "webhook"),
            (b"plain", "webhook"),
            (b"", "webhook"),
        ):
            self.assertEqual(self.normalize(text).kind, kind)

    def test_body_format(self) -> None:
        """JSON is found without a content type; anything else is kept as bytes."""
        for body, body_format in (
            (b"{}", "json"),
            (b"[1, 2]", "json"),
            (b'"text"', "json"),
            (b"", "none"),
            (b"a=1", "bytes"),
            (b"\xff", "bytes"),
            (b'"\xff"', "bytes"),
            (b'{"a": NaN}', "bytes"),
            (b"\xef\xbb\xbf{}", "json"),
            (b'{"t": "\\ud83d"}', "json"),
            (b'{"a": 1e999}', "bytes"),
            (b"[" * 1_000_000, "bytes"),
            (b'{"a":' * 1_000_000, "bytes"),
        ):
            self.assertEqual(self.normalize(body, content_type="text/plain").body_format, body_format)

    def test_what_claims_to_be_json(self) -> None:
        """A body that says it is JSON and cannot be read is refused, never an event without its kind."""
        for content_type in ("application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"):
            for body in (b"a=1", b'{"a": NaN}', b"\x1f\x8b\x08", '{"a": 1}'.encode("utf-16"), b'{"a": 1e999}', b"{"):
                with self.assertRaises(PayloadInvalid):
                    self.normalize(body, content_type=content_type)
            self.assertEqual(self.normalize(b'{"type": "x", "t": "\\ud83d"}', content_type=content_type).kind, "x")
            self.assertEqual(self.normalize(b"", content_type=content_type).body_format, "none")
        with self.assertRaises(MediaTypeUnsupported):
            self.normalize(b"{}", content_type="application/json; charset=utf-16")
        self.assertEqual(self.normalize(b"\xff", content_type="text/plain; charset=latin-1").body_format, "bytes")

    def test_dedupe_key(self) -> None:
        """The sender's identifier where the scheme's senders put it, else the body's ``id``, else the digest."""
        for scheme, headers, body, expected in (
            ("standard", {"webhook_id": "m-1"}, b'{"id": "b-1"}', "m-1"),
            ("standard", {"svix_id": "m-2"}, b"{}", "m-2"),
            ("stripe", {}, b'{"id": "evt_1"}', "evt_1"),
            ("github", {"x_github_delivery": "d-1"}, b'{"id": "b-1"}', "d-1"),
            ("slack", {}, b'{"id": 17}', "17"),
            ("slack", {}, b'{"id": 1.5}', digest_bytes(b'{"id": 1.5}')),
            ("slack", {}, b'{"id": ""}', digest_bytes(b'{"id": ""}')),
            ("slack", {}, b"text", digest_bytes(b"text")),
        ):
            event = self.normalize(body, {"signature_scheme": scheme}, **headers)
            self.assertEqual(event.dedupe_key, expected)

    def test_unsigned_identifier_does_not_count(self) -> None:
        """Where a scheme signs no such header, whoever replays a request cannot make it look new with one."""
        for scheme in ("stripe", "slack"):
            event = self.normalize(b'{"id": "evt_1"}', {"signature_scheme": scheme}, webhook_id="new")
            self.assertEqual(event.dedupe_key, "evt_1")

    def test_payload(self) -> None:
        """The payload names the source, from the settings or the header, and the content type."""
        payload = self.normalize(b"{}", x_webhook_source="shop", content_type="text/x").payload
        self.assertEqual(payload, {"source": "shop", "content_type": "text/x"})
        self.assertEqual(self.normalize(b"{}", {"source": "mine"}, x_webhook_source="shop").payload["source"], "mine")

    def test_occurred_at(self) -> None:
        """A ``timestamp`` of the body is when it happened."""
        body = b'{"timestamp": "2022-11-03T20:26:10.344522Z"}'
        self.assertEqual(self.normalize(body).occurred_at, "2022-11-03T20:26:10.344Z")


class SettingsTests(SynchronousTestCase):
    """``[triggers.webhook]`` and what it changes."""

    def test_every_problem(self) -> None:
        """Wrong values and unknown keys are all reported, by key."""
        settings, problems = WebhookPlugin().schema.check(
            {"signature_scheme": "md5", "timestamp_tolerance_secs": -1, "sourze": "x"}
        )
        self.assertIsNone(settings)
        self.assertEqual(
            sorted(problem.key for problem in problems), ["signature_scheme", "sourze", "timestamp_tolerance_secs"]
        )

    def test_plain_values_and_struct_mean_the_same(self) -> None:
        """Settings come as the schema gave them or as plain JSON values; no table means the defaults."""
        settings, _ = WebhookPlugin().schema.check({"source": "shop"})
        self.assertEqual(WebhookSettings.of(settings), WebhookSettings.of({"source": "shop"}))
        self.assertEqual(WebhookSettings.of(None), WebhookSettings())

    def test_tolerance(self) -> None:
        """The window of the scheme is the configured one."""
        headers = standard_headers(SECRET, b"{}", int(NOW) - 10)
        for tolerance in (10, 9):
            made = connector(
                WebhookPlugin(), binding("webhook", {"timestamp_tolerance_secs": tolerance}, "webhook", SECRET)
            )
            if tolerance == 10:
                made.verify(request(b"{}", headers), NOW)
            else:
                with self.assertRaises(SignatureStale):
                    made.verify(request(b"{}", headers), NOW)

    def test_unusable_secret(self) -> None:
        """A secret that the scheme cannot use fails the reload, names the place and not the value."""
        bound = binding("webhook", {}, "webhook", SECRET, b"plain-text secret")
        error = self.assertRaises(StageFailed, connector, WebhookPlugin(), bound)
        self.assertEqual(error.stage, "prepare")
        self.assertIn("t1", str(error))
        self.assertIn("signing_secret (number 2 of 2)", str(error))
        self.assertIn("base64", str(error))
        self.assertNotIn("plain-text", str(error))
