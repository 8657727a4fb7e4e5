"""The interface of signature schemes, for connectors and for signing as a sender would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import Attribute, Interface

Headers = Mapping[str, str]


class IScheme(Interface):
    """One way of signing requests. Pure computation."""

    name: str = Attribute("For example ``standard``.")

    def key(secret: bytes) -> bytes:
        """
        Return the key for a configured secret.

        :raises ValueError: it is not a key; the message does not quote it.
        """

    def verify(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
        """
        Check that the sender signed ``body`` with one of ``keys``, and did so recently if it signs a time.

        :param headers: names in lower case, as received.
        :param body: the request body before any decoding.
        :param now: seconds, Unix.
        :param tolerance: seconds either way, inclusive.
        :raises SignatureMissing: a header is absent.
        :raises SignatureStale: the time is malformed, or outside the window.
        :raises SignatureMismatch: no key made it (compared in constant time), or it is malformed.
        """

    def check_headers(headers: Headers) -> None:
        """
        Check the headers alone, before the body has arrived.

        :param headers: names in lower case.
        :raises SignatureMissing: a header that carries the signature is absent; names one.
        """

    def sign(key: bytes, body: bytes, now: float) -> dict[str, str]:
        """
        Return the headers, spelled as the sender does, with which ``body`` is verified at ``now`` (seconds, Unix).
        """
