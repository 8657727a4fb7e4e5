"""Key pairs for tests and for trying things out: the private keys are public knowledge."""

from __future__ import annotations

import base64
from typing import Any

from harn.connectors.public_keys import Algorithm, PublicKeyScheme

ED25519_PRIVATE = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED25519_PUBLIC = b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""The pair of RFC 8032, section 7.1, test 1; the public key as Discord writes it."""

ECDSA_PRIVATE = base64.b64decode(
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgya+p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyGh"
    "RANCAARg/tS6JVqdMclh63TGNW1owEm4kjth+mzmaWIuYPKftnkD/hAIuLyZpBrp6VYovGTy8bIMLX6fUXejwpTURiKZ"
)
ECDSA_PUBLIC = (
    b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJ"
    b"I7Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ=="
)
"""The pair of RFC 6979, appendix A.2.5 (P-256); the public key as SendGrid writes it."""

STANDARD_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""A secret that is base64, as Standard Webhooks requires."""


def example_secret(scheme: Any) -> tuple[bytes, bytes]:
    """Return a secret of a scheme, as it is configured, and the key with which its sender signs."""
    if not isinstance(scheme, PublicKeyScheme):
        key: bytes = scheme.key(STANDARD_SECRET)
        return STANDARD_SECRET, key
    if scheme.algorithm is Algorithm.ED25519:
        return ED25519_PUBLIC, ED25519_PRIVATE
    return ECDSA_PUBLIC, ECDSA_PRIVATE


def other_secret(scheme: Any) -> bytes:
    """Return another secret of a scheme, which belongs to no key here."""
    if not isinstance(scheme, PublicKeyScheme):
        return b"b3RoZXItc2VjcmV0"
    if scheme.algorithm is Algorithm.ED25519:
        return b"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    return (
        b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJu/OvQ7p40pmkYfhizqRIrL3M5"
        b"RbZJzJ+fkh6fna2BKQI4venMe7Mw0VDGdwTdJa5wVSBXRLbzG/QHB0WHLQ5g=="
    )
