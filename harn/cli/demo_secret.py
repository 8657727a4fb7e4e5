"""
The demo value of secrets that are not set: random, in the state directory, for ``harn dev`` and ``harn send`` alone.

Where no credentials of the admin API are set either, a key of that is derived from it, so that routes that verify
nothing else take a request.

It is a key of Standard Webhooks, which every scheme that signs by an HMAC takes. For a sender that signs with a private
key, whose secret is the public one, a pair is derived from it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from secrets import token_bytes
from typing import TYPE_CHECKING

from attrs import field, frozen

from harn.auth.credentials import API_KEYS, HMAC_SECRET

if TYPE_CHECKING:
    from harn.connectors.interfaces import IConnectorPlugin

NAME = "dev-secret"
_PREFIX = "HARN_SECRET_"
_CREDENTIALS = (API_KEYS, f"{API_KEYS}_FILE", HMAC_SECRET, f"{HMAC_SECRET}_FILE")
_SETTINGS = ("HARN_SECRET_PROVIDERS", "HARN_SECRET_NAMESPACE")


def read_demo_secret(state_dir: str) -> str | None:
    """Return the value, None if no ``harn dev`` has served on the state directory."""
    try:
        with open(os.path.join(state_dir, NAME), encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def make_demo_secret(state_dir: str) -> str:
    """
    Return the value, made at the first time.

    :raises OSError: it cannot be written.
    """
    found = read_demo_secret(state_dir)
    if found is not None:
        return found
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    value = "whsec_" + base64.b64encode(token_bytes(24)).decode("ascii")
    path = os.path.join(state_dir, NAME)
    descriptor = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
    os.replace(path + ".tmp", path)
    return value


@frozen
class DemoPair:
    """
    A pair of keys.

    :ivar public: as the secret of a trigger has it.
    :ivar private: 32 bytes of Ed25519, or DER of ECDSA.
    """

    public: str
    private: bytes = field(repr=False)


def derive_demo_pair(plugin: IConnectorPlugin, value: str) -> DemoPair | None:
    """
    Return the pair of a provider whose sender signs with a private key; None for every other provider.

    :param value: the demo value, from which the same pair is derived each time.
    """
    from harn.connectors.public_keys import Algorithm, PublicKeyScheme

    scheme = getattr(plugin, "scheme", None)
    if not isinstance(scheme, PublicKeyScheme):
        return None
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = sha256(f"{plugin.provider}\n{value}".encode()).digest()
    if scheme.algorithm is Algorithm.ED25519:
        return DemoPair(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex(), seed)
    # 31 bytes are below the order of the curve, whatever they are; 1 keeps them from being zero.
    private = ec.derive_private_key(int.from_bytes(seed[:31], "big") | 1, ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return DemoPair(
        base64.b64encode(public).decode("ascii"),
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def derive_public_keys(plugins: Mapping[str, IConnectorPlugin], value: str) -> Mapping[str, str]:
    """Return the public keys of the providers that have a pair, by the beginning of the names of their variables."""
    pairs = {name: derive_demo_pair(plugin, value) for name, plugin in plugins.items()}
    return {f"{_PREFIX}{name.upper().replace('-', '_')}_": pair.public for name, pair in pairs.items() if pair}


def derive_demo_key(value: str) -> str:
    """Return the key of the admin API that goes with a demo value, which a sender may be given, and may show."""
    return sha256(f"admin API\n{value}".encode()).hexdigest()


class DemoEnvironment(Mapping[str, str]):
    """
    An environment in which every secret has a value, its own or the demo value, and so have the keys of the admin API.

    :param public_keys: the values of secrets that are public keys; see `derive_public_keys`.
    :ivar filled: the variables of secrets that were read and had none.
    """

    def __init__(self, environ: Mapping[str, str], value: str, public_keys: Mapping[str, str] | None = None) -> None:
        self.filled: set[str] = set()
        self._environ = environ
        self._value = value
        self._public_keys = public_keys or {}

    def __getitem__(self, name: str) -> str:
        if name == API_KEYS and not any(map(self._environ.get, _CREDENTIALS)):
            return derive_demo_key(self._value)
        found = self._environ.get(name)
        if found is not None:
            return found
        is_secret = name.startswith(_PREFIX) and name not in _SETTINGS and not name.endswith("_FILE")
        if not is_secret or f"{name}_FILE" in self._environ:
            raise KeyError(name)
        self.filled.add(name)
        return next((key for start, key in self._public_keys.items() if name.startswith(start)), self._value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)
