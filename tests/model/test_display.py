"""Tests of `harn.model.display`."""

from __future__ import annotations

import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.display import (
    REDACTED,
    SECRET_NAMES,
    describe_unknown,
    list_some,
    redact,
    redacted_event,
    visible,
    visible_json,
    visible_lines,
)
from harn.secrets.providers import KnownSecrets, secret_hash


class RedactTests(SynchronousTestCase):
    """``redact``."""

    def test_secret(self) -> None:
        """What authorizes is hidden, by its whole name."""
        for name in (
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-gitlab-token",
            "x-a2a-notification-token",
            "x-client-secret",
        ):
            self.assertEqual(redact({name: "s3cret"}), {name: REDACTED})

    def test_kept(self) -> None:
        """What identifies, describes or signs is shown, even where its name holds a word that sounds secret."""
        for name in (
            "idempotency-key",
            "x-event-key",
            "x-idempotency-key",
            "x-session-id",
            "x-tokenized-by",
            "x-keyboard",
            "x-github-event",
            "x-github-delivery",
            "x-hub-signature-256",
            "x-slack-signature",
            "webhook-signature",
            "stripe-signature",
        ):
            self.assertEqual(redact({name: "v"}), {name: "v"})

    def test_known_credentials(self) -> None:
        """A known credential is hidden under any name: alone, after a scheme, or within ``Basic``."""
        key = b"k" * 16
        values = (b"hunter2", b"It's a secret", b"caf\xe9")
        known = KnownSecrets(key, frozenset(secret_hash(key, value) for value in values))
        basic = base64.b64encode(b"user:hunter2").decode()
        for value in ("hunter2", "It's a secret", "Custom hunter2", f"Basic {basic}", "caf\xe9"):
            self.assertEqual(redact({"x-whatever": value}, known), {"x-whatever": REDACTED}, value)
        for value in ("hunter", "hunter22", "", "Basic ***", "Basic \xff", "a " * 5000, "\u2603"):
            self.assertEqual(redact({"x-whatever": value}, known), {"x-whatever": value})

    def test_secret_in_a_body_of_no_format(self) -> None:
        """None of the forms in which an event has such a body shows a known secret; without one all are there."""
        key, body = b"k" * 16, b"\xff " + b"word " * 50 + b" hunter2 "
        known = KnownSecrets(key, frozenset((secret_hash(key, b"hunter2"),)))
        encoded = base64.b64encode(body).decode()
        event = {
            "headers": {},
            "provider_payload": {"raw": {"raw_base64": encoded, "raw_utf8": None}, "kind": "x"},
            "raw_body": encoded,
        }
        self.assertEqual(redacted_event(event), event)
        shown = redacted_event(event, known)
        self.assertEqual(shown["provider_payload"], {"raw": REDACTED, "kind": "x"})
        self.assertEqual(shown["raw_body"], REDACTED)

    @settings(deadline=None)
    @given(st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(SECRET_NAMES)), st.text(max_size=20)))
    def test_same_names(self, given_: dict[str, str]) -> None:
        """Every header is still there, each with its own value or none."""
        shown = redact(given_)
        self.assertEqual(list(shown), list(given_))
        for name, value in shown.items():
            self.assertEqual(value, REDACTED if name in SECRET_NAMES else given_[name])


class VisibleTests(SynchronousTestCase):
    """What is shown of text that strangers wrote."""

    def test_escapes(self) -> None:
        """Control characters and marks of direction are written out; text in any script, emoji and tabs stay."""
        self.assertEqual(visible("\x1b[31m\x00\x7f\x9b\r\n"), "\\x1b[31m\\x00\\x7f\\x9b\\r\\n")
        self.assertEqual(visible("a\u202eb\u2066c\u2028d"), "a\\u202eb\\u2066c\\u2028d")
        self.assertEqual(
            visible("\ta \u00e9\u05d0 \U0001f468\u200d\U0001f469"), "\ta \u00e9\u05d0 \U0001f468\u200d\U0001f469"
        )

    def test_lines(self) -> None:
        """Only ends of line make lines; a text without any is one."""
        self.assertEqual(visible_lines("a\r\nb\x0bc\x85d\n"), ["a", "b\\x0bc\\x85d"])
        self.assertEqual(visible_lines(""), [""])

    @given(st.text())
    def test_never_a_control_character(self, text: str) -> None:
        """Nothing of any text is left that a terminal obeys."""
        for line in (visible(text), *visible_lines(text)):
            self.assertFalse([each for each in line if each != "\t" and (ord(each) < 32 or 127 <= ord(each) < 160)])

    @given(st.text())
    def test_json(self, text: str) -> None:
        """JSON says the same as before."""
        shown = visible_json(json.dumps(text, ensure_ascii=False))
        self.assertEqual(json.loads(shown), text)
        self.assertFalse([each for each in shown if ord(each) < 32 or 127 <= ord(each) < 160])


class NamesTests(SynchronousTestCase):
    """``list_some`` and ``describe_unknown``."""

    def test_some(self) -> None:
        """The first are listed, with a sign of more."""
        names = [f"t{number}" for number in range(11)]
        self.assertEqual(list_some(names[:2]), "t0, t1")
        self.assertEqual(list_some(names), "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ...")
        self.assertEqual(list_some(names, 2), "t0, t1, ...")
        self.assertEqual(list_some([]), "none")

    def test_unknown(self) -> None:
        """The nearest is named, also out of many; without one the first are."""
        self.assertEqual(
            describe_unknown("oders", {"orders", "gh"}), "there is no trigger 'oders'; did you mean 'orders'?"
        )
        self.assertEqual(
            describe_unknown("xyz", {"orders", "gh"}), "there is no trigger 'xyz'; the server has: gh, orders"
        )
        self.assertEqual(describe_unknown("xyz", ()), "there is no trigger 'xyz'; the server has: none")
        many = [*(f"a-{number}" for number in range(5000)), "orders"]
        self.assertEqual(
            describe_unknown("oders", [*many, "orbit"])[:60],
            "there is no trigger 'oders'; the server has: a-0, a-1, a-10, "[:60],
        )
        self.assertIn("did you mean 'orders'", describe_unknown("ordes", many))
