"""
Secrets: their providers, which are variables of the environment, files and the system's keyring, and the chain of them.

The first provider of the chain that has a secret returns it. Keyed hashes show whether a value changed, and nothing
else about it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen
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


DEFAULT_PROVIDERS = "env,file"
"""The keyring is used only where the variable lists it: importing it is slow, and a server rarely has one."""

MOST_NAMED = 20

KNOWN = ("env", "file", "keyring")
"""The names of all providers."""


def _provider(name: str, environ: Mapping[str, str], namespace: str) -> ISecretProvider:
    """Return the provider of a name out of `KNOWN`."""
    if name == "keyring":
        return KeyringSecrets(namespace)
    return EnvironmentSecrets(environ) if name == "env" else FileSecrets(environ)


class SecretChain:
    """
    Providers in order. One chain serves one reading of a manifest, and records which files it read.

    ``resolve`` and ``resolve_many`` may block and belong in a thread; the rest is free.

    :ivar providers: in the order in which they are asked.
    """

    def __init__(self, providers: Iterable[ISecretProvider]) -> None:
        self.providers: tuple[ISecretProvider, ...] = tuple(providers)
        self._trimmed: dict[SecretReference, str] = {}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> SecretChain:
        """
        Make the chain that ``HARN_SECRET_PROVIDERS`` describes (comma separated, default ``env,file``).

        ``HARN_SECRET_NAMESPACE`` (default ``harn``) is the service under which the keyring holds our secrets.

        :raises SecretUnavailable: an unknown provider, or none; says which there are.
        """
        text = environ.get("HARN_SECRET_PROVIDERS", DEFAULT_PROVIDERS)
        namespace = environ.get("HARN_SECRET_NAMESPACE") or "harn"
        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        known = ", ".join(KNOWN)
        for name in names:
            if name not in KNOWN:
                raise SecretUnavailable(f"HARN_SECRET_PROVIDERS must list known providers ({known}), got {name!r}")
        if not names:
            raise SecretUnavailable(f"HARN_SECRET_PROVIDERS must list at least one provider ({known}), got none")
        return cls(_provider(name, environ, namespace) for name in names)

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Return the value of ``reference``, without a byte order mark or white space around it; never empty.

        :raises SecretUnavailable: no provider has it, or the one that should cannot read it; the message says what to
            set.
        """
        for provider in self.providers:
            value = provider.resolve(reference)
            if value is not None:
                return self._trim(reference, value)
        advice = ", or ".join(provider.advice(reference) for provider in self.providers)
        raise SecretUnavailable(f"secret {reference} is not set; {advice}")

    def _trim(self, reference: SecretReference, value: bytes) -> bytes:
        """Remove a byte order mark and white space around a value, and record that for `warnings`."""
        try:
            kept, found = trimmed(value)
        except SecretUnavailable as error:
            raise SecretUnavailable(f"secret {reference} cannot be used: {error}") from error
        if not kept:
            raise SecretUnavailable(f"secret {reference} holds only {found}; give it a value")
        if found is not None:
            self._trimmed[reference] = found
        return kept

    def resolve_many(
        self, references: Iterable[SecretReference]
    ) -> tuple[dict[SecretReference, bytes], dict[SecretReference, str]]:
        """Return the values that resolve, and for each other reference what is wrong and what to do."""
        values: dict[SecretReference, bytes] = {}
        problems: dict[SecretReference, str] = {}
        for reference in dict.fromkeys(references):
            try:
                values[reference] = self.resolve(reference)
            except SecretUnavailable as error:
                problems[reference] = str(error)
        return values, problems

    def warnings(self) -> tuple[str, ...]:
        """Return a warning for each value that had something trimmed, for at most `MOST_NAMED` of them by name."""
        said = [
            f"secret {reference}: {found} around its value was taken off; store it without"
            for reference, found in self._trimmed.items()
        ]
        if len(said) > MOST_NAMED:
            said[MOST_NAMED:] = [f"and {len(said) - MOST_NAMED} more secrets with something around their values"]
        return tuple(said)

    def describe(self) -> str:
        """Return the providers' names in order, for example ``env -> file``."""
        return " -> ".join(provider.name for provider in self.providers)

    def files(self) -> frozenset[str]:
        """Return the absolute paths of the files read or looked for so far; the watcher watches them."""
        return frozenset().union(*(provider.files() for provider in self.providers))

    def __repr__(self) -> str:
        return f"<SecretChain {self.describe()}>"


SHORTEST_KEY = 16


def secret_hash(key: bytes, value: bytes) -> str:
    """
    Return ``keyed:`` and 64 hexadecimal digits; equal for equal values under one key.

    :param key: 16 to 64 random bytes, kept by the caller for as long as hashes are compared; without it, guesses of a
        weak secret cannot be tested against a recorded digest.
    :raises ValueError: the key is too short or too long.

    Source: RFC 7693, section 2.9 (keyed BLAKE2).
    """
    if not SHORTEST_KEY <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError(f"the key of secret hashes must have {SHORTEST_KEY} to 64 bytes, got {len(key)}")
    return "keyed:" + hashlib.blake2b(value, key=key, digest_size=32, person=b"harn-secret").hexdigest()


@frozen
class KnownSecrets:
    """
    The hashes of the secrets of one reading: recognizes the values without holding them.

    :ivar key: the key of the hashes.
    """

    key: bytes = field(repr=False)
    hashes: frozenset[str] = field(repr=False)

    def include(self, value: bytes) -> bool:
        """Return whether ``value`` is one of them."""
        return secret_hash(self.key, value) in self.hashes
