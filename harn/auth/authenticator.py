"""Authentication of requests against the server's own credentials."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from hmac import compare_digest

from msgspec import Struct

from harn.auth.credentials import (
    API_KEYS,
    HMAC_SECRET,
    SCHEME,
    TOLERANCE,
    Credentials,
    SignedHeader,
    check_fresh,
    parse_signed_header,
    request_digest,
)
from harn.auth.keys import KeyRing
from harn.errors import CredentialsRejected, SignatureMismatch
from harn.model.delivery import Claim
from harn.model.display import REDACTED
from harn.operations.model import Role

GUARD_SCOPE = "admin"
CREDENTIAL_HEADERS = ("x-api-key", "authorization")
"""The headers, in lower case, in which `Authenticator` looks for credentials."""


class Identity(Struct, frozen=True):
    """
    An authenticated sender.

    :ivar actor: ``key:`` and the name of a named key; ``key:`` and the first 8 hexadecimal digits of the SHA-256 of a
        key of the environment; ``hmac``; or ``token``.
    :ivar guard: a claim that the caller must make durable before it acts; if it is taken, the request is a replay
        (`harn.errors.SignatureReplayed`). None where a repeated request is harmless.
    :ivar role: the permissions of the credential.
    """

    actor: str
    guard: Claim | None = None
    role: Role = Role.ADMIN


class Authenticator:
    """
    Checks requests against one reading of the credentials. Pure computation: a reload makes a new one.

    Keys are compared as digests, always with all of them, so that timing shows neither their lengths nor a near match.
    """

    def __init__(
        self,
        credentials: Credentials,
        token: bytes | None = None,
        ring: KeyRing | None = None,
        *,
        accepts_named: bool = True,
    ) -> None:
        """
        :param token: a key beside the configured ones; see `harn.auth.credentials.write_token`.
        :param ring: the named keys, which change while this is in use.
        :param accepts_named: False: they are only recognized, and taken out of headers that are stored.
        """
        self._ring = KeyRing() if ring is None else ring
        self._accepts_named = accepts_named
        self._digests = [hashlib.sha256(key).digest() for key in credentials.keys]
        self._secret = credentials.hmac_secret
        self._token = None if token is None else hashlib.sha256(token).digest()
        self.configured = credentials.configured or token is not None

    def authenticate(self, method: str, target: str, headers: Mapping[str, str], body: bytes, now: float) -> Identity:
        """
        Return the sender's identity.

        :param target: the request target with its query, as in the request line.
        :param headers: names in lower case, values decoded as latin-1.
        :param now: seconds, Unix.
        :raises CredentialsRejected: or a subclass; ``str()`` says what is wrong, and never quotes the right value.
        """
        claimed = self.authenticate_headers(headers, now)
        if isinstance(claimed, Identity):
            return claimed
        expected = request_digest(self._secret or b"", method, target, claimed.timestamp, body)
        given = claimed.signature.encode("utf-8", "replace")
        if not compare_digest(base64.b64encode(expected), given):
            raise SignatureMismatch(
                "the signature is wrong: it is made with another secret, or over another method, path with query, "
                "timestamp or body"
            )
        return Identity("hmac", None if method == "GET" else _guard(expected, int(claimed.timestamp)))

    def authenticate_headers(self, headers: Mapping[str, str], now: float) -> Identity | SignedHeader:
        """
        Authenticate by the headers alone, as far as possible, so that senders without credentials cannot make the
        server read a body.

        :return: the identity; or, for a signed request, the signature, which `authenticate` checks with the body.
        :raises CredentialsRejected: as `authenticate`.
        """
        if not self.configured:
            raise CredentialsRejected(
                f"no credentials are configured; set {API_KEYS} or {HMAC_SECRET} (or {API_KEYS}_FILE, "
                f"{HMAC_SECRET}_FILE) for the server, and restart or reload it"
            )
        key = headers.get("x-api-key")
        if key is not None:
            return self._holder("X-API-Key", key)
        authorization = headers.get("authorization")
        if authorization is None:
            raise CredentialsRejected(
                f"no credentials; send Authorization: Bearer <key>, X-API-Key: <key> or a signed request ({SCHEME})"
            )
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            return self._holder("Authorization", rest)
        if scheme.upper() != SCHEME:
            raise CredentialsRejected(f"the Authorization scheme is unknown; use Bearer or {SCHEME}")
        if self._secret is None:
            raise CredentialsRejected(f"signed requests are not configured; set {HMAC_SECRET} for the server")
        signed = parse_signed_header(rest)
        check_fresh(signed.timestamp, now)
        return signed

    def without_ours(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """
        Return the headers with every credential of this server replaced, so that they may be stored; else the same
        mapping. Replaced are the current keys, with named ones, in the headers that this class reads, and any signature
        in the form of `SCHEME`.

        :param headers: as in `authenticate`.
        """
        kept: dict[str, str] | None = None
        for name in CREDENTIAL_HEADERS:
            value = headers.get(name)
            if value is not None and self._is_ours(name, value):
                kept = dict(headers) if kept is None else kept
                kept[name] = REDACTED
        return headers if kept is None else kept

    def _is_ours(self, name: str, value: str) -> bool:
        """Return whether a header's value is a credential that `authenticate_headers` would accept."""
        try:
            scheme, _, rest = ("", "", value) if name == "x-api-key" else value.strip().partition(" ")
            if self._ring.holder(digest_of_key(rest).hex()) is not None:
                return True
            if scheme.upper() == SCHEME and self._secret is not None:
                parse_signed_header(rest)
            else:
                self._holder(name, rest)
        except CredentialsRejected:
            return False
        return True

    def _holder(self, header: str, key: str) -> Identity:
        """Return the identity of a key's holder, in constant time."""
        identity = self.identity_of(digest_of_key(key))
        if identity is None:
            more = "" if self._token is None else ", nor a named key, nor the token in the state directory"
            raise CredentialsRejected(f"the key in {header} is not one of {API_KEYS}{more}")
        return identity

    def identity_of(self, given: bytes) -> Identity | None:
        """
        Return the identity of the holder of a key, in constant time; None if it is not accepted.

        :param given: see `digest_of_key`.
        """
        named = self._ring.holder(given.hex())
        if named is not None and self._accepts_named:
            return Identity(named.actor, role=named.role)
        found = False
        for digest in self._digests:
            found |= compare_digest(digest, given)
        if self._token is not None and compare_digest(self._token, given):
            return Identity("token")
        return Identity("key:" + given.hex()[:8]) if found else None


