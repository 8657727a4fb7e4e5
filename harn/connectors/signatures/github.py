"""The scheme of GitHub: an HMAC of the body alone."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from harn.connectors.signatures.comparing import any_equal
from harn.errors import SignatureMismatch, SignatureMissing

HEADER = "x-hub-signature-256"


def sign(secret: bytes, body: bytes) -> bytes:
    """Give the value of the header."""
    return b"sha256=" + hmac.digest(secret, body, "sha256").hex().encode("ascii")


def verify(secrets: Sequence[bytes], body: bytes, signature: str | None) -> None:
    """
    Check that GitHub signed ``body`` with one of ``secrets``. It signs no time: a captured request stays valid.

    :param body: the request body before any decoding.
    :param signature: ``X-Hub-Signature-256``: ``sha256=`` and 64 lower-case hexadecimal digits; None if absent.
    :raises SignatureMissing: there is none.
    :raises SignatureMismatch: no secret made it (compared in constant time), or it is malformed.

    Source: GitHub, "Validating webhook deliveries".
    """
    if signature is None:
        raise SignatureMissing("the header X-Hub-Signature-256 is missing; set a secret for the webhook at the sender")
    if not any_equal([sign(secret, body) for secret in secrets], [signature]):
        raise SignatureMismatch("X-Hub-Signature-256 does not match the body: another secret, or the body was altered")
