"""The event as handlers, filters and predicates see it."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.model.event import VERIFIED, Envelope, TriggerEvent, decode_envelope, encode_envelope, parse_body

ENVELOPE = Envelope(
    id="trigger_evt_1",
    provider="github",
    kind="issues.opened",
    received_at="2026-01-02T03:04:05.678Z",
    occurred_at=None,
    dedupe_key="d-1",
    trace_id="trace_1",
    headers={"x-github-event": "issues"},
    signature_status=VERIFIED,
    payload={"event": "issues"},
    lifted={"action": ["action"], "number": ["issue", "number"]},
    body_format="json",
)
BODY = b'{"action": "opened", "issue": {"number": 7}}'


class TriggerEventTests(SynchronousTestCase):
    def test_fields_are_lifted_from_the_body(self) -> None:
        """The provider's fields come from the envelope and from the places it names in the parsed body."""
        payload = TriggerEvent(ENVELOPE, BODY).provider_payload
        self.assertEqual((payload["event"], payload["action"], payload["number"]), ("issues", "opened", 7))
        self.assertEqual(payload["raw"], {"action": "opened", "issue": {"number": 7}})

    def test_a_place_that_is_not_there_is_none(self) -> None:
        """A path through a value that is not an object gives None."""
        payload = TriggerEvent(ENVELOPE, b'{"issue": [1]}').provider_payload
        self.assertEqual((payload["action"], payload["number"]), (None, None))

    def test_to_dict_carries_the_bytes(self) -> None:
        """The JSON form has the body in base64, and no ``raw_body`` where there was none."""
        document = TriggerEvent(ENVELOPE, BODY).to_dict()
        self.assertEqual(base64.b64decode(document["raw_body"]), BODY)
        empty = TriggerEvent(replace(ENVELOPE, body_format="none"), b"").to_dict()
        self.assertNotIn("raw_body", empty)
        self.assertIsNone(empty["provider_payload"]["raw"])

    def test_envelope_round_trip(self) -> None:
        """What is stored reads back equal."""
        self.assertEqual(decode_envelope(encode_envelope(ENVELOPE)), ENVELOPE)


class ParseBodyTests(SynchronousTestCase):
    @given(st.sampled_from(("json", "form", "fields", "bytes")), st.binary(max_size=64))
    def test_any_bytes_give_a_value(self, body_format: str, body: bytes) -> None:
        """No body makes it raise; what is not JSON comes as base64, losing nothing."""
        value: Any = parse_body(body_format, body)
        if body_format == "fields" and isinstance(value, dict) and "raw_base64" not in value:
            self.assertTrue(all(isinstance(each, str) for each in value.values()))
        elif isinstance(value, dict) and "raw_base64" in value:
            self.assertEqual(base64.b64decode(value["raw_base64"]), body)
        else:
            self.assertNotEqual(body_format, "bytes")

    def test_form(self) -> None:
        """Of a form the field ``payload`` is parsed."""
        self.assertEqual(parse_body("form", b"payload=%7B%22a%22%3A1%7D&x=1"), {"a": 1})

    def test_fields(self) -> None:
        """Of any other form there is a dict of its fields, the first of each."""
        self.assertEqual(
            parse_body("fields", b"command=%2Fdeploy&text=&a=1&a=2"), {"command": "/deploy", "text": "", "a": "1"}
        )

    def test_as_senders_write_it(self) -> None:
        """What the edge takes of byte order marks and half surrogate pairs, a handler can read."""
        self.assertEqual(parse_body("json", b'\xef\xbb\xbf{"a": "\\ud83d"}'), {"a": "\ufffd"})
        self.assertEqual(parse_body("form", b"payload=%22%5Cud83d%22"), "\ufffd")

    def test_nesting_too_deep(self) -> None:
        """JSON that is nested too deep to build is kept as text."""
        body = b"[" * 100_000 + b"]" * 100_000
        self.assertEqual(parse_body("json", body)["raw_utf8"], body.decode())
