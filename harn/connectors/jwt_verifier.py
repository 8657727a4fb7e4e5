"""
Verification of JSON Web Tokens that senders put into ``Authorization: Bearer``: signature, claims, times, single use.

Only algorithms with public keys count, and only with a key of their own kind, so that neither ``none`` nor an HMAC with
the public key as its secret can pass. Times are compared with the request's.

Sources: RFC 7519, JSON Web Token; RFC 8725, JSON Web Token Best Current Practices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from harn.connectors.fetching import NotFetched
from harn.connectors.interfaces import Headers
from harn.connectors.jwks import ALGORITHMS, KeySet
from harn.errors import SignatureMismatch, SignatureMissing, SignatureStale
from harn.model.delivery import Claim
from harn.wire import digest_bytes

LONGEST_TOKEN = 16 * 1024
LONGEST_LIFE = 86400.0
"""Seconds that a token may be valid from now on: so long its identifier is kept."""
_MOST_ID = 1000
_NO_CHECKS = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}


class JwtVerifier(Struct, frozen=True, kw_only=True):
    """
    Verifies the tokens of one trigger.

    :ivar issuer: what ``iss`` must be.
    :ivar audience: what ``aud`` must name.
    :ivar leeway: seconds by which the sender's clock may differ.
    """

    keys: KeySet
    issuer: str
    audience: str
    leeway: float

    def verify(self, headers: Headers, now: float) -> None:
        """
        Check the token of a request at ``now`` (seconds, Unix).

        :raises SignatureMissing: there is no token.
        :raises SignatureMismatch: no known key made it, or a claim is not what it must be.
        :raises SignatureStale: it is not valid yet, or no longer.
        :raises NotFetched: no key has been fetched yet.
        """
        token = bearer_token(headers)
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise SignatureMismatch(f"the token's algorithm must be one of {', '.join(ALGORITHMS)}")
        if not isinstance(kid, str | None):
            raise SignatureMismatch("the token's kid must be a text")
        if not self.keys.is_known:
            raise NotFetched("the sender's public keys cannot be fetched; send the request again", retry_after=30)
        claims = self._claims(token, kid, algorithm)
        self._check_times(claims, now)
        if _identifier(claims) is None:
            raise SignatureMismatch("the token must have a jti, by which it is accepted once")

    def _claims(self, token: str, kid: str | None, algorithm: str) -> Mapping[str, Any]:
        import jwt

        wrong_claim = (jwt.InvalidIssuerError, jwt.InvalidAudienceError, jwt.MissingRequiredClaimError)
        why = "no known key of the sender made the token"
        options: Any = {"require": ["exp", "iss", "aud"], **_NO_CHECKS}
        for key in self.keys.find(kid, algorithm):
            try:
                claims: Mapping[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    issuer=self.issuer,
                    audience=self.audience,
                    options=options,
                )
            except Exception as error:  # PyJWT's, and Python's for any other text
                if isinstance(error, wrong_claim):
                    why = f"a claim of the token is not what it must be: {error}"
            else:
                return claims
        raise SignatureMismatch(why)

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        expires_at = _time(claims, "exp")
        if expires_at is None or not now - self.leeway < expires_at:
            raise SignatureStale("the token has expired")
        if expires_at > now + LONGEST_LIFE + self.leeway:
            raise SignatureStale(f"the token must expire within {LONGEST_LIFE:g} s")
        for name in ("iat", "nbf"):
            at = _time(claims, name)
            if name in claims and (at is None or at > now + self.leeway):
                raise SignatureStale(f"the token's {name} is in the future")

    def claim_of(self, headers: Headers) -> Claim | None:
        """
        Return the claim that a request's token can be used once; None where it has none, and will not be verified.

        Its scope is the issuer, within which identifiers are unique (RFC 7519, section 4.1.7). Were it a trigger or a
        path, a used token would be accepted again after a reload that adds, renames or moves one. The token is not
        verified here. The claim is stored together with the events, so only if it was.
        """
        try:
            claims = _unverified(bearer_token(headers))
        except (SignatureMissing, SignatureMismatch):
            return None
        identifier, expires_at = _identifier(claims), _time(claims, "exp")
        if identifier is None or expires_at is None:
            return None
        # As long as the token could be valid: a little longer does no harm.
        return Claim(
            scope=f"jti:{self.issuer}",
            key=digest_bytes(identifier.encode("utf-8", "surrogatepass")),
            expires_at=min(expires_at, 1e11) + self.leeway + 1.0,
        )

    def kid_of(self, headers: Headers) -> str | None:
        """Return the identifier of the key that a request's token names; None where it names none."""
        try:
            kid = _header(bearer_token(headers)).get("kid")
        except (SignatureMissing, SignatureMismatch):
            return None
        return kid if isinstance(kid, str) else None


def bearer_token(headers: Headers) -> str:
    """
    Return the token in ``Authorization``.

    :raises SignatureMissing: there is none.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN:
        raise SignatureMissing("the header Authorization must have Bearer and a JSON Web Token")
    return token


def _header(token: str) -> Mapping[str, Any]:
    import jwt

    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
    except Exception:
        raise SignatureMismatch("the header Authorization has no JSON Web Token") from None
    return header


def _unverified(token: str) -> Mapping[str, Any]:
    import jwt

    try:
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False, **_NO_CHECKS})  # type: ignore[arg-type]
    except Exception:
        raise SignatureMismatch("the header Authorization has no JSON Web Token") from None
    return claims


def _identifier(claims: Mapping[str, Any]) -> str | None:
    found = claims.get("jti")
    return found if isinstance(found, str) and 0 < len(found) <= _MOST_ID else None


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not -1e12 < found < 1e12:
        return None
    return float(found)