def digest_of_key(key: str) -> bytes:
    """Return the SHA-256 of a key in the form of a header."""
    return hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()


def _guard(signature: bytes, timestamp: int) -> Claim:
    """
    Return a claim on a signature for as long as it could be repeated, with one window to spare if the clock is set
    back.
    """
    key = "signature:" + hashlib.sha256(signature).hexdigest()
    return Claim(scope=GUARD_SCOPE, key=key, expires_at=float(timestamp + 2 * TOLERANCE))


class LiveCredentials:
    """
    Holds the authenticators of the current credentials.

    :param token: of the state directory, which the admin API accepts too.
    :param ring: the named keys, which the admin API accepts, too; routes of triggers do not.
    :ivar are_configured: there are any.
    """

    def __init__(self, token: bytes | None, ring: KeyRing | None = None) -> None:
        self._token = token
        self._ring = KeyRing() if ring is None else ring
        self.replace(Credentials())

    def replace(self, credentials: Credentials) -> None:
        """Accept these from now on, and no others."""
        self.are_configured = credentials.configured
        self._authenticator = Authenticator(credentials, ring=self._ring, accepts_named=False)
        self._admin_authenticator = Authenticator(credentials, self._token, self._ring)

    def authenticator(self) -> Authenticator:
        """Return the current one for routes of triggers."""
        return self._authenticator

    def admin_authenticator(self) -> Authenticator:
        """Return the current one for the admin API."""
        return self._admin_authenticator
