"""Every scheme against its provider's published example, and against what an attacker would try."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.connectors.interfaces import IScheme
from harn.connectors.providers.github import SIGNATURE as GITHUB
from harn.connectors.providers.slack import SIGNATURE as SLACK
from harn.connectors.providers.stripe import SIGNATURE as STRIPE
from harn.connectors.providers.webhook import SCHEMES
from harn.connectors.signatures import Encoding, HmacScheme, Part, any_equal, decode_standard_secret, verify_standard
from harn.errors import CredentialsRejected, SignatureMismatch, SignatureMissing, SignatureStale
from harn.testing.signers import (
    github_headers,
    sign_standard,
    sign_stripe,
    slack_headers,
    standard_headers,
    stripe_headers,
    svix_headers,
)

STANDARD_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class GithubTests(SynchronousTestCase):
    """The scheme of GitHub."""

    secret = b"It's a Secret to Everybody"
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

    def verify(self, signature: str | None) -> None:
        """Verify GitHub's example with this signature."""
        headers = {} if signature is None else {"x-hub-signature-256": signature}
        GITHUB.verify([self.secret], headers, b"Hello, World!", 0.0)

    def test_published_example(self) -> None:
        """The example of GitHub's documentation is accepted."""
        self.verify(self.signature)

    def test_rejects(self) -> None:
        """Only those 71 characters are accepted."""
        digits = self.signature.removeprefix("sha256=")
        for signature in (
            digits,
            "sha256=" + digits.upper(),
            f" {self.signature}",
            f"{self.signature}, {self.signature}",
            "sha1=" + digits[:40],
            self.signature[:-1],
        ):
            with self.assertRaises(SignatureMismatch):
                self.verify(signature)
        with self.assertRaises(SignatureMissing):
            self.verify(None)

    def test_no_secret(self) -> None:
        """Without any secret nothing is accepted, not even what an empty key signs."""
        empty = "sha256=" + hmac.new(b"", b"{}", "sha256").hexdigest()
        with self.assertRaises(SignatureMismatch):
            GITHUB.verify([], {"x-hub-signature-256": empty}, b"{}", 0.0)


class SlackTests(SynchronousTestCase):
    """The scheme of Slack."""

    secret = b"8f742231b10e8888abcd99yyyzzz85a5"
    timestamp = "1531420618"
    signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )

    def verify(self, timestamp: str | None = timestamp, signature: str | None = signature, late: float = 0.0) -> None:
        """Verify Slack's example with these headers, so much later."""
        headers = {"x-slack-request-timestamp": timestamp, "x-slack-signature": signature}
        given = {name: value for name, value in headers.items() if value is not None}
        SLACK.verify([self.secret], given, self.body, 1531420618.0 + late)

    def test_published_example(self) -> None:
        """The example of Slack's documentation is accepted."""
        self.verify()

    def test_timestamp_is_signed(self) -> None:
        """Another time stamp inside the window is refused."""
        with self.assertRaises(SignatureMismatch):
            self.verify("1531420619")

    def test_missing(self) -> None:
        """Each header is needed, and the message names the one that is not there."""
        for timestamp, signature, name in (
            (None, self.signature, "X-Slack-Request-Timestamp"),
            (self.timestamp, None, "X-Slack-Signature"),
        ):
            error = self.assertRaises(SignatureMissing, self.verify, timestamp, signature)
            self.assertIn(name, str(error))

    def test_stale_before_wrong(self) -> None:
        """The time is looked at before the signature: an old request costs no HMAC."""
        with self.assertRaises(SignatureStale):
            self.verify(signature="v0=wrong", late=301)


class StripeTests(SynchronousTestCase):
    """The scheme of Stripe."""

    secret = b"whsec_test_secret"
    body = b'{"id": "evt_1", "object": "event"}'

    def signature(self, timestamp: int = 1000, secret: bytes = b"whsec_test_secret") -> str:
        """Sign by the letter of the documentation, with code other than harn's."""
        mac = hmac.new(secret, f"{timestamp}.".encode() + self.body, hashlib.sha256)
        return f"t={timestamp},v1={mac.hexdigest()}"

    def verify(self, header: str | None) -> None:
        """Verify the body with this header."""
        headers = {} if header is None else {"stripe-signature": header}
        STRIPE.verify([self.secret], headers, self.body, 1000.0)

    def test_by_the_documentation(self) -> None:
        """What the documentation's steps give is accepted, and is what our signer gives."""
        self.verify(self.signature())
        self.assertEqual(sign_stripe(self.secret, 1000, self.body), self.signature())

    def test_any_v1(self) -> None:
        """One right ``v1`` among others is enough; other schemes and unknown entries do not count."""
        right = self.signature()
        for header in (
            right.replace("v1=", "v1=0000,v1="),
            right + ",v1=0000",
            right + ",v0=0000,x=y,",
            right.replace(",", ", "),
        ):
            self.verify(header)
        with self.assertRaises(SignatureMismatch):
            self.verify(right.replace("v1=", "v0="))

    def test_one_timestamp(self) -> None:
        """No ``t``, or two, are refused: harn must not choose which of two was signed."""
        right = self.signature()
        for header in (right.partition(",")[2], f"t=999,{right}", f"{right}, {right}", ""):
            with self.assertRaises(SignatureMismatch):
                self.verify(header)
        with self.assertRaises(SignatureMissing):
            self.verify(None)


