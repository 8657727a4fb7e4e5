"""No secret of a request is kept with its event."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model import headers
from harn.model.headers import REDACTED, redact


class RedactTests(SynchronousTestCase):
    """``redact``."""

    def test_secret(self) -> None:
        """What authorizes is taken out."""
        for name in (
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-gitlab-token",
            "x-a2a-token",
            "x-client-secret",
            "x-auth-password",
        ):
            self.assertEqual(redact({name: "s3cret"}), {name: REDACTED})

    def test_kept(self) -> None:
        """What identifies, describes or signs is kept, even where its name sounds secret."""
        for name in (
            "user-agent",
            "content-type",
            "x-request-id",
            "x-correlation-id",
            "x-github-event",
            "x-github-delivery",
            "x-github-hook-id",
            "x-hub-signature-256",
            "x-slack-request-timestamp",
            "x-slack-signature",
            "webhook-signature",
            "stripe-signature",
            "x-key-event",
            "x-token-delivery",
            "x-token-timestamp",
            "x-key-request-id",
        ):
            self.assertEqual(redact({name: "v"}), {name: "v"})

    def test_memory_is_bounded(self) -> None:
        """Names that callers make up are decided rightly, and do not fill the memory."""
        for number in range(3000):
            name = f"x-made-up-{number}-token"
            self.assertEqual(redact({name: "s3cret"}), {name: REDACTED})
        self.assertLessEqual(len(headers._decided), 1024)

    @settings(deadline=None)
    @given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
    def test_same_names(self, given_: dict[str, str]) -> None:
        """Every header is still there, each with its own value or none."""
        shown = redact(given_)
        self.assertEqual(list(shown), list(given_))
        for name, value in shown.items():
            self.assertEqual(value, REDACTED if headers.is_secret(name) else given_[name])
