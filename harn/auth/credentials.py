"""
The credentials of callers: API keys, the secret of signed requests, and the token that a running server makes.

Keys and secret come from the environment. The token is an API key in the state directory, for commands of the same
user: read access to the state directory already gives every event in it, and the ability to start a server on it, so
the token grants nothing new. It saves an operator on the same machine from creating a key first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from secrets import token_urlsafe

from attrs import field, frozen

from harn.errors import SecretUnavailable
from harn.files import read_regular
from harn.secrets.providers import read_secret_file, trimmed

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
            forms of one variable at once. An emptied file must not be accepted as credentials: every request would be
            refused from then on.
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
"""The most bytes that such a file may have."""
LONGEST = 1024
"""Bytes that such a file may have."""


def token_path(state_dir: str) -> str:
    """Return the path of the file."""
    return os.path.join(state_dir, TOKEN)


def read_token(state_dir: str) -> bytes | None:
    """Return the token of the server on ``state_dir``; None if it does not exist or cannot be read."""
    try:
        return read_regular(token_path(state_dir), LONGEST).strip() or None
    except OSError:
        return None


def write_token(state_dir: str) -> bytes:
    """
    Write a new token, replacing the old one, and return it. Blocks, once, at start.

    :raises OSError: it cannot be written.
    """
    path = token_path(state_dir)
    token = token_urlsafe(SIZE).encode("ascii")
    beside = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # a temporary file left by a crash may have another mode
        file.write(token + b"\n")
    os.replace(beside, path)
    return token