class StandardTests(SynchronousTestCase):
    """The scheme of Standard Webhooks."""

    message_id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    timestamp = "1614265330"
    body = b'{"test": 2432232314}'
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def verify(self, signature: str | None, message_id: str | None = message_id) -> None:
        """Verify with the published secret at the published time."""
        key = decode_standard_secret(STANDARD_SECRET)
        verify_standard([key], message_id, self.timestamp, self.body, signature, 1614265330.0)

    def test_published_example(self) -> None:
        """The example of the reference libraries is accepted."""
        self.verify(self.signature)

    def test_list(self) -> None:
        """One right entry among others is enough, also when the header came twice and was joined."""
        for header in (
            f"v1,AAAA {self.signature}",
            f"{self.signature} v1,AAAA",
            f"v1a,AAAA v2,{self.signature[3:]} {self.signature}",
            f"v1,AAAA, {self.signature}",
            f"{self.signature}, v1,AAAA",
        ):
            self.verify(header)
        for header in (self.signature.replace("v1,", "v2,"), self.signature[3:], self.signature[:-1], "v1", "v1,"):
            with self.assertRaises(SignatureMismatch):
                self.verify(header)

    def test_identifier_is_signed(self) -> None:
        """Another identifier is refused, also a non-ASCII one."""
        for message_id in ("msg_other", "\xe9", ""):
            with self.assertRaises(SignatureMismatch):
                self.verify(self.signature, message_id)

    def test_missing_names_all(self) -> None:
        """The message names every header that is not there."""
        error = self.assertRaises(SignatureMissing, self.verify, None, None)
        self.assertIn("webhook-id, webhook-signature", str(error))

    def test_secret_forms(self) -> None:
        """With or without ``whsec_``, padding or surrounding white space, a secret is the same key."""
        key = b"0123456789abcdef"
        padded = base64.b64encode(key)
        for secret in (padded, padded.rstrip(b"="), b"whsec_" + padded, b" whsec_" + padded + b"\n"):
            self.assertEqual(decode_standard_secret(secret), key)

    def test_secret_that_is_none(self) -> None:
        """A value that is not base64, or empty, is refused as a secret; the message does not quote it."""
        for secret in (b"", b"whsec_", b"not base64!", b"a", b"d\xc3\xa9j\xc3\xa0", b"a-b_", b"ab=c"):
            error = self.assertRaises(ValueError, decode_standard_secret, secret)
            if b" " in secret:
                self.assertNotIn(secret.decode("ascii"), str(error))


