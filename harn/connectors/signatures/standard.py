"""The scheme of Standard Webhooks (and of Svix): an HMAC of identifier, time stamp and body."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

from zope.interface import implementer

from harn.auth.freshness import TOLERANCE, check_fresh
from harn.connectors.signatures.comparing import any_equal
from harn.connectors.signatures.interfaces import Headers, IScheme
from harn.errors import SignatureMismatch, SignatureMissing

PREFIX = b"whsec_"
PARTS = ("id", "timestamp", "signature")
"""Ends of the headers' names, after ``webhook-`` or ``svix-``."""

EXAMPLE_ID = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def decode_secret(secret: bytes) -> bytes:
    """
    Return the key of ``secret``: base64 after an optional ``whsec_``; padding may be missing.

    No other text is accepted as a key: a sender would decode it as base64, and every signature would be wrong.

    :raises ValueError: not base64, or empty; the message does not quote it.
    """
    encoded = secret.strip().removeprefix(PREFIX).rstrip(b"=")
    try:
        key = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("it must be base64, as Standard Webhooks requires (whsec_ and base64 of the key)") from error
    if not key:
        raise ValueError("it is empty")
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    """Return the base64 of one ``v1`` signature."""
    signed = b"%b.%b.%b" % (message_id.encode("latin-1", "replace"), timestamp.encode("ascii"), body)
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def verify(
    keys: Sequence[bytes],
    message_id: str | None,
    timestamp: str | None,
    body: bytes,
    signatures: str | None,
    now: float,
    tolerance: int = TOLERANCE,
) -> None:
    """
    Check that the sender signed ``body`` with one of ``keys``, and did so recently.

    :param keys: as `decode_secret` returns them.
    :param message_id: ``webhook-id``; None if absent, like the other two.
    :param timestamp: ``webhook-timestamp``: decimal seconds, Unix, as received.
    :param body: the request body before any decoding.
    :param signatures: ``webhook-signature``: ``v1,<base64>``, several separated by spaces; other versions do not count.
    :param now: seconds, Unix.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureMissing: one of the headers is absent.
    :raises SignatureStale: ``timestamp`` is malformed or more than ``tolerance`` from ``now``.
    :raises SignatureMismatch: no key made any ``v1`` (compared in constant time).

    Source: Standard Webhooks specification 1.0, "Verifying webhook authenticity".
    """
    if message_id is None or timestamp is None or signatures is None:
        absent = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signatures}
        names = ", ".join(name for name, value in absent.items() if value is None)
        raise SignatureMissing(f"missing: {names} (or the svix- headers of the same meaning)")
    check_fresh(timestamp, now, tolerance)
    # A repeated header arrives joined by ", ": a comma at the end of a part does not belong to a signature.
    entries = [entry.rstrip(",").partition(",") for entry in signatures.split()]
    candidates = [value for version, _, value in entries if version == "v1"]
    if not any_equal([sign(key, message_id, timestamp, body) for key in keys], candidates):
        raise SignatureMismatch(
            "no v1 of webhook-signature matches: another secret, or identifier, timestamp or body were altered"
        )


@implementer(IScheme)
class StandardScheme:
    """Standard Webhooks, also under the names of Svix."""

    name = "standard"

    def key(self, secret: bytes) -> bytes:
        """See `IScheme`."""
        return decode_secret(secret)

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        # All three headers of one family: no sender mixes them.
        family = "webhook" if "webhook-signature" in headers or "svix-signature" not in headers else "svix"
        message_id, timestamp, signatures = (headers.get(f"{family}-{part}") for part in PARTS)
        verify(keys, message_id, timestamp, body, signatures, now, tolerance)

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        if not any(all(f"{family}-{part}" in headers for part in PARTS) for family in ("webhook", "svix")):
            self.verify((), headers, b"", 0.0, 0)  # raises with the names of missing headers

    def sign(self, key: bytes, body: bytes, now: float, message_id: str = EXAMPLE_ID) -> dict[str, str]:
        """See `IScheme`."""
        timestamp = str(int(now))
        signature = "v1," + sign(key, message_id, timestamp, body).decode("ascii")
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
