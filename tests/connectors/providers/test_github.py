"""What the webhooks of GitHub mean."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import NormalizedEvent
from harn.connectors.providers.github import GITHUB
from harn.errors import MediaTypeUnsupported, PayloadInvalid, SignatureMismatch
from harn.testing.signers import github_headers
from harn.wire import digest_bytes
from tests.connectors.declared import seen
from tests.connectors.examples import NOW, SECRET, binding, connector, request


class GithubTests(SynchronousTestCase):
    """The connector, prepared."""

    def setUp(self) -> None:
        self.connector = connector(GITHUB, binding("github", None, "webhook", SECRET))

    def normalize(self, body: bytes, event: str = "issues", **changed: str) -> NormalizedEvent:
        """Verify and normalize a signed delivery whose headers are changed afterwards; give its event."""
        headers = {**github_headers(SECRET, body, event), **changed}
        inbound = request(body, {name.replace("_", "-"): value for name, value in headers.items()})
        self.connector.verify(inbound, NOW)
        (normalized,) = self.connector.normalize(inbound).events
        return normalized

    def test_kind(self) -> None:
        """The kind is the event with the body's action, if that is a string."""
        for body, event, kind in (
            (b'{"action": "opened"}', "issues", "issues.opened"),
            (b'{"zen": "Keep it logically awesome."}', "ping", "ping"),
            (b'{"action": null}', "push", "push"),
            (b'{"action": ""}', "push", "push"),
            (b'{"action": 7}', "push", "push"),
            (b'{"action": {"name": "opened"}}', "push", "push"),
            (b'{"action": "a", "action": "b"}', "issues", "issues.b"),
            (b'{"\\u0061ction": "op\\u0065ned"}', "issues", "issues.opened"),
            (b'{"nested": {"action": "deep"}}', "push", "push"),
        ):
            self.assertEqual(self.normalize(body, event).kind, kind)

    def test_dedupe_key(self) -> None:
        """The delivery's identifier, else what the body says."""
        self.assertEqual(self.normalize(b"{}", X_GitHub_Delivery="d-1").dedupe_key, "d-1")
        for useless in ("", "x" * 257):
            self.assertEqual(self.normalize(b"{}", X_GitHub_Delivery=useless).dedupe_key, digest_bytes(b"{}"))

    def test_fields_of_the_event(self) -> None:
        """A handler finds the common fields and those of the event, lifted out of the body."""
        body = json.dumps(
            {"action": "created", "issue": {"n": 1}, "comment": {"n": 2}, "installation": {"id": 42}}
        ).encode()
        payload = seen(self.normalize(body, "issue_comment", X_GitHub_Delivery="d-1"), body, "github")
        self.assertEqual(
            payload,
            {
                "provider": "github",
                "event": "issue_comment",
                "delivery_id": "d-1",
                "action": "created",
                "installation_id": 42,
                "issue": {"n": 1},
                "comment": {"n": 2},
                "raw": json.loads(body),
            },
        )

    def test_fields_of_an_unknown_event(self) -> None:
        """An event that we know nothing about has the common fields; what the body lacks is None."""
        payload = seen(self.normalize(b"{}", "sponsorship"), b"{}")
        self.assertEqual((payload["event"], payload["action"], payload["installation_id"]), ("sponsorship", None, None))

    def test_form(self) -> None:
        """A form's field ``payload`` is the document; what is signed is the form."""
        body = urlencode({"payload": '{"action": "opened", "title": "caf\u00e9 & co"}'}).encode()
        event = self.normalize(body, Content_Type="application/x-www-form-urlencoded; charset=utf-8")
        self.assertEqual((event.kind, event.body_format), ("issues.opened", "form"))
        self.assertEqual(seen(event, body)["raw"]["title"], "caf\u00e9 & co")

    def test_form_that_is_none(self) -> None:
        """A form without the field, or with something else in it, is refused."""
        for body in (b"{}", b"", b"other=1", b"payload=", b"payload=%5B%5D", b"payload=%FF", b"\xff=1", b"a=1&" * 40):
            with self.assertRaises(PayloadInvalid):
                self.normalize(body, Content_Type="application/x-www-form-urlencoded")

    def test_body_that_is_no_object(self) -> None:
        """A body must be one JSON object in UTF-8, all of it."""
        for body in (
            b"",
            b"[]",
            b"null",
            b"{",
            b"{} {}",
            b"\xef\xbb\xbf",
            b'{"a": NaN}',
            b'{"a": "\xff"}',
            b'{"a": "\\ud80"}',
            '{"a": 1}'.encode("utf-16"),
            b'{"a": 1e999}',
            b'{"a": ' + b"9" * 5000 + b"}",
            b"[" * 1_000_000,
            b'{"a":' * 1_000_000,
        ):
            with self.assertRaises(PayloadInvalid):
                self.normalize(body)

    def test_event_header(self) -> None:
        """Without a usable ``X-GitHub-Event`` the delivery is refused, and the message says what is missing."""
        for event in ("", "a b", "x" * 101, "\xe9", "issues\n"):
            error = self.assertRaises(PayloadInvalid, self.normalize, b"{}", event)
            self.assertIn("X-GitHub-Event", str(error))
        inbound = request(b"{}", {})
        with self.assertRaises(PayloadInvalid):
            self.connector.normalize(inbound)

    def test_what_rfc_8259_allows(self) -> None:
        """Half a surrogate pair is U+FFFD, a byte order mark is passed over; the handler sees the same."""
        for body in (b'{"action": "opened", "t": "cut \\ud83d"}', b'\xef\xbb\xbf{"action": "opened"}'):
            event = self.normalize(body)
            self.assertEqual(event.kind, "issues.opened")
            raw = seen(event, body)["raw"]
            self.assertEqual((raw["action"], raw.get("t", "cut \ufffd")), ("opened", "cut \ufffd"))
        form = urlencode({"payload": '\ufeff{"action": "opened", "t": "\\udc00"}'}).encode()
        event = self.normalize(form, Content_Type="application/x-www-form-urlencoded")
        self.assertEqual(seen(event, form)["raw"], {"action": "opened", "t": "\ufffd"})

    def test_charset(self) -> None:
        """A charset that is not UTF-8 is refused, unless the bytes are the same in it."""
        for charset, body, accepted in (
            ("UTF-8", b'{"a": "\xc3\xa9"}', True),
            ('"utf8"', b"{}", True),
            ("iso-8859-1", b"{}", True),
            ("iso-8859-1", b'{"a": "\xe9"}', False),
            ("utf-16", b"{}", False),
            ("shift_jis", b"{}", False),
        ):
            if accepted:
                self.normalize(body, Content_Type=f"application/json; charset={charset}")
            else:
                with self.assertRaises(MediaTypeUnsupported):
                    self.normalize(body, Content_Type=f"application/json; charset={charset}")

    def test_occurred_at(self) -> None:
        """A ``timestamp`` of the body is when it happened, if it is one."""
        for text, expected in (
            ('"2026-01-02T03:04:05+01:00"', "2026-01-02T02:04:05.000Z"),
            ('"2026-01-02T03:04:05"', None),
            ('"yesterday"', None),
            ("1767323045", None),
            ("null", None),
        ):
            self.assertEqual(self.normalize(f'{{"timestamp": {text}}}'.encode()).occurred_at, expected)

    def test_closed_connector_accepts_nothing(self) -> None:
        """After close the keys are gone, and nothing is verified any more."""
        self.normalize(b"{}")
        self.connector.close()
        with self.assertRaises(SignatureMismatch):
            self.normalize(b"{}")

    @settings(deadline=None)
    @given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
    def test_any_object_is_kept(self, document: dict[str, Any]) -> None:
        """Every JSON object is an event, with the document's own action in its kind."""
        body = json.dumps(document).encode()
        action = document.get("action")
        kind = f"issues.{action}" if isinstance(action, str) and 0 < len(action) <= 256 else "issues"
        self.assertEqual(self.normalize(body).kind, kind)

    @settings(deadline=None)
    @example(b'{"":1e310}')
    @example(b'{"":1.5}')
    @example(b'{"":"\\ud800"}')
    @given(st.binary() | st.text().map(str.encode))
    def test_any_bytes(self, body: bytes) -> None:
        """Whatever the bytes are, they are refused as invalid, or kept and read as another parser reads them."""
        try:
            event = self.normalize(body)
        except PayloadInvalid as error:
            self.assertTrue(str(error))
        else:
            read = json.dumps(json.loads(body.removeprefix(b"\xef\xbb\xbf")), ensure_ascii=False)
            # Half a surrogate pair is read as U+FFFD; the other parser keeps it.
            whole = read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            self.assertEqual(seen(event, body)["raw"], json.loads(whole))
