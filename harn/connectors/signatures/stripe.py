"""The scheme of Stripe: an HMAC of the time stamp and the body, both in one header."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from harn.auth.freshness import TOLERANCE, check_fresh
from harn.connectors.signatures.comparing import any_equal
from harn.errors import SignatureMismatch, SignatureMissing

HEADER = "stripe-signature"


def sign(secret: bytes, timestamp: str, body: bytes) -> bytes:
    """Give the hexadecimal digits of one ``v1`` entry."""
    signed = b"%b.%b" % (timestamp.encode("ascii"), body)
    return hmac.digest(secret, signed, "sha256").hex().encode("ascii")


def verify(
    secrets: Sequence[bytes], body: bytes, signature: str | None, now: float, tolerance: int = TOLERANCE
) -> None:
    """
    Check that Stripe signed ``body`` with one of ``secrets``, and did so recently.

    :param body: the request body before any decoding.
    :param signature: ``Stripe-Signature``: ``t=<seconds, Unix>,v1=<64 hexadecimal digits>``, with any number of ``v1``
        (one for each secret that Stripe rolls over) and entries of other schemes, which do not count; None if absent.
    :param now: seconds, Unix.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureMissing: there is none.
    :raises SignatureStale: ``t`` is malformed or more than ``tolerance`` from ``now``.
    :raises SignatureMismatch: no secret made any ``v1`` (compared in constant time), or ``t`` is not there once.

    Source: Stripe, "Resolve webhook signature verification errors", manual verification.
    """
    if signature is None:
        raise SignatureMissing("the header Stripe-Signature is missing")
    timestamps, candidates = [], []
    for entry in signature.split(","):
        name, _, value = entry.strip().partition("=")
        if name == "t":
            timestamps.append(value)
        elif name == "v1":
            candidates.append(value)
    if len(timestamps) != 1:
        raise SignatureMismatch("Stripe-Signature must have exactly one t, the time stamp")
    check_fresh(timestamps[0], now, tolerance)
    if not any_equal([sign(secret, timestamps[0], body) for secret in secrets], candidates):
        raise SignatureMismatch("no v1 of Stripe-Signature matches: another secret, or the body was altered")
