"""Secrets from environment variables, and from the files that environment variables name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from zope.interface import implementer

from harn.errors import SecretUnavailable
from harn.model.references import SecretReference
from harn.secrets.files import read_secret_file
from harn.secrets.interfaces import ISecretProvider

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
