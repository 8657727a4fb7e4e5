"""Keys and tokens of an agent that signs its notifications, and a publisher of its keys, for tests."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from harn.connectors.fetching import DocumentUnavailable, IFetcher
from tests.connectors.examples import NOW

ISSUER, AUDIENCE = "https://agent.example", "harn"
SETTINGS = {"jwks_url": "https://agent.example/jwks.json", "expected_iss": ISSUER, "expected_aud": AUDIENCE}


@cache
def private_key(kid: str) -> Any:
    """Return the private key of an identifier: its beginning says of which kind."""
    if kid.startswith("ec"):
        return ec.generate_private_key(ec.SECP256R1())
    if kid.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def algorithm_of(kid: str) -> str:
    """Return the algorithm of a key."""
    return {"ec": "ES256", "ed": "EdDSA"}.get(kid[:2], "RS256")


def public_key(kid: str) -> dict[str, Any]:
    """Return the public half of a key as a JSON Web Key."""
    maker: Any = {"ec": ECAlgorithm, "ed": OKPAlgorithm}.get(kid[:2], RSAAlgorithm)
    made = json.loads(maker.to_jwk(private_key(kid).public_key()))
    return {**made, "kid": kid, "use": "sig"}


def key_set(*kids: str) -> dict[str, Any]:
    """Return the set that an agent with these keys publishes."""
    return {"keys": [public_key(kid) for kid in kids]}


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a token; None takes one out."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "iat": int(NOW), "exp": int(NOW) + 300, "jti": "j-1"}
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def token(kid: str = "rsa-1", *, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """Return a token of a key, with other claims where they are given."""
    return jwt.encode(
        claims(**changed), private_key(kid), algorithm_of(kid), headers={"kid": kid} if header is None else header
    )


def bearer(text: str) -> dict[str, str]:
    """Return the headers of a request with a token."""
    return {"authorization": f"Bearer {text}"}


@implementer(IFetcher)
class Publisher:
    """Publishes the keys of an agent; ``held``: until the test fires ``waiting``."""

    def __init__(self, *kids: str) -> None:
        self.kids: tuple[str, ...] = kids
        self.held = self.is_away = False
        self.document: bytes | None = None
        self.fetched: list[str] = []
        self.waiting: list[Deferred[bytes]] = []

    def fetch(self, url: str) -> Deferred[bytes]:
        """See `IFetcher.fetch`."""
        self.fetched.append(url)
        if self.held:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        if self.is_away:
            return fail(DocumentUnavailable(f"{url}: away"))
        return succeed(self.published())

    def published(self) -> bytes:
        """Return the document as it is now."""
        return json.dumps(key_set(*self.kids)).encode() if self.document is None else self.document
