"""The ``Authorization`` header with which harn's commands call a server."""

from __future__ import annotations

from harn.auth.credentials import API_KEYS, HMAC_SECRET, Credentials
from harn.auth.signed_requests import sign_request
from harn.errors import SecretUnavailable


def authorization(credentials: Credentials, method: str, target: str, body: bytes, now: float) -> str:
    """
    Return the header's value: the first key as bearer, else a signature.

    :param target: the request target with its query.
    :param now: seconds, Unix.
    :raises SecretUnavailable: there are no credentials; names the variables.
    """
    if credentials.keys:
        return "Bearer " + credentials.keys[0].decode("latin-1")
    if credentials.hmac_secret is not None:
        return sign_request(credentials.hmac_secret, method, target, body, now)
    raise SecretUnavailable(f"no credentials for the server; set {API_KEYS} or {HMAC_SECRET} as the server has them")
