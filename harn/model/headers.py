"""Takes what is secret out of a request's headers before they are kept or shown."""

from __future__ import annotations

from collections.abc import Mapping

REDACTED = "[redacted]"

_TELLING = ("authorization", "cookie", "secret", "token", "key", "password", "credential", "jwt", "session")
_SAFE_PARTS = ("timestamp", "request-id")
_SAFE_ENDINGS = ("-event", "-delivery")

# Names that callers choose must not fill the memory: when the table is full, new names are decided each time.
_MOST_NAMES = 1024
_decided: dict[str, bool] = {}


def is_secret(name: str) -> bool:
    """
    Say whether the header of this name (lower case) carries something secret.

    By what the name contains; names that are known to identify and not to authorize are let through. Signatures are
    kept: they are worth nothing without the secret, and help to find out what went wrong.
    """
    if name != "x-auth" and not any(part in name for part in _TELLING):
        return False
    return not (name.endswith(_SAFE_ENDINGS) or any(part in name for part in _SAFE_PARTS))


def redact(headers: Mapping[str, str]) -> dict[str, str]:
    """
    Copy the headers with every secret value replaced by ``[redacted]``.

    :param headers: names in lower case.
    """
    kept = {}
    for name, value in headers.items():
        secret = _decided.get(name)
        if secret is None:
            secret = is_secret(name)
            if len(_decided) < _MOST_NAMES:
                _decided[name] = secret
        kept[name] = REDACTED if secret else value
    return kept
