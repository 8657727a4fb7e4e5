"""
Redaction of request headers where they are shown. Handlers, predicates and expressions see headers as they came.
Topics, logs and exports show `REDACTED` in place of a value that authorizes: by an exact list of names, and by value,
where the credentials are known to the caller.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

REDACTED = "[redacted]"

SECRET_NAMES = frozenset(
    (
        "aeg-sas-key",
        "aeg-sas-token",
        "api-key",
        "apikey",
        "authorization",
        "cf-access-client-secret",
        "cf-access-jwt-assertion",
        "cookie",
        "job-token",
        "ocp-apim-subscription-key",
        "private-token",
        "proxy-authorization",
        "set-cookie",
        "x-a2a-notification-token",
        "x-access-token",
        "x-admin-key",
        "x-amz-security-token",
        "x-amzn-oidc-accesstoken",
        "x-amzn-oidc-data",
        "x-api-key",
        "x-api-token",
        "x-apikey",
        "x-auth",
        "x-auth-key",
        "x-auth-token",
        "x-client-secret",
        "x-csrf-token",
        "x-forwarded-access-token",
        "x-forwarded-authorization",
        "x-functions-key",
        "x-gitlab-token",
        "x-goog-api-key",
        "x-goog-channel-token",
        "x-goog-iap-jwt-assertion",
        "x-hasura-admin-secret",
        "x-hook-secret",
        "x-ms-token-aad-access-token",
        "x-ms-token-aad-id-token",
        "x-ms-token-aad-refresh-token",
        "x-original-authorization",
        "x-rapidapi-key",
        "x-secret",
        "x-secret-key",
        "x-secret-token",
        "x-shopify-access-token",
        "x-telegram-bot-api-secret-token",
        "x-token",
        "x-vault-token",
        "x-webhook-secret",
        "x-webhook-token",
        "x-xsrf-token",
    )
)
"""Headers, in lower case, whose values authorize their holder. Headers that only identify or sign are not listed."""

_SIGNS = ("signature", "hmac")
_MOST_WORDS = 16


def is_signature(name: str) -> bool:
    """Return whether a header of this name (lower case) signs its request."""
    return any(part in name for part in _SIGNS)


def redact(headers: Mapping[str, str], is_credential: Callable[[bytes], bool] = lambda value: False) -> dict[str, str]:
    """
    Return a copy of the headers that may be shown, secret values replaced by `REDACTED`.

    :param headers: names in lower case, values decoded as latin-1.
    :param is_credential: returns whether a value is a known credential; called with each value and its first words.
    """
    return {
        name: REDACTED if name in SECRET_NAMES or any(map(is_credential, candidates(value))) else value
        for name, value in headers.items()
    }


def candidates(value: str) -> Iterator[bytes]:
    """
    Return each part of a header's value that may be a credential: the value, its words, and the parts of ``Basic``.
    """
    yield value.encode("latin-1", "replace")
    words = value.split(None, _MOST_WORDS)[:_MOST_WORDS]
    if words[1:]:
        yield from (word.encode("latin-1", "replace") for word in words)
    if len(words) == 2 and words[0].lower() == "basic":
        with suppress(binascii.Error):
            yield from base64.b64decode(words[1].encode("latin-1", "replace")).split(b":", 1)
