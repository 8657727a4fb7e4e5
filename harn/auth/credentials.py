"""Our own credentials, as the environment holds them: API keys, and the secret of signed requests."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from attrs import field, frozen

from harn.errors import SecretUnavailable
from harn.secrets.files import read_secret_file
from harn.secrets.trimming import trimmed

API_KEYS = "HARN_ORCHESTRATOR_API_KEYS"
HMAC_SECRET = "HARN_ORCHESTRATOR_HMAC_SECRET"  # noqa: S105 - the name of a variable, not a secret

_BETWEEN_KEYS = re.compile(rb"[,\r\n]")


@frozen(kw_only=True)
class Credentials:
    """
    What callers of the admin API and of plain ``a2a-push`` routes may prove that they hold.

    :ivar keys: each is enough by itself; never empty ones.
    :ivar files: absolute paths that were read: what to watch.
    :ivar warnings: what was taken off around a value, naming its variable.
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    hmac_secret: bytes | None = field(default=None, repr=False)
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def configured(self) -> bool:
        """Whether anybody can prove anything."""
        return bool(self.keys) or self.hmac_secret is not None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Credentials:
        """
        Read both variables, or the files that their ``_FILE`` forms name. Blocks: call it in a thread.

        Keys are separated by commas (in a file by line ends too) and trimmed; a variable that is set but empty counts
        as not set.

        :raises SecretUnavailable: a file that cannot be read or is UTF-16, or both forms of one variable at once.
        """
        files: list[str] = []
        keys, marked = _trim(API_KEYS, _read(environ, API_KEYS, files) or b"")
        secret, around = _trim(HMAC_SECRET, _read(environ, HMAC_SECRET, files) or b"")
        warnings = []
        if marked is not None and "mark" in marked:  # white space and line ends between keys are expected
            warnings.append(f"{API_KEYS}: a byte order mark before the first key was taken off; store it without")
        if around is not None and secret:
            warnings.append(f"{HMAC_SECRET}: {around} around its value was taken off; store it without")
        return cls(
            keys=tuple(dict.fromkeys(key.strip() for key in _BETWEEN_KEYS.split(keys) if key.strip())),
            hmac_secret=secret or None,
            files=tuple(files),
            warnings=tuple(warnings),
        )


def _trim(variable: str, value: bytes) -> tuple[bytes, str | None]:
    """Take off what is around a value, as `trimmed` does; its problem names the variable."""
    try:
        return trimmed(value)
    except SecretUnavailable as error:
        raise SecretUnavailable(f"{variable} cannot be used: {error}") from error


def _read(environ: Mapping[str, str], variable: str, files: list[str]) -> bytes | None:
    """Give the value of one variable in either form, noting the file that was read."""
    value, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if value and path:
        raise SecretUnavailable(f"{variable} and {variable}_FILE are both set; unset one of them")
    if not path:
        return os.fsencode(value) if value else None
    files.append(os.path.abspath(path))
    return read_secret_file(f"{variable}_FILE", path)
