"""Authentication: the senders that are accepted and refused, and the message of a refusal."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.auth.authenticator import Authenticator, Identity
from harn.auth.credentials import Credentials, body_with_request_id, sign_request
from harn.errors import CredentialsRejected, SignatureMismatch, SignatureStale
from harn.model.display import REDACTED
from harn.testing.signers import admin_headers

NOW = 1_700_000_000.0
TARGET = "/admin/reload?force=true"


class AuthenticatorTests(SynchronousTestCase):
    """Requests against two keys and a secret."""

    def setUp(self) -> None:
        self.authenticator = Authenticator(Credentials(keys=(b"key-one", b"key-tw\xc3\xb6"), hmac_secret=b"shared"))

    def authenticate(
        self, headers: dict[str, str], method: str = "POST", target: str = TARGET, body: bytes = b"{}", now: float = NOW
    ) -> Identity:
        """Authenticate; header names in any case."""
        lower = {name.lower(): value for name, value in headers.items()}
        return self.authenticator.authenticate(method, target, lower, body, now)

    def refused(self, headers: dict[str, str], **changed: Any) -> str:
        """Return the message of a refusal; it contains no credential of the server."""
        error = self.assertRaises(CredentialsRejected, lambda: self.authenticate(headers, **changed))
        for value in ("key-one", "shared"):
            self.assertNotIn(value, str(error))
        return str(error)

    def test_keys(self) -> None:
        """Each key is accepted in either header, and the actor names which, without its value."""
        first = "key:" + hashlib.sha256(b"key-one").hexdigest()[:8]
        for headers in (
            {"Authorization": "Bearer key-one"},
            {"Authorization": "bEaReR  key-one "},
            {"X-API-Key": "key-one"},
            {"X-API-Key": "key-one", "Authorization": "Bearer wrong"},
        ):
            self.assertEqual(self.authenticate(headers), Identity(first))
        second = self.authenticate({"X-API-Key": b"key-tw\xc3\xb6".decode("latin-1")})
        self.assertEqual(second.actor, "key:" + hashlib.sha256(b"key-tw\xc3\xb6").hexdigest()[:8])

    def test_token(self) -> None:
        """The token is a key with a name of its own, with other credentials or without; its value is never shown."""
        for credentials in (Credentials(), Credentials(keys=(b"key-one",))):
            self.authenticator = Authenticator(credentials, b"token-1")
            self.assertTrue(self.authenticator.configured)
            self.assertEqual(self.authenticate({"Authorization": "Bearer token-1"}), Identity("token"))
            self.assertNotIn("token-1", self.refused({"Authorization": "Bearer token-2"}))

    def test_wrong_keys(self) -> None:
        """Anything but a whole key is refused."""
        for headers in (
            {"Authorization": "Bearer key-on"},
            {"Authorization": "Bearer KEY-ONE"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer key-one, Bearer key-one"},
            {"Authorization": "key-one"},
            {"Authorization": ""},
            {"Authorization": "Basic a2V5LW9uZTo="},
            {"X-API-Key": ""},
            {"X-API-Key": "key-one,key-tw\xf6"},
            {"X-API-Key": "\xff\x00"},
        ):
            self.refused(headers)

    def test_wrong_api_key_is_final(self) -> None:
        """A wrong ``X-API-Key`` is not made good by a right bearer key or signature."""
        self.refused({"X-API-Key": "wrong", "Authorization": "Bearer key-one"})
        self.refused({"X-API-Key": "wrong", **admin_headers(b"shared", "POST", TARGET, b"{}", NOW)})

    def test_none(self) -> None:
        """Without credentials the message says what to send."""
        said = self.refused({"Content-Type": "application/json"})
        self.assertIn("Bearer", said)

    def test_signed_by_the_description(self) -> None:
        """A signature made from the description, with code other than harn's, is accepted."""
        text = f"POST\n{TARGET}\n1700000000\n{hashlib.sha256(b'{}').hexdigest()}"
        signature = base64.b64encode(hmac.new(b"shared", text.encode(), hashlib.sha256).digest()).decode()
        for header in (
            f"HMAC-SHA256 timestamp=1700000000,signature={signature}",
            f"hmac-sha256 signature={signature}, timestamp=1700000000",
        ):
            self.assertEqual(self.authenticate({"Authorization": header}).actor, "hmac")
        self.assertEqual(
            sign_request(b"shared", "post", TARGET, b"{}", NOW),
            f"HMAC-SHA256 timestamp=1700000000,signature={signature}",
        )

    def test_everything_is_signed(self) -> None:
        """Another method, path, query, body or secret is refused."""
        headers = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)
        self.authenticate(headers)
        for changed in (
            {"method": "PUT"},
            {"target": "/admin/recover?force=true"},
            {"target": "/admin/reload"},
            {"target": "/admin/reload?force=false"},
            {"body": b"{} "},
        ):
            self.refused(headers, **changed)
        other = admin_headers(b"other", "POST", TARGET, b"{}", NOW)
        self.assertRaises(SignatureMismatch, self.authenticate, other)

    def test_window(self) -> None:
        """Five minutes either way are accepted, one second more is not."""
        headers = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)
        for now in (NOW - 300, NOW + 300.9):
            self.authenticate(headers, now=now)
        for now in (NOW - 301, NOW + 301):
            self.assertRaises(SignatureStale, self.authenticate, headers, now=now)

    def test_guard(self) -> None:
        """A signature gives a claim that outlives its window; equal requests of one second have equal claims."""
        headers = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)
        guard = self.authenticate(headers).guard
        assert guard is not None
        self.assertEqual(guard.scope, "admin")
        self.assertGreater(guard.expires_at, NOW + 301)
        self.assertNotIn(headers["Authorization"].rpartition("=")[2] or "=", guard.key)
        self.assertEqual(self.authenticate(headers, now=NOW + 10).guard, guard)
        later = self.authenticate(admin_headers(b"shared", "POST", TARGET, b"{}", NOW + 1)).guard
        self.assertNotEqual(later, guard)

    def test_no_guard(self) -> None:
        """Reading may be repeated, and a key proves itself each time: neither gives a claim."""
        headers = admin_headers(b"shared", "GET", "/admin/generation", b"", NOW)
        self.assertIsNone(self.authenticate(headers, method="GET", target="/admin/generation", body=b"").guard)
        self.assertIsNone(self.authenticate({"X-API-Key": "key-one"}).guard)

    def test_one_signature_has_one_spelling(self) -> None:
        """No other base64 of the same bytes is accepted, so that a claim cannot be got around."""
        header = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)["Authorization"]
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        last = header[-2]
        same_bytes = header[:-2] + alphabet[alphabet.index(last) ^ 1] + "="
        encoded = [text.rpartition("signature=")[2] for text in (header, same_bytes)]
        self.assertEqual(*map(base64.b64decode, encoded))
        for other in (same_bytes, header[:-1], header + "=", header.replace("signature=", "signature= ")):
            self.refused({"Authorization": other})

    def test_malformed_signed_headers(self) -> None:
        """A malformed header is refused with what is wrong about it."""
        signature = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)["Authorization"].partition("signature=")[2]
        for parameters in (
            "",
            "timestamp=1700000000",
            f"signature={signature}",
            f"timestamp=1700000000,timestamp=1700000000,signature={signature}",
            f"timestamp=1700000000,signature={signature},extra=1",
            f"timestamp=1700000000 signature={signature}",
            f"timestamp:1700000000,signature:{signature}",
        ):
            self.assertIn("malformed Authorization", self.refused({"Authorization": f"HMAC-SHA256 {parameters}"}))
        for timestamp in ("", "1.7e9", "-1", "+1700000000", "1700000000.0", "\u0661", "9" * 500):
            header = f"HMAC-SHA256 timestamp={timestamp},signature={signature}"
            self.assertRaises(SignatureStale, self.authenticate, {"Authorization": header})

    def test_headers_alone(self) -> None:
        """Before the body is read, keys are decided and a signature's form and time are."""
        early = self.authenticator.authenticate_headers
        self.assertIsInstance(early({"x-api-key": "key-one"}, NOW), Identity)
        signed = admin_headers(b"shared", "POST", TARGET, b"{}", NOW)["Authorization"]
        self.assertNotIsInstance(early({"authorization": signed}, NOW), Identity)
        self.assertRaises(SignatureStale, early, {"authorization": signed}, NOW + 400)
        self.assertRaises(CredentialsRejected, early, {"authorization": "Bearer wrong"}, NOW)

    def test_not_configured(self) -> None:
        """Without credentials every sender is refused, and the message names the variables."""
        self.authenticator = Authenticator(Credentials())
        for headers in (
            {},
            {"X-API-Key": ""},
            {"Authorization": "Bearer "},
            admin_headers(b"", "POST", TARGET, b"{}", NOW),
        ):
            said = self.refused(headers)
            self.assertIn("HARN_ORCHESTRATOR_API_KEYS", said)
            self.assertIn("HARN_ORCHESTRATOR_HMAC_SECRET", said)

    def test_half_configured(self) -> None:
        """With keys only no signature is accepted, and with a secret only no key, empty ones included."""
        self.authenticator = Authenticator(Credentials(keys=(b"key-one",)))
        self.refused(admin_headers(b"", "POST", TARGET, b"{}", NOW))
        self.authenticator = Authenticator(Credentials(hmac_secret=b"shared"))
        self.refused({"X-API-Key": ""})
        self.authenticate(admin_headers(b"shared", "POST", TARGET, b"{}", NOW))

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["authorization", "x-api-key"]),
            st.text(st.characters(max_codepoint=255), max_size=40)
            | st.text("HMAC-SHA256 timestamp=,signature0123456789", max_size=80).map(
                lambda text: f"HMAC-SHA256 {text}"
            ),
        )
    )
    def test_any_header(self, headers: dict[str, str]) -> None:
        """Whatever the headers hold, the answer is a refusal and no other error."""
        self.refused(headers)

    def test_without_ours(self) -> None:
        """The server's own credentials are removed from headers; headers with other credentials are not copied."""
        signature = sign_request(b"shared", "POST", TARGET, b"{}", NOW)
        for ours in (
            {"x-api-key": "key-one"},
            {"authorization": "Bearer key-one"},
            {"authorization": "Token  key-one "},
            {"authorization": signature},
            {"authorization": sign_request(b"another", "POST", TARGET, b"{}", 0)},
        ):
            kept = self.authenticator.without_ours({"x-other": "key-one", **ours})
            self.assertEqual(kept, {"x-other": "key-one", **dict.fromkeys(ours, REDACTED)})
        for theirs in (
            {},
            {"x-api-key": "key"},
            {"authorization": "Bearer key"},
            {"authorization": "Basic a2V5LW9uZQ=="},
            {"authorization": "HMAC-SHA256 SignedHeaders=host&Signature=abc"},
            {"authorization": ""},
        ):
            self.assertIs(self.authenticator.without_ours(theirs), theirs)
        nothing = Authenticator(Credentials())
        self.assertEqual(nothing.without_ours({"authorization": signature}), {"authorization": signature})


class RequestIdTests(SynchronousTestCase):
    """Bodies that never repeat."""

    def test_unlike(self) -> None:
        """The same request made twice in one second has two bodies, hence two signatures."""
        one, other = (body_with_request_id({"source": "cli"}) for _ in range(2))
        self.assertNotEqual(one, other)
        self.assertRegex(one, rb'\A\{"request_id":"[0-9a-f]{32}","source":"cli"\}\Z')
