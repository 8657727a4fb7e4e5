"""Signatures by a private key that only the sender has: Ed25519, and ECDSA with SHA-256."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from msgspec import Struct
from zope.interface import implementer

from harn.auth.credentials import TOLERANCE, check_fresh
from harn.connectors.interfaces import Headers, IScheme
from harn.errors import SignatureMismatch, SignatureMissing

_PEM_LINES = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----")


class Algorithm(Enum):
    """The algorithm, and with it the format of key and signature: hexadecimal, or base64 of DER."""

    ED25519 = "Ed25519"
    ECDSA = "ECDSA"


@implementer(IScheme)
class PublicKeyScheme(Struct, frozen=True, kw_only=True):
    """
    A signature over a time stamp and the body.

    :ivar header: the header with the signature, spelled as the sender does.
    :ivar timestamp_header: the header with the time (whole seconds, Unix).
    """

    name: str
    header: str
    timestamp_header: str
    algorithm: Algorithm

    signs_privately = True

    def key(self, secret: bytes) -> bytes:
        """
        Return the public key: 32 bytes of Ed25519, or DER.

        :raises ValueError: it is not a public key of the algorithm.
        """
        text = secret.decode("ascii", "replace")
        for line in _PEM_LINES:
            text = text.replace(line, "")
        text = "".join(text.split())
        if self.algorithm is Algorithm.ED25519:
            try:
                key = bytes.fromhex(text)
                _ed25519(key)
            except ValueError:
                raise ValueError("it must be a public key of Ed25519: 64 hexadecimal digits") from None
            return key
        try:
            key = base64.b64decode(text, validate=True)
            _ecdsa(key)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("it must be a public key of ECDSA: base64, or the same with the lines of PEM") from None
        return key

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        for name in (self.timestamp_header, self.header):
            if name.lower() not in headers:
                raise SignatureMissing(f"the header {name} is missing; is this a request of {self.name}?")

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        self.check_headers(headers)
        timestamp = headers[self.timestamp_header.lower()]
        check_fresh(timestamp, now, tolerance)
        signature = self._decoded(headers[self.header.lower()])
        signed = timestamp.encode("ascii") + body
        if not any(self._made(key, signature, signed) for key in keys):
            raise SignatureMismatch(
                f"{self.header} does not match the body: another public key, or the body was altered on its way"
            )

    def sign(self, key: bytes, body: bytes, now: float) -> dict[str, str]:
        """
        Return the headers; see `IScheme`.

        :param key: the private key: 32 bytes of Ed25519, or DER.
        :raises ValueError: it is not a private key of the algorithm.
        """
        timestamp = str(int(now))
        signed = timestamp.encode("ascii") + body
        if self.algorithm is Algorithm.ED25519:
            signature = Ed25519PrivateKey.from_private_bytes(key).sign(signed).hex()
        else:
            private = load_der_private_key(key, None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError("it must be a private key of ECDSA")
            signature = base64.b64encode(private.sign(signed, ec.ECDSA(hashes.SHA256()))).decode("ascii")
        return {self.timestamp_header: timestamp, self.header: signature}

    def _decoded(self, signature: str) -> bytes:
        try:
            if self.algorithm is Algorithm.ED25519:
                return bytes.fromhex(signature)
            return base64.b64decode(signature.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise SignatureMismatch(f"{self.header} is malformed") from None

    def _made(self, key: bytes, signature: bytes, signed: bytes) -> bool:
        """Return whether the private key of ``key`` made the signature."""
        try:
            if self.algorithm is Algorithm.ED25519:
                _ed25519(key).verify(signature, signed)
            else:
                _ecdsa(key).verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=256)
def _ed25519(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


@lru_cache(maxsize=256)
def _ecdsa(key: bytes) -> ec.EllipticCurvePublicKey:
    loaded = load_der_public_key(key)
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise ValueError("not a key of an elliptic curve")
    return loaded
