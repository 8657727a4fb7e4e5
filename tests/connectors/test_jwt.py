"""Tokens of agents: which are accepted, when their keys are fetched, and what no token may do."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.fetching import NotFetched
from harn.connectors.jwks import BURST, LEAST_PAUSE, MAX_AGE, KeySet, read_key_set
from harn.connectors.jwt_verifier import JwtVerifier
from harn.errors import CredentialsRejected, SignatureMismatch, SignatureMissing, SignatureStale
from tests.connectors.examples import NOW
from tests.connectors.tokens import AUDIENCE, ISSUER, Publisher, bearer, claims, key_set, private_key, public_key, token

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from(("RS256", "HS256", "none", "rsa-1", ISSUER, AUDIENCE, NOW + 100)),
)


def verifier(publisher: Publisher | None = None, clock: Clock | None = None, *kids: str) -> JwtVerifier:
    """Make a verifier of published keys, or of fixed ones."""
    fixed = () if publisher is not None else read_key_set(key_set(*(kids or ("rsa-1",))))
    keys = KeySet(clock or Clock(), publisher or Publisher(), None if publisher is None else "https://a/jwks", fixed)
    return JwtVerifier(keys=keys, issuer=ISSUER, audience=AUDIENCE, leeway=60.0)


class VerifyTests(SynchronousTestCase):
    """One token at a time."""

    def setUp(self) -> None:
        self.verifier = verifier(None, None, "rsa-1", "ec-1", "ed-1")

    def refused(self, kind: type[Exception], text: str) -> str:
        """See that a token is refused; return why."""
        return str(self.assertRaises(kind, self.verifier.verify, bearer(text), NOW))

    def test_each_kind_of_key(self) -> None:
        """Tokens by RSA, elliptic curves and Ed25519 are accepted, also for one of several audiences."""
        for kid in ("rsa-1", "ec-1", "ed-1"):
            self.verifier.verify(bearer(token(kid)), NOW)
        self.verifier.verify(bearer(token(aud=["x", AUDIENCE])), NOW)

    def test_claims(self) -> None:
        """Issuer, audience, expiry and identifier must be there, and right."""
        for changed in (
            *({"iss": "https://other"}, {"iss": None}, {"aud": "other"}, {"aud": None}, {"exp": None}),
            *({"jti": None}, {"jti": ""}, {"jti": 7}, {"jti": "x" * 2000}, {"aud": 7}),
        ):
            self.refused(SignatureMismatch, token(**changed))

    def test_times(self) -> None:
        """A token counts from its beginning to its end, give or take the leeway, and for a day at most."""
        for changed in (
            *({"exp": NOW - 60}, {"iat": NOW + 61}, {"nbf": NOW + 61}, {"exp": NOW + 90_000}, {"exp": 1e300}),
            *({"iat": "soon"}, {"exp": True}),
        ):
            self.refused(SignatureStale, token(**changed))
        right: list[dict[str, Any]] = [{"exp": NOW - 59}, {"iat": NOW + 60}, {"nbf": NOW + 60}, {"iat": None}]
        for each in right:
            self.verifier.verify(bearer(token(**each)), NOW)

    def test_none(self) -> None:
        """A token without a signature is refused, however ``none`` is written."""
        for name in ("none", "None", "nOnE", ""):
            made = f"{part({'alg': name, 'kid': 'rsa-1'})}.{part(claims())}."
            self.refused(SignatureMismatch, made)
            self.refused(SignatureMismatch, made + token().rpartition(".")[2])

    def test_confusion(self) -> None:
        """A token signed by HMAC with the public key is refused, and so is one by another algorithm than its key's."""
        public = (
            private_key("rsa-1")
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        for secret in (public, json.dumps(public_key("rsa-1")).encode(), b""):
            signed = f"{part({'alg': 'HS256', 'kid': 'rsa-1'})}.{part(claims())}"
            key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            made = signed + "." + encoded(key.sign(signed.encode(), secret))
            self.refused(SignatureMismatch, made)
        for kid in ("ec-1", "ed-1"):
            self.refused(SignatureMismatch, token("rsa-1", header={"kid": kid}))
        self.refused(SignatureMismatch, jwt.encode(claims(), private_key("rsa-2"), "RS256", headers={"kid": "rsa-1"}))

    def test_without_kid(self) -> None:
        """Without an identifier a token is accepted where there is one key only."""
        self.refused(SignatureMismatch, token(header={}))
        verifier().verify(bearer(token(header={})), NOW)

    def test_missing(self) -> None:
        """Without a token there is nothing to verify."""
        for value in ("", "Bearer", "Bearer ", "Basic eA==", "x" * 50_000, "Bearer " + "x" * 50_000):
            self.assertRaises(SignatureMissing, self.verifier.verify, {"authorization": value}, NOW)
        self.assertRaises(SignatureMissing, self.verifier.verify, {}, NOW)

    @settings(max_examples=300, deadline=None)
    @given(
        header=st.dictionaries(st.sampled_from(("alg", "kid", "typ", "b64", "crit", "jwk", "jku")), VALUES),
        body=st.dictionaries(st.sampled_from(("iss", "aud", "exp", "jti", "nbf", "iat")), VALUES),
        tail=st.text(max_size=50),
    )
    def test_hostile(self, header: dict[str, Any], body: dict[str, Any], tail: str) -> None:
        """No forged token is accepted, or raises anything but a refusal."""
        for text in (
            f"{part(header)}.{part(body)}.{tail}",
            f"{part({'alg': 'RS256', **header})}.{part(claims(**body))}.{tail}",
            tail,
        ):
            self.assertRaises(CredentialsRejected, self.verifier.verify, bearer(text), NOW)
            self.verifier.claim_of(bearer(text))
            self.verifier.kid_of(bearer(text))

    @settings(max_examples=100, deadline=None)
    @given(position=st.integers(0, 10_000), letter=st.sampled_from("ABCz09_-."))
    def test_altered(self, position: int, letter: str) -> None:
        """A token of which one letter was changed is refused, unless it means the same bytes."""
        text = token("ed-1")
        position %= len(text)
        altered = text[:position] + letter + text[position + 1 :]
        if [decoded(each) for each in altered.split(".")] != [decoded(each) for each in text.split(".")]:
            self.assertRaises(CredentialsRejected, self.verifier.verify, bearer(altered), NOW)

    def test_single_use(self) -> None:
        """The claim of a token is kept as long as it could be valid, and is the same for the same identifier only."""
        claim = self.verifier.claim_of(bearer(token()))
        assert claim is not None
        self.assertGreater(claim.expires_at, NOW + 300 + 60)
        self.assertEqual(claim.scope, f"jti:{ISSUER}")
        other = self.verifier.claim_of(bearer(token(jti="j-2")))
        again = self.verifier.claim_of(bearer(token("ec-1")))
        assert other is not None and again is not None
        self.assertEqual((other.key == claim.key, again.key == claim.key), (False, True))
        self.assertIsNone(self.verifier.claim_of({}))


def part(value: Any) -> str:
    """Encode a part of a token."""
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    """Encode bytes as in tokens."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes | None:
    """Decode a part of a token; None where it cannot be decoded."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None


class KeySetTests(SynchronousTestCase):
    """When the published keys are fetched."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.publisher = Publisher("rsa-1")
        self.verifier = verifier(self.publisher, self.clock)
        self.keys = self.verifier.keys

    def test_rotation(self) -> None:
        """A key that is not known is fetched once it is asked for; one that is gone is refused after the next fetch."""
        self.assertIsNone(self.keys.look_for(None))
        self.verifier.verify(bearer(token()), NOW)
        self.publisher.kids = ("ec-2",)
        self.clock.advance(LEAST_PAUSE)
        self.assertIsNone(self.keys.look_for("ec-2"))
        self.verifier.verify(bearer(token("ec-2")), NOW)
        self.assertRaises(SignatureMismatch, self.verifier.verify, bearer(token()), NOW)
        self.assertEqual(len(self.publisher.fetched), 2)

    def test_limit(self) -> None:
        """Any number of unknown identifiers cause a few fetches, then one in each pause; known ones cause none."""
        for passed in range(3):
            for number in range(100):
                self.keys.look_for(f"x{number}")
                self.keys.look_for("rsa-1")
            self.assertEqual(len(self.publisher.fetched), BURST + passed)
            self.clock.advance(LEAST_PAUSE)
        self.clock.advance(LEAST_PAUSE * 100)
        for number in range(100):
            self.keys.look_for(f"x{number}")
        self.assertEqual(len(self.publisher.fetched), BURST + 2 + BURST)

    def test_rotated_at_once(self) -> None:
        """A sender that changes its keys just after they were fetched is not refused for that."""
        self.keys.warm()
        self.publisher.kids = ("ec-2",)
        self.clock.advance(0.5)
        self.assertIsNone(self.keys.look_for("ec-2"))
        self.verifier.verify(bearer(token("ec-2")), NOW)

    def test_state(self) -> None:
        """Its age and the error of the last fetch are known; the first fetch is made once."""
        self.publisher.is_away = True
        self.keys.warm()
        self.assertIsNone(self.keys.warm())
        self.assertEqual(len(self.publisher.fetched), 1)
        state = self.keys.state("push")
        assert state is not None
        self.assertEqual((state.name, state.age), ("push", None))
        self.assertIn("away", state.error)
        self.publisher.is_away = False
        self.keys.look_for("rsa-1")
        self.clock.advance(60.0)
        state = self.keys.state("push")
        assert state is not None
        self.assertEqual((state.age, state.error), (60.0, ""))

    def test_age(self) -> None:
        """An old document is fetched again while requests continue with it, and stays in use where that fails."""
        self.keys.look_for(None)
        self.clock.advance(MAX_AGE)
        self.publisher.held = True
        self.assertIsNone(self.keys.look_for("rsa-1"))
        self.assertEqual(len(self.publisher.waiting), 1)
        self.publisher.waiting[0].callback(b"<html>")
        self.verifier.verify(bearer(token()), NOW)

    def test_waiting(self) -> None:
        """Requests that need a key wait for the fetch under way, and continue when it has ended, however."""
        self.publisher.held = True
        first, second = self.keys.look_for("rsa-1"), self.keys.look_for("rsa-1")
        assert first is not None and second is not None
        self.assertRaises(NotFetched, self.verifier.verify, bearer(token()), NOW)
        self.assertNoResult(first)
        second.addErrback(lambda _: None).cancel()
        self.publisher.waiting[0].callback(self.publisher.published())
        self.successResultOf(first)
        self.verifier.verify(bearer(token()), NOW)

    def test_away(self) -> None:
        """Without any key a request is answered 503; a later fetch brings them."""
        self.publisher.is_away = True
        self.assertIsNone(self.keys.look_for("rsa-1"))
        error = self.assertRaises(NotFetched, self.verifier.verify, bearer(token()), NOW)
        self.assertEqual(error.retry_after, 30)
        self.publisher.is_away = False
        self.clock.advance(LEAST_PAUSE)
        self.keys.look_for("rsa-1")
        self.verifier.verify(bearer(token()), NOW)

    def test_close(self) -> None:
        """Closing ends a fetch under way."""
        self.publisher.held = True
        waiting = self.keys.look_for("rsa-1")
        self.keys.close()
        assert waiting is not None
        self.successResultOf(waiting)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_documents(self) -> None:
        """Only public keys for signatures count; a document without one is refused."""
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
        private = {**public_key("rsa-1"), "d": "AQAB"}
        for keys in (
            [secret],
            [private],
            [{**public_key("ec-1"), "use": "enc"}],
            [],
            [7],
            [{"kty": "RSA", "n": "!", "e": 1}],
        ):
            self.assertRaises(ValueError, read_key_set, {"keys": keys})
        documents: list[Any] = [None, [], {}, {"keys": {}}, {"keys": [{}] * 200}]
        for document in documents:
            self.assertRaises(ValueError, read_key_set, document)
        (key,) = read_key_set({"keys": [secret, {**public_key("rsa-1"), "alg": "PS256"}]})
        self.assertEqual(key.algorithms, ("PS256",))
