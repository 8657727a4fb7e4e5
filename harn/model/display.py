"""
Display of text that others wrote: secrets in headers and fields are redacted, and nothing in it can steer a terminal.

Handlers, predicates and expressions see headers as they came. Topics, logs and exports show `REDACTED` in place of a
value that authorizes: by an exact list of names, and by value, where the credentials are known to the caller.

Senders and handlers can write text that is logged and listed: an escape sequence in it must not clear a screen, and a
mark of direction must not reorder a line. So control characters and marks of direction are shown escaped.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

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


def without(names: Collection[str], headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers in which those of these names (lower case) are replaced, so that they may be stored."""
    if not any(name in headers for name in names):
        return headers
    return {name: REDACTED if name in names else value for name, value in headers.items()}


class SecretSet(Protocol):
    """Recognizes the values of secrets, as `harn.secrets.providers.KnownSecrets` does."""

    def include(self, value: bytes) -> bool:
        """Return whether ``value`` is one of them."""


class NoSecrets:
    """Recognizes none, as where no server runs."""

    def include(self, value: bytes) -> bool:
        """Return False."""
        return False


NO_SECRETS = NoSecrets()


def redact(headers: Mapping[str, str], known: SecretSet = NO_SECRETS) -> dict[str, str]:
    """
    Return a copy of the headers that may be shown, secret values replaced by `REDACTED`.

    :param headers: names in lower case, values decoded as latin-1.
    :param known: the secrets that are looked for, as each value and among its first words.
    """
    return {
        name: REDACTED if name in SECRET_NAMES or any(map(known.include, candidates(value))) else value
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


MOST_WORDS_OF_BODY = 10_000
"""Words of a body that are looked at."""


def shown_value(value: Any, known: SecretSet = NO_SECRETS) -> Any:
    """Return a JSON value without secrets: known ones, and whatever stands under the name of one."""
    if isinstance(value, dict):
        return {
            name: REDACTED if looks_secret(name) and each not in (None, "") else shown_value(each, known)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [shown_value(each, known) for each in value]
    if isinstance(value, str) and known is not NO_SECRETS and any(map(known.include, candidates(value))):
        return REDACTED
    return value


def holds_credential(body: bytes, known: SecretSet) -> bool:
    """Return whether a known secret stands in a body, with white space around it."""
    return known is not NO_SECRETS and any(
        map(known.include, body.split(None, MOST_WORDS_OF_BODY)[:MOST_WORDS_OF_BODY])
    )


def redacted_event(event: Mapping[str, Any], known: SecretSet = NO_SECRETS) -> dict[str, Any]:
    """
    Return the document of an event as it is shown: without secrets, and with its bytes only if they hold none.

    :param event: as `harn.model.event.TriggerEvent.to_dict` makes it.
    """
    shown = {**event, "headers": redact(event["headers"], known)}
    payload, raw = shown_value(event["provider_payload"], known), event.get("raw_body", "")
    if payload == event["provider_payload"] and (not raw or not holds_credential(base64.b64decode(raw), known)):
        return shown
    if is_of_bytes(payload.get("raw")):
        payload = {**payload, "raw": REDACTED}  # the same bytes, in another form
    return {**shown, "provider_payload": payload, **({"raw_body": REDACTED} if raw else {})}


def is_of_bytes(raw: Any) -> bool:
    """Return whether a payload is that of a body in no format: its bytes, and its text."""
    return isinstance(raw, Mapping) and raw.keys() == {"raw_base64", "raw_utf8"}


_DIRECTION = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Marks and overrides of the direction of writing, and Unicode's own ends of line and paragraph."""
_HIDDEN = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{_DIRECTION}]")
_HIDDEN_IN_JSON = re.compile(f"[\x7f-\x9f{_DIRECTION}]")
_NAMED = {"\n": "\\n", "\r": "\\r"}


MOST_COMPARED = 500
"""Names that a wrong one is compared with: some 10 ms."""


def list_some(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, at most so many, with ``, ...`` after them where there are more; ``none`` without any."""
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"


def describe_unknown(trigger_id: str, known: Collection[str]) -> str:
    """Return that there is no such trigger, with the nearest names that there are, or else the first of them."""
    from difflib import get_close_matches

    alike = known if len(known) <= MOST_COMPARED else [each for each in known if each[:2] == trigger_id[:2]]
    near = get_close_matches(trigger_id, list(alike)[:MOST_COMPARED], n=3)
    if near:
        return f"there is no trigger {trigger_id!r}; did you mean {' or '.join(map(repr, near))}?"
    return f"there is no trigger {trigger_id!r}; the server has: {list_some(sorted(known))}"


def visible(text: str) -> str:
    r"""Return ``text`` as one line: an end of line in it is shown as ``\n``, ESC as ``\x1b``; tabs stay."""
    return text if text.isprintable() else _HIDDEN.sub(_escaped, text)


def visible_lines(text: str) -> list[str]:
    """Return the lines of ``text``, each passed through `visible`; at least one."""
    return [visible(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n")]


def visible_json(text: str) -> str:
    r"""Return JSON, written by an encoder, with what encoders leave as it is in strings escaped as ``\u009b``."""
    if text.isascii() and "\x7f" not in text:  # nearly always, and quick to check
        return text
    return _HIDDEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    return _NAMED.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
