"""
The credentials of callers: API keys, the secret of signed requests, and the token that a running server makes.

Keys and secret come from the environment. The token is an API key in the state directory, for commands of the same
user: read access to the state directory already gives every event in it, and the ability to start a server on it, so
the token grants nothing new. It saves an operator on the same machine from creating a key first.

Requests are signed with the server's own secret: ``Authorization: HMAC-SHA256 timestamp=<unix>,signature=<base64>``.
The check that a signed time stamp is recent serves the signatures of providers, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from secrets import token_hex, token_urlsafe
from typing import Any

from attrs import field, frozen

from harn.errors import CredentialsRejected, SecretUnavailable, SignatureStale
from harn.files import read_regular
from harn.secrets.providers import read_secret_file, trimmed
from harn.wire import canonical_json

API_KEYS = "HARN_ORCHESTRATOR_API_KEYS"
HMAC_SECRET = "HARN_ORCHESTRATOR_HMAC_SECRET"  # noqa: S105 - the name of a variable, not a secret

_BETWEEN_KEYS = re.compile(rb"[,\r\n]")


@frozen(kw_only=True)
class Credentials:
    """
    The accepted credentials of callers of the admin API and of plain ``a2a-push`` routes.

    :ivar keys: each is sufficient alone; none is empty.
    :ivar files: absolute paths of the files that were read; the watcher watches them.
    :ivar warnings: what was trimmed around a value, naming its variable.
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    hmac_secret: bytes | None = field(default=None, repr=False)
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def configured(self) -> bool:
        """Whether any credential is set."""
        return bool(self.keys) or self.hmac_secret is not None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Credentials:
        """
        Read both variables, or the files that their ``_FILE`` forms name. Blocks: call it in a thread.

        Keys are separated by commas (in a file by line ends too, and lines that begin with ``#`` are comments) and
        trimmed; a variable that is set but empty counts as not set.

        :raises SecretUnavailable: a file that cannot be read, is UTF-16 or is empty, keys that are not UTF-8, or both
            forms of one variable at the same time. An emptied file must not be accepted as credentials: every request
            would be refused from then on.
        """
        files: list[str] = []
        wrong: list[str] = []
        keys, marked = _value(environ, API_KEYS, files, wrong)
        secret, around = _value(environ, HMAC_SECRET, files, wrong)
        found = _split_keys(keys or b"", is_file=bool(environ.get(f"{API_KEYS}_FILE")))
        for variable, value, held in ((API_KEYS, keys, found), (HMAC_SECRET, secret, secret)):
            if value is not None and not held:
                what = "key" if variable == API_KEYS else "secret"
                wrong.append(f"{_source(environ, variable)} holds no {what}; write one to it, or unset the variable")
        if not _is_text(found):
            wrong.append(f"{_source(environ, API_KEYS)} is not UTF-8; write the keys to it as text")
        if wrong:
            raise SecretUnavailable("; ".join(wrong))
        warnings = []
        if marked is not None and "mark" in marked:  # white space and line ends between keys are expected
            warnings.append(f"{API_KEYS}: a byte order mark before the first key was taken off; store it without")
        if around is not None and secret:
            warnings.append(f"{HMAC_SECRET}: {around} around its value was taken off; store it without")
        return cls(
            keys=found,
            hmac_secret=secret or None,
            files=tuple(files),
            warnings=tuple(warnings),
        )


def _split_keys(text: bytes, *, is_file: bool) -> tuple[bytes, ...]:
    """Return the keys in a text, without repeats."""
    lines = [line for line in text.splitlines() if not (is_file and line.lstrip().startswith(b"#"))]
    return tuple(dict.fromkeys(key.strip() for key in _BETWEEN_KEYS.split(b"\n".join(lines)) if key.strip()))


def _is_text(keys: Iterable[bytes]) -> bool:
    try:
        b"".join(keys).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _source(environ: Mapping[str, str], variable: str) -> str:
    """Return the source of a value for a message: the variable, or the file that its other form names."""
    path = environ.get(f"{variable}_FILE")
    return f"{variable}_FILE names {path!r}, which" if path else variable


def _value(
    environ: Mapping[str, str], variable: str, files: list[str], wrong: list[str]
) -> tuple[bytes | None, str | None]:
    """Return the value of a variable (None if not set or wrong), and a description of what was trimmed around it."""
    try:
        value = _read(environ, variable, files)
        return (None, None) if value is None else trimmed(value)
    except SecretUnavailable as error:
        said = str(error)
        wrong.append(said if variable in said else f"{variable} cannot be used: {said}")
        return None, None


