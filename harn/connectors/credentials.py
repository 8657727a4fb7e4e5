"""Credentials that a sender sends as they are: a token in a header or the query, and a user with a password."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from hmac import compare_digest
from urllib.parse import parse_qs, quote

from msgspec import Struct, field, structs
from zope.interface import implementer

from harn.connectors.interfaces import Headers, IRequestScheme, IScheme
from harn.connectors.signatures import (
    StandardScheme,
    any_equal,
    as_sent,
    decode_standard_secret,
    verify_standard,
)
from harn.errors import SignatureMismatch, SignatureMissing
from harn.model.exchange import InboundRequest

_BEARER = "bearer "
_MOST_PARAMETERS = 100


@implementer(IRequestScheme)
class TokenScheme(Struct, frozen=True, kw_only=True):
    """
    The secret itself, in a header or a parameter of the query, whichever the request has.

    :ivar header: the header, spelled as the sender does; ``Bearer`` before the token does not count.
    :ivar query: the parameter.
    """

    name: str = "token"
    header: str | None = None
    query: str | None = None

    @property
    def credential_headers(self) -> tuple[str, ...]:
        """Return the header that is the secret, in lower case: it is not stored."""
        return () if self.header is None else (self.header.lower(),)

    def key(self, secret: bytes) -> bytes:
        """See `IRequestScheme`."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def check_headers(self, headers: Headers) -> None:
        """See `IRequestScheme`."""
        if self.query is None and self._in_header(headers) is None:
            raise SignatureMissing(f"the header {self.header} with the token is missing")

    def verify_request(self, keys: Sequence[bytes], request: InboundRequest, now: float, tolerance: int) -> None:
        """See `IRequestScheme`."""
        self.verify_token(keys, request.headers, request.query)

    def verify_token(self, keys: Sequence[bytes], headers: Headers, query: str = "") -> None:
        """
        Check that a request has one of ``keys``.

        :raises SignatureMissing: it has no token.
        :raises SignatureMismatch: it has another one.
        """
        given = [found for found in (self._in_header(headers), self._in_query(query)) if found is not None]
        if not given:
            places = [f"the header {self.header}"] if self.header else []
            places += [f"the parameter {self.query}"] if self.query else []
            raise SignatureMissing(f"the token is missing: it must be in {' or '.join(places)}")
        if not any_equal(keys, given):
            raise SignatureMismatch("the token is not the one that is configured here")

    def sign_request(self, key: bytes, request: InboundRequest, now: float) -> InboundRequest:
        """See `IRequestScheme`."""
        if self.header is not None:
            value = self.written(key)
            return structs.replace(request, headers={**request.headers, self.header.lower(): value})
        query = "&".join(filter(None, (request.query, f"{self.query}={quote(key, safe='')}")))
        return structs.replace(request, query=query)

    def written(self, key: bytes) -> str:
        """Return the value of the header with a token: its bytes, as Latin-1."""
        token = key.decode("latin-1")
        return f"Bearer {token}" if self.header is not None and self.header.lower() == "authorization" else token

    def _in_header(self, headers: Headers) -> str | None:
        found = None if self.header is None else headers.get(self.header.lower())
        if found is None:
            return None
        return as_sent(found[len(_BEARER) :].strip() if found[: len(_BEARER)].lower() == _BEARER else found)

    def _in_query(self, query: str) -> str | None:
        if self.query is None or not query:
            return None
        try:
            found = parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS).get(self.query)
        except ValueError:
            return None
        return found[0] if found is not None and len(found) == 1 else None


@implementer(IScheme)
class BasicScheme:
    """A user and a password (RFC 7617), which are the key, joined by a colon."""

    name = "basic"
    credential_headers = ("authorization",)

    def key(self, secret: bytes) -> bytes:
        """See `IScheme`; called for the user and the password, each."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        if "authorization" not in headers:
            raise SignatureMissing("the header Authorization with user and password is missing")

    def verify(self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = 0) -> None:
        """See `IScheme`."""
        self.check_headers(headers)
        scheme, _, encoded = headers["authorization"].partition(" ")
        try:
            given = base64.b64decode(encoded.strip().encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        equal = [compare_digest(key, given) for key in keys]
        if scheme.lower() != "basic" or not any(equal):
            raise SignatureMismatch("user and password are not those that are configured here")

    def sign(self, key: bytes, body: bytes, now: float) -> dict[str, str]:
        """See `IScheme`."""
        return {"Authorization": "Basic " + base64.b64encode(key).decode("ascii")}


@implementer(IScheme)
class SignedOrToken(Struct, frozen=True, kw_only=True):
    """
    A signature of Standard Webhooks where the request has one, else the secret itself as a token in a header.

    Both show that the sender has the secret, so neither weakens the other.
    """

    name: str
    token: TokenScheme
    standard: StandardScheme = field(default_factory=StandardScheme)

    @property
    def credential_headers(self) -> tuple[str, ...]:
        """See `TokenScheme.credential_headers`."""
        return self.token.credential_headers

    def key(self, secret: bytes) -> bytes:
        """See `IScheme`."""
        return self.token.key(secret)

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        if "webhook-signature" in headers:
            self.standard.check_headers(headers)
        else:
            self.token.check_headers(headers)

    def verify(self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = 0) -> None:
        """See `IScheme`."""
        if "webhook-signature" not in headers:
            self.token.verify_token(keys, headers)
            return
        found = [headers.get(f"webhook-{part}") for part in ("id", "timestamp", "signature")]
        verify_standard(_signing_keys(keys), found[0], found[1], body, found[2], now, tolerance)

    def sign(self, key: bytes, body: bytes, now: float) -> dict[str, str]:
        """See `IScheme`: signed where the key is one of Standard Webhooks, else the token."""
        if key.startswith(b"whsec_"):
            return self.standard.sign(_signing_keys([key])[0], body, now)
        assert self.token.header is not None
        return {self.token.header: self.token.written(key)}


def _signing_keys(keys: Sequence[bytes]) -> list[bytes]:
    """Return each secret as a key of Standard Webhooks: decoded where it is base64, else unchanged."""
    found = []
    for key in keys:
        with suppress(ValueError):
            found.append(decode_standard_secret(key))
        found.append(key)
    return found
