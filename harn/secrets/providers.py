"""The providers of secrets: variables of the environment, files, the system's keyring."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any

from zope.interface import Attribute, Interface, implementer

from harn.errors import SecretUnavailable
from harn.files import NotRegular, TooLarge, read_regular
from harn.model.references import SecretReference


class ISecretProvider(Interface):
    """One source of secrets. Its methods may block: they are called in a thread."""

    name: str = Attribute("As ``HARN_SECRET_PROVIDERS`` names it, for example ``env``.")

    def resolve(reference: SecretReference) -> bytes | None:
        """
        Return the value, never empty, or None where this provider does not have it.

        :raises SecretUnavailable: it should have the value, but cannot read it (an unreadable file, an empty value).
        """

    def advice(reference: SecretReference) -> str:
        """Return how to add it to this provider, for example ``set HARN_SECRET_GITHUB_WEBHOOK_SECRET``."""

    def files() -> frozenset[str]:
        """Return the absolute paths of the files read or looked for so far."""


_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_WHITE = b" \t\r\n\v\f"


def trimmed(value: bytes) -> tuple[bytes, str | None]:
    """
    Return a secret without a byte order mark and white space around it, and a description of what was removed, or None.

    A value that is not UTF-8 is a binary key, and returned unchanged.

    :raises SecretUnavailable: it is a text in UTF-16, which no sender signs with; never quotes it.
    """
    if value.startswith(_UTF_16) and len(value) % 2 == 0 and b"\x00" in value:
        raise SecretUnavailable("it is UTF-16, with a byte order mark; save it as UTF-8")
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value, None
    kept = value.removeprefix(_MARK).strip(_WHITE)
    if kept == value:
        return value, None
    found = []
    if value.startswith(_MARK):
        found.append("a byte order mark")
    around = value.removeprefix(_MARK).replace(kept, b"", 1) if kept else value.removeprefix(_MARK)
    if b"\n" in around or b"\r" in around:
        found.append("a line end")
    if around.strip(b"\r\n"):
        found.append("white space")
    return kept, " and ".join(found)


LARGEST = 64 * 1024
"""Bytes; no secret is larger, so a larger file is a mistake."""


def read_secret_file(variable: str, path: str) -> bytes:
    """
    Return the file's bytes without one trailing newline. Blocks: call it in a thread.

    :param variable: the environment variable that names the file, for the message.
    :raises SecretUnavailable: not a regular file, not readable, or larger than 64 KiB; never quotes the content.
    """
    try:
        content = read_regular(path, LARGEST)
    except NotRegular as error:
        raise SecretUnavailable(f"{variable} names {path!r}, which is not a regular file") from error
    except TooLarge as error:
        raise SecretUnavailable(f"{variable} names {path!r}, which is larger than {LARGEST // 1024} KiB") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SecretUnavailable(f"{variable} names {path!r}, which cannot be read: {reason}") from error
    return content.removesuffix(b"\r\n" if content.endswith(b"\r\n") else b"\n")


_SEPARATORS = re.compile(r"[^A-Z0-9]+")


def variable_name(reference: SecretReference) -> str:
    """
    Return the variable of a secret: for ``github/webhook-secret@2``, ``HARN_SECRET_GITHUB_WEBHOOK_SECRET_V2``.

    In upper case, with one ``_`` for each run of other characters than letters and digits.
    """
    parts = ["HARN", "SECRET", reference.namespace, reference.name]
    if reference.version is not None:
        parts.append(f"V{reference.version}")
    return _SEPARATORS.sub("_", "_".join(parts).upper())


@implementer(ISecretProvider)
class EnvironmentSecrets:
    """``env``: the value itself is in the variable."""

    name = "env"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def resolve(self, reference: SecretReference) -> bytes | None:
        """Return the variable's bytes, as the operating system holds them."""
        variable = variable_name(reference)
        value = self._environ.get(variable)
        if value is None:
            return None
        if not value:
            # An empty key would make every signature forgeable.
            raise SecretUnavailable(f"{variable} is set but empty; give it the value of {reference}, or unset it")
        return os.fsencode(value)

    def advice(self, reference: SecretReference) -> str:
        """Return advice that names the variable."""
        return f"set {variable_name(reference)}"

    def files(self) -> frozenset[str]:
        """Return an empty set: this provider reads no files."""
        return frozenset()


@implementer(ISecretProvider)
class FileSecrets:
    """``file``: the variable with ``_FILE`` names a file that holds the value, as Docker and Kubernetes mount them."""

    name = "file"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._files: set[str] = set()

    def resolve(self, reference: SecretReference) -> bytes | None:
        """Read the file, which must not be empty apart from its trailing newline."""
        variable = f"{variable_name(reference)}_FILE"
        path = self._environ.get(variable)
        if not path:
            return None
        # Kept even when reading fails, so that the watcher sees the file appear.
        self._files.add(os.path.abspath(path))
        try:
            value = read_secret_file(variable, path)
        except SecretUnavailable as error:
            raise SecretUnavailable(f"secret {reference} cannot be read: {error}") from error
        if not value:
            raise SecretUnavailable(f"{variable} names {path!r}, which is empty; write the value of {reference} to it")
        return value

    def advice(self, reference: SecretReference) -> str:
        """Return advice that names the variable."""
        return f"set {variable_name(reference)}_FILE to the path of a file that holds it"

    def files(self) -> frozenset[str]:
        """Return every file that a variable named."""
        return frozenset(self._files)


@implementer(ISecretProvider)
class KeyringSecrets:
    """
    ``keyring``: the service is the namespace of this installation, the user name is the reference.

    The package is imported on first use: it is an extra, and its import takes longer than all of harn's.
    """

    name = "keyring"

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._keyring: Any = None

    def resolve(self, reference: SecretReference) -> bytes | None:
        """Query the keyring, which may be locked or absent."""
        try:
            if self._keyring is None:
                self._keyring = importlib.import_module("keyring")
            value = self._keyring.get_password(self._namespace, str(reference))
        except ImportError as error:
            raise SecretUnavailable(
                "HARN_SECRET_PROVIDERS names keyring, which is not installed; "
                "run: pip install 'harn[keyring]', or take it out of HARN_SECRET_PROVIDERS"
            ) from error
        except Exception as error:
            # Back ends raise classes of their own. The class is enough, and the text might quote the value.
            raise SecretUnavailable(f"the keyring cannot be read for {reference}: {type(error).__name__}") from error
        if value == "":
            raise SecretUnavailable(f"the keyring holds an empty value for {reference}; {self.advice(reference)}")
        return None if value is None else str(value).encode("utf-8")

    def advice(self, reference: SecretReference) -> str:
        """Return the command that stores it."""
        return f"run: keyring set {self._namespace} {reference}"

    def files(self) -> frozenset[str]:
        """Return an empty set: the keyring's own files are not known."""
        return frozenset()
