"""
Requests signed with the server's own secret: ``Authorization: HMAC-SHA256 timestamp=<unix>,signature=<base64>``.

The check that a signed time stamp is recent serves the signatures of providers, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from harn.auth.credentials import API_KEYS, HMAC_SECRET, Credentials
from harn.errors import CredentialsRejected, SecretUnavailable, SignatureStale
from harn.wire import canonical_json

TOLERANCE = 300
"""Seconds, either way: the tolerance of Standard Webhooks, Stripe and Slack, and of the server's own requests."""

_LONGEST = 12  # digits; bounds what is parsed, and year 33658 is late enough


def check_fresh(timestamp: str, now: float, tolerance: int = TOLERANCE) -> int:
    """
    Return the time stamp as whole seconds (Unix), unless it is too far from now.

    :param timestamp: ASCII digits only, as received: no sign, no fraction, no white space.
    :param now: seconds, Unix; its fraction does not count.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureStale: malformed, or outside the window.
    """
    if not (0 < len(timestamp) <= _LONGEST and timestamp.isascii() and timestamp.isdigit()):
        raise SignatureStale("the signature's timestamp is not in whole Unix seconds")
    seconds = int(timestamp)
    age = int(now) - seconds
    if abs(age) > tolerance:
        distance = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise SignatureStale(
            f"the signature's timestamp is {distance}; at most {tolerance} s are allowed, so check the sender's clock"
        )
    return seconds


SCHEME = "HMAC-SHA256"


@frozen
class SignedHeader:
    """The parameters of the header, as received: nothing about them has been checked."""

    timestamp: str
    signature: str = field(repr=False)


def request_digest(secret: bytes, method: str, target: str, timestamp: str, body: bytes) -> bytes:
    r"""
    Return the 32 bytes that sign a request.

    :param target: the request target with its query, as in the request line, for example ``/admin/reload?force=true``.
    :param timestamp: decimal seconds, Unix, as sent.
    :param body: exactly the bytes sent; empty for none.

    Signed is ``METHOD\nPATH\nTIMESTAMP\nhex(sha256(body))``, the method in upper case.
    """
    head = f"{method.upper()}\n{target}\n{timestamp}\n{hashlib.sha256(body).hexdigest()}"
    # A target that is not ASCII arrives decoded as latin-1, and is signed as its original bytes.
    return hmac.digest(secret, head.encode("latin-1", "replace"), "sha256")


def sign_request(secret: bytes, method: str, target: str, body: bytes, now: float) -> str:
    """
    Return the value of ``Authorization`` for a request to a server.

    :param now: seconds, Unix.
    """
    timestamp = str(int(now))
    signature = base64.b64encode(request_digest(secret, method, target, timestamp, body)).decode("ascii")
    return f"{SCHEME} timestamp={timestamp},signature={signature}"


def parse_signed_header(parameters: str) -> SignedHeader:
    """
    Parse the parameters after the scheme: ``timestamp`` and ``signature``, each once, in any order.

    :raises CredentialsRejected: anything else.
    """
    found: dict[str, str] = {}
    for part in parameters.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name not in ("timestamp", "signature") or name in found:
            found.clear()
            break
        found[name] = value
    if len(found) != 2:
        raise CredentialsRejected(
            f"malformed Authorization header; write {SCHEME} timestamp=<Unix seconds>,signature=<base64>"
        )
    return SignedHeader(found["timestamp"], found["signature"])


def body_with_request_id(document: Mapping[str, Any], random: Callable[[int], str] = secrets.token_hex) -> bytes:
    """
    Encode a body that never repeats, so that the same request made twice in one second has two signatures.

    :param random: returns that many random bytes in hexadecimal digits.
    """
    return canonical_json({**document, "request_id": random(16)})


def authorization(credentials: Credentials, method: str, target: str, body: bytes, now: float) -> str:
    """
    Return the header's value: the first key as bearer, else a signature.

    :param target: the request target with its query.
    :param now: seconds, Unix.
    :raises SecretUnavailable: there are no credentials; names the variables.
    """
    if credentials.keys:
        return "Bearer " + credentials.keys[0].decode("latin-1")
    if credentials.hmac_secret is not None:
        return sign_request(credentials.hmac_secret, method, target, body, now)
    raise SecretUnavailable(f"no credentials for the server; set {API_KEYS} or {HMAC_SECRET} as the server has them")
