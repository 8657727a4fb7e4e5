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
    Name the variable of a secret: ``github/webhook-secret@2`` is ``HARN_SECRET_GITHUB_WEBHOOK_SECRET_V2``.

    Upper case; whatever is neither letter nor digit becomes one ``_``.
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
        """Give the variable's bytes, as the operating system holds them."""
        variable = variable_name(reference)
        value = self._environ.get(variable)
        if value is None:
            return None
        if not value:
            # An empty key would make every signature forgeable.
            raise SecretUnavailable(f"{variable} is set but empty; give it the value of {reference}, or unset it")
        return os.fsencode(value)

    def advice(self, reference: SecretReference) -> str:
        """Name the variable."""
        return f"set {variable_name(reference)}"

    def files(self) -> frozenset[str]:
        """None are read."""
        return frozenset()


@implementer(ISecretProvider)
class FileSecrets:
    """``file``: the variable with ``_FILE`` names a file that holds the value, as Docker and Kubernetes mount them."""

    name = "file"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._files: set[str] = set()

    def resolve(self, reference: SecretReference) -> bytes | None:
        """Read the file, which must hold something beside its trailing newline."""
        variable = f"{variable_name(reference)}_FILE"
        path = self._environ.get(variable)
        if not path:
            return None
        # Kept even when reading fails: whoever watches files sees it appear.
        self._files.add(os.path.abspath(path))
        try:
            value = read_secret_file(variable, path)
        except SecretUnavailable as error:
            raise SecretUnavailable(f"secret {reference} is not to be had: {error}") from error
        if not value:
            raise SecretUnavailable(f"{variable} names {path!r}, which is empty; write the value of {reference} to it")
        return value

    def advice(self, reference: SecretReference) -> str:
        """Name the variable."""
        return f"let {variable_name(reference)}_FILE name a file that holds it"

    def files(self) -> frozenset[str]:
        """Every file that a variable named."""
        return frozenset(self._files)
