"""Names of fields whose values are secret, in log records and in bodies."""

from __future__ import annotations

from harn.model.headers import SECRET_NAMES

_SECRET_FIELDS = frozenset(name.replace("-", "_") for name in SECRET_NAMES) | frozenset(
    (
        "access_key",
        "access_token",
        "accesstoken",
        "api_keys",
        "api_token",
        "auth_token",
        "bearer_token",
        "client_secret",
        "clientsecret",
        "credential",
        "credentials",
        "hmac_secret",
        "id_token",
        "passphrase",
        "passwd",
        "password",
        "private_key",
        "refresh_token",
        "secret",
        "secret_key",
        "secrets",
        "signature",
        "signing_key",
        "signing_secret",
        "token",
        "tokens",
        "webhook_secret",
    )
)
"""Names of secret fields. The list is exact: an ``idempotency_key`` or ``token_count`` is not secret."""


def looks_secret(name: str) -> bool:
    """Return whether a field of this name is secret: by an exact list, in any case, with ``-`` or ``_``."""
    return name.lower().replace("-", "_") in _SECRET_FIELDS
