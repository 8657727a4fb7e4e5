"""The scheme of Slack: an HMAC of the time stamp and the body."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from harn.auth.freshness import TOLERANCE, check_fresh
from harn.connectors.signatures.comparing import any_equal
from harn.errors import SignatureMismatch, SignatureMissing

TIMESTAMP_HEADER = "x-slack-request-timestamp"
HEADER = "x-slack-signature"


def sign(secret: bytes, timestamp: str, body: bytes) -> bytes:
    """Give the value of the header."""
    signed = b"v0:%b:%b" % (timestamp.encode("ascii"), body)
    return b"v0=" + hmac.digest(secret, signed, "sha256").hex().encode("ascii")


def verify(
    secrets: Sequence[bytes],
    timestamp: str | None,
    body: bytes,
    signature: str | None,
    now: float,
    tolerance: int = TOLERANCE,
) -> None:
    """
    Check that Slack signed ``body`` with one of ``secrets``, and did so recently.

    :param timestamp: ``X-Slack-Request-Timestamp``: decimal seconds, Unix, as received; None if absent.
    :param body: the request body before any decoding.
    :param signature: ``X-Slack-Signature``: ``v0=`` and 64 lower-case hexadecimal digits; None if absent.
    :param now: seconds, Unix.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureMissing: either header is absent.
    :raises SignatureStale: ``timestamp`` is malformed or more than ``tolerance`` from ``now``.
    :raises SignatureMismatch: no secret made it (compared in constant time), or it is malformed.

    Source: Slack, "Verifying requests from Slack".
    """
    if timestamp is None or signature is None:
        missing = "X-Slack-Request-Timestamp" if timestamp is None else "X-Slack-Signature"
        raise SignatureMissing(f"the header {missing} is missing")
    check_fresh(timestamp, now, tolerance)
    if not any_equal([sign(secret, timestamp, body) for secret in secrets], [signature]):
        raise SignatureMismatch("X-Slack-Signature does not match: another secret, or the request was altered")