class SchemeTests(SynchronousTestCase):
    """The schemes called alike."""

    cases: dict[str, Callable[[bytes, int], dict[str, str]]] = {
        "standard": lambda body, at: standard_headers(STANDARD_SECRET, body, at),
        "stripe": lambda body, at: stripe_headers(STANDARD_SECRET, body, at),
        "slack": lambda body, at: slack_headers(STANDARD_SECRET, body, at),
        "github": lambda body, at: github_headers(STANDARD_SECRET, body),
    }

    def verify(self, name: str, headers: dict[str, str], body: bytes, now: float, tolerance: int = 300) -> None:
        """Verify by the named scheme, as a connector does."""
        scheme = SCHEMES[name]
        lower = {header.lower(): value for header, value in headers.items()}
        scheme.verify([scheme.key(STANDARD_SECRET)], lower, body, now, tolerance)

    def test_window(self) -> None:
        """300 s either way are inside the window, one more is outside; a fraction of a second does not count."""
        for name in ("standard", "stripe", "slack"):
            headers = self.cases[name](b"{}", 10_000)
            for now in (9_700.0, 10_000.9, 10_300.0, 10_300.9):
                self.verify(name, headers, b"{}", now)
            for now in (9_699.0, 9_699.9, 10_301.0, 1e12):
                with self.assertRaises(SignatureStale):
                    self.verify(name, headers, b"{}", now)

    def test_tolerance(self) -> None:
        """The window is what is configured; 0 is the second itself."""
        for name in ("standard", "stripe", "slack"):
            headers = self.cases[name](b"{}", 10_000)
            self.verify(name, headers, b"{}", 10_600.0, tolerance=600)
            self.verify(name, headers, b"{}", 10_000.5, tolerance=0)
            with self.assertRaises(SignatureStale):
                self.verify(name, headers, b"{}", 10_001.0, tolerance=0)

    def test_github_has_no_window(self) -> None:
        """GitHub signs no time, so none is asked of it."""
        self.verify("github", self.cases["github"](b"{}", 0), b"{}", 1e12, tolerance=0)

    def test_malformed_timestamps(self) -> None:
        """A time stamp is ASCII digits and nothing else, however Python would read it."""
        for text in ("", " 10000", "10000 ", "+10000", "1e4", "10_000", "10000.0", "\u0661\u0660", "-1", "9" * 400):
            with self.assertRaises(SignatureStale):
                headers = {"x-slack-request-timestamp": text, "x-slack-signature": "v0="}
                SLACK.verify([b"s"], headers, b"", 10_000.0)

    def test_svix_names(self) -> None:
        """The headers of Svix mean the same; one header of each family together is refused."""
        headers = svix_headers(STANDARD_SECRET, b"{}", 10_000)
        self.verify("standard", headers, b"{}", 10_000.0)
        mixed = {**headers, "webhook-signature": headers["svix-signature"]}
        del mixed["svix-signature"]
        with self.assertRaises(SignatureMissing):
            self.verify("standard", mixed, b"{}", 10_000.0)

    def test_empty_secret(self) -> None:
        """No scheme takes an empty secret for a key."""
        for scheme in SCHEMES.values():
            with self.assertRaises(ValueError):
                scheme.key(b"")

    @settings(deadline=None)
    @given(
        name=st.sampled_from(sorted(cases)),
        body=st.binary(max_size=200),
        altered=st.binary(max_size=200),
    )
    def test_signed_and_altered(self, name: str, body: bytes, altered: bytes) -> None:
        """Whatever the body is, it is accepted as it was signed and in no other form."""
        headers = self.cases[name](body, 10_000)
        self.verify(name, headers, body, 10_000.0)
        if altered != body:
            with self.assertRaises(SignatureMismatch):
                self.verify(name, headers, altered, 10_000.0)

    @settings(deadline=None)
    @given(
        name=st.sampled_from(sorted(cases)),
        values=st.lists(st.text(st.characters(max_codepoint=255)), min_size=4, max_size=4),
    )
    def test_arbitrary_headers(self, name: str, values: list[str]) -> None:
        """Whatever the headers hold, the answer is a refusal and no other error."""
        headers = dict(zip(self.cases[name](b"{}", 10_000), values, strict=False))
        with self.assertRaises(CredentialsRejected):
            self.verify(name, headers, b"{}", 10_000.0)


class DeclaredTests(SynchronousTestCase):
    """Schemes that are declared, in forms that no built-in provider has."""

    def test_forms(self) -> None:
        """Algorithm, encoding, prefix and signed parts are as declared: checked against code other than harn's."""
        digest = hmac.new(b"k", b"1000{}!", "sha1").digest()
        scheme = HmacScheme(
            name="odd",
            header="X-Odd",
            timestamp_header="X-Time",
            signed=(Part.TIMESTAMP, Part.BODY, b"!"),
            prefix="=",
            algorithm="sha1",
            encoding=Encoding.BASE64,
        )
        headers = {"X-Time": "1000", "X-Odd": "=" + base64.b64encode(digest).decode()}
        self.assertEqual(scheme.sign(b"k", b"{}", 1000.9), headers)
        scheme.verify([b"k"], {"x-time": "1000", "x-odd": headers["X-Odd"]}, b"{}", 1000.0)

    def test_time_that_is_nowhere(self) -> None:
        """A scheme that signs a time must say where it is, and one that signs none must not."""
        for wrong in ({"signed": (Part.TIMESTAMP,)}, {"timestamp_header": "X-Time"}, {"entries": ("t", "v1")}):
            with self.assertRaises(ValueError):
                HmacScheme(name="x", header="X", **wrong)

    def test_interface(self) -> None:
        """Every scheme is one, and verifies what it signs."""
        for scheme in SCHEMES.values():
            verifyObject(IScheme, scheme)
            key = scheme.key(STANDARD_SECRET)
            headers = {name.lower(): value for name, value in scheme.sign(key, b"{}", 10_000.0).items()}
            scheme.verify([b"other", key], headers, b"{}", 10_000.0, 0)


class ComparingTests(SynchronousTestCase):
    """All pairs are compared."""

    def test_any(self) -> None:
        """A match is found wherever it is; nothing matches nothing."""
        self.assertTrue(any_equal([b"a", b"b"], ["x", "b"]))
        self.assertTrue(any_equal([b"a"], ["a", "x"]))
        for expected, given_ in (([b"a"], []), ([], ["a"]), ([], []), ([b"?"], ["\xff"])):
            self.assertFalse(any_equal(expected, given_))

    def test_signer_and_verifier_agree_on_the_secret(self) -> None:
        """The signer takes the secret as it is configured."""
        self.assertEqual(
            sign_standard(STANDARD_SECRET, StandardTests.message_id, 1614265330, StandardTests.body),
            StandardTests.signature,
        )