def _read(environ: Mapping[str, str], variable: str, files: list[str]) -> bytes | None:
    """Return the value of one variable in either form, recording the file that was read."""
    value, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if value and path:
        raise SecretUnavailable(f"{variable} and {variable}_FILE are both set; unset one of them")
    if not path:
        return os.fsencode(value) if value else None
    files.append(os.path.abspath(path))
    return read_secret_file(f"{variable}_FILE", path)


TOKEN = "token"  # noqa: S105 - the name of a file
SIZE = 32
"""Bytes of chance in it."""
LONGEST = 1024
"""The most bytes that such a file may have."""


def token_path(state_dir: str) -> str:
    """Return the path of the file."""
    return os.path.join(state_dir, TOKEN)


def read_token(state_dir: str) -> bytes | None:
    """Return the token of the server on ``state_dir``; None if it does not exist or cannot be read."""
    try:
        return read_regular(token_path(state_dir), LONGEST).strip() or None
    except OSError:
        return None


def write_token(state_dir: str, shared: bytes | None = None) -> bytes:
    """
    Write a new token, replacing the old one, and return it. Blocks, once, at start.

    :param shared: the token to write instead of a new one.
    :raises OSError: it cannot be written.
    """
    path = token_path(state_dir)
    token = token_urlsafe(SIZE).encode("ascii") if shared is None else shared
    beside = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # a temporary file left by a crash may have another mode
        file.write(token + b"\n")
    os.replace(beside, path)
    return token


TOLERANCE = 300
"""Seconds, either way: the tolerance of Standard Webhooks, Stripe and Slack, and of the server's own requests."""

_LONGEST = 12  # digits; bounds what is parsed, and year 33658 is late enough


def check_fresh(timestamp: str, now: float, tolerance: int = TOLERANCE) -> int:
    """
    Return the time stamp as whole seconds (Unix), unless it is too far from now.

    :param timestamp: ASCII digits only, as received: no sign, no fraction, no white space.
    :param now: seconds, Unix; its fraction does not count.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureStale: malformed, or outside the window.
    """
    if not (0 < len(timestamp) <= _LONGEST and timestamp.isascii() and timestamp.isdigit()):
        raise SignatureStale("the signature's timestamp is not in whole Unix seconds")
    seconds = int(timestamp)
    age = int(now) - seconds
    if abs(age) > tolerance:
        distance = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise SignatureStale(
            f"the signature's timestamp is {distance}; at most {tolerance} s are allowed, so check the sender's clock"
        )
    return seconds


SCHEME = "HMAC-SHA256"


@frozen
class SignedHeader:
    """The parameters of the header, as received: nothing about them has been checked."""

    timestamp: str
    signature: str = field(repr=False)


def request_digest(secret: bytes, method: str, target: str, timestamp: str, body: bytes) -> bytes:
    r"""
    Return the 32 bytes that sign a request.

    :param target: the request target with its query, as in the request line, for example ``/admin/reload?force=true``.
    :param timestamp: decimal seconds, Unix, as sent.
    :param body: exactly the bytes sent; empty for none.

    Signed is ``METHOD\nPATH\nTIMESTAMP\nhex(sha256(body))``, the method in upper case.
    """
    head = f"{method.upper()}\n{target}\n{timestamp}\n{hashlib.sha256(body).hexdigest()}"
    # A target that is not ASCII arrives decoded as latin-1, and is signed as its original bytes.
    return hmac.digest(secret, head.encode("latin-1", "replace"), "sha256")


def sign_request(secret: bytes, method: str, target: str, body: bytes, now: float) -> str:
    """
    Return the value of ``Authorization`` for a request to a server.

    :param now: seconds, Unix.
    """
    timestamp = str(int(now))
    signature = base64.b64encode(request_digest(secret, method, target, timestamp, body)).decode("ascii")
    return f"{SCHEME} timestamp={timestamp},signature={signature}"


def parse_signed_header(parameters: str) -> SignedHeader:
    """
    Parse the parameters after the scheme: ``timestamp`` and ``signature``, each once, in any order.

    :raises CredentialsRejected: anything else.
    """
    found: dict[str, str] = {}
    for part in parameters.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name not in ("timestamp", "signature") or name in found:
            found.clear()
            break
        found[name] = value
    if len(found) != 2:
        raise CredentialsRejected(
            f"malformed Authorization header; write {SCHEME} timestamp=<Unix seconds>,signature=<base64>"
        )
    return SignedHeader(found["timestamp"], found["signature"])


def body_with_request_id(document: Mapping[str, Any]) -> bytes:
    """Encode a body that never repeats, so that the same request made twice in one second has two signatures."""
    return canonical_json({**document, "request_id": token_hex(16)})


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
    raise SecretUnavailable(f"no credentials for the server; set {API_KEYS} or {HMAC_SECRET} as for the server")
